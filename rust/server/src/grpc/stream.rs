//! `ModelStreamInfer`: many requests on one stream, answered in their order.
//!
//! Several requests of a stream are in flight at once. What is wrong with one of them is an answer of its own and leaves
//! the stream open; what is wrong with the stream (a broken frame, a reader that never reads) ends it. One task per
//! stream, reading and writing at the same time, so that neither direction can hold up the other.

use std::collections::VecDeque;
use std::future::pending;
use std::time::Instant;

use bytes::Bytes;
use h2::RecvStream;
use mlserve_core::budget::Reservation;
use mlserve_core::error::{Error, Kind, Result};
use mlserve_core::request::{Answer, Protocol, Reply, Text};
use tokio::sync::oneshot;
use tokio::task::spawn_local;

use self::inbox::{Inbox, Received};
use super::decode::Refused;
use super::encode::{self, Extras, Message};
use super::health::closing;
use super::reply::{Responder, compressed, off_loop};
use super::status;
use super::trail::Trail;
use crate::event_loop::LoopContext;
use crate::http2::writer::{Gone, Writer};
use crate::inflate::Encoding;
use crate::status::Phase;

mod inbox;

/// Requests of one stream in flight: enough to fill a batch from a single stream, few against all that the server has.
const MAX_IN_FLIGHT: usize = 64;

/// What the stream's header said.
pub(super) struct StreamCall {
    /// How the caller's messages are compressed.
    pub(super) encoding: Encoding,
    /// How answers are compressed.
    pub(super) answer_encoding: Encoding,
    /// When the caller stops waiting, for the whole stream.
    pub(super) deadline: Option<Instant>,
    /// Errors of the model end the stream.
    pub(super) wants_grpc_errors: bool,
}

/// What one request of a stream comes to.
enum Outcome {
    Message(Message, Option<Reservation>),
    /// Ends the stream with this status.
    End(Error),
}

/// Serves a stream to its end.
pub(super) async fn serve(context: LoopContext, call: StreamCall, body: RecvStream, mut responder: Responder) {
    let trail = responder.trail.take();
    let settings = responder.settings();
    let Some(opened) = responder.open() else { return };
    let mut stream = Stream {
        inbox: Inbox::new(&context, body, call.encoding),
        writer: Writer::new(opened, settings.patience),
        answers: VecDeque::new(),
        end: None,
        reports_batch: settings.reports_batches,
        bytes_out: 0,
        trail,
        call,
        context,
    };
    // An error means that the reader is gone, and everything in flight with it.
    if stream.run().await.is_ok() {
        stream.finish();
    }
}

struct Stream {
    context: LoopContext,
    call: StreamCall,
    inbox: Inbox,
    writer: Writer,
    /// In the order of the requests.
    answers: VecDeque<oneshot::Receiver<Outcome>>,
    /// Nothing more is read; the stream ends with this once everything in flight is answered.
    end: Option<Option<Error>>,
    reports_batch: bool,
    bytes_out: usize,
    trail: Option<Box<Trail>>,
}

impl Stream {
    async fn run(&mut self) -> Result<(), Gone> {
        let mut phases = self.context.process().status.subscribe();
        let mut is_closing = false;
        let remaining = self.call.deadline.map(|deadline| deadline.saturating_duration_since(self.context.now()));
        let deadline = async {
            match remaining {
                Some(remaining) => tokio::time::sleep(remaining).await,
                None => pending().await,
            }
        };
        tokio::pin!(deadline);
        loop {
            self.dispatch();
            let is_idle = self.answers.is_empty() && self.writer.is_empty();
            if is_idle && is_closing && self.inbox.is_empty() {
                self.end.get_or_insert_with(|| Some(closing()));
            }
            if is_idle && self.end.is_some() {
                return Ok(());
            }
            tokio::select! {
                received = self.inbox.receive(), if self.end.is_none() && !self.inbox.has_ended() => {
                    if let Err(error) = received {
                        self.stop(error)?;
                    }
                }
                outcome = first_of(&mut self.answers), if self.writer.is_empty() => self.push(outcome).await,
                written = self.writer.attend() => written?,
                () = &mut deadline => {
                    self.answers.clear();
                    self.end = Some(Some(Error::new(Kind::DeadlineExceeded, "the stream's deadline has passed")));
                    return Ok(());
                }
                _ = phases.wait_for(|phase| *phase >= Phase::Closing), if !is_closing => is_closing = true,
            }
        }
    }

    /// Submits every message that is complete, as far as there may be more in flight.
    fn dispatch(&mut self) {
        while self.end.is_none() && self.answers.len() < MAX_IN_FLIGHT {
            match self.inbox.next_message() {
                Ok(Some(received)) => self.submit(received),
                Ok(None) if self.inbox.has_ended() => self.end = Some(None),
                Ok(None) => break,
                Err(error) => self.end = Some(Some(error)),
            }
        }
    }

    fn submit(&mut self, received: Received) {
        let (sender, receiver) = oneshot::channel();
        self.answers.push_back(receiver);
        let reply = StreamReply {
            outcome: Some(sender),
            id: Text::default(),
            reports_batch: self.reports_batch,
            wants_grpc_errors: self.call.wants_grpc_errors,
        };
        if let Some(trail) = &mut self.trail {
            trail.received(received.len());
        }
        let context = self.context.clone();
        let arrived = context.now();
        let order = Order { arrived, deadline: self.call.deadline, reply };
        if received.is_large() {
            spawn_local(async move {
                let process = context.process().clone();
                let opened = off_loop(move || received.open(&process.settings.limits)).await;
                let opened = opened.unwrap_or_else(|_| Err(Error::internal("the request could not be decoded").into()));
                order.place(&context, opened);
            });
        } else {
            let opened = received.open(&context.process().settings.limits);
            order.place(&context, opened);
        }
    }

    async fn push(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Message(message, reservation) => {
                let pieces = compressed(self.call.answer_encoding, message.into_pieces()).await;
                self.bytes_out += pieces.iter().map(Bytes::len).sum::<usize>();
                self.writer.push(pieces, reservation);
            }
            Outcome::End(error) => {
                self.answers.clear();
                self.end = Some(Some(error));
            }
        }
    }

    /// Reads no more; what is in flight is still answered, unless nobody is there to read it.
    fn stop(&mut self, error: Error) -> Result<(), Gone> {
        if error.kind() == Kind::Cancelled {
            return Err(Gone);
        }
        self.end = Some(Some(error));
        Ok(())
    }

    fn finish(self) {
        let error = self.end.flatten();
        if let Some(error) = &error {
            self.context.count_refused(Protocol::Grpc, error);
        }
        if let Some(trail) = self.trail {
            trail.finish(error.as_ref().map_or("ok", |error| error.kind().row().code), self.bytes_out);
        }
        self.writer.finish(status::trailers(error.as_ref()));
    }
}

/// The first answer in order; never ends while there is none. Dropping the future loses nothing.
async fn first_of(answers: &mut VecDeque<oneshot::Receiver<Outcome>>) -> Outcome {
    let Some(first) = answers.front_mut() else { return pending().await };
    let outcome = first.await.unwrap_or_else(|_| {
        // The pipeline answers every request; this is what a caller sees of a bug that breaks that.
        Outcome::Message(encode::encode_stream_error(&Error::internal("the request was lost"), ""), None)
    });
    answers.pop_front();
    outcome
}

/// A request of the stream, to be submitted once it is decoded.
struct Order {
    arrived: Instant,
    deadline: Option<Instant>,
    reply: StreamReply,
}

impl Order {
    fn place(mut self, context: &LoopContext, opened: Result<inbox::Opened, Refused>) {
        match opened {
            Ok(inbox::Opened { mut request, reservation }) => {
                request.arrived = Some(self.arrived);
                request.deadline = self.deadline;
                request.reservation = Some(reservation);
                self.reply.id = request.id.clone();
                context.submit(request, Box::new(self.reply));
            }
            Err(Refused { error, id }) => {
                context.count_refused(Protocol::Grpc, &error);
                self.reply.id = id;
                self.reply.refuse(&error);
            }
        }
    }
}

/// The way back to one request of a stream.
struct StreamReply {
    outcome: Option<oneshot::Sender<Outcome>>,
    id: Text,
    reports_batch: bool,
    wants_grpc_errors: bool,
}

impl StreamReply {
    fn give(&mut self, outcome: Outcome) {
        if let Some(sender) = self.outcome.take() {
            // Fails only if the stream has ended, and then nobody wants it.
            let _ = sender.send(outcome);
        }
    }

    fn refuse(&mut self, error: &Error) {
        self.give(Outcome::Message(encode::encode_stream_error(error, &self.id), None));
    }
}

impl Reply for StreamReply {
    fn is_gone(&mut self) -> bool {
        self.outcome.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn send(mut self: Box<Self>, outcome: Result<Answer<'_>, Error>) {
        match outcome {
            Ok(mut answer) => {
                let extras = Extras { reports_batch: self.reports_batch, is_streamed: true };
                let reservation = answer.reservation.take();
                self.give(Outcome::Message(encode::encode(&answer, extras), reservation));
            }
            Err(error) if self.wants_grpc_errors && is_of_the_model(error.kind()) => self.give(Outcome::End(error)),
            Err(error) => self.refuse(&error),
        }
    }
}

/// Whether an error came after the request was accepted. `triton_grpc_error` is about these only: what is found while a
/// request is being accepted stays an answer of its own, as with Triton.
fn is_of_the_model(kind: Kind) -> bool {
    matches!(kind, Kind::Internal | Kind::DeadlineExceeded | Kind::QueueTimeout | Kind::Cancelled)
}
