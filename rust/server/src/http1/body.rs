//! An answer's body as hyper takes it: pieces in order, and the budget they hold until they are written.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use mlserve_core::budget::Reservation;

use super::activity::InFlight;

/// A complete body.
#[derive(Debug)]
pub(super) struct ResponseBody {
    pieces: vec::IntoIter<Bytes>,
    left: u64,
    reservation: Option<Reservation>,
    /// Dropped with the body, once hyper has taken all of it.
    _in_flight: InFlight,
}

impl ResponseBody {
    /// The body of `pieces`, none of them empty.
    pub(super) fn new(pieces: Vec<Bytes>, reservation: Option<Reservation>, in_flight: InFlight) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { pieces: pieces.into_iter(), left, reservation, _in_flight: in_flight }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(mut piece) = self.pieces.next() else { return Poll::Ready(None) };
        self.left -= piece.len() as u64;
        if self.left == 0
            && let Some(reservation) = self.reservation.take()
        {
            // hyper is done with the body long before the socket is: the last piece carries the budget.
            piece = Bytes::from_owner(Held { piece, _reservation: reservation });
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A piece that holds budget for as long as anybody holds it.
struct Held {
    piece: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}
