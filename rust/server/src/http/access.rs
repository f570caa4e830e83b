//! What is remembered of a request for its answer's header fields, the log and the access log. Hot path.

use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use mlserve_core::error::{Error, Kind};
use mlserve_core::request::{Protocol, Request, Text};

use super::{HttpRequest, HttpResponse, error_response};
use crate::access::{AccessLine, AccessLog};
use crate::event_loop::LoopContext;
use crate::metadata::{REQUEST_ID, TRACEPARENT};
use crate::telemetry::{self, Failed};

/// Bytes of what callers call things that a line repeats: thousands of lines may wait.
const MAX_TEXT_BYTES: usize = 256;

/// One request, from its head to its answer. Dropped before, its caller has gone; that has its line as well.
#[derive(Debug)]
pub(super) struct Trail {
    context: LoopContext,
    arrived: Instant,
    is_head: bool,
    route: &'static str,
    model: Text,
    version: u64,
    id: Text,
    sequence_id: Text,
    request_id: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
    failed: Option<Error>,
    bytes_in: usize,
    is_answered: bool,
}

impl Trail {
    /// The trail of a request that begins.
    pub(super) fn new(context: &LoopContext, request: &HttpRequest) -> Self {
        Self {
            context: context.clone(),
            arrived: request.arrived,
            is_head: request.method == Method::HEAD,
            route: "unknown",
            model: Text::default(),
            version: 0,
            id: Text::default(),
            sequence_id: Text::default(),
            request_id: request.headers.get(REQUEST_ID).cloned(),
            traceparent: request.headers.get(TRACEPARENT).cloned(),
            failed: None,
            bytes_in: 0,
            is_answered: false,
        }
    }

    /// Its route is found.
    pub(super) fn route_is(&mut self, route: &'static str, model: &Text) {
        self.route = route;
        self.model = model.clone();
    }

    /// Its body is read.
    pub(super) fn body_was(&mut self, bytes: usize) {
        self.bytes_in = bytes;
    }

    /// Its body says what it is called, and what it belongs to.
    pub(super) fn request_is(&mut self, request: &Request) {
        self.id = request.id.clone();
        if let Some(options) = &request.options {
            self.sequence_id = options.routing_key.clone();
        }
    }

    /// A version has answered.
    pub(super) fn version_was(&mut self, version: u64) {
        self.version = version;
    }

    /// It ends with `error`.
    pub(super) fn failed(&mut self, error: &Error) {
        self.failed = Some(error.clone());
    }

    /// Completes the response, logs a failure and, if there is an access log, writes the request's line.
    pub(super) fn finish(mut self, mut response: HttpResponse) -> HttpResponse {
        self.is_answered = true;
        echo(&mut response.headers, &self);
        let len: usize = response.body.iter().map(Bytes::len).sum();
        let mut bytes_out = len;
        if self.is_head {
            response.headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
            response.body.clear();
            bytes_out = 0;
        }
        if let Some(error) = &self.failed {
            let (client, route, model) = (self.context.client(), self.route, &*self.model);
            telemetry::failed(Failed { client, protocol: Protocol::Http, route, model }, error);
        }
        if let Some(log) = self.context.access_log() {
            self.record(log, response.status, self.failed.as_ref().map(Error::kind), bytes_out);
        }
        response
    }

    fn record(&self, log: &AccessLog, status: StatusCode, failed: Option<Kind>, bytes_out: usize) {
        let request_id = text(self.request_id.as_ref());
        log.record(AccessLine {
            protocol: Protocol::Http,
            route: self.route,
            model: short(&self.model),
            version: self.version,
            request_id: if request_id.is_empty() { short(&self.id) } else { request_id },
            traceparent: text(self.traceparent.as_ref()),
            sequence_id: short(&self.sequence_id),
            client: self.context.client(),
            status: status.as_u16(),
            code: failed.map_or("ok", |kind| kind.row().code),
            duration: self.context.now().saturating_duration_since(self.arrived),
            bytes_in: self.bytes_in,
            bytes_out,
        });
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if !self.is_answered
            && let Some(log) = self.context.access_log()
        {
            let status = StatusCode::from_u16(Kind::Cancelled.row().http).unwrap_or_default();
            self.record(log, status, Some(Kind::Cancelled), 0);
        }
    }
}

/// Counts and logs a request of which not even the head could be read, or may be.
#[cold]
pub(crate) fn unreadable(context: &LoopContext, error: &Error) {
    context.count_refused(Protocol::Http, error);
    let client = context.client();
    telemetry::failed(Failed { client, protocol: Protocol::Http, route: "unknown", model: "" }, error);
    if let Some(log) = context.access_log() {
        log.record(AccessLine {
            protocol: Protocol::Http,
            route: "unknown",
            model: Text::default(),
            version: 0,
            request_id: Text::default(),
            traceparent: Text::default(),
            sequence_id: Text::default(),
            client,
            status: error_response(error).status.as_u16(),
            code: error.kind().row().code,
            duration: std::time::Duration::ZERO,
            bytes_in: 0,
            bytes_out: 0,
        });
    }
}

fn echo(headers: &mut HeaderMap, trail: &Trail) {
    if let Some(request_id) = &trail.request_id {
        headers.insert(REQUEST_ID, request_id.clone());
    }
    if let Some(traceparent) = &trail.traceparent {
        headers.insert(TRACEPARENT, traceparent.clone());
    }
}

fn text(value: Option<&HeaderValue>) -> Text {
    short(value.and_then(|value| std::str::from_utf8(value.as_bytes()).ok()).unwrap_or_default())
}

/// A copy, because a line may wait longer than the received bytes should live.
fn short(text: &str) -> Text {
    Text::from(text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned())
}
