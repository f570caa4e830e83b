//! Where the server is in its life: starting, serving, giving notice, closing.

use std::sync::Arc;

use mlserve_core::config::{ModelControlMode, ServerSettings};
use mlserve_core::plan::{Plan, State};
use tokio::sync::watch;

use crate::event_loop::pulse::Pulse;

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
    mode: ModelControlMode,
    strict: bool,
    loops: Vec<Arc<Pulse>>,
}

impl Status {
    /// A server that starts.
    pub(crate) fn new(settings: &ServerSettings, loops: Vec<Arc<Pulse>>) -> Self {
        let ServerSettings { model_control_mode: mode, strict_readiness: strict, .. } = *settings;
        Self { phase: watch::Sender::new(Phase::Starting), mode, strict, loops }
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

    /// Whether the server is live: no event loop is frozen. One that panicked is started again, and no reason to end.
    pub fn is_live(&self) -> bool {
        !self.loops.iter().any(|pulse| pulse.is_frozen())
    }

    /// Whether the server as a whole is ready: every loop runs, every model settled at the start, enough of them answer,
    /// and nobody has told it to stop.
    pub fn is_ready(&self, plan: &Plan) -> bool {
        self.phase() == Phase::Serving
            && self.loops.iter().all(|pulse| pulse.lives())
            && models_are_ready(plan, self.mode, self.strict)
    }

    /// Whether one model (one version, or any) is ready.
    pub fn is_model_ready(&self, plan: &Arc<Plan>, name: &str, version: Option<u64>) -> bool {
        self.phase() < Phase::Notice && plan.look_up(name, version).is_ok()
    }
}

/// Whether enough models are ready.
///
/// A server that loads what it finds is there to answer for it: at least one model has to answer, however many there
/// were. One that loads what it is told to (explicit) waits for orders, and no order may cut it off from the next.
/// Strict: none has failed, in every mode.
fn models_are_ready(plan: &Plan, mode: ModelControlMode, strict: bool) -> bool {
    let states = plan.endpoints().flat_map(|(_, endpoint)| endpoint.versions.values().map(|slot| &slot.state));
    let (mut answers, mut failed) = (mode == ModelControlMode::Explicit, false);
    for state in states {
        answers |= matches!(state, State::Ready | State::Evicted);
        failed |= matches!(state, State::Failed(_));
    }
    answers && !(strict && failed)
}

#[cfg(test)]
mod tests {
    use mlserve_core::plan::{Endpoint, Slot};

    use super::*;

    fn plan(states: impl IntoIterator<Item = State>) -> Plan {
        let slots = states
            .into_iter()
            .enumerate()
            .map(|(index, state)| (format!("m{index}"), Endpoint::new([(1, Slot::not_serving(state))].into())));
        Plan::new(1, slots)
    }

    fn failed() -> State {
        State::Failed("broken".to_owned())
    }

    #[test]
    fn a_server_without_a_model_is_ready_only_for_orders() {
        for (mode, ready) in
            [(ModelControlMode::None, false), (ModelControlMode::Poll, false), (ModelControlMode::Explicit, true)]
        {
            for strict in [false, true] {
                assert_eq!(models_are_ready(&plan([]), mode, strict), ready, "{mode:?}");
            }
            assert_eq!(models_are_ready(&plan([failed()]), mode, false), ready, "all have failed, {mode:?}");
        }
    }

    #[test]
    fn one_model_suffices_unless_strict() {
        for mode in [ModelControlMode::None, ModelControlMode::Poll, ModelControlMode::Explicit] {
            let some = plan([failed(), State::Evicted]);
            assert!(models_are_ready(&some, mode, false), "{mode:?}");
            assert!(!models_are_ready(&some, mode, true), "{mode:?}");
            assert!(models_are_ready(&plan([State::Evicted]), mode, true), "{mode:?}");
        }
    }
}
