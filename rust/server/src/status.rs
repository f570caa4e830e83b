//! Where the server is in its life: starting, serving, giving notice, closing.

use std::sync::Arc;

use mlserve_core::plan::{Plan, State};
use tokio::sync::watch;

/// Phases of a server's life; each leads to the next and never back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Listening, live, models still loading.
    Starting,
    /// All models have settled.
    Serving,
    /// Told to stop: not ready, but still accepting, so that balancers notice before anything is refused.
    Notice,
    /// No new connections or streams; what is in flight finishes.
    Closing,
}

/// The phase, to be read and awaited from every thread.
#[derive(Debug)]
pub struct Status {
    phase: watch::Sender<Phase>,
    strict: bool,
}

impl Status {
    /// A server that starts. `strict`: ready only when every model is.
    pub fn new(strict: bool) -> Self {
        Self { phase: watch::Sender::new(Phase::Starting), strict }
    }

    /// The present phase.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves on to `phase`; going back is ignored.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|present| {
            let moves = phase > *present;
            *present = phase.max(*present);
            moves
        });
    }

    /// A receiver that sees each change of phase.
    pub fn subscribe(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Whether the server as a whole is ready: every model settled at the start, at least one answers (strict: none has
    /// failed), not told to stop. A server that was told to serve nothing is ready for orders.
    pub fn is_ready(&self, plan: &Plan) -> bool {
        self.phase() == Phase::Serving && models_are_ready(plan, self.strict)
    }

    /// Whether one model (one version, or any) is ready.
    pub fn is_model_ready(&self, plan: &Arc<Plan>, name: &str, version: Option<u64>) -> bool {
        self.phase() < Phase::Notice && plan.look_up(name, version).is_ok()
    }
}

fn models_are_ready(plan: &Plan, strict: bool) -> bool {
    let states = plan.endpoints().flat_map(|(_, endpoint)| endpoint.versions.values().map(|slot| &slot.state));
    let (mut answers, mut failed) = (false, false);
    for state in states {
        answers |= matches!(state, State::Ready | State::Evicted);
        failed |= matches!(state, State::Failed(_));
    }
    !failed || (answers && !strict)
}
