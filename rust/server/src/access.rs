//! One line per request, if asked for: formatted and written by a thread of its own, never by a loop.

use std::time::Duration;

use mlserve_core::request::{Protocol, Text};

/// What is known about one answered request.
#[derive(Clone, Debug)]
pub struct AccessLine {
    /// gRPC or HTTP.
    pub protocol: Protocol,
    /// The RPC or route.
    pub route: &'static str,
    /// The endpoint asked for; empty where none is.
    pub model: Text,
    /// The version that answered; 0 where none did.
    pub version: u64,
    /// The caller's `x-request-id`, or the request's own id.
    pub request_id: Text,
    /// The caller's `traceparent`.
    pub traceparent: Text,
    /// A code of the error table, or `ok`.
    pub code: &'static str,
    /// From arrival to the answer being handed to the socket.
    pub duration: Duration,
    /// Of the request's body.
    pub bytes_in: usize,
    /// Of the answer's body.
    pub bytes_out: usize,
}
