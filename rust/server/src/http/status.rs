//! The HTTP column of the error table: an error to a status and a JSON body.

use std::fmt;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use mlserve_core::error::{CODE_HEADER, Error, Kind, Retry};

use super::HttpResponse;
use super::write::push_string;

/// Seconds after which a caller may try again; short, because what is refused for load passes quickly.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

/// A request that is refused, and a field that its answer carries beside the error.
#[derive(Debug)]
pub(super) struct Refusal {
    error: Error,
    field: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// A refusal whose answer carries `value` as `name`.
    pub(super) fn with_field(error: Error, name: HeaderName, value: HeaderValue) -> Self {
        Self { error, field: Some((name, value)) }
    }

    /// Why.
    pub(super) fn error(&self) -> &Error {
        &self.error
    }

    /// The answer.
    pub(super) fn into_response(self) -> HttpResponse {
        let mut response = error_response(&self.error);
        response.headers.extend(self.field);
        response
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, field: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

/// The answer to a request that ended with `error`: never an empty body, because clients parse it.
pub(crate) fn error_response(error: &Error) -> HttpResponse {
    let mut body = Vec::with_capacity(error.text().len() + 16);
    body.extend_from_slice(b"{\"error\":");
    push_string(&mut body, error.text());
    body.push(b'}');
    let mut response = json_response(status(error.kind()), body);
    let row = error.kind().row();
    response.headers.insert(CODE_HEADER, HeaderValue::from_static(row.code));
    if row.retry == Retry::Yes {
        response.headers.insert(header::RETRY_AFTER, RETRY_AFTER_S);
    }
    response
}

/// An answer with a JSON body.
pub(super) fn json_response(status: StatusCode, body: impl Into<Bytes>) -> HttpResponse {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    HttpResponse { status, headers, body: vec![body.into()], reservation: None }
}

fn status(kind: Kind) -> StatusCode {
    StatusCode::from_u16(kind.row().http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(response: &HttpResponse) -> String {
        response.body.iter().map(|piece| String::from_utf8_lossy(piece)).collect()
    }

    #[test]
    fn every_row_has_its_status_and_a_body_that_is_json() {
        for kind in Kind::ALL {
            let response = error_response(&Error::new(kind, "line\n\"quoted\" \\ é \u{1}"));
            assert_eq!(response.status.as_u16(), kind.row().http);
            let body: serde_json::Value = serde_json::from_str(&text(&response)).expect("JSON");
            assert_eq!(body["error"], "line\n\"quoted\" \\ é \u{1}");
            assert_eq!(response.headers.contains_key("retry-after"), kind.row().retry == Retry::Yes, "{kind:?}");
        }
    }
}
