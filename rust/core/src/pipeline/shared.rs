//! What the pipelines of all loops share.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::budget::Budget;
use crate::clock::Clock;
use crate::config::LimitSettings;
use crate::error::Kind;
use crate::lane::Occupancy;
use crate::park::Demand;
use crate::plan::Plan;
use crate::request::Protocol;
use crate::stats::Counter;
use crate::trace::Tracer;
use crate::watch::Watch;

/// What the pipelines of all loops share.
#[derive(Debug)]
pub struct Shared {
    /// What is served.
    pub plan: Arc<ArcSwap<Plan>>,
    /// Where time comes from.
    pub clock: Clock,
    /// What one request may cost.
    pub limits: LimitSettings,
    /// Requests in flight in the process.
    pub requests: Arc<Budget>,
    /// How busy each loop is.
    pub occupancy: Occupancy,
    /// What each loop refused before a version was known.
    pub refused: Box<[Refused]>,
    /// Who loads what is loaded on demand.
    pub demand: Arc<dyn Demand>,
    /// Which requests are traced.
    pub tracer: Arc<Tracer>,
    /// What can be seen of the loops from outside.
    pub watch: Watch,
}

/// Refusals by protocol and kind, for requests that reached no version.
#[derive(Debug, Default)]
pub struct Refused(pub [[Counter; Kind::ALL.len()]; Protocol::ALL.len()]);
