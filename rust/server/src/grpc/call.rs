//! A unary gRPC call on its way from its body to its answer. Hot path.
//!
//! `ModelInfer` with a body that came with its header is decoded and submitted right here, inside the connection's own
//! task; so are the small unary RPCs.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use mlserve_core::budget::Reservation;
use mlserve_core::error::{Error, Result};
use mlserve_core::request::Request;

use super::decode::{self, Decoded};
use super::encode::Message;
use super::frame::{self, Encoded, PREFIX_BYTES, Pieces};
use super::reply::{InferReply, Responder, off_loop};
use super::service::{self, Slow, Unary};
use super::{Rpc, health, refuse};
use crate::body::{Collected, Collector, Limit, RequestBody};
use crate::event_loop::LoopContext;
use crate::inflate::Encoding;
use crate::shared_memory::{Destinations, SharedTensors, attach};

/// A unary call on its way to its answer.
pub(super) struct Call {
    pub(super) context: LoopContext,
    pub(super) rpc: Rpc,
    pub(super) encoding: Encoding,
    /// `None`: when it is submitted, which is as soon as it has been decoded.
    pub(super) arrived: Option<Instant>,
    pub(super) deadline: Option<Instant>,
    pub(super) responder: Responder,
}

impl Call {
    /// Takes the body if it is here already; otherwise waits for it in a task.
    pub(super) fn receive(mut self, body: RequestBody, content_length: Option<usize>) {
        let message = self.max_message_bytes();
        let is_set = message == self.context.process().settings.limits.max_body_bytes;
        let reason = if is_set { "limits.max_body_bytes" } else { "of this RPC" };
        let limit = Limit { message, reason, framing: PREFIX_BYTES };
        let mut collector = match Collector::new(&self.context, body, limit, content_length) {
            Ok(collector) => collector,
            Err(error) => return self.refuse(&error),
        };
        match collector.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => self.open(collector.into_collected()),
            Poll::Ready(Err(error)) => self.refuse(&error),
            Poll::Pending => {
                self.arrived = Some(self.context.now());
                self.context.clone().serve_stream(async move {
                    match collector.finish().await {
                        Ok(()) => self.open(collector.into_collected()),
                        Err(error) => self.refuse(&error),
                    }
                });
            }
        }
    }

    fn max_message_bytes(&self) -> usize {
        self.rpc.max_message_bytes(&self.context.process().settings.limits)
    }

    /// Takes the message out of the complete body; a large or compressed one goes to a thread first.
    fn open(mut self, collected: Result<Collected>) {
        let limit = self.max_message_bytes();
        let opened = collected.and_then(|Collected { pieces, len, reservation }| {
            if let Some(trail) = &mut self.responder.trail {
                trail.received(len);
            }
            Ok((frame::single(pieces, len, self.encoding, limit)?, reservation))
        });
        match opened {
            Ok((message, reservation)) if message.is_large() => {
                self.arrived = self.arrived.or_else(|| Some(self.context.now()));
                self.context.clone().serve_stream(self.serve_large(message, reservation));
            }
            Ok((message, mut reservation)) => match message.open(limit, &mut reservation) {
                Ok(pieces) => self.serve(&pieces, reservation),
                Err(error) => self.refuse(&error),
            },
            Err(error) => self.refuse(&error),
        }
    }

    fn serve(self, pieces: &Pieces, mut reservation: Reservation) {
        match self.rpc {
            Rpc::Infer => {
                let decoded = decode::decode(pieces, &self.context.process().settings.limits, &mut reservation);
                self.decoded(decoded.map_err(|refused| refused.error), reservation);
            }
            Rpc::Unary(rpc) if rpc.takes_time() => {
                self.context.clone().serve_stream(self.answer_off_loop(rpc, pieces.clone(), reservation));
            }
            Rpc::Unary(rpc) => match service::awaited(&self.context, rpc, pieces) {
                None => self.answer(rpc, pieces, reservation),
                Some(model) => {
                    self.context.clone().serve_stream(self.answer_once_loaded(rpc, model, pieces.clone(), reservation));
                }
            },
            Rpc::Slow(rpc) => self.context.clone().serve_stream(self.serve_slow(rpc, pieces.clone(), reservation)),
            _ => match service::parsed(pieces) {
                Ok(request) => {
                    self.context.clone().serve_stream(health::watch(self.context, request, self.responder));
                }
                Err(error) => self.refuse(&error),
            },
        }
    }

    /// As [`Self::serve`], with the heavy part on another thread.
    async fn serve_large(self, message: Encoded, reservation: Reservation) {
        let process = self.context.process().clone();
        let is_infer = self.rpc == Rpc::Infer;
        let limit = self.max_message_bytes();
        let work = off_loop(self.context.process(), move || {
            let mut reservation = reservation;
            let limits = &process.settings.limits;
            let pieces = message.open(limit, &mut reservation)?;
            let decoded = is_infer.then(|| decode::decode(&pieces, limits, &mut reservation)).transpose();
            let decoded = decoded.map_err(|refused| refused.error)?;
            Ok((pieces, decoded, reservation))
        });
        match work.await {
            Ok((_, Some(decoded), reservation)) => self.decoded(Ok(decoded), reservation),
            Ok((pieces, None, reservation)) => self.serve(&pieces, reservation),
            Err(error) => self.refuse(&error),
        }
    }

    fn answer(self, rpc: Unary, pieces: &Pieces, reservation: Reservation) {
        let answer = service::answer(self.context.process(), rpc, pieces);
        self.answered(answer, reservation);
    }

    /// As [`Self::answer`], on another thread: it reads the counters of all models, or files.
    async fn answer_off_loop(self, rpc: Unary, pieces: Pieces, reservation: Reservation) {
        let process = Arc::clone(self.context.process());
        let answer = off_loop(self.context.process(), move || service::answer(&process, rpc, &pieces)).await;
        self.answered(answer, reservation);
    }

    fn answered(self, answer: Result<Message>, reservation: Reservation) {
        match answer {
            Ok(message) => self.responder.send(message, Some(reservation)),
            Err(error) => self.refuse(&error),
        }
    }

    /// As [`Self::answer`], about a model that is loaded because somebody asks.
    async fn answer_once_loaded(
        mut self,
        rpc: Unary,
        (name, version): (String, Option<u64>),
        pieces: Pieces,
        reservation: Reservation,
    ) {
        let found = self.context.process().models.find(&name, version, self.deadline);
        match self.responder.unless_gone(found).await {
            Some(Ok(_)) => self.answer(rpc, &pieces, reservation),
            Some(Err(error)) => self.refuse(&error),
            None => {}
        }
    }

    /// As [`Self::serve`], for what takes time: models are loaded and drained, unless the caller leaves before it begins.
    async fn serve_slow(mut self, rpc: Slow, pieces: Pieces, reservation: Reservation) {
        let answer = service::answer_slow(self.context.process(), rpc, pieces);
        if let Some(answer) = self.responder.unless_gone(answer).await {
            self.answered(answer, reservation);
        }
    }

    /// Submits the request, if all of it is in the message.
    fn decoded(mut self, decoded: Result<Decoded>, reservation: Reservation) {
        let Decoded { mut request, shared } = match decoded {
            Ok(decoded) => decoded,
            Err(error) => return self.refuse(&error),
        };
        self.responder.asker.asks(&request.model_name);
        request.arrived = self.arrived;
        request.deadline = self.deadline;
        request.reservation = Some(reservation);
        if let Some(trail) = &mut self.responder.trail {
            trail.asked(&request);
        }
        match shared {
            None => self.submit(request, None),
            Some(shared) => {
                request.arrived = self.arrived.or_else(|| Some(self.context.now()));
                self.context.clone().serve_stream(self.attach(request, shared));
            }
        }
    }

    /// Submits the request with what lies in shared memory.
    async fn attach(self, request: Request, shared: Box<SharedTensors>) {
        match attach(self.context.process(), shared, request).await {
            Ok((request, destinations)) => self.submit(request, destinations),
            Err(error) => self.refuse(&error),
        }
    }

    fn submit(self, request: Request, destinations: Option<Box<Destinations>>) {
        self.context.submit(request, Box::new(InferReply::new(self.responder, destinations)));
    }

    fn refuse(self, error: &Error) {
        refuse(&self.context, self.responder, error);
    }
}
