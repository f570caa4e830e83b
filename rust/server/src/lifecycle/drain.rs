//! Ends versions that nobody new is sent to: what is in flight is answered, then their memory goes back to the system.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mlserve_core::clock::Clock;
use mlserve_core::failpoint;
use mlserve_core::version::Version;

use crate::resources;

/// How often the last request is looked for.
const POLL: Duration = Duration::from_millis(1);

/// Versions that have left the plan.
#[derive(Debug)]
pub(super) struct Drain {
    /// Which.
    pub(super) versions: Vec<Arc<Version>>,
    /// Where time comes from.
    pub(super) clock: Clock,
    /// How long to wait for requests in flight. Then their memory comes back when the last of them is answered.
    pub(super) patience: Duration,
}

impl Drain {
    /// Drains on a thread of its own and calls `then`. The thread ends by itself; joining it is waiting for the drain.
    pub(super) fn start(self, then: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("drain".to_owned()).spawn(move || {
            // Unmapping much memory takes milliseconds, which belong to those who are served.
            resources::lower_priority();
            // Whoever waits for the end of it must not wait for ever.
            if catch_unwind(AssertUnwindSafe(|| self.run())).is_err() {
                tracing::error!("draining panicked; memory comes back with the last request");
            }
            then();
        })
    }

    /// Drains on this thread.
    pub(super) fn run(self) {
        failpoint!("drain");
        let deadline = self.clock.now() + self.patience;
        for version in &self.versions {
            version.close();
        }
        for version in self.versions {
            // Requests on their way, instances that run, and loops that still have the old plan hold one reference each.
            while Arc::strong_count(&version) > 1 && self.clock.now() < deadline {
                std::thread::sleep(POLL);
            }
            if Arc::strong_count(&version) > 1 {
                let (model, version) = (&*version.spec.name, version.spec.version);
                tracing::warn!(
                    model,
                    version,
                    "requests are still in flight; the memory comes back with the last of them"
                );
            }
        }
        mlserve_ort::release_memory();
    }
}
