//! The way back to one request of a stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mlserve_core::budget::Reservation;
use mlserve_core::error::Error;
use mlserve_core::request::{Answer, Reply, Text};
use tokio::sync::oneshot;

use super::Outcome;
use crate::grpc::asker::Asker;
use crate::grpc::encode::{self, Extras, Message};
use crate::http2::writer::COUNTED_BYTES;
use crate::share::Share;
use crate::shared_memory::Destinations;

/// The way back to one request of a stream.
pub(super) struct StreamReply {
    pub(super) outcome: Option<oneshot::Sender<Outcome>>,
    pub(super) id: Text,
    pub(super) reports_batch: bool,
    pub(super) asker: Asker,
    pub(super) wants_grpc_errors: bool,
    /// Whether the request got past what is found while it is being submitted. `triton_grpc_error` is about later errors
    /// only: what is found before stays an answer of its own, as with Triton.
    pub(super) accepted: Arc<AtomicBool>,
    /// Where outputs go that do not go into the message.
    pub(super) destinations: Option<Box<Destinations>>,
    pub(super) share: Arc<Share>,
}

impl StreamReply {
    fn give(&mut self, outcome: Outcome) {
        if let Some(sender) = self.outcome.take() {
            // Fails only if the stream has ended, and then nobody wants it.
            let _ = sender.send(outcome);
        }
    }

    fn give_message(&mut self, message: Message, reservation: Option<Reservation>) {
        if message.len() <= COUNTED_BYTES {
            return self.give(Outcome::Message(message, reservation, None));
        }
        // It waits behind the answers before it, whether its reader is quick or slow.
        let mut held = self.share.hold();
        match held.take_answer(message.len()) {
            Ok(()) => self.give(Outcome::Message(message, reservation, Some(held))),
            Err(error) => self.refuse(&error),
        }
    }

    /// Answers with an error of the model, which ends the stream if the caller wants that.
    fn fail(&mut self, error: Error) {
        if self.wants_grpc_errors && self.accepted.load(Ordering::Relaxed) {
            self.give(Outcome::End(error));
        } else {
            self.refuse(&error);
        }
    }

    pub(super) fn refuse(&mut self, error: &Error) {
        self.asker.failed(error);
        self.give(Outcome::Message(encode::encode_stream_error(error, &self.id), None, None));
    }
}

impl Reply for StreamReply {
    fn is_gone(&mut self) -> bool {
        self.outcome.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn send(mut self: Box<Self>, outcome: Result<Answer<'_>, Error>) {
        let mut answer = match outcome {
            Ok(answer) => answer,
            Err(error) => return self.fail(error),
        };
        let writes = match self.destinations.take().map(|destinations| destinations.take(&mut answer)).transpose() {
            Ok(writes) => writes,
            Err(error) => return self.fail(error),
        };
        let extras = Extras { reports_batch: self.reports_batch, is_streamed: true };
        let reservation = answer.reservation.take();
        let message = encode::encode(&answer, extras);
        match writes {
            None => self.give_message(message, reservation),
            Some(writes) => writes.then(reservation, move |written, reservation| match written {
                Ok(()) => self.give_message(message, reservation),
                Err(error) => self.fail(error),
            }),
        }
    }
}
