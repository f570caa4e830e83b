//! The receiving side of a stream: bytes in, messages out.
//!
//! Bytes are taken from the connection and charged to the budget as soon as they arrive, also while no more requests may
//! be in flight: what lies in the connection is charged to nobody. The sender gets window for more only when its
//! next message is wanted, so a stream holds at most one window more than it should.

use std::future::{Future, poll_fn};
use std::task::{Context, Poll, Waker};

use h2::RecvStream;
use mlserve_core::budget::Reservation;
use mlserve_core::config::LimitSettings;
use mlserve_core::error::{Error, Kind, Result};
use mlserve_core::request::Text;

use crate::body::{BodyPace, Gathered, RequestBody, too_slow};
use crate::event_loop::LoopContext;
use crate::grpc::decode::{self, Decoded, Refused};
use crate::grpc::frame::{self, Encoded, PREFIX_BYTES, Prefix};
use crate::inflate::Encoding;
use crate::share::Held;

/// What has arrived and is not yet a request.
pub(super) struct Inbox {
    /// Of the message that is arriving: what the sender makes others wait for.
    held: Option<Held>,
    context: LoopContext,
    body: RequestBody,
    encoding: Encoding,
    limit: usize,
    gathered: Gathered,
    reservation: Option<Reservation>,
    /// Bytes that the sender has not got window for yet.
    unreleased: usize,
    /// Of the message that is arriving.
    prefix: Option<Prefix>,
    /// While a message is arriving; between messages a stream may rest as long as it likes.
    pace: Option<BodyPace>,
    has_ended: bool,
}

/// A message, and the budget it holds.
pub(super) struct Received {
    message: Encoded,
    reservation: Reservation,
    limit: usize,
}

/// A decoded message, and the budget it holds.
pub(super) struct Opened {
    pub(super) decoded: Decoded,
    pub(super) reservation: Reservation,
}

impl Inbox {
    pub(super) fn new(context: &LoopContext, body: RecvStream, encoding: Encoding) -> Self {
        Self {
            held: None,
            context: context.clone(),
            body: RequestBody::Http2(body),
            encoding,
            limit: context.process().settings.limits.max_body_bytes,
            gathered: Gathered::default(),
            reservation: None,
            unreleased: 0,
            prefix: None,
            pace: None,
            has_ended: false,
        }
    }

    /// Whether the sender has ended its side.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether no part of a message is here.
    pub(super) fn is_empty(&self) -> bool {
        self.gathered.len() == 0
    }

    /// Waits for more. Dropping the future loses nothing.
    ///
    /// **Errors:** cancelled; a message that comes too slowly; out of budget.
    pub(super) async fn receive(&mut self) -> Result<()> {
        let next = poll_fn(|cx| self.body.poll_piece(cx));
        let piece = match &mut self.pace {
            Some(pace) => {
                tokio::time::timeout_at(pace.too_slow_at(self.gathered.len()), next).await.map_err(|_| too_slow())?
            }
            None => next.await,
        };
        let Some(piece) = piece.transpose()? else {
            self.has_ended = true;
            return Ok(());
        };
        let held = match &mut self.reservation {
            Some(held) => held,
            none => none.insert(self.context.reserve(0)?),
        };
        if !held.grow(piece.len()) {
            return Err(Error::new(Kind::OutOfBudget, "the stream's messages would exceed the server's byte budget"));
        }
        self.unreleased += piece.len();
        self.gathered.push(piece);
        match &mut self.held {
            Some(held) => held.grow_to(self.gathered.len()),
            None => Ok(()),
        }
    }

    /// Takes in what has arrived, without waiting.
    ///
    /// **Errors:** as [`Self::receive`].
    pub(super) fn receive_what_is_here(&mut self) -> Result<()> {
        while !self.has_ended {
            let receiving = std::pin::pin!(self.receive());
            match receiving.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(received) => received?,
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// The next message, if it is complete. If it is not, the sender gets window for the rest.
    ///
    /// **Errors:** a broken frame, or the stream ended within a message.
    pub(super) fn next_message(&mut self) -> Result<Option<Received>> {
        if self.prefix.is_none() {
            self.prefix = Prefix::read(self.gathered.slices(), self.limit)?;
        }
        let whole = self.prefix.map(|prefix| PREFIX_BYTES + prefix.length);
        match (self.prefix, whole) {
            (Some(prefix), Some(whole)) if whole <= self.gathered.len() => self.take(prefix, whole).map(Some),
            _ if self.has_ended && !self.is_empty() => Err(frame::cut_off(self.gathered.len())),
            _ => {
                self.body.release(std::mem::take(&mut self.unreleased));
                if !self.is_empty() && self.pace.is_none() {
                    self.pace = Some(BodyPace::start(&self.context.process().settings.limits, self.gathered.len()));
                    self.held.insert(self.context.share().hold()).grow_to(self.gathered.len())?;
                }
                Ok(None)
            }
        }
    }

    fn take(&mut self, prefix: Prefix, whole: usize) -> Result<Received> {
        self.gathered.take(PREFIX_BYTES);
        let pieces = self.gathered.take(prefix.length);
        (self.prefix, self.pace, self.held) = (None, None, None);
        if let Some(held) = &mut self.reservation {
            held.shrink_to(self.gathered.len());
        }
        let reservation = self.context.reserve(whole)?;
        let message = frame::of_stream(pieces, prefix, self.encoding)?;
        Ok(Received { message, reservation, limit: self.limit })
    }
}

impl Received {
    /// Bytes as received.
    pub(super) fn len(&self) -> usize {
        self.message.len()
    }

    /// Whether it has to be opened off the event loop.
    pub(super) fn is_large(&self) -> bool {
        self.message.is_large()
    }

    /// Inflates and decodes it.
    ///
    /// **Errors:** what is wrong with this message; the stream goes on.
    pub(super) fn open(self, limits: &LimitSettings) -> Result<Opened, Refused> {
        let mut reservation = self.reservation;
        let pieces = self.message.open(self.limit, &mut reservation)?;
        let decoded = decode::decode(&pieces, limits, &mut reservation)?;
        Ok(Opened { decoded, reservation })
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { error, id: Text::default() }
    }
}
