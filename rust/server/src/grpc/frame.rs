//! gRPC messages in an HTTP/2 body: the five-byte prefix, and compression per call. Hot path.
//!
//! Must not inflate or parse large messages on an event loop; see [`Encoded::is_large`].

use bytes::Bytes;
use mlserve_core::budget::Reservation;
use mlserve_core::error::{Error, Result};
use smallvec::SmallVec;

use super::declared;
use crate::inflate::{self, Encoding};

/// A byte that says whether the message is compressed, and its length as a big-endian `u32`.
pub(crate) const PREFIX_BYTES: usize = 5;

/// Messages above this size are parsed off the event loop: at memory speed it is some tens of microseconds, and
/// typed contents cost many times that.
const LARGE_BYTES: usize = 128 << 10;

/// Received pieces in order; nearly always one.
pub(crate) type Pieces = SmallVec<[Bytes; 1]>;

/// A message as it came, perhaps compressed.
#[derive(Debug)]
pub(crate) struct Encoded {
    encoding: Encoding,
    pieces: Pieces,
    len: usize,
}

impl Encoded {
    /// Whether it has to be opened off the event loop. What a compressed message becomes is not known before.
    pub(crate) fn is_large(&self) -> bool {
        self.len > LARGE_BYTES || self.encoding != Encoding::Identity
    }

    /// Bytes as received.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The message itself, inflated to at most `limit` bytes, which `reservation` takes on.
    ///
    /// **Errors:** too large; not what its encoding says; out of budget.
    pub(crate) fn open(self, limit: usize, reservation: &mut Reservation) -> Result<Pieces> {
        if self.encoding == Encoding::Identity {
            return Ok(self.pieces);
        }
        let declared = &declared::message_bytes;
        let inflated = inflate::inflate_declared(self.encoding, &self.pieces, limit, reservation, declared)?;
        Ok(SmallVec::from_iter([Bytes::from(inflated)]))
    }
}

/// What the prefix says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    is_compressed: bool,
    /// Bytes of the message, without the prefix.
    pub(crate) length: usize,
}

impl Prefix {
    /// Reads the prefix at the start of `pieces`; `None` if it is not all there.
    ///
    /// **Errors:** a flag that is neither 0 nor 1; a message above `limit`.
    pub(crate) fn read<'a>(slices: impl Iterator<Item = &'a [u8]>, limit: usize) -> Result<Option<Self>> {
        let mut bytes = [0; PREFIX_BYTES];
        let mut filled = 0;
        for slice in slices {
            let taken = slice.len().min(PREFIX_BYTES - filled);
            bytes[filled..filled + taken].copy_from_slice(&slice[..taken]);
            filled += taken;
        }
        if filled < PREFIX_BYTES {
            return Ok(None);
        }
        let [flag, length @ ..] = bytes;
        let length = u32::from_be_bytes(length) as usize;
        if flag > 1 {
            return Err(bad_flag(flag));
        }
        if length > limit {
            return Err(too_large(length, limit));
        }
        Ok(Some(Self { is_compressed: flag == 1, length }))
    }

    /// The encoding of the message, if the call has said one.
    ///
    /// **Errors:** compressed, but the call has not said how.
    pub(crate) fn encoding(self, call: Encoding) -> Result<Encoding> {
        match (self.is_compressed, call) {
            (false, _) => Ok(Encoding::Identity),
            (true, Encoding::Identity) => {
                Err(Error::invalid("the message is compressed, but grpc-encoding does not say how"))
            }
            (true, encoding) => Ok(encoding),
        }
    }
}

/// The one message of a unary call's complete body.
///
/// **Errors:** no message, a part of one, or more than one; too large.
pub(crate) fn single(mut pieces: Pieces, len: usize, call: Encoding, limit: usize) -> Result<Encoded> {
    let Some(prefix) = Prefix::read(pieces.iter().map(|piece| &piece[..]), limit)? else {
        return Err(cut_off(len));
    };
    match len - PREFIX_BYTES {
        rest if rest < prefix.length => return Err(cut_off(len)),
        rest if rest > prefix.length => return Err(Error::invalid("more than one message in a unary call")),
        _ => {}
    }
    skip_front(&mut pieces, PREFIX_BYTES);
    Ok(Encoded { encoding: prefix.encoding(call)?, pieces, len: prefix.length })
}

/// A message of a stream, whose prefix has been taken off.
///
/// **Errors:** compressed, but the call has not said how.
pub(crate) fn of_stream(pieces: Pieces, prefix: Prefix, call: Encoding) -> Result<Encoded> {
    Ok(Encoded { encoding: prefix.encoding(call)?, pieces, len: prefix.length })
}

/// Drops the first `count` bytes; there are at least as many.
pub(crate) fn skip_front(pieces: &mut Pieces, mut count: usize) {
    let mut spent = 0;
    for piece in pieces.iter_mut() {
        let taken = count.min(piece.len());
        *piece = piece.slice(taken..);
        count -= taken;
        if !piece.is_empty() {
            break;
        }
        spent += 1;
    }
    if spent > 0 {
        pieces.drain(..spent);
    }
}

/// Compresses a message of our own, prefix included, for a caller that compresses too.
pub(crate) fn compress(encoding: Encoding, pieces: &[Bytes]) -> Vec<u8> {
    let mut message: Pieces = pieces.iter().cloned().collect();
    skip_front(&mut message, PREFIX_BYTES);
    let deflated = inflate::deflate(encoding, &message);
    let mut framed = Vec::with_capacity(PREFIX_BYTES + deflated.len());
    framed.push(1);
    framed.extend_from_slice(&(deflated.len() as u32).to_be_bytes());
    framed.extend_from_slice(&deflated);
    framed
}

#[cold]
fn bad_flag(flag: u8) -> Error {
    Error::invalid(format!("the message's compression flag is {flag}; allowed are 0 and 1"))
}

#[cold]
fn too_large(length: usize, limit: usize) -> Error {
    Error::too_large(format!("a message of {length} bytes; at most {limit} are allowed"))
}

#[cold]
pub(crate) fn cut_off(len: usize) -> Error {
    match len {
        0 => Error::invalid("the call carries no message"),
        _ => Error::invalid(format!("the message is cut off after {len} bytes of its body")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(bytes: &'static [u8], split: usize) -> Pieces {
        [&bytes[..split], &bytes[split..]].into_iter().map(Bytes::from_static).collect()
    }

    #[test]
    fn one_message_is_found_wherever_its_body_is_split() {
        let body = b"\0\0\0\0\x03abc";
        for split in 0..=body.len() {
            let message = single(pieces(body, split), body.len(), Encoding::Identity, 3).expect("one message");
            let opened: Vec<u8> = message.pieces.iter().flatten().copied().collect();
            assert_eq!(opened, b"abc", "split at {split}");
        }
    }

    #[test]
    fn bodies_that_are_not_one_message_are_refused() {
        let text = |body: &'static [u8], limit| {
            let pieces = SmallVec::from_iter([Bytes::from_static(body)]);
            single(pieces, body.len(), Encoding::Identity, limit).expect_err("refused").text().to_owned()
        };
        assert_eq!(text(b"", 9), "the call carries no message");
        assert_eq!(text(b"\0\0\0", 9), "the message is cut off after 3 bytes of its body");
        assert_eq!(text(b"\0\0\0\0\x02a", 9), "the message is cut off after 6 bytes of its body");
        assert_eq!(text(b"\0\0\0\0\x01ab", 9), "more than one message in a unary call");
        assert_eq!(text(b"\x02\0\0\0\0", 9), "the message's compression flag is 2; allowed are 0 and 1");
        assert_eq!(text(b"\x01\0\0\0\0", 9), "the message is compressed, but grpc-encoding does not say how");
        assert_eq!(text(b"\0\xff\xff\xff\xff", 9), "a message of 4294967295 bytes; at most 9 are allowed");
    }
}
