//! What a connection's frames cost its peer, so that frames without requests do not cost the others. Hot path.
//!
//! h2 answers PING and SETTINGS, and reads what it does not know, for as long as they come. Here each frame that carries
//! no part of a message is paid for, from what requests, answers and time bring in. Whoever has nothing left is read no
//! further. Must not look into payloads.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::authority::Authority;

/// Frames that a connection may send at once, and that it may save up: the window updates and pings that a client sends
/// with a burst of answers are a few for each of them.
const START: i64 = 500;
const MOST: i64 = 5_000;
/// Frames for each request that is taken up. Clients need two to five: for its window, its end, a ping to learn the
/// line's speed.
const FOR_REQUEST: i64 = 10;
/// Bytes written that bring in one frame: less than any answer in a stream has, more than the answers to PING (17) and
/// SETTINGS (9), which would otherwise pay for the next.
const WRITTEN_FOR_FRAME: u64 = 64;
/// Frames that a second brings in.
const FOR_SECOND: f64 = 100.0;
/// Bytes of a frame that cost as much as the frame itself.
const FRAME_BYTES: usize = 1 << 10;
/// DATA below this size, and not the last, is a frame like others: at a byte each they cost more than they carry.
const SMALL_DATA: usize = 64;
/// Header fields of a request that cost as much as a frame: each is hashed, kept and dropped.
const FRAME_FIELDS: usize = 16;

/// Resets that a connection may send at once. Each costs two of these, and each request that is taken up brings one in:
/// half of all requests may be reset for ever (Envoy closes above that, from 500 a second on).
const RESETS: i64 = 1_000;
const FOR_RESET: i64 = 2;
/// Resets that a second brings in, likewise.
const RESETS_FOR_SECOND: f64 = 400.0;

const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;

/// What a peer has left.
#[derive(Debug)]
pub(crate) struct Toll {
    frames: Cell<i64>,
    resets: Cell<i64>,
    /// Bytes written that have brought nothing in yet.
    written: Cell<u64>,
    settled_at: Cell<Instant>,
    is_spent: Cell<bool>,
}

impl Toll {
    fn new() -> Self {
        Self {
            frames: Cell::new(START),
            resets: Cell::new(RESETS),
            written: Cell::new(0),
            settled_at: Cell::new(Instant::now()),
            is_spent: Cell::new(false),
        }
    }

    /// Whether the peer has nothing left: nothing is read any more.
    pub(super) fn is_spent(&self) -> bool {
        self.is_spent.get()
    }

    /// Brings in what `count` requests are worth that have been taken up.
    pub(super) fn took_up(&self, count: usize) {
        let count = count as i64;
        self.frames.set((self.frames.get() + FOR_REQUEST * count).min(MOST));
        self.resets.set((self.resets.get() + count).min(RESETS));
    }

    /// Charges for the header of a request, of so many fields.
    pub(crate) fn charge_fields(&self, count: usize) {
        self.charge(count / FRAME_FIELDS);
    }

    fn frame(&self, head: FrameHead) {
        if head.kind == DATA && (head.length >= SMALL_DATA || head.flags & END_STREAM != 0) {
            return;
        }
        self.charge(1 + head.length / FRAME_BYTES);
        if head.kind == RST_STREAM {
            self.resets.set(self.resets.get() - FOR_RESET);
            if self.resets.get() < 0 {
                self.settle();
            }
        }
    }

    fn charge(&self, frames: usize) {
        self.frames.set(self.frames.get() - frames as i64);
        if self.frames.get() < 0 {
            self.settle();
        }
    }

    /// Brings in what answers and time are worth; the clock is read only here.
    #[cold]
    fn settle(&self) {
        let now = Instant::now();
        let elapsed = now.duration_since(self.settled_at.replace(now)).as_secs_f64();
        let answers = self.written.take() / WRITTEN_FOR_FRAME;
        let frames = self.frames.get() + answers as i64 + (elapsed * FOR_SECOND) as i64;
        let resets = self.resets.get() + (elapsed * RESETS_FOR_SECOND) as i64;
        self.frames.set(frames.min(MOST));
        self.resets.set(resets.min(RESETS));
        self.is_spent.set(frames < 0 || resets < 0);
    }
}

/// The nine bytes before each frame (RFC 9113, section 4.1), as far as they matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
}

impl FrameHead {
    pub(super) const BYTES: usize = 9;

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let &[high, middle, low, kind, flags] = bytes.first_chunk()?;
        Some(Self { length: u32::from_be_bytes([0, high, middle, low]) as usize, kind, flags })
    }
}

/// Finds the frames in what is read, wherever it is cut.
#[derive(Debug)]
struct Walk {
    head: [u8; FrameHead::BYTES],
    /// Bytes of the head that are here.
    have: usize,
    /// Bytes of the payload that are still to come.
    left: usize,
}

impl Walk {
    /// `before`: bytes that come before the first frame.
    fn new(before: usize) -> Self {
        Self { head: [0; FrameHead::BYTES], have: 0, left: before }
    }

    fn see(&mut self, mut bytes: &[u8], mut frame: impl FnMut(FrameHead)) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                self.left -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let taken = bytes.len().min(FrameHead::BYTES - self.have);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if let Some(head) = FrameHead::read(&self.head).filter(|_| self.have == FrameHead::BYTES) {
                (self.have, self.left) = (0, head.length);
                frame(head);
            }
        }
    }
}

/// A socket whose frames are paid for.
#[derive(Debug)]
pub(super) struct Tolled<S> {
    socket: S,
    toll: Rc<Toll>,
    walk: Walk,
    authority: Authority,
}

impl<S> Tolled<S> {
    /// The frames of `socket`, after a preface of so many bytes.
    pub(super) fn new(socket: S, preface: usize) -> Self {
        Self { socket, toll: Rc::new(Toll::new()), walk: Walk::new(preface), authority: Authority::new(preface) }
    }

    /// What the peer has left, also after the socket has been given away.
    pub(super) fn toll(&self) -> &Rc<Toll> {
        &self.toll
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = written {
            self.toll.written.set(self.toll.written.get() + count as u64);
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tolled<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.toll.is_spent() {
            // Nobody has to be woken: the connection's task looks after each read.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if this.authority.is_settled() {
            ready!(Pin::new(&mut this.socket).poll_read(cx, buffer))?;
        } else {
            ready!(this.authority.poll_read(&mut this.socket, cx, buffer))?;
        }
        let read = &buffer.filled()[before..];
        this.walk.see(read, |head| this.toll.frame(head));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tolled<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PING: u8 = 6;

    fn head(kind: u8, flags: u8, length: usize) -> FrameHead {
        FrameHead { length, kind, flags }
    }

    /// How many times something can be done before nothing is left; at most `limit`.
    fn count(toll: &Toll, limit: usize, mut act: impl FnMut()) -> usize {
        (0..limit)
            .find(|_| {
                act();
                toll.is_spent()
            })
            .unwrap_or(limit)
    }

    #[test]
    fn frames_are_found_wherever_the_bytes_are_cut() {
        let mut sent = b"preface".to_vec();
        let frames = [head(PING, 0, 8), head(DATA, END_STREAM, 0), head(4, 0, 300), head(200, 7, 1)];
        for frame in frames {
            sent.extend_from_slice(&(frame.length as u32).to_be_bytes()[1..]);
            sent.extend_from_slice(&[frame.kind, frame.flags, 0, 0, 0, 1]);
            sent.resize(sent.len() + frame.length, 9);
        }
        for size in 1..sent.len() {
            let (mut walk, mut found) = (Walk::new(7), Vec::new());
            sent.chunks(size).for_each(|chunk| walk.see(chunk, |head| found.push(head)));
            assert_eq!(found, frames, "in chunks of {size}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn frames_without_requests_are_soon_too_many() {
        for frame in [head(PING, 0, 8), head(4, 0, 0), head(8, 0, 4), head(99, 0, 0), head(DATA, 0, 1), head(1, 4, 9)] {
            let toll = Toll::new();
            assert_eq!(count(&toll, 10_000, || toll.frame(frame)), START as usize, "{frame:?}");
        }
        let toll = Toll::new();
        let answered = count(&toll, 10_000, || {
            toll.frame(head(PING, 0, 8));
            toll.written.set(toll.written.get() + 17);
        });
        assert!(answered < 2 * START as usize, "the answers do not pay for the next: {answered}");
        let toll = Toll::new();
        assert!(count(&toll, 10_000, || toll.frame(head(99, 0, 16 << 10))) < 50, "bytes count, too");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_asks_and_reads_is_never_cut_off() {
        let toll = Toll::new();
        let spent = count(&toll, 100_000, || {
            toll.took_up(1);
            toll.frame(head(1, 4, 120));
            toll.charge_fields(20);
            // Its window, the connection's, a ping, and the answer to ours.
            for kind in [8, 8, PING, 4] {
                toll.frame(head(kind, 0, 8));
            }
            toll.frame(head(DATA, END_STREAM, 5));
        });
        assert_eq!(spent, 100_000);
        let spent = count(&toll, 100_000, || {
            // A message of a stream, and its answer.
            toll.frame(head(DATA, 0, 100));
            toll.written.set(toll.written.get() + 200);
            for kind in [8, 8, PING] {
                toll.frame(head(kind, 0, 8));
            }
        });
        assert_eq!(spent, 100_000);
    }

    #[tokio::test(start_paused = true)]
    async fn half_of_the_requests_may_be_reset_and_not_all() {
        let ask = |toll: &Toll, resets: bool| {
            toll.took_up(1);
            toll.frame(head(1, 4, 50));
            if resets {
                toll.frame(head(RST_STREAM, 0, 4));
            }
        };
        let (half, all) = (Toll::new(), Toll::new());
        let mut is_even = false;
        let spent = count(&half, 50_000, || {
            is_even = !is_even;
            ask(&half, is_even);
        });
        assert_eq!(spent, 50_000);
        assert!(count(&all, 50_000, || ask(&all, true)) <= RESETS as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn time_brings_a_few_frames() {
        let toll = Toll::new();
        for _ in 0..START {
            toll.frame(head(PING, 0, 8));
        }
        for _ in 0..1_000 {
            tokio::time::advance(Duration::from_millis(20)).await;
            toll.frame(head(PING, 0, 8));
            assert!(!toll.is_spent(), "fifty a second are no flood");
        }
    }

    #[test]
    fn a_header_of_many_fields_costs_more_than_its_request_brings() {
        let toll = Toll::new();
        let spent = count(&toll, 1_000, || {
            toll.took_up(1);
            toll.charge_fields(1_500);
        });
        assert!(spent < 10, "{spent}");
    }
}
