//! `ModelStreamInfer`: many requests on one stream, answered in their order.
//!
//! Several requests of a stream are in flight at once. What is wrong with one of them is an answer of its own and leaves
//! the stream open; what is wrong with the stream (a broken frame, a reader that never reads) ends it. One task per
//! stream, reading and writing at the same time, so that neither direction can hold up the other.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use mlserve_core::budget::Reservation;
use mlserve_core::error::{Error, Kind, Result};
use mlserve_core::request::{Protocol, Request, Text};
use tokio::sync::oneshot;

use self::inbox::{Inbox, Received};
use self::reply::StreamReply;
use super::asker::Asker;
use super::decode::{Decoded, Refused};
use super::encode::{self, Message};
use super::health::closing;
use super::reply::{Responder, compressed, off_loop};
use super::status;
use super::trail::Trail;
use crate::event_loop::LoopContext;
use crate::http2::writer::{Gone, Writer, charge};
use crate::inflate::Encoding;
use crate::share::Held;
use crate::shared_memory::{SharedTensors, attach};
use crate::status::Phase;

mod inbox;
mod reply;

/// Requests of one stream in flight: enough to fill a batch from a single stream, few against all that the server has.
const MAX_IN_FLIGHT: usize = 64;

/// Answers up to this size together go out as one: the size of a frame that every client takes.
const JOINED_BYTES: usize = 16 << 10;

/// When the server closes: how long a stream that rests is still read. Whoever answers each answer with the next message
/// needs less, and what is under way arrives.
const CLOSING_REST: Duration = Duration::from_millis(300);

/// When the server closes: how long a stream that never rests goes on, if the drain leaves so much.
const CLOSING_LIMIT: Duration = Duration::from_secs(5);

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
    Message(Message, Option<Reservation>, Option<Held>),
    /// Ends the stream with this status.
    End(Error),
}

/// Serves a stream to its end.
pub(super) async fn serve(context: LoopContext, call: StreamCall, body: RecvStream, mut responder: Responder) {
    let trail = responder.trail.take();
    let (settings, asker) = (responder.settings(), responder.asker);
    let Some(opened) = responder.open() else { return };
    let mut stream = Stream {
        inbox: Inbox::new(&context, body, call.encoding),
        writer: Writer::new(opened, settings.patience),
        answers: VecDeque::new(),
        end: End::Open,
        reports_batch: settings.reports_batches,
        asker,
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

/// What the server's end does to a stream. Every message that was received is answered.
///
/// No ⇒ Begun: the server closes; the stream goes on until it rests.
/// Begun ⇒ Last: it rests, or goes on for too long; what is here is taken in, and nothing more is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    Begun(tokio::time::Instant),
    Last,
}

/// How far a stream is from its end.
enum End {
    /// It goes on.
    Open,
    /// Nothing more is read; it ends once everything in flight is answered.
    Soon(Option<Error>),
}

struct Stream {
    context: LoopContext,
    call: StreamCall,
    inbox: Inbox,
    writer: Writer,
    /// In the order of the requests.
    answers: VecDeque<oneshot::Receiver<Outcome>>,
    end: End,
    reports_batch: bool,
    asker: Asker,
    bytes_out: usize,
    trail: Option<Box<Trail>>,
}

impl Stream {
    async fn run(&mut self) -> Result<(), Gone> {
        let mut phases = self.context.process().status.subscribe();
        let mut closing_state = Closing::No;
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
            if is_idle && closing_state == Closing::Last && self.is_open() {
                self.end = End::Soon(Some(closing()));
            }
            if is_idle && !self.is_open() {
                return Ok(());
            }
            let is_open = self.is_open();
            tokio::select! {
                received = self.inbox.receive(),
                    if is_open && !self.inbox.has_ended() && closing_state != Closing::Last =>
                {
                    if let Err(error) = received {
                        self.stop(error)?;
                    }
                }
                outcome = first_of(&mut self.answers), if self.writer.is_empty() => self.push(outcome).await,
                written = self.writer.attend() => written?,
                () = &mut deadline => {
                    self.answers.clear();
                    let error = Error::new(Kind::DeadlineExceeded, "the stream's deadline has passed");
                    self.end = End::Soon(Some(error));
                    return Ok(());
                }
                _ = phases.wait_for(|phase| *phase >= Phase::Closing), if closing_state == Closing::No => {
                    let drain = Duration::from_millis(self.context.process().settings.server.drain_timeout_ms);
                    closing_state = Closing::Begun(tokio::time::Instant::now() + CLOSING_LIMIT.min(drain / 2));
                }
                () = last_call(closing_state, is_idle) => {
                    closing_state = Closing::Last;
                    if let Err(error) = self.inbox.receive_what_is_here() {
                        self.stop(error)?;
                    }
                }
            }
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.end, End::Open)
    }

    /// Submits every message that is complete, as far as there may be more in flight.
    fn dispatch(&mut self) {
        while self.is_open() && self.answers.len() < MAX_IN_FLIGHT {
            match self.inbox.next_message() {
                Ok(Some(received)) => self.submit(received),
                Ok(None) if self.inbox.has_ended() => self.end = End::Soon(None),
                Ok(None) => break,
                Err(error) => self.end = End::Soon(Some(error)),
            }
        }
    }

    fn submit(&mut self, received: Received) {
        let (outcome, answer) = oneshot::channel();
        self.answers.push_back(answer);
        let reply = StreamReply {
            outcome: Some(outcome),
            id: Text::default(),
            reports_batch: self.reports_batch,
            asker: self.asker,
            wants_grpc_errors: self.call.wants_grpc_errors,
            accepted: Arc::default(),
            destinations: None,
            share: Arc::clone(self.context.share()),
        };
        if let Some(trail) = &mut self.trail {
            trail.received(received.len());
        }
        let context = self.context.clone();
        let arrived = context.now();
        let order = Order { arrived, deadline: self.call.deadline, reply };
        if received.is_large() {
            context.clone().serve_stream(async move {
                let process = context.process().clone();
                let opening = move || Ok(received.open(&process.settings.limits));
                let opened = off_loop(context.process(), opening).await.unwrap_or_else(|error| Err(error.into()));
                order.place(&context, opened);
            });
        } else {
            let opened = received.open(&context.process().settings.limits);
            order.place(&context, opened);
        }
    }

    /// Hands on an answer and, in the same frame, small ones behind it that are ready: a frame has its price on both
    /// sides, and some clients give up on a connection that brings many small ones.
    async fn push(&mut self, first: Outcome) {
        let (mut joined, mut charged) = (Vec::new(), None);
        let mut next = Some(first);
        while let Some(outcome) = next {
            match outcome {
                Outcome::Message(message, reservation, held) => {
                    let pieces = compressed(self.call.answer_encoding, message.into_pieces()).await;
                    let len = pieces.iter().map(Bytes::len).sum::<usize>();
                    self.bytes_out += len;
                    if joined.len() + len <= JOINED_BYTES {
                        pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
                        charge(&mut charged, reservation);
                    } else {
                        self.writer.push([std::mem::take(&mut joined).into()], charged.take());
                        self.writer.push(pieces, reservation);
                        if let Some(held) = held {
                            self.writer.hold(held);
                        }
                    }
                }
                Outcome::End(error) => {
                    self.answers.clear();
                    self.end = End::Soon(Some(error));
                }
            }
            next = if joined.is_empty() { None } else { ready_of(&mut self.answers) };
        }
        self.writer.push([joined.into()], charged);
    }

    /// Reads no more; what is in flight is still answered, unless nobody is there to read it.
    fn stop(&mut self, error: Error) -> Result<(), Gone> {
        if error.kind() == Kind::Cancelled {
            return Err(Gone);
        }
        self.end = End::Soon(Some(error));
        Ok(())
    }

    fn finish(self) {
        let error = match self.end {
            End::Open => None,
            End::Soon(error) => error,
        };
        if let Some(error) = &error {
            self.context.count_refused(Protocol::Grpc, error);
            self.asker.failed(error);
        }
        if let Some(trail) = self.trail {
            trail.finish(error.as_ref().map(Error::kind), self.bytes_out);
        }
        self.writer.finish(status::trailers(error.as_ref()));
    }
}

/// Returns when nothing more is to be read of a stream because the server closes.
async fn last_call(closing: Closing, is_idle: bool) {
    match closing {
        Closing::Begun(until) if is_idle => {
            tokio::time::sleep_until(until.min(tokio::time::Instant::now() + CLOSING_REST)).await;
        }
        Closing::Begun(until) => tokio::time::sleep_until(until).await,
        Closing::No | Closing::Last => pending().await,
    }
}

/// The first answer in order; never ends while there is none. Dropping the future loses nothing.
async fn first_of(answers: &mut VecDeque<oneshot::Receiver<Outcome>>) -> Outcome {
    let Some(first) = answers.front_mut() else { return pending().await };
    let outcome = first.await.unwrap_or_else(|_| lost());
    answers.pop_front();
    outcome
}

/// The first answer in order, if it is there.
fn ready_of(answers: &mut VecDeque<oneshot::Receiver<Outcome>>) -> Option<Outcome> {
    let outcome = match answers.front_mut()?.try_recv() {
        Ok(outcome) => outcome,
        Err(oneshot::error::TryRecvError::Empty) => return None,
        Err(oneshot::error::TryRecvError::Closed) => lost(),
    };
    answers.pop_front();
    Some(outcome)
}

/// The pipeline answers every request; this is what a caller sees of a bug that breaks that.
#[cold]
fn lost() -> Outcome {
    Outcome::Message(encode::encode_stream_error(&Error::internal("the request was lost"), ""), None, None)
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
            Ok(inbox::Opened { decoded: Decoded { mut request, shared }, reservation }) => {
                request.arrived = Some(self.arrived);
                request.deadline = self.deadline;
                request.reservation = Some(reservation);
                self.reply.id = request.id.clone();
                self.reply.asker.asks(&request.model_name);
                match shared {
                    None => self.submit(context, request),
                    Some(shared) => context.clone().serve_stream(self.attach(context.clone(), request, shared)),
                }
            }
            Err(Refused { error, id }) => {
                self.reply.id = id;
                self.refuse(context, &error);
            }
        }
    }

    /// Submits the request with what lies in shared memory.
    async fn attach(mut self, context: LoopContext, request: Request, shared: Box<SharedTensors>) {
        match attach(context.process(), shared, request).await {
            Ok((request, destinations)) => {
                self.reply.destinations = destinations;
                self.submit(&context, request);
            }
            Err(error) => self.refuse(&context, &error),
        }
    }

    fn submit(self, context: &LoopContext, request: Request) {
        let accepted = Arc::clone(&self.reply.accepted);
        context.submit(request, Box::new(self.reply));
        accepted.store(true, Ordering::Relaxed);
    }

    fn refuse(mut self, context: &LoopContext, error: &Error) {
        context.count_refused(Protocol::Grpc, error);
        self.reply.refuse(error);
    }
}
