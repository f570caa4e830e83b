//! What all threads of a server share: settings, plan, status, budgets.

use std::sync::Arc;

use arc_swap::ArcSwap;
use mlserve_core::budget::Budget;
use mlserve_core::clock::Clock;
use mlserve_core::config::Settings;
use mlserve_core::plan::Plan;

use crate::status::Status;

/// One running server. Two may live in one process.
#[derive(Debug)]
pub struct Process {
    /// As merged and validated; zeros that mean "measure" are resolved.
    pub settings: Settings,
    /// Where time comes from.
    pub clock: Clock,
    /// What is served, swapped whole.
    pub plan: Arc<ArcSwap<Plan>>,
    /// Where the server is in its life.
    pub status: Status,
    /// Bytes of requests and answers.
    pub bytes: Arc<Budget>,
    /// Requests in flight.
    pub requests: Arc<Budget>,
}
