//! Reads a request's body within its limits, over HTTP/1.1 and HTTP/2 alike. Hot path.
//!
//! Bytes are reserved from the process's budget as they come, before the sender is given window for more: what a header
//! announces holds nothing. A body that is too large, too slow or too expensive is refused as soon as that is known, and
//! one that did not come whole counts against its sender's share. Small pieces are joined, so that a body costs at most
//! twice its size however it was cut up. Must not know what the bytes mean.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;
use mlserve_core::budget::Reservation;
use mlserve_core::error::{Error, Kind, Result};
use smallvec::SmallVec;

use crate::event_loop::LoopContext;
use crate::share::Held;

mod pace;

pub(crate) use pace::{BodyPace, Pace};

/// Pieces below this size are copied together: each keeps a whole receive buffer alive, of about this size.
const SMALL_PIECE: usize = 4 << 10;

/// Bodies up to this size leave their window to the end of their stream: telling the sender earlier costs more than it
/// brings.
const LAZY_WINDOW: usize = 1 << 10;

/// Bytes that are reserved beyond those that are here, at most; and never more than are here, so that a sender holds
/// twice what it has sent.
const RESERVED_AHEAD: usize = 256 << 10;

/// A body that is still to be read.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// None.
    Empty,
    /// Of a request over HTTP/1.1.
    Http1(Incoming),
    /// Of a request over HTTP/2.
    Http2(h2::RecvStream),
    /// The same, given back to whoever has lent it.
    Lent(Lent),
}

/// A body over HTTP/2 that goes back when it is no longer wanted: what is left of it may have to be read.
#[derive(Debug)]
pub(crate) struct Lent {
    body: Option<h2::RecvStream>,
    lender: Rc<RefCell<Option<h2::RecvStream>>>,
}

impl Lent {
    /// Lends `body`; it comes back into what this returns.
    pub(crate) fn new(body: h2::RecvStream) -> (Self, Rc<RefCell<Option<h2::RecvStream>>>) {
        let lender = Rc::new(RefCell::new(None));
        (Self { body: Some(body), lender: Rc::clone(&lender) }, lender)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.lender.borrow_mut() = self.body.take();
    }
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
        let limit = Limit { message: limit, reason: "limits.max_body_bytes", framing: 0 };
        let mut collector = Collector::new(context, self, limit, content_length)?;
        collector.finish().await?;
        collector.into_collected()
    }

    /// The next piece, `None` at the end. Its window is not given back; see [`Self::release`].
    ///
    /// **Errors:** the sender gave up.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        match self {
            RequestBody::Empty | RequestBody::Lent(Lent { body: None, .. }) => Poll::Ready(None),
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
            RequestBody::Http2(body) | RequestBody::Lent(Lent { body: Some(body), .. }) => {
                body.poll_data(cx).map_err(|_| gone())
            }
        }
    }

    /// Gives the sender window for `bytes` more.
    pub(crate) fn release(&mut self, bytes: usize) {
        if let RequestBody::Http2(body) | RequestBody::Lent(Lent { body: Some(body), .. }) = self {
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
            RequestBody::Lent(lent) => lent.body.as_ref().is_none_or(h2::RecvStream::is_end_stream),
        }
    }
}

/// How large a body may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// What a message may have.
    pub(crate) message: usize,
    /// What says so, for the caller.
    pub(crate) reason: &'static str,
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
            "the message has {length} bytes, as its prefix says; at most {} are allowed ({})",
            self.message, self.reason
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
    /// Once the rest is waited for: what the sender makes others wait for. Boxed, for most bodies are here at once.
    held: Option<Box<Held>>,
    context: LoopContext,
    body: RequestBody,
    gathered: Gathered,
    limit: Limit,
    /// What the sender said the body would be; the limit where it said nothing.
    expected: usize,
    /// Nothing is reserved before the first byte, so that a body in one piece reserves once.
    reservation: Option<Reservation>,
}

impl Collector {
    /// Begins to read `body`, of `content_length` bytes if the sender said so.
    ///
    /// **Errors:** too large; out of budget, if so much could not be held now. It is not reserved yet: a header is cheap.
    pub(crate) fn new(
        context: &LoopContext,
        body: RequestBody,
        limit: Limit,
        content_length: Option<usize>,
    ) -> Result<Self> {
        let expected = content_length.unwrap_or(limit.total());
        if expected > limit.total() {
            return Err(limit.exceeded());
        }
        if content_length.is_some_and(|length| length > RESERVED_AHEAD) {
            check_room(context, expected)?;
        }
        let gathered = Gathered::default();
        Ok(Self { held: None, context: context.clone(), body, gathered, limit, expected, reservation: None })
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
        if let Some(held) = &mut self.held {
            held.grow_to(len)?;
        }
        match &mut self.reservation {
            None => self.reservation = Some(self.context.reserve(len)?),
            Some(held) if len > held.units() => {
                let ahead = len.saturating_add(len.min(RESERVED_AHEAD)).min(self.expected).max(len);
                if !held.grow(ahead - held.units()) && !held.grow(len - held.units()) {
                    return Err(out_of_budget(len));
                }
            }
            Some(_) => {}
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
        let mut pace = BodyPace::start(&self.context.process().settings.limits, self.gathered.len);
        self.held.insert(Box::new(self.context.share().hold())).grow_to(self.gathered.len)?;
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

/// Refuses a large body at its head if the budget is spent, instead of somewhere in its middle. What lies idle with the
/// loops cannot be told from what is held, so a quarter of the budget is taken for idle.
fn check_room(context: &LoopContext, bytes: usize) -> Result<()> {
    let budget = &context.process().bytes;
    let held = budget.drawn().saturating_sub(budget.limit() / 4);
    if bytes <= budget.limit() - held.min(budget.limit()) { Ok(()) } else { Err(out_of_budget(bytes)) }
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
}
