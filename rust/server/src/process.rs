//! What all threads of a server share: settings, plan, status, budgets.

use std::sync::Arc;

use arc_swap::ArcSwap;
use mlserve_core::budget::Budget;
use mlserve_core::clock::Clock;
use mlserve_core::config::Settings;
use mlserve_core::pipeline::Shared;
use mlserve_core::plan::Plan;

use crate::access::AccessLog;
use crate::extensions::statistics::Statistics;
use crate::http::openapi::Document;
use crate::lifecycle::Models;
use crate::model_config::Configs;
use crate::origin::Origins;
use crate::panics::Panics;
use crate::share::Shares;
use crate::shared_memory::Regions;
use crate::status::Status;
use crate::trace::Tracing;

/// One running server. Two may live in one process.
#[derive(Debug)]
pub struct Process {
    /// As merged and validated; zeros that mean "measure" are resolved.
    pub settings: Settings,
    /// Where time comes from.
    pub clock: Clock,
    /// What is served, swapped whole.
    pub plan: Arc<ArcSwap<Plan>>,
    /// Who loads and unloads.
    pub(crate) models: Models,
    /// The model configurations that versions were loaded with.
    pub(crate) configs: Configs,
    /// Where the server is in its life.
    pub status: Status,
    /// Which web pages may ask what.
    pub(crate) origins: Origins,
    /// Bytes of requests and answers.
    pub bytes: Arc<Budget>,
    /// What connections and addresses may hold of those.
    pub(crate) shares: Arc<Shares>,
    /// What the pipelines of all loops share.
    pub shared: Arc<Shared>,
    /// What clients registered of this machine's shared memory.
    pub shared_memory: Regions,
    /// What went wrong that never should.
    pub(crate) panics: Panics,
    /// The access log, if there is one.
    pub access_log: Option<AccessLog>,
    /// What is traced.
    pub tracer: Tracing,
    /// The description of its routes.
    pub(crate) openapi: Document,
    /// Who tells the statistics of all models.
    pub(crate) statistics: Statistics,
}
