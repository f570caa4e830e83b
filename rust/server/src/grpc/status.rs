//! The gRPC column of the error table: `grpc-status` and `grpc-message`.

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue};
use mlserve_core::error::{CODE_HEADER, Error};

/// The header or trailer with the status code.
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The header or trailer with the text, percent-encoded.
pub(crate) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Encoded bytes of a text at most: clients refuse trailers of more than 8 KiB, and other headers share them.
const MAX_MESSAGE_BYTES: usize = 4 << 10;

/// What ends an answer that went well.
pub(crate) fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

/// What ends an answer of many messages.
pub(crate) fn trailers(error: Option<&Error>) -> HeaderMap {
    let Some(error) = error else { return ok_trailers() };
    let mut trailers = HeaderMap::with_capacity(3);
    insert(&mut trailers, error);
    trailers
}

/// Adds `error` to headers or trailers.
pub(crate) fn insert(headers: &mut HeaderMap, error: &Error) {
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(error.kind().row().grpc)));
    headers.insert(CODE_HEADER, HeaderValue::from_static(error.kind().row().code));
    if let Ok(text) = HeaderValue::try_from(percent_encoded(error.text())) {
        headers.insert(GRPC_MESSAGE, text);
    }
}

/// `text` as the gRPC specification wants it: printable ASCII but for `%` as it is, every other byte as `%XX`.
/// What is above the limit is cut off at a character.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for character in text.chars() {
        let before = encoded.len();
        for &byte in character.encode_utf8(&mut [0; 4]).as_bytes() {
            if matches!(byte, b' '..=b'~') && byte != b'%' {
                encoded.push(char::from(byte));
            } else {
                write!(encoded, "%{byte:02X}").expect("writing to a string cannot fail");
            }
        }
        if encoded.len() > MAX_MESSAGE_BYTES {
            encoded.truncate(before);
            break;
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use mlserve_core::error::Kind;

    use super::*;

    #[test]
    fn every_row_has_its_number_and_its_text() {
        for kind in Kind::ALL {
            let mut headers = HeaderMap::new();
            insert(&mut headers, &Error::new(kind, "why"));
            assert_eq!(headers[&GRPC_STATUS], kind.row().grpc.to_string());
            assert_eq!(headers[&GRPC_MESSAGE], "why");
        }
    }

    #[test]
    fn texts_are_percent_encoded() {
        assert_eq!(percent_encoded("a b\n100% \u{fc}"), "a b%0A100%25 %C3%BC");
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let encoded = percent_encoded(&"\u{fc}".repeat(10_000));
        assert!(encoded.len() <= MAX_MESSAGE_BYTES && encoded.len().is_multiple_of(6));
    }
}
