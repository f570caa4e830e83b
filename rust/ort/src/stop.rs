//! ONNX Runtime's way to end a run early: the terminate flag of the run's options. Hot path.
//!
//! The runtime looks at the flag between two operations, inside loops too. One operation that takes long is not ended.

use std::ptr::NonNull;
use std::sync::Arc;

use mlserve_core::stop::Switch;
use ort_sys::OrtRunOptions;

use crate::api::Status;
use crate::runtime::Runtime;

/// The run options of one thread.
#[derive(Debug)]
pub(crate) struct Terminator {
    runtime: Arc<Runtime>,
    options: Option<NonNull<OrtRunOptions>>,
}

// SAFETY: the options are made and released once, runs only read them, and the flag, one byte that the runtime polls, is
// meant to be set from another thread.
unsafe impl Send for Terminator {}
// SAFETY: as above.
unsafe impl Sync for Terminator {}

impl Terminator {
    /// Options for the runs of one thread; without any if the runtime cannot make them, and then runs go to their end.
    pub(crate) fn new(runtime: &Arc<Runtime>) -> Self {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the options are written by the call before they are read.
        let made = runtime.api().check(unsafe { (runtime.api().table().CreateRunOptions)(&raw mut raw) });
        if let Err(Status { message, .. }) = &made {
            tracing::warn!(error = message, "runs cannot be stopped: there are no run options");
        }
        Self { runtime: Arc::clone(runtime), options: made.ok().and_then(|()| NonNull::new(raw)) }
    }

    /// For `Run`; null stands for none.
    pub(crate) fn as_ptr(&self) -> *const OrtRunOptions {
        self.options.map_or(std::ptr::null(), |options| options.as_ptr().cast_const())
    }

    fn set(&self, is_stopped: bool) {
        let Some(options) = self.options else { return };
        let table = self.runtime.api().table();
        let set = if is_stopped { table.RunOptionsSetTerminate } else { table.RunOptionsUnsetTerminate };
        // SAFETY: the options are alive; setting the flag cannot fail but for null options.
        if let Err(status) = self.runtime.api().check(unsafe { set(options.as_ptr()) }) {
            tracing::warn!(error = status.message, "a run cannot be stopped");
        }
    }
}

impl Switch for Terminator {
    fn stop(&self) {
        self.set(true);
    }

    fn reset(&self) {
        self.set(false);
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        if let Some(options) = self.options {
            // SAFETY: the options are ours and released once; no run uses them any more, since runs borrow this.
            unsafe { (self.runtime.api().table().ReleaseRunOptions)(options.as_ptr()) };
        }
    }
}
