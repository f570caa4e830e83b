//! Reads a request's body within its limits, over HTTP/1.1 and HTTP/2 alike. Hot path.
//!
//! Bytes are reserved from the process's budget before the sender is given window for more. A body that is too large,
//! too slow or too expensive is refused as soon as that is known. Small pieces are joined, so that a body costs at most
//! twice its size however it was cut up. Must not know what the bytes mean.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;
use mlserve_core::budget::Reservation;
use mlserve_core::config::LimitSettings;
use mlserve_core::error::{Error, Kind, Result};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::event_loop::LoopContext;

/// Pieces below this size are copied together: each keeps a whole receive buffer alive, of about this size.
const SMALL_PIECE: usize = 4 << 10;

/// Bodies up to this size leave their window to the end of their stream: telling the sender earlier costs more than it
/// brings.
const LAZY_WINDOW: usize = 1 << 10;

/// A body that is still to be read.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// None.
    Empty,
    /// Of a request over HTTP/1.1.
    Http1(Incoming),
    /// Of a request over HTTP/2.
    Http2(h2::RecvStream),
}

/// A whole body, and the budget it holds.
#[derive(Debug)]
pub(crate) struct Collected {
    /// In order; nearly always one.
    pub(crate) pieces: SmallVec<[Bytes; 1]>,
    /// Bytes in all pieces.
    pub(crate) len: usize,
    /// To be held as long as the bytes are.
    pub(crate) reservation: Reservation,
}

impl RequestBody {
    /// Reads the whole body, of at most `limit` bytes. `content_length`: what the sender said it would be.
    ///
    /// **Errors:** too large; out of budget; too slow; cancelled, if the sender gave up.
    pub(crate) async fn collect(
        self,
        context: &LoopContext,
        limit: usize,
        content_length: Option<usize>,
    ) -> Result<Collected> {
        let limit = Limit { message: limit, framing: 0 };
        let mut collector = Collector::new(context, self, limit, content_length)?;
        collector.finish().await?;
        collector.into_collected()
    }

    /// The next piece, `None` at the end. Its window is not given back; see [`Self::release`].
    ///
    /// **Errors:** the sender gave up.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        match self {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Http1(body) => loop {
                match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                    None => return Poll::Ready(None),
                    Some(Err(error)) => return Poll::Ready(Some(Err(unreadable(&error)))),
                    Some(Ok(frame)) => {
                        if let Ok(bytes) = frame.into_data() {
                            return Poll::Ready(Some(Ok(bytes)));
                        }
                    }
                }
            },
            RequestBody::Http2(body) => body.poll_data(cx).map_err(|_| gone()),
        }
    }

    /// Gives the sender window for `bytes` more.
    pub(crate) fn release(&mut self, bytes: usize) {
        if let RequestBody::Http2(body) = self {
            // Fails only if the stream is gone, which the next piece tells.
            let _ = body.flow_control().release_capacity(bytes);
        }
    }

    /// Whether the end has been seen; `false` may only mean that one has to look.
    fn is_at_end(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Http1(body) => body.is_end_stream(),
            RequestBody::Http2(body) => body.is_end_stream(),
        }
    }
}

/// How large a body may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// What the setting allows a message.
    pub(crate) message: usize,
    /// Bytes that the transport wraps it in.
    pub(crate) framing: usize,
}

impl Limit {
    fn total(self) -> usize {
        self.message.saturating_add(self.framing)
    }

    /// Refuses a gRPC message by the length that its prefix announces, before it has come. A prefix in several pieces is
    /// left to whoever reads the whole body.
    fn check_announced(self, piece: &[u8]) -> Result<()> {
        let Some(&[_, ref length @ ..]) = piece.first_chunk::<5>() else { return Ok(()) };
        let length = u32::from_be_bytes(*length) as usize;
        if length <= self.message {
            return Ok(());
        }
        Err(Error::too_large(format!(
            "the message has {length} bytes, as its prefix says; at most {} are allowed (limits.max_body_bytes)",
            self.message
        )))
    }

    #[cold]
    fn exceeded(self) -> Error {
        Error::too_large(format!("the body is larger than {} bytes, which is the limit", self.message))
    }
}

/// A body as it comes in.
#[derive(Debug)]
pub(crate) struct Collector {
    context: LoopContext,
    body: RequestBody,
    gathered: Gathered,
    limit: Limit,
    /// Nothing is reserved before the first byte, so that a body in one piece reserves once.
    reservation: Option<Reservation>,
}

impl Collector {
    /// Begins to read `body`; reserves `content_length` at once.
    ///
    /// **Errors:** too large; out of budget.
    pub(crate) fn new(
        context: &LoopContext,
        body: RequestBody,
        limit: Limit,
        content_length: Option<usize>,
    ) -> Result<Self> {
        let reservation = match content_length {
            Some(length) if length > limit.total() => return Err(limit.exceeded()),
            Some(length) => Some(context.reserve(length)?),
            None => None,
        };
        Ok(Self { context: context.clone(), body, gathered: Gathered::default(), limit, reservation })
    }

    /// Takes in what is there. Ready: the body is complete, or refused.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.body.is_at_end() {
            match ready!(self.body.poll_piece(cx)) {
                Some(piece) => self.push(piece?)?,
                None => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn push(&mut self, piece: Bytes) -> Result<()> {
        let added = piece.len();
        let len = self.gathered.len.saturating_add(added);
        if len > self.limit.total() {
            return Err(self.limit.exceeded());
        }
        match &mut self.reservation {
            None => self.reservation = Some(self.context.reserve(len)?),
            Some(held) => {
                let more = len.saturating_sub(held.units());
                if more > 0 && !held.grow(more) {
                    return Err(out_of_budget(len));
                }
            }
        }
        let is_first = self.gathered.len == 0;
        if is_first && self.limit.framing > 0 {
            self.limit.check_announced(&piece)?;
        }
        self.gathered.push(piece);
        if self.gathered.len > LAZY_WINDOW {
            self.body.release(added);
        }
        Ok(())
    }

    /// Waits for the rest.
    ///
    /// **Errors:** too large; out of budget; too slow; cancelled.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        let pace = Pace::start(&self.context.process().settings.limits);
        loop {
            let before = self.gathered.len;
            let progress = poll_fn(|cx| match self.poll(cx) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                // Wake up with each piece: it moves the moment when the body is too slow.
                Poll::Pending if self.gathered.len > before => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            match tokio::time::timeout_at(pace.too_slow_at(before), progress).await {
                Ok(Some(done)) => return done,
                Ok(None) => {}
                Err(_) => return Err(too_slow()),
            }
        }
    }

    /// The body, once it is complete.
    ///
    /// **Errors:** out of budget, if not even an empty body fits.
    pub(crate) fn into_collected(mut self) -> Result<Collected> {
        let len = self.gathered.len;
        let mut reservation = match self.reservation {
            Some(reservation) => reservation,
            None => self.context.reserve(0)?,
        };
        reservation.shrink_to(len);
        Ok(Collected { pieces: mem::take(self.gathered.sealed()), len, reservation })
    }
}

/// Received bytes in order, with small pieces joined.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pieces: SmallVec<[Bytes; 1]>,
    /// Small pieces that came after those.
    tail: Vec<u8>,
    len: usize,
}

impl Gathered {
    /// Adds a piece at the end. The first is kept as it is: nearly always it is the only one.
    pub(crate) fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        if piece.len() < SMALL_PIECE && !self.pieces.is_empty() {
            self.tail.extend_from_slice(&piece);
        } else if !piece.is_empty() {
            self.sealed().push(piece);
        }
    }

    /// Bytes in all pieces.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The bytes in order.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| &piece[..]).chain([&self.tail[..]])
    }

    fn sealed(&mut self) -> &mut SmallVec<[Bytes; 1]> {
        if !self.tail.is_empty() {
            self.pieces.push(mem::take(&mut self.tail).into());
        }
        &mut self.pieces
    }

    /// Takes `count` bytes from the front; there are at least as many.
    pub(crate) fn take(&mut self, mut count: usize) -> SmallVec<[Bytes; 1]> {
        self.len -= count;
        let pieces = self.sealed();
        let mut taken = SmallVec::new();
        let mut spent = 0;
        for piece in pieces.iter_mut() {
            if count == 0 {
                break;
            }
            let part = piece.split_to(count.min(piece.len()));
            count -= part.len();
            taken.push(part);
            spent += usize::from(piece.is_empty());
        }
        pieces.drain(..spent);
        taken
    }
}

/// How fast a body has to come: a grace, then a rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    started: Instant,
    grace: Duration,
    bytes_per_second: u64,
}

/// Where "never" lies: far enough, and still safe to add to.
const NEVER: Duration = Duration::from_hours(365 * 24);

impl Pace {
    /// A body that starts now.
    pub(crate) fn start(limits: &LimitSettings) -> Self {
        Self::with(Duration::from_millis(limits.body_grace_ms), limits.min_body_rate)
    }

    /// Bytes that start to flow now; a rate of 0 means that the grace is enough for ever.
    pub(crate) fn with(grace: Duration, bytes_per_second: u64) -> Self {
        Self { started: Instant::now(), grace, bytes_per_second }
    }

    /// When a flow of which `bytes` are here has been too slow.
    pub(crate) fn too_slow_at(&self, bytes: usize) -> Instant {
        let earned = match self.bytes_per_second {
            0 => NEVER,
            rate => Duration::from_secs_f64(bytes as f64 / rate as f64).min(NEVER),
        };
        self.started + self.grace.min(NEVER) + earned
    }
}

#[cold]
fn out_of_budget(bytes: usize) -> Error {
    Error::new(Kind::OutOfBudget, format!("a body of {bytes} bytes would exceed the server's byte budget"))
}

#[cold]
pub(crate) fn too_slow() -> Error {
    Error::new(Kind::SlowClient, "the body arrived too slowly")
}

/// Who breaks the framing is still there and can be told; who went away cannot.
#[cold]
fn unreadable(error: &hyper::Error) -> Error {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
            Error::invalid("the body is not what its transfer-encoding says: a chunk is malformed")
        }
        _ => gone(),
    }
}

#[cold]
fn gone() -> Error {
    Error::new(Kind::Cancelled, "the caller gave up before its body was complete")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(gathered: &Gathered) -> Vec<u8> {
        gathered.slices().flatten().copied().collect()
    }

    #[test]
    fn small_pieces_are_joined_and_large_ones_kept() {
        let mut gathered = Gathered::default();
        let mut sent = Vec::new();
        for size in [1, 1, 5_000, 1, 2, 3, 5_000, 1] {
            let piece = vec![size as u8; size];
            sent.extend_from_slice(&piece);
            gathered.push(piece.into());
        }
        assert_eq!(bytes_of(&gathered), sent);
        assert_eq!(gathered.sealed().len(), 6);
    }

    #[test]
    fn a_body_of_single_bytes_costs_twice_its_size_at_most() {
        let mut gathered = Gathered::default();
        for _ in 0..100_000 {
            gathered.push(Bytes::from_static(b"x"));
        }
        assert_eq!(gathered.pieces.len(), 1);
        assert!(gathered.tail.capacity() <= 200_000);
    }

    #[test]
    fn bytes_are_taken_in_order_across_pieces() {
        let sent: Vec<u8> = (0..=255).cycle().take(20_000).collect();
        let mut gathered = Gathered::default();
        for piece in [&sent[..3], &sent[3..10], &sent[10..9_000], &sent[9_000..20_000]] {
            gathered.push(Bytes::copy_from_slice(piece));
        }
        let mut taken = Vec::new();
        for count in [0, 1, 2, 5, 8_000, 11_000, 992] {
            let part = gathered.take(count).concat();
            assert_eq!(part.len(), count);
            taken.extend_from_slice(&part);
        }
        assert_eq!((taken, gathered.len()), (sent, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_earns_its_time_by_its_bytes() {
        let pace = Pace::with(Duration::from_secs(5), 1_000);
        let started = Instant::now();
        assert_eq!(pace.too_slow_at(0) - started, Duration::from_secs(5));
        assert_eq!(pace.too_slow_at(2_500) - started, Duration::from_millis(7_500));
        assert!(Pace::with(Duration::from_secs(5), 0).too_slow_at(0) - started > Duration::from_secs(1 << 20));
    }
}
