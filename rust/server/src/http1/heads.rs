//! What hyper forgives in a request's head and a proxy before us may have read differently: bare line feeds, and two
//! lengths for one body.
//!
//! Follows the framing of a connection byte by byte, beside hyper (RFC 9112, sections 2.2 and 6). Whatever it cannot follow
//! hyper refuses, and the connection ends. **Cost:** one look at each byte of a head; bodies are passed over.

use std::collections::VecDeque;

use mlserve_core::error::Error;

/// Bytes of a line that are kept when it comes in parts: names and values that mean something here are shorter.
const KEPT_BYTES: usize = 256;

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A line that ends with LF alone.
    BareLineFeed,
    /// `content-length` and `transfer-encoding`.
    TwoLengths,
}

impl Fault {
    /// What the caller is told.
    #[cold]
    pub(super) fn error(self) -> Error {
        Error::invalid(match self {
            Fault::BareLineFeed => "a line of the request's head ends with LF alone; CR LF is expected",
            Fault::TwoLengths => "the request has both content-length and transfer-encoding; one of them is allowed",
        })
    }
}

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Head,
    /// So many bytes of body are left.
    Body(u64),
    /// In the line before a chunk.
    ChunkSize,
    /// In a chunk and the end of its line.
    Chunk(u64),
    /// Behind the last chunk.
    Trailer,
    /// It is no HTTP/1.1 any more.
    Lost,
}

/// A connection's heads.
#[derive(Debug)]
pub(super) struct Heads {
    place: Place,
    /// The beginning of a line of which the rest has not come.
    line: Vec<u8>,
    /// Whether the head has a line yet; empty ones before it mean nothing.
    has_begun: bool,
    length: Option<u64>,
    is_chunked: bool,
    has_transfer_encoding: bool,
    fault: Option<Fault>,
    /// One for each complete head that has not been asked for.
    verdicts: VecDeque<Option<Fault>>,
}

impl Heads {
    /// A connection that begins.
    pub(super) fn new() -> Self {
        Self {
            place: Place::Head,
            line: Vec::new(),
            has_begun: false,
            length: None,
            is_chunked: false,
            has_transfer_encoding: false,
            fault: None,
            verdicts: VecDeque::new(),
        }
    }

    /// What was wrong with the next head.
    pub(super) fn next(&mut self) -> Option<Fault> {
        self.verdicts.pop_front().flatten()
    }

    /// Whether all of the last request has come.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.place, Place::Head | Place::Lost)
    }

    /// Bytes have come.
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.place {
                Place::Lost => return,
                Place::Body(left) => self.pass(bytes, left, Place::Body, Place::Head),
                Place::Chunk(left) => self.pass(bytes, left, Place::Chunk, Place::ChunkSize),
                Place::Head | Place::ChunkSize | Place::Trailer => self.line(bytes),
            };
        }
    }

    fn pass<'a>(&mut self, bytes: &'a [u8], left: u64, place: fn(u64) -> Place, next: Place) -> &'a [u8] {
        let passed = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let left = left - passed as u64;
        self.place = if left == 0 { next } else { place(left) };
        &bytes[passed..]
    }

    fn line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
            self.keep(bytes);
            return &[];
        };
        let (part, rest) = (&bytes[..end], &bytes[end + 1..]);
        if self.line.is_empty() {
            self.line_is(part);
        } else {
            self.keep(part);
            let line = std::mem::take(&mut self.line);
            self.line_is(&line);
        }
        rest
    }

    /// Keeps the beginning, and the last byte, which tells how the line ends.
    fn keep(&mut self, part: &[u8]) {
        let room = KEPT_BYTES.saturating_sub(self.line.len());
        self.line.extend_from_slice(&part[..part.len().min(room)]);
        if part.len() > room
            && let (Some(last), Some(&byte)) = (self.line.last_mut(), part.last())
        {
            *last = byte;
        }
    }

    fn line_is(&mut self, line: &[u8]) {
        let text = line.strip_suffix(b"\r");
        match self.place {
            Place::Head => {
                if text.is_none() && (self.has_begun || !line.is_empty()) {
                    self.fault = Some(Fault::BareLineFeed);
                }
                self.head_line(text.unwrap_or(line));
            }
            Place::ChunkSize => {
                self.place = match chunk_size(text.unwrap_or(line)) {
                    Some(0) => Place::Trailer,
                    Some(size) => size.checked_add(2).map_or(Place::Lost, Place::Chunk),
                    None => Place::Lost,
                }
            }
            _ if text.unwrap_or(line).is_empty() => self.place = Place::Head,
            _ => {}
        }
    }

    fn head_line(&mut self, line: &[u8]) {
        if !line.is_empty() {
            self.has_begun = true;
            if let Some(at) = line.iter().position(|&byte| byte == b':') {
                self.field(&line[..at], line[at + 1..].trim_ascii());
            }
        } else if self.has_begun {
            self.end();
        }
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        if name.eq_ignore_ascii_case(b"content-length") {
            // Several that differ, and what is no number, are refused by hyper.
            self.length = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.has_transfer_encoding = true;
            let last = value.rsplit(|&byte| byte == b',').next().unwrap_or_default();
            self.is_chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        }
    }

    fn end(&mut self) {
        if self.length.is_some() && self.has_transfer_encoding {
            self.fault = Some(Fault::TwoLengths);
        }
        self.verdicts.push_back(self.fault.take());
        self.place = match (self.is_chunked, self.length) {
            (true, _) => Place::ChunkSize,
            (false, Some(length)) if length > 0 => Place::Body(length),
            (false, _) => Place::Head,
        };
        (self.has_begun, self.length, self.is_chunked, self.has_transfer_encoding) = (false, None, false, false);
    }
}

/// The hexadecimal digits before an extension.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdicts of a connection, whose bytes come in pieces of `size`.
    fn verdicts(bytes: &[u8], size: usize) -> Vec<Option<Fault>> {
        let mut heads = Heads::new();
        bytes.chunks(size).for_each(|chunk| heads.read(chunk));
        heads.verdicts.into_iter().collect()
    }

    #[track_caller]
    fn check(bytes: &str, expected: &[Option<Fault>]) {
        for size in [1, 2, 3, 7, bytes.len()] {
            assert_eq!(verdicts(bytes.as_bytes(), size), expected, "{bytes:?} in pieces of {size}");
        }
    }

    #[test]
    fn sound_requests_in_a_row_are_followed() {
        let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let sized = "POST / HTTP/1.1\r\nhost: a\r\nContent-Length:  7\r\n\r\na\nb\n\n\r\n";
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\na\nb\r\n0A\r\n0123456\n\r\n\r\n0\r\nt: 1\r\n\r\n";
        check(&[get, sized, chunked, "\r\n", get, sized].concat(), &[None; 5]);
    }

    #[test]
    fn a_line_feed_alone_is_seen_wherever_a_head_has_it() {
        let bare = Some(Fault::BareLineFeed);
        check("GET / HTTP/1.1\nhost: a\r\n\r\n", &[bare]);
        check("GET / HTTP/1.1\r\nhost: a\n\r\n", &[bare]);
        check("GET / HTTP/1.1\r\nhost: a\r\n\n", &[bare]);
        check("POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n\n\nGET / HTTP/1.1\nhost: a\r\n\r\n", &[None, bare]);
        let long = format!("GET / HTTP/1.1\r\nx: {}\nhost: a\r\n\r\n", "y".repeat(1_000));
        check(&long, &[bare]);
        check(&long.replace("y\n", "y\r\n"), &[None]);
    }

    #[test]
    fn two_lengths_are_seen_in_either_order() {
        let two = Some(Fault::TwoLengths);
        check("POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", &[two]);
        check("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n", &[two]);
    }
}
