//! Which encoding an answer gets: `Accept-Encoding` with its weights (RFC 9110 §12.5.3).

use http::header::{ACCEPT_ENCODING, HeaderMap};

use crate::inflate::Encoding;

/// Weights are thousandths, which is all the digits that the grammar allows.
const FULL_WEIGHT: u16 = 1_000;

/// The encoding that the caller likes best, of those that are offered. Without the field, or if it is malformed: as is.
pub(super) fn answer_encoding(headers: &HeaderMap) -> Encoding {
    let mut named = [None; Encoding::ALL.len()];
    let mut others = None;
    for value in headers.get_all(ACCEPT_ENCODING) {
        for member in value.as_bytes().split(|&byte| byte == b',') {
            let mut parts = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
            let (Some(name), Some(weight)) = (parts.next(), weight(parts.next())) else { continue };
            match Encoding::from_name(name) {
                Some(encoding) => named[encoding as usize] = Some(weight),
                None if name == b"*" => others = Some(weight),
                None => {}
            }
        }
    }
    let weight = |encoding: Encoding| named[encoding as usize].or(others).unwrap_or_default();
    let (gzip, deflate) = (weight(Encoding::Gzip), weight(Encoding::Deflate));
    let (best, most) = if deflate > gzip { (Encoding::Deflate, deflate) } else { (Encoding::Gzip, gzip) };
    // Identity counts only if it is named: most clients leave it out and mean what they list.
    let identity = named[Encoding::Identity as usize].unwrap_or_default();
    if most > 0 && most >= identity { best } else { Encoding::Identity }
}

/// `q=0.8` in thousandths; `None` if it is malformed.
fn weight(parameter: Option<&[u8]>) -> Option<u16> {
    let Some(parameter) = parameter else { return Some(FULL_WEIGHT) };
    let digits = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="))?;
    let (whole, fraction) = match digits {
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        [whole] => (whole, &[][..]),
        _ => return None,
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let thousandths =
        (0..3).fold(0, |sum, place| 10 * sum + fraction.get(place).map_or(0, |digit| u16::from(digit - b'0')));
    match whole {
        b'0' => Some(thousandths),
        b'1' if thousandths == 0 => Some(FULL_WEIGHT),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_highest_weight_wins_and_zero_forbids() {
        for (field, expected) in [
            ("gzip", Encoding::Gzip),
            ("deflate", Encoding::Deflate),
            ("gzip, deflate", Encoding::Gzip),
            ("gzip;q=0.5, deflate", Encoding::Deflate),
            ("gzip;q=0.5,deflate;q=0.501", Encoding::Deflate),
            ("GZIP ; Q=1.000", Encoding::Gzip),
            ("br, zstd", Encoding::Identity),
            ("*", Encoding::Gzip),
            ("*;q=0", Encoding::Identity),
            ("gzip;q=0, *", Encoding::Deflate),
            ("gzip;q=0", Encoding::Identity),
            ("identity, gzip;q=0.5", Encoding::Identity),
            ("identity;q=0.5, gzip;q=0.5", Encoding::Gzip),
            ("gzip;q=1.5", Encoding::Identity),
            ("gzip;q=0.0001", Encoding::Identity),
            ("gzip;q=-1, deflate;q=abc", Encoding::Identity),
            ("gzip;level=9", Encoding::Identity),
            ("", Encoding::Identity),
            (",,;;,=", Encoding::Identity),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_str(field).expect("a field"));
            assert_eq!(answer_encoding(&headers), expected, "{field:?}");
        }
        assert_eq!(answer_encoding(&HeaderMap::new()), Encoding::Identity);
    }
}
