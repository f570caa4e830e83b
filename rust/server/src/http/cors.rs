//! What answers tell browsers: which methods a route has, and which pages may read.
//!
//! Source: the Fetch standard, CORS protocol. Who is allowed is decided in [`crate::origin`].

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ALLOW, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::HttpResponse;
use crate::origin::Asker;

/// How long a browser may remember an answer to a preflight: a change of the settings is known within ten minutes.
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("600");

/// Fields that scripts may read beside those that they always may.
const READABLE: HeaderValue =
    HeaderValue::from_static("inference-header-content-length, mlserve-code, retry-after, x-request-id, traceparent");

/// Answers OPTIONS, preflights included. `allowed`: the methods of the route.
pub(super) fn options(request: &HeaderMap, asker: &Asker, allowed: &'static str) -> HttpResponse {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(ALLOW, HeaderValue::from_static(allowed));
    if matches!(asker, Asker::Allowed(_)) && request.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(allowed));
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_S);
        if let Some(fields) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, fields.clone());
        }
    }
    HttpResponse { status: StatusCode::NO_CONTENT, headers, body: Vec::new(), reservation: None }
}

/// Lets pages of `origin` read an answer.
pub(super) fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, READABLE);
    // Caches must not give one origin's answer to another.
    headers.append(VARY, HeaderValue::from_name(ORIGIN));
}
