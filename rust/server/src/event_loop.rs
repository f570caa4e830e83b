//! One event loop: a single-threaded runtime with its own connections and its own pipeline.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use mlserve_core::budget::{LocalBudget, Reservation};
use mlserve_core::error::{Error, Kind};
use mlserve_core::pipeline::Pipeline;
use mlserve_core::request::{Protocol, Reply, Request};
use tokio::sync::Notify;

use crate::process::Process;

/// What a connection of this loop works with. Cloning is cheap; it never leaves its thread.
#[derive(Clone, Debug)]
pub struct LoopContext(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    process: Arc<Process>,
    bytes: Arc<LocalBudget>,
    pipeline: RefCell<Pipeline>,
    submitted: Notify,
}

impl LoopContext {
    /// What all threads share.
    pub fn process(&self) -> &Arc<Process> {
        &self.0.process
    }

    /// The present moment.
    pub fn now(&self) -> Instant {
        self.0.process.clock.now()
    }

    /// Holds `bytes` of the process's budget.
    ///
    /// **Errors:** the budget is spent.
    pub fn reserve(&self, bytes: usize) -> Result<Reservation, Error> {
        self.0.bytes.reserve(bytes).ok_or_else(|| out_of_budget(bytes))
    }

    /// Sends a decoded request on its way; `reply` is answered in this or a later turn, on this loop.
    pub fn submit(&self, request: Request, reply: Box<dyn Reply>) {
        self.0.pipeline.borrow_mut().submit(request, reply);
        self.0.submitted.notify_one();
    }

    /// Counts a request that was refused before it could be submitted.
    pub fn count_refused(&self, protocol: Protocol, error: &Error) {
        self.0.pipeline.borrow_mut().count_refused(protocol, error);
    }
}

#[cold]
fn out_of_budget(bytes: usize) -> Error {
    Error::new(Kind::OutOfBudget, format!("{bytes} more bytes would exceed the server's byte budget"))
}
