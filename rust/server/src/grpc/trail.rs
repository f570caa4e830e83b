//! What the access log is told of one gRPC call; exists only while the log is on.

use std::time::Instant;

use mlserve_core::clock::Clock;
use mlserve_core::error::Kind;
use mlserve_core::request::{Protocol, Request, Text};

use crate::access::{AccessLine, AccessLog};
use crate::event_loop::LoopContext;
use crate::metadata::Echo;

/// Bytes of what callers call things: thousands of lines may wait.
const MAX_TEXT_BYTES: usize = 256;

/// A line that is filled in while its call is served, and recorded when it has been answered.
#[derive(Debug)]
pub(crate) struct Trail {
    log: AccessLog,
    clock: Clock,
    arrived: Instant,
    line: AccessLine,
}

impl Trail {
    /// Begins a line, if there is a log. **Cost:** one look where there is none.
    pub(crate) fn begin(context: &LoopContext, route: &'static str, echo: &Echo) -> Option<Box<Self>> {
        let log = context.access_log()?;
        Some(Box::new(Self {
            log: log.clone(),
            clock: context.process().clock.clone(),
            arrived: context.now(),
            line: AccessLine {
                protocol: Protocol::Grpc,
                route,
                model: Text::default(),
                version: 0,
                request_id: echo.request_id(),
                traceparent: echo.traceparent(),
                sequence_id: Text::default(),
                client: context.client(),
                status: 0,
                code: "ok",
                duration: std::time::Duration::ZERO,
                bytes_in: 0,
                bytes_out: 0,
            },
        }))
    }

    /// Notes the size of the request's body.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.line.bytes_in += bytes;
    }

    /// Notes what was asked for; the request's own id counts where the caller sent no `x-request-id`.
    pub(crate) fn asked(&mut self, request: &Request) {
        self.line.model = owned(&request.model_name);
        self.line.sequence_id = owned(request.routing_key());
        if self.line.request_id.is_empty() {
            self.line.request_id = owned(&request.id);
        }
    }

    /// Notes which version answered.
    pub(crate) fn answered_by(&mut self, version: u64) {
        self.line.version = version;
    }

    /// Records the line.
    pub(crate) fn finish(mut self, failed: Option<Kind>, bytes_out: usize) {
        if let Some(kind) = failed {
            (self.line.status, self.line.code) = (kind.row().grpc.into(), kind.row().code);
        }
        self.line.bytes_out = bytes_out;
        self.line.duration = self.clock.now().saturating_duration_since(self.arrived);
        self.log.record(self.line);
    }
}

/// A copy, because a line may wait longer than the received bytes should live.
fn owned(text: &str) -> Text {
    Text::from(text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned())
}
