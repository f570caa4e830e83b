//! `GET /docs`: a page to try the models from a browser. One file, without requests to anywhere else.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, VARY};
use http::{HeaderMap, StatusCode};

use super::HttpResponse;
use super::status::json_response;

/// The page: markup, style and script.
const PAGE: &str = include_str!("page.html");

/// Only what stands in the page runs, by its digests; it may ask this server and nobody else. A test computes them anew.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'sha256-L59IZUVuHnGjo7lbOMp2gk6P5CQ1isfEU6euVMrDgZY='; script-src 'sha256-tyOWLPJEQeKPGzq5GamSZvGbFW0iqjSjhroTw/IXoFk='; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// Answers with the page.
pub(super) fn page() -> HttpResponse {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    headers.insert(HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer"));
    HttpResponse { status: StatusCode::OK, headers, body: vec![Bytes::from_static(PAGE.as_bytes())], reservation: None }
}

/// Leads browsers to the page; others learn that the server lives, in the words that `KServe`'s V1 clients look for.
pub(super) fn root(request: &HeaderMap) -> HttpResponse {
    let fields = request.get_all(ACCEPT).iter();
    let is_browser = fields.filter_map(|value| value.to_str().ok()).any(|value| value.contains("text/html"));
    let mut response = json_response(StatusCode::OK, &b"{\"status\":\"alive\"}"[..]);
    if is_browser {
        // Not for ever: browsers would remember it, and the port may be another server's tomorrow.
        response.status = StatusCode::FOUND;
        response.headers.insert(LOCATION, HeaderValue::from_static("/docs"));
        response.body.clear();
    }
    response.headers.insert(VARY, HeaderValue::from_static("accept"));
    response
}
