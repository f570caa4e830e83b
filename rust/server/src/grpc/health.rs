//! `grpc.health.v1`: the whole server, the inference service and each model, asked once or watched.
//!
//! The same truth as the readiness routes. Not serving comes before the drain, so that clients that watch go elsewhere
//! before anything is refused.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use mlserve_core::error::{Error, Kind, Result, quoted};
use tokio::sync::watch::{Receiver, Sender};
use tokio::task::spawn_local;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::reply::Responder;
use super::service::message;
use super::status;
use crate::event_loop::LoopContext;
use crate::http2::writer::Writer;
use crate::process::Process;
use crate::status::Phase;

/// The service whose health is the whole server's.
const INFERENCE_SERVICE: &str = "inference.GRPCInferenceService";

/// Before a model's name, in the names of services.
const MODEL_PREFIX: &str = "mlserve.model/";

/// How often watched states are looked at: a small part of the notice before a drain.
const WATCH_EVERY: Duration = Duration::from_millis(50);

/// What every state follows from, but that of one model, which the plan tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grounds {
    plan: u64,
    phase: Phase,
    is_ready: bool,
}

impl Grounds {
    fn of(process: &Process) -> Self {
        let plan = process.plan.load();
        Self { plan: plan.number, phase: process.status.phase(), is_ready: process.status.is_ready(&plan) }
    }
}

/// Looks for all who watch on one loop, as long as somebody does, and wakes them when something has changed.
#[derive(Debug, Default)]
pub(crate) struct Watches(RefCell<Weak<Sender<Grounds>>>);

impl Watches {
    fn subscribe(&self, process: &Arc<Process>) -> Receiver<Grounds> {
        let present = self.0.borrow().upgrade();
        let grounds = present.unwrap_or_else(|| {
            let grounds = Rc::new(Sender::new(Grounds::of(process)));
            spawn_local(keep(Arc::clone(process), Rc::clone(&grounds)));
            self.0.replace(Rc::downgrade(&grounds));
            grounds
        });
        // The last look may be some time ago.
        look(process, &grounds);
        grounds.subscribe()
    }
}

async fn keep(process: Arc<Process>, grounds: Rc<Sender<Grounds>>) {
    while grounds.receiver_count() > 0 {
        look(&process, &grounds);
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

fn look(process: &Process, grounds: &Sender<Grounds>) {
    let now = Grounds::of(process);
    grounds.send_if_modified(|known| std::mem::replace(known, now) != now);
}

/// The state of `service`; `None` if there is no such service.
fn state_of(process: &Process, service: &str, is_ready: impl FnOnce() -> bool) -> Option<ServingStatus> {
    let is_serving = match service {
        "" | INFERENCE_SERVICE => is_ready(),
        _ => {
            let model = service.strip_prefix(MODEL_PREFIX)?;
            let plan = process.plan.load_full();
            plan.endpoint(model)?;
            process.status.is_model_ready(&plan, model, None)
        }
    };
    Some(if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing })
}

/// Answers `Check`.
///
/// **Errors:** no such service.
pub(super) fn check(process: &Process, request: &HealthCheckRequest) -> Result<HealthCheckResponse> {
    match state_of(process, &request.service, || process.status.is_ready(&process.plan.load())) {
        Some(state) => Ok(HealthCheckResponse { status: state.into() }),
        None => Err(unknown_service(&request.service)),
    }
}

/// Answers `Watch`: the state now, and each change, until the caller has had enough or the server closes.
pub(super) async fn watch(context: LoopContext, request: HealthCheckRequest, responder: Responder) {
    let patience = responder.settings().patience;
    let Some(stream) = responder.open() else { return };
    let mut writer = Writer::new(stream, patience);
    let mut grounds = context.health_watches().subscribe(context.process());
    let mut told = None;
    loop {
        let now = *grounds.borrow_and_update();
        let state = state_of(context.process(), &request.service, || now.is_ready);
        let state = state.unwrap_or(ServingStatus::ServiceUnknown);
        if told != Some(state) {
            told = Some(state);
            writer.push(message(&HealthCheckResponse { status: state.into() }).into_pieces(), None);
            if writer.flush().await.is_err() {
                return;
            }
        }
        if now.phase >= Phase::Closing {
            return writer.finish(status::trailers(Some(&closing())));
        }
        tokio::select! {
            changed = grounds.changed() => {
                if changed.is_err() {
                    // Who looked has panicked.
                    grounds = context.health_watches().subscribe(context.process());
                }
            }
            () = writer.gone() => return,
        }
    }
}

#[cold]
fn unknown_service(service: &str) -> Error {
    Error::new(Kind::NotFound, format!("unknown service '{}'", quoted(service)))
}

/// Why a stream ends that the server would have gone on with.
#[cold]
pub(super) fn closing() -> Error {
    Error::new(Kind::Draining, "the server is shutting down")
}
