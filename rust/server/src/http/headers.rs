//! The header fields of an inference request.

use std::time::{Duration, Instant};

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use mlserve_core::error::{Error, Kind, Result, quoted};

use super::json::empty;
use super::negotiate::answer_encoding;
use super::status::Refusal;
use crate::inflate::Encoding;

/// Bytes of JSON before the binary data, in requests and answers.
pub(super) const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// How long the caller waits.
const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");

/// A deadline further away than this is none: adding it to the clock must not overflow.
const FAR_AWAY: Duration = Duration::from_hours(365 * 24);

/// What the fields say.
#[derive(Debug)]
pub(super) struct Fields {
    /// How the body is encoded.
    pub(super) encoding: Encoding,
    /// How the answer may be encoded.
    pub(super) accepts: Encoding,
    /// Bytes of the body as sent, if said.
    pub(super) content_length: Option<usize>,
    /// Bytes of JSON, if said; not checked against the body yet.
    json_length: Option<i64>,
    /// When the caller stops waiting.
    pub(super) deadline: Option<Instant>,
}

/// What a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// So many bytes of JSON, then blobs.
    Json(usize),
    /// The bytes of the model's only input.
    Raw,
}

impl Fields {
    /// Reads the fields of a request that arrived at `arrived`.
    ///
    /// **Errors:** an encoding that is not offered; a length or a timeout that is none.
    pub(super) fn read(headers: &HeaderMap, arrived: Instant) -> Result<Self, Refusal> {
        Ok(Self {
            encoding: content_encoding(headers)?,
            accepts: answer_encoding(headers),
            content_length: number(headers.get(CONTENT_LENGTH)),
            json_length: json_length(headers)?,
            deadline: deadline(headers, arrived)?,
        })
    }

    /// What a body of `len` bytes (inflated) holds.
    ///
    /// **Errors:** the JSON would be longer than the body; nothing was sent.
    pub(super) fn layout(&self, len: usize) -> Result<Layout> {
        let json_length = match self.json_length {
            None if len == 0 => return Err(empty()),
            None => len,
            Some(said) => {
                usize::try_from(said).ok().filter(|&said| said <= len).ok_or_else(|| out_of_range(len, said))?
            }
        };
        // Without JSON there is nothing but the input itself.
        Ok(if json_length == 0 { Layout::Raw } else { Layout::Json(json_length) })
    }
}

fn content_encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let Some(value) = headers.get(CONTENT_ENCODING).filter(|value| !value.is_empty()) else {
        return Ok(Encoding::Identity);
    };
    let several = headers.get_all(CONTENT_ENCODING).iter().nth(1).is_some();
    Encoding::from_name(value.as_bytes()).filter(|_| !several).ok_or_else(|| {
        let error = Error::new(Kind::NotOffered, "Unsupported compression type");
        Refusal::with_field(error, ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"))
    })
}

fn json_length(headers: &HeaderMap) -> Result<Option<i64>> {
    let Some(value) = headers.get(&JSON_LENGTH) else { return Ok(None) };
    // Two lengths would leave open where the binary data begins.
    let several = headers.get_all(&JSON_LENGTH).iter().nth(1).is_some();
    number(Some(value)).filter(|_| !several).map(Some).ok_or_else(|| {
        Error::invalid(format!("Unable to parse Inference-Header-Content-Length, got: {}", shown(value)))
    })
}

fn deadline(headers: &HeaderMap, arrived: Instant) -> Result<Option<Instant>> {
    let Some(value) = headers.get(&REQUEST_TIMEOUT) else { return Ok(None) };
    let milliseconds = number(Some(value)).filter(|&milliseconds: &u64| milliseconds > 0).ok_or_else(|| {
        Error::invalid(format!(
            "Unable to parse x-request-timeout-ms, expected a whole number of milliseconds >= 1, got: {}",
            shown(value)
        ))
    })?;
    Ok(Some(arrived + Duration::from_millis(milliseconds).min(FAR_AWAY)))
}

fn number<Number: std::str::FromStr>(value: Option<&HeaderValue>) -> Option<Number> {
    // The standard parser would also take a plus sign, which no client sends and no grammar here allows.
    value?.to_str().ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

fn shown(value: &HeaderValue) -> String {
    let text: String = String::from_utf8_lossy(value.as_bytes()).chars().take(40).collect();
    quoted(&text)
}

#[cold]
fn out_of_range(len: usize, said: i64) -> Error {
    Error::invalid(format!("inference header size should be in range (0, {len}), got: {said}"))
}

#[cfg(test)]
mod tests {
    use mlserve_core::clock::Clock;

    use super::*;

    fn read(name: HeaderName, value: &[u8]) -> Result<Fields, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_bytes(value).expect("a field"));
        Fields::read(&headers, Clock::Monotonic.now())
    }

    #[test]
    fn lengths_that_are_none_are_refused() {
        for bad in [&b"abc"[..], b"", b"+5", b"1.5", b"0x10", b"99999999999999999999", b"5 6", b"\xff"] {
            let error = read(JSON_LENGTH, bad).expect_err("not a length");
            assert_eq!(error.error().kind(), Kind::InvalidArgument);
        }
        let error = read(JSON_LENGTH, b"abc").expect_err("not a length");
        assert_eq!(error.to_string(), "Unable to parse Inference-Header-Content-Length, got: abc");
    }

    #[test]
    fn the_json_must_lie_within_the_body() {
        let fields = read(JSON_LENGTH, b"99999").expect("a length");
        assert_eq!(
            fields.layout(86).expect_err("too long").text(),
            "inference header size should be in range (0, 86), got: 99999"
        );
        assert_eq!(
            read(JSON_LENGTH, b"-1").expect("a number").layout(86).expect_err("negative").text(),
            "inference header size should be in range (0, 86), got: -1"
        );
        assert_eq!(read(JSON_LENGTH, b"0").expect("a length").layout(8), Ok(Layout::Raw));
        assert_eq!(read(JSON_LENGTH, b"8").expect("a length").layout(8), Ok(Layout::Json(8)));
        let none = Fields::read(&HeaderMap::new(), Clock::Monotonic.now()).expect("no fields");
        assert!(none.layout(0).expect_err("nothing").text().contains("the body is empty"));
        assert_eq!(none.layout(3), Ok(Layout::Json(3)));
    }

    #[test]
    fn encodings_that_are_not_offered_are_refused_with_those_that_are() {
        for bad in [&b"br"[..], b"gzip, deflate", b"zstd", b"\xff"] {
            let refusal = read(CONTENT_ENCODING, bad).expect_err("not offered");
            assert_eq!(refusal.to_string(), "Unsupported compression type");
            let response = refusal.into_response();
            assert_eq!(response.status, 501);
            assert_eq!(response.headers[ACCEPT_ENCODING], "gzip, deflate");
        }
        assert_eq!(read(CONTENT_ENCODING, b"").expect("none").encoding, Encoding::Identity);
        assert_eq!(read(CONTENT_ENCODING, b"Deflate").expect("known").encoding, Encoding::Deflate);
    }

    #[test]
    fn timeouts_are_whole_milliseconds() {
        for bad in [&b"0"[..], b"-1", b"1.5", b"1s", b"", b"18446744073709551616"] {
            assert!(read(REQUEST_TIMEOUT, bad).is_err());
        }
        assert!(read(REQUEST_TIMEOUT, b"18446744073709551615").expect("far away").deadline.is_some());
    }
}
