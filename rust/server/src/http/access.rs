//! What is remembered of a request for its answer's header fields and the access log. Hot path.

use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method};
use mlserve_core::error::Error;
use mlserve_core::request::{Protocol, Request, Text};

use super::{HttpRequest, HttpResponse};
use crate::access::AccessLine;
use crate::event_loop::LoopContext;
use crate::metadata::{REQUEST_ID, TRACEPARENT};

/// One request, from its head to its answer.
#[derive(Debug)]
pub(super) struct Trail {
    arrived: Instant,
    is_head: bool,
    route: &'static str,
    model: Text,
    version: u64,
    id: Text,
    sequence_id: Text,
    request_id: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
    code: &'static str,
    bytes_in: usize,
}

impl Trail {
    /// The trail of a request that begins.
    pub(super) fn new(request: &HttpRequest) -> Self {
        Self {
            arrived: request.arrived,
            is_head: request.method == Method::HEAD,
            route: "",
            model: Text::default(),
            version: 0,
            id: Text::default(),
            sequence_id: Text::default(),
            request_id: request.headers.get(REQUEST_ID).cloned(),
            traceparent: request.headers.get(TRACEPARENT).cloned(),
            code: "ok",
            bytes_in: 0,
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
        self.code = error.kind().row().code;
    }

    /// Completes the response and, if there is an access log, writes the request's line.
    pub(super) fn finish(self, context: &LoopContext, mut response: HttpResponse) -> HttpResponse {
        echo(&mut response.headers, &self);
        let len: usize = response.body.iter().map(Bytes::len).sum();
        let mut bytes_out = len;
        if self.is_head {
            response.headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
            response.body.clear();
            bytes_out = 0;
        }
        if let Some(log) = context.access_log() {
            let request_id = text(self.request_id.as_ref());
            log.record(AccessLine {
                protocol: Protocol::Http,
                route: self.route,
                model: self.model,
                version: self.version,
                request_id: if request_id.is_empty() { self.id } else { request_id },
                traceparent: text(self.traceparent.as_ref()),
                sequence_id: self.sequence_id,
                code: self.code,
                duration: context.now().saturating_duration_since(self.arrived),
                bytes_in: self.bytes_in,
                bytes_out,
            });
        }
        response
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
    value.and_then(|value| Text::from_utf8(Bytes::copy_from_slice(value.as_bytes()))).unwrap_or_default()
}
