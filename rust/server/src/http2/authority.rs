//! Makes a request's `:authority` one that h2 takes, where it is none.
//!
//! gRPC's C core names several addresses in one authority (`ipv4:10.0.0.1:8001,10.0.0.2:8001`), and others send a path;
//! h2 resets such a stream before anybody can answer, which callers see as INTERNAL. No RPC here looks at it. Only the
//! value is overwritten, at its length, so that the dynamic table of the header compression stays the peer's. Where the
//! first request of a connection is sound, later ones are not looked at.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use http::uri;
use tokio::io::{AsyncRead, ReadBuf};

use super::toll::FrameHead;

/// Bytes that are read at once while frames are looked at.
const READ_BYTES: usize = 8 << 10;
/// Header blocks above this size go through unseen.
const MAX_BLOCK_BYTES: usize = 16 << 10;
/// Fields that are looked at: those of the request line come first.
const MAX_FIELDS: usize = 16;

/// The end of names that mean this machine (RFC 6761).
const LOCAL: &[u8] = b"localhost";

const HEADERS: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// The authorities of a connection.
///
/// Unknown ⇒ Settled: its first request is sound; everything goes through.
/// Unknown ⇒ Odd: it is not; every header is looked at.
#[derive(Debug)]
pub(super) struct Authority {
    state: State,
    /// Read, and not looked at yet.
    held: BytesMut,
    /// Looked at, and not given on yet.
    ready: BytesMut,
    /// Bytes of the present frame that go through.
    passing: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unknown,
    Odd,
    Sound,
}

impl Authority {
    /// A connection that begins with a preface of so many bytes.
    pub(super) fn new(preface: usize) -> Self {
        Self { state: State::Unknown, held: BytesMut::new(), ready: BytesMut::new(), passing: preface }
    }

    /// Whether nothing has to be looked at any more, nor is held.
    pub(super) fn is_settled(&self) -> bool {
        self.state == State::Sound && self.ready.is_empty()
    }

    /// Reads from `socket` what has been looked at.
    pub(super) fn poll_read(
        &mut self,
        socket: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.ready.is_empty() {
            let mut bytes = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut *socket).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.held.extend_from_slice(read.filled());
            self.look();
        }
        let given = self.ready.len().min(buffer.remaining());
        buffer.put_slice(&self.ready[..given]);
        self.ready.advance(given);
        Poll::Ready(Ok(()))
    }

    /// Moves what may go on from `held` to `ready`.
    fn look(&mut self) {
        loop {
            let passed = if self.state == State::Sound { self.held.len() } else { self.passing.min(self.held.len()) };
            self.ready.extend_from_slice(&self.held[..passed]);
            self.held.advance(passed);
            self.passing = self.passing.saturating_sub(passed);
            if self.passing > 0 || self.held.len() < FrameHead::BYTES {
                return;
            }
            let Some(head) = FrameHead::read(&self.held) else { return };
            let whole = FrameHead::BYTES + head.length;
            let is_header = head.kind == HEADERS && head.flags & END_HEADERS != 0 && head.length <= MAX_BLOCK_BYTES;
            if is_header && self.held.len() < whole {
                return;
            }
            if is_header {
                let is_odd = mend(head.flags, &mut self.held[FrameHead::BYTES..whole]);
                self.state = match self.state {
                    State::Unknown if !is_odd => State::Sound,
                    _ => State::Odd,
                };
            }
            self.passing = whole;
        }
    }
}

/// Overwrites the authority in the payload of a HEADERS frame if it is none; whether it did.
fn mend(flags: u8, payload: &mut [u8]) -> bool {
    let padding = if flags & PADDED == 0 { 0 } else { 1 + payload.first().map_or(0, |&length| usize::from(length)) };
    let before = usize::from(flags & PADDED != 0) + if flags & PRIORITY == 0 { 0 } else { 5 };
    let end = (payload.len() + usize::from(flags & PADDED != 0)).saturating_sub(padding);
    let Some(block) = payload.get_mut(before..end) else { return false };
    let Some(value) = authority(block) else { return false };
    if value.is_empty() || uri::Authority::try_from(&block[value.clone()]).is_ok() {
        return false;
    }
    mask(&mut block[value]);
    true
}

/// Nobody's name, of the same length: no page in a browser can ask under an authority that is none, so it may count as
/// this machine's ([`crate::origin`]).
fn mask(value: &mut [u8]) {
    value.fill(b'x');
    if let Some(start) = value.len().checked_sub(LOCAL.len()).filter(|&start| start != 1) {
        value[start..].copy_from_slice(LOCAL);
        if start > 1 {
            value[start - 1] = b'.';
        }
    }
}

/// Where a header block (RFC 7541) spells out an authority, in plain bytes.
fn authority(block: &[u8]) -> Option<Range<usize>> {
    let mut reader = Block { block, at: 0 };
    for _ in 0..MAX_FIELDS {
        let first = *block.get(reader.at)?;
        match first {
            0x80.. => drop(reader.integer(7)?),
            0x20..=0x3f => drop(reader.integer(5)?),
            _ => {
                let name = reader.integer(if first & 0x40 == 0 { 4 } else { 6 })?;
                let is_authority = if name == 0 {
                    let (name, _) = reader.string()?;
                    &block[name] == b":authority"
                } else {
                    name == 1
                };
                let (value, is_plain) = reader.string()?;
                if is_authority {
                    return Some(value).filter(|_| is_plain);
                }
            }
        }
    }
    None
}

struct Block<'a> {
    block: &'a [u8],
    at: usize,
}

impl Block<'_> {
    /// An integer with a prefix of so many bits (RFC 7541, section 5.1); `None` if it makes no sense.
    fn integer(&mut self, bits: u32) -> Option<usize> {
        let most = (1_usize << bits) - 1;
        let mut value = usize::from(*self.block.get(self.at)?) & most;
        self.at += 1;
        if value < most {
            return Some(value);
        }
        for shift in [0, 7, 14] {
            let byte = *self.block.get(self.at)?;
            self.at += 1;
            value += usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// Where a string lies, and whether it is written in plain bytes.
    fn string(&mut self) -> Option<(Range<usize>, bool)> {
        let is_plain = *self.block.get(self.at)? < 0x80;
        let length = self.integer(7)?;
        let range = self.at..self.at.checked_add(length).filter(|&end| end <= self.block.len())?;
        self.at = range.end;
        Some((range, is_plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A method by its index, an authority spelled out as gRPC's C core does, and a path.
    fn block(authority: &[u8]) -> Vec<u8> {
        let authority = [&[0x40, 10][..], b":authority", &[authority.len() as u8], authority].concat();
        [&[0x3f, 0xe1, 0x1f, 0x83][..], &authority, &[0x44, 2], b"/x"].concat()
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// What comes out of a connection that sends `sent` in chunks of `size`.
    fn passed(sent: &[u8], size: usize) -> (Vec<u8>, State) {
        let mut authority = Authority::new(3);
        for chunk in sent.chunks(size) {
            authority.held.extend_from_slice(chunk);
            authority.look();
        }
        (authority.ready.to_vec(), authority.state)
    }

    #[test]
    fn an_authority_that_is_none_is_overwritten_wherever_the_bytes_are_cut() {
        let odd = b"127.0.0.1:8001,127.0.0.1:8002";
        let masked = b"xxxxxxxxxxxxxxxxxxx.localhost";
        let connection = |authority: &[u8]| {
            let requests = [
                frame(HEADERS, END_HEADERS, &block(authority)),
                frame(0, 1, b"data"),
                frame(HEADERS, END_HEADERS | PADDED, &[&[2][..], &block(authority), b"pp"].concat()),
                frame(HEADERS, END_HEADERS | PRIORITY, &[&[0; 5][..], &block(authority)].concat()),
            ];
            [&b"PRI"[..], &frame(4, 0, b""), &requests.concat()].concat()
        };
        let sent = connection(odd);
        for size in 1..sent.len() {
            assert_eq!(passed(&sent, size), (connection(masked), State::Odd), "in chunks of {size}");
        }
    }

    #[test]
    fn what_is_overwritten_is_an_authority_of_any_length() {
        for length in 1..100 {
            let mut value = vec![b','; length];
            mask(&mut value);
            assert!(uri::Authority::try_from(&value[..]).is_ok(), "{length}");
            assert_eq!(value.ends_with(LOCAL), length == 9 || length > 10, "{length}");
        }
    }

    #[test]
    fn sound_ones_and_those_by_index_go_through() {
        for block in
            [block(b"localhost:8001"), vec![0x82, 0x86, 0x84], vec![0x41, 0x83, 1, 2, 3], vec![0x41, 0], vec![]]
        {
            let sent = [&b"PRI"[..], &frame(HEADERS, END_HEADERS, &block), &frame(0, 0, b"after")].concat();
            assert_eq!(passed(&sent, 5), (sent, State::Sound));
        }
    }

    #[test]
    fn whatever_is_in_a_header_nothing_breaks() {
        let odd = block(b"a,b");
        for end in 0..odd.len() {
            for flags in 0..=255 {
                mend(flags, &mut odd[..end].to_vec());
                mend(flags, &mut vec![flags; end]);
            }
        }
    }
}
