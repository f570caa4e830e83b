//! What a call's header fields say: encodings, deadline, and the caller's identifiers. Hot path.
//!
//! One pass over the fields, because looking up each of them costs more than reading all.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use mlserve_core::error::{Error, Kind, Result};
use mlserve_core::request::Text;

use crate::inflate::Encoding;

/// The caller's name for a request; answered and logged.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The caller's place in a trace (W3C); answered and logged.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Bytes of an identifier that the access log repeats: thousands of lines may wait.
const MAX_LOGGED_BYTES: usize = 256;

/// What each header field counts for beside its name and value (RFC 9113, section 6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// A deadline further away than this is none: adding it to the clock must not overflow.
const FAR_AWAY: Duration = Duration::from_hours(365 * 24);

/// Identifiers that the caller wants back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Echo {
    request_id: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
}

impl Echo {
    /// Whether there is nothing to send back.
    pub(crate) fn is_empty(&self) -> bool {
        self.request_id.is_none() && self.traceparent.is_none()
    }

    /// Takes a field if it is one of the identifiers.
    fn take(&mut self, name: &str, value: &HeaderValue) {
        match name {
            "x-request-id" => self.request_id = Some(value.clone()),
            "traceparent" => self.traceparent = Some(value.clone()),
            _ => {}
        }
    }

    /// Adds the identifiers to an answer's header.
    pub(crate) fn insert(&self, headers: &mut HeaderMap) {
        if let Some(value) = &self.request_id {
            headers.insert(REQUEST_ID, value.clone());
        }
        if let Some(value) = &self.traceparent {
            headers.insert(TRACEPARENT, value.clone());
        }
    }

    /// The request's identifier for the access log.
    pub(crate) fn request_id(&self) -> Text {
        text(self.request_id.as_ref())
    }

    /// The trace's identifier for the access log.
    pub(crate) fn traceparent(&self) -> Text {
        text(self.traceparent.as_ref())
    }
}

fn text(value: Option<&HeaderValue>) -> Text {
    let bytes = value.map(HeaderValue::as_bytes).unwrap_or_default();
    Text::from_utf8(Bytes::copy_from_slice(&bytes[..bytes.len().min(MAX_LOGGED_BYTES)])).unwrap_or_default()
}

/// Whether a request is a gRPC call, and in which form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Content {
    /// Anything else: the REST side answers.
    #[default]
    Other,
    /// `application/grpc` or `application/grpc+proto`.
    Protobuf,
    /// `application/grpc+json` and the like, which no method here speaks.
    Foreign,
}

impl Content {
    fn from_value(value: &[u8]) -> Self {
        match value.strip_prefix(b"application/grpc") {
            Some([] | [b';', ..] | b"+proto") => Content::Protobuf,
            Some(rest) if rest.starts_with(b"+proto;") => Content::Protobuf,
            // grpc-web is another protocol, with another framing.
            Some([b'+', ..]) => Content::Foreign,
            _ => Content::Other,
        }
    }
}

/// The header fields of a gRPC call.
#[derive(Debug)]
pub(crate) struct Metadata {
    /// Whether it is a gRPC call at all.
    pub(crate) content: Content,
    /// How messages are compressed; an error if nobody here knows how.
    encoding: Result<Encoding, ()>,
    /// Encodings that the caller can read, besides identity: gzip, deflate.
    accepts: [bool; 2],
    /// Time the caller waits, or what is wrong with its field.
    timeout: Result<Option<Duration>, ()>,
    /// Bytes of the body, if said.
    pub(crate) content_length: Option<usize>,
    /// What the caller wants back.
    pub(crate) echo: Echo,
    /// Bytes of all fields, counted as HTTP/2 does (RFC 9113, section 6.5.2).
    pub(crate) header_bytes: usize,
    /// How many fields there are.
    pub(crate) header_fields: usize,
    /// Errors of the model end a stream, instead of being one of its answers (Triton's `triton_grpc_error`).
    pub(crate) wants_grpc_errors: bool,
}

impl Metadata {
    /// Reads the fields that mean something here.
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let mut metadata = Self {
            content: Content::Other,
            encoding: Ok(Encoding::Identity),
            accepts: [false; 2],
            timeout: Ok(None),
            content_length: None,
            echo: Echo::default(),
            header_bytes: 0,
            header_fields: headers.len(),
            wants_grpc_errors: false,
        };
        for (name, value) in headers {
            let bytes = value.as_bytes();
            metadata.header_bytes += name.as_str().len() + bytes.len() + FIELD_OVERHEAD;
            match name.as_str() {
                "content-type" => metadata.content = Content::from_value(bytes),
                "content-length" => metadata.content_length = number(bytes),
                "grpc-encoding" => metadata.encoding = Encoding::from_name(bytes).ok_or(()),
                "grpc-accept-encoding" => metadata.read_accepted(bytes),
                "grpc-timeout" => metadata.timeout = timeout(bytes).map(Some).ok_or(()),
                "triton_grpc_error" => metadata.wants_grpc_errors = bytes == b"true",
                name => metadata.echo.take(name, value),
            }
        }
        metadata
    }

    fn read_accepted(&mut self, value: &[u8]) {
        for word in value.split(|&byte| byte == b',') {
            match Encoding::from_name(word.trim_ascii()) {
                Some(Encoding::Gzip) => self.accepts[0] = true,
                Some(Encoding::Deflate) => self.accepts[1] = true,
                Some(Encoding::Identity) | None => {}
            }
        }
    }

    /// How answers are compressed: as the caller's messages are, if it can read that. Clients offer what they could
    /// read on every call, so offering alone is not asking.
    pub(crate) fn answer_encoding(&self) -> Encoding {
        match self.encoding {
            Ok(Encoding::Gzip) if self.accepts[0] => Encoding::Gzip,
            Ok(Encoding::Deflate) if self.accepts[1] => Encoding::Deflate,
            _ => Encoding::Identity,
        }
    }

    /// The encoding of the caller's messages.
    ///
    /// **Errors:** not offered.
    pub(crate) fn message_encoding(&self) -> Result<Encoding> {
        self.encoding.map_err(|()| {
            Error::new(Kind::NotOffered, "the grpc-encoding is not offered; offered are identity, gzip and deflate")
        })
    }

    /// How long the caller waits.
    ///
    /// **Errors:** its field is malformed.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>> {
        self.timeout.map_err(|()| {
            Error::invalid("grpc-timeout is malformed: allowed are 1 to 8 digits and one of H, M, S, m, u, n")
        })
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A `grpc-timeout`: at most eight digits and a unit.
fn timeout(value: &[u8]) -> Option<Duration> {
    let (&unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits.iter().fold(0, |amount, digit| 10 * amount + u64::from(digit - b'0'));
    let timeout = match unit {
        b'H' => Duration::from_hours(amount),
        b'M' => Duration::from_mins(amount),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    };
    Some(timeout.min(FAR_AWAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_of_all_units_are_read() {
        assert_eq!(timeout(b"1H"), Some(Duration::from_hours(1)));
        assert_eq!(timeout(b"2M"), Some(Duration::from_mins(2)));
        assert_eq!(timeout(b"30S"), Some(Duration::from_secs(30)));
        assert_eq!(timeout(b"000000250m"), None);
        assert_eq!(timeout(b"00000250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout(b"7u"), Some(Duration::from_micros(7)));
        assert_eq!(timeout(b"99999999n"), Some(Duration::from_nanos(99_999_999)));
        assert_eq!(timeout(b"99999999H"), Some(FAR_AWAY));
        for bad in [&b""[..], b"S", b"-1S", b"+1S", b"1", b"1s", b"1.5S", b"123456789S", b"1 S"] {
            assert_eq!(timeout(bad), None, "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn only_protobuf_calls_are_served() {
        for (value, content) in [
            ("application/grpc", Content::Protobuf),
            ("application/grpc+proto", Content::Protobuf),
            ("application/grpc;charset=utf-8", Content::Protobuf),
            ("application/grpc+json", Content::Foreign),
            ("application/grpc-web+proto", Content::Other),
            ("application/json", Content::Other),
        ] {
            assert_eq!(Content::from_value(value.as_bytes()), content, "{value}");
        }
    }

    #[test]
    fn answers_are_compressed_as_the_caller_compresses() {
        let read = |encoding: &'static str, accepts: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-encoding", HeaderValue::from_static(encoding));
            headers.insert("grpc-accept-encoding", HeaderValue::from_static(accepts));
            Metadata::read(&headers)
        };
        assert_eq!(read("gzip", "identity, deflate, gzip").answer_encoding(), Encoding::Gzip);
        assert_eq!(read("deflate", "identity,deflate").answer_encoding(), Encoding::Deflate);
        assert_eq!(read("deflate", "gzip").answer_encoding(), Encoding::Identity);
        assert_eq!(read("identity", "identity, deflate, gzip").answer_encoding(), Encoding::Identity);
        assert_eq!(read("br", "br").message_encoding().expect_err("unknown").kind(), Kind::NotOffered);
    }
}
