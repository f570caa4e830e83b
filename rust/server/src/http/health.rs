//! Liveness and readiness, of the server and of one model.
//!
//! The bodies are those of the Open Inference Protocol; Triton's are empty, and its clients look at the status only.

use http::StatusCode;

use super::HttpResponse;
use super::route::Target;
use super::status::json_response;
use super::write::push_string;
use crate::process::Process;
use crate::status::Phase;

/// Whether the server runs: whoever can ask has the answer.
pub(super) fn live() -> HttpResponse {
    json_response(StatusCode::OK, &b"{\"live\":true}"[..])
}

/// Whether the server as a whole takes requests. Not ready is 400, as Triton has it.
pub(super) fn ready(process: &Process) -> HttpResponse {
    if process.status.is_ready(&process.plan.load()) {
        json_response(StatusCode::OK, &b"{\"ready\":true}"[..])
    } else {
        json_response(StatusCode::BAD_REQUEST, &b"{\"ready\":false}"[..])
    }
}

/// Whether the server lives, which it does if it can answer, and whether it is ready.
///
/// Not ready is no reason to restart a server, so it is no error here; `/ready` is for those who send requests.
pub(super) fn health(process: &Process) -> HttpResponse {
    let is_ready = process.status.is_ready(&process.plan.load());
    json_response(StatusCode::OK, format!("{{\"live\":true,\"ready\":{is_ready}}}"))
}

/// Whether the models that are there at the start have settled.
pub(super) fn started(process: &Process) -> HttpResponse {
    if process.status.phase() >= Phase::Serving {
        json_response(StatusCode::OK, &b"{\"started\":true}"[..])
    } else {
        json_response(StatusCode::BAD_REQUEST, &b"{\"started\":false}"[..])
    }
}

/// Whether one model takes requests; an unknown one does not.
pub(super) fn model_ready(process: &Process, target: &Target) -> HttpResponse {
    if !process.status.is_model_ready(&process.plan.load(), &target.model, target.version) {
        return json_response(StatusCode::BAD_REQUEST, &b"{\"error\":\"Model version not ready\"}"[..]);
    }
    let mut body = b"{\"name\":".to_vec();
    push_string(&mut body, &target.model);
    body.extend_from_slice(b",\"ready\":true}");
    json_response(StatusCode::OK, body)
}
