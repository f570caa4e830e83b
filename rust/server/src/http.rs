//! Stage 2 for HTTP: from a request's head and body to an answer, whatever HTTP version carried them.
//!
//! Joins: [`route`] finds the handler; [`infer`] (tensors) and [`plain`] (values, whose tensors follow from the model)
//! decode into one `Request` and submit it; [`health`], [`metadata`], [`models`] and [`openapi`] answer from the plan.
//! Must not know sockets or connections; those are `http1` and `http2`.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use mlserve_core::budget::Reservation;
use mlserve_core::error::Error;
use mlserve_core::failpoint;

use crate::body::RequestBody;
use crate::event_loop::LoopContext;

mod access;
mod arrays;
mod cors;
mod decimal;
mod decode;
mod draft;
mod encode;
mod extensions;
mod find;
#[cfg(test)]
mod fixture;
mod generate;
mod headers;
mod health;
mod infer;
mod json;
mod metadata;
mod models;
mod negotiate;
mod nest;
mod nested;
mod numbers;
pub(crate) mod openapi;
mod page;
mod parameters;
mod plain;
mod predict;
mod raw;
mod reply;
mod route;
mod rows;
mod split;
mod status;
mod texts;
mod v1;
mod values;
mod wanted;
mod write;

pub(crate) use access::unreadable;
pub(crate) use metadata::model_json;
pub(crate) use status::error_response;

/// A request as either HTTP version delivers it: the head is here, the body is still to be read.
#[derive(Debug)]
pub(crate) struct HttpRequest {
    /// GET, POST, …
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) uri: Uri,
    /// As sent, names in lower case.
    pub(crate) headers: HeaderMap,
    /// Read only once a route wants it.
    pub(crate) body: RequestBody,
    /// When its head was complete.
    pub(crate) arrived: Instant,
}

/// An answer, complete before its first byte is written.
#[derive(Debug)]
pub(crate) struct HttpResponse {
    /// 200, or the status of a row of the error table.
    pub(crate) status: StatusCode,
    /// Without `date` and connection headers.
    pub(crate) headers: HeaderMap,
    /// In order; large tensors are slices of the batch's output.
    pub(crate) body: Vec<Bytes>,
    /// To be held until the last byte is written.
    pub(crate) reservation: Option<Reservation>,
}

/// Answers one request. Dropping the future tells the pipeline that nobody waits.
pub(crate) async fn handle(context: &LoopContext, request: HttpRequest) -> HttpResponse {
    handle_if(context, request, |_| Ok(())).await
}

/// As [`handle`]. `may_wait` is asked about the length of the body, which may have to wait for its reader; an error of it is
/// the answer.
pub(crate) async fn handle_if(
    context: &LoopContext,
    request: HttpRequest,
    may_wait: impl FnOnce(usize) -> Result<(), Error>,
) -> HttpResponse {
    let mut trail = access::Trail::new(context, &request);
    let mut response = route::dispatch(context, request, &mut trail).await;
    if let Err(error) = may_wait(response.body.iter().map(Bytes::len).sum()) {
        trail.failed(&error);
        response = error_response(&error);
    }
    failpoint!("http_reply");
    trail.finish(response)
}
