//! Stage 2 and 10 for gRPC: which RPC a stream calls, and who answers it. Hot path.
//!
//! `ModelInfer` with a body that came with its header is decoded and submitted right here, inside the connection's own
//! task; so are the small unary RPCs. Only what has to wait (the rest of a body, a thread for a large one, a stream)
//! gets a task.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Method;
use mlserve_core::budget::Reservation;
use mlserve_core::config::LimitSettings;
use mlserve_core::error::{Error, Kind, Result, quoted};
use mlserve_core::request::{Protocol, Request};
use tokio::task::spawn_local;

use self::asker::Asker;
use self::decode::Decoded;
use self::encode::Message;
use self::frame::{Encoded, PREFIX_BYTES, Pieces};
use self::reply::{InferReply, Responder, off_loop};
use self::service::{MAX_REQUEST_BYTES, Slow, Unary};
use self::trail::Trail;
use crate::body::{Collected, Collector, Limit, RequestBody};
use crate::event_loop::LoopContext;
use crate::http2::{Connected, drained, rest};
use crate::inflate::Encoding;
use crate::metadata::{Content, Metadata};
use crate::shared_memory::{Destinations, SharedTensors, attach};

mod asker;
mod contents;
mod declared;
mod decode;
mod encode;
#[cfg(test)]
pub(crate) mod fixture;
mod frame;
mod health;
mod parameters;
mod reader;
mod reflection;
mod reply;
mod service;
mod status;
mod stream;
mod trail;

pub(crate) use decode::model_version;
pub(crate) use reflection::Reflection;
pub(crate) use reply::ReplySettings;
pub(crate) use service::{EXTENSIONS, properties};

/// What a path calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rpc {
    Infer,
    InferStream,
    Unary(Unary),
    Slow(Slow),
    HealthWatch,
    Reflection(&'static str),
    Unknown,
}

impl Rpc {
    /// The RPC of a path, and the path for the access log.
    fn from_path(path: &str) -> (Self, &'static str) {
        if let Some(&(path, rpc)) = CALLS.iter().find(|(call, _)| *call == path) {
            return (rpc, path);
        }
        (Rpc::Unknown, "unknown")
    }
}

impl Rpc {
    /// Whether it does more than infer and tell what there is.
    fn is_guarded(self) -> bool {
        match self {
            Rpc::Slow(_) => true,
            Rpc::Unary(unary) => unary.is_guarded(),
            _ => false,
        }
    }

    /// Whether it may change something.
    fn changes(self) -> bool {
        match self {
            Rpc::Slow(slow) => slow != Slow::Index,
            Rpc::Unary(unary) => unary.is_guarded() && unary != Unary::ModelStatistics,
            _ => false,
        }
    }

    /// Bytes that one message of it may have.
    fn max_message_bytes(self, limits: &LimitSettings) -> usize {
        match self {
            Rpc::Infer | Rpc::InferStream | Rpc::Slow(Slow::Load) => limits.max_body_bytes,
            _ => MAX_REQUEST_BYTES.min(limits.max_body_bytes),
        }
    }
}

/// Every RPC that is answered, the most frequent first.
const CALLS: [(&str, Rpc); 24] = [
    ("/inference.GRPCInferenceService/ModelInfer", Rpc::Infer),
    ("/inference.GRPCInferenceService/ModelStreamInfer", Rpc::InferStream),
    ("/inference.GRPCInferenceService/ServerLive", Rpc::Unary(Unary::ServerLive)),
    ("/inference.GRPCInferenceService/ServerReady", Rpc::Unary(Unary::ServerReady)),
    ("/inference.GRPCInferenceService/ModelReady", Rpc::Unary(Unary::ModelReady)),
    ("/inference.GRPCInferenceService/ServerMetadata", Rpc::Unary(Unary::ServerMetadata)),
    ("/inference.GRPCInferenceService/ModelMetadata", Rpc::Unary(Unary::ModelMetadata)),
    ("/inference.GRPCInferenceService/ModelConfig", Rpc::Unary(Unary::ModelConfig)),
    ("/inference.GRPCInferenceService/ModelStatistics", Rpc::Unary(Unary::ModelStatistics)),
    ("/inference.GRPCInferenceService/RepositoryIndex", Rpc::Slow(Slow::Index)),
    ("/inference.GRPCInferenceService/RepositoryModelLoad", Rpc::Slow(Slow::Load)),
    ("/inference.GRPCInferenceService/RepositoryModelUnload", Rpc::Slow(Slow::Unload)),
    ("/inference.GRPCInferenceService/SystemSharedMemoryStatus", Rpc::Unary(Unary::SystemSharedMemoryStatus)),
    ("/inference.GRPCInferenceService/SystemSharedMemoryRegister", Rpc::Unary(Unary::SystemSharedMemoryRegister)),
    ("/inference.GRPCInferenceService/SystemSharedMemoryUnregister", Rpc::Unary(Unary::SystemSharedMemoryUnregister)),
    ("/inference.GRPCInferenceService/CudaSharedMemoryStatus", Rpc::Unary(Unary::CudaSharedMemoryStatus)),
    ("/inference.GRPCInferenceService/CudaSharedMemoryRegister", Rpc::Unary(Unary::CudaSharedMemoryRegister)),
    ("/inference.GRPCInferenceService/CudaSharedMemoryUnregister", Rpc::Unary(Unary::CudaSharedMemoryUnregister)),
    ("/inference.GRPCInferenceService/TraceSetting", Rpc::Unary(Unary::TraceSetting)),
    ("/inference.GRPCInferenceService/LogSettings", Rpc::Unary(Unary::LogSettings)),
    ("/grpc.health.v1.Health/Check", Rpc::Unary(Unary::HealthCheck)),
    ("/grpc.health.v1.Health/Watch", Rpc::HealthWatch),
    (reflection::V1_PATH, Rpc::Reflection(reflection::V1_PATH)),
    (reflection::V1ALPHA_PATH, Rpc::Reflection(reflection::V1ALPHA_PATH)),
];

/// A unary call on its way to its answer.
struct Call {
    context: LoopContext,
    rpc: Rpc,
    encoding: Encoding,
    /// `None`: when it is submitted, which is as soon as it has been decoded.
    arrived: Option<Instant>,
    deadline: Option<Instant>,
    responder: Responder,
}

/// Serves one stream; what is no gRPC call goes to the REST side.
pub(crate) fn accept(connected: &Rc<Connected>, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) {
    let mut metadata = Metadata::read(request.headers());
    let context = &connected.context;
    connected.toll.charge_fields(metadata.header_fields);
    let header_fits = check_header(&metadata, &context.process().settings.limits);
    if metadata.content == Content::Other {
        return rest::accept(connected, request, respond, header_fits);
    }
    let (rpc, route) = Rpc::from_path(request.uri().path());
    let trail = Trail::begin(context, route, &metadata.echo);
    let echo = std::mem::take(&mut metadata.echo);
    let asker = Asker::new(context.client(), route);
    let responder = Responder::new(respond, connected.reply, metadata.answer_encoding(), echo, trail, asker);
    let checked = header_fits
        .and_then(|()| check_origin(context, rpc, &request))
        .and_then(|()| check(context, &metadata, rpc, &request));
    match checked {
        Ok(()) => start(connected, rpc, &metadata, request.into_body(), responder),
        Err(error) => refuse_at_its_end(context, request.into_body(), responder, error),
    }
}

fn check_header(metadata: &Metadata, limits: &LimitSettings) -> Result<()> {
    if metadata.header_bytes > limits.max_header_bytes {
        return Err(header_too_large("bytes", metadata.header_bytes, limits.max_header_bytes, "max_header_bytes"));
    }
    if metadata.header_fields > limits.max_headers {
        return Err(header_too_large("fields", metadata.header_fields, limits.max_headers, "max_headers"));
    }
    Ok(())
}

#[cold]
fn header_too_large(what: &str, count: usize, limit: usize, setting: &str) -> Error {
    let text = format!("the header has {count} {what}; at most {limit} are allowed (limits.{setting})");
    Error::new(Kind::HeadersTooLarge, text)
}

/// What can be refused before the body is looked at.
fn check(context: &LoopContext, metadata: &Metadata, rpc: Rpc, request: &http::Request<RecvStream>) -> Result<()> {
    if *request.method() != Method::POST {
        return Err(Error::new(Kind::MethodNotAllowed, "gRPC calls use the HTTP method POST"));
    }
    if metadata.content == Content::Foreign {
        return Err(Error::new(Kind::NotOffered, "the content-type is not offered; offered is application/grpc+proto"));
    }
    match rpc {
        // A load may bring files: whoever may not load need not send them.
        Rpc::Slow(Slow::Load | Slow::Unload) => context.process().models.check_mode(),
        Rpc::Unknown => Err(unknown(request.uri().path())),
        _ => Ok(()),
    }
}

/// Refuses web pages that would do more than infer and ask for metadata. No browser sends gRPC unasked, so this is one more
/// lock on the same door.
fn check_origin(context: &LoopContext, rpc: Rpc, request: &http::Request<RecvStream>) -> Result<()> {
    if !rpc.is_guarded() {
        return Ok(());
    }
    let origins = &context.process().origins;
    let asker = origins.asker(request.headers(), request.uri());
    origins.check(&asker, request.headers(), request.uri(), rpc.changes())
}

fn start(connected: &Rc<Connected>, rpc: Rpc, metadata: &Metadata, body: RecvStream, responder: Responder) {
    let context = &connected.context;
    let facts = metadata.message_encoding().and_then(|encoding| Ok((encoding, metadata.timeout()?)));
    let (encoding, timeout) = match facts {
        Ok(facts) => facts,
        Err(error) => return refuse_at_its_end(context, body, responder, error),
    };
    let deadline = timeout.map(|timeout| context.arrival() + timeout);
    match rpc {
        Rpc::InferStream => {
            let call = stream::StreamCall {
                encoding,
                answer_encoding: metadata.answer_encoding(),
                deadline,
                wants_grpc_errors: metadata.wants_grpc_errors,
            };
            spawn_local(stream::serve(context.clone(), call, body, responder));
        }
        Rpc::Reflection(path) => match connected.reflection.call(path, body) {
            Ok(begun) => drop(spawn_local(reflection::answer(context.clone(), begun, responder))),
            Err(error) => refuse(context, responder, &error),
        },
        _ => {
            let call = Call { context: context.clone(), rpc, encoding, arrived: None, deadline, responder };
            call.receive(RequestBody::Http2(body), metadata.content_length);
        }
    }
}

impl Call {
    /// Takes the body if it is here already; otherwise waits for it in a task.
    fn receive(mut self, body: RequestBody, content_length: Option<usize>) {
        let limit = Limit { message: self.max_message_bytes(), framing: PREFIX_BYTES };
        let mut collector = match Collector::new(&self.context, body, limit, content_length) {
            Ok(collector) => collector,
            Err(error) => return self.refuse(&error),
        };
        match collector.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => self.open(collector.into_collected()),
            Poll::Ready(Err(error)) => self.refuse(&error),
            Poll::Pending => {
                self.arrived = Some(self.context.now());
                spawn_local(async move {
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
                drop(spawn_local(self.serve_large(message, reservation)));
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
                drop(spawn_local(self.answer_off_loop(rpc, pieces.clone(), reservation)));
            }
            Rpc::Unary(rpc) => match service::awaited(&self.context, rpc, pieces) {
                None => self.answer(rpc, pieces, reservation),
                Some(model) => drop(spawn_local(self.answer_once_loaded(rpc, model, pieces.clone(), reservation))),
            },
            Rpc::Slow(rpc) => drop(spawn_local(self.serve_slow(rpc, pieces.clone(), reservation))),
            _ => match service::parsed(pieces) {
                Ok(request) => drop(spawn_local(health::watch(self.context, request, self.responder))),
                Err(error) => self.refuse(&error),
            },
        }
    }

    /// As [`Self::serve`], with the heavy part on another thread.
    async fn serve_large(self, message: Encoded, reservation: Reservation) {
        let process = self.context.process().clone();
        let is_infer = self.rpc == Rpc::Infer;
        let limit = self.max_message_bytes();
        let work = off_loop(move || {
            let mut reservation = reservation;
            let limits = &process.settings.limits;
            let pieces = message.open(limit, &mut reservation)?;
            let decoded = is_infer.then(|| decode::decode(&pieces, limits, &mut reservation)).transpose();
            let decoded = decoded.map_err(|refused| refused.error)?;
            Ok((pieces, decoded, reservation))
        });
        match work.await {
            Ok(Ok((_, Some(decoded), reservation))) => self.decoded(Ok(decoded), reservation),
            Ok(Ok((pieces, None, reservation))) => self.serve(&pieces, reservation),
            Ok(Err(error)) => self.refuse(&error),
            // A panic there is a bug; the caller gets an answer all the same.
            Err(_) => self.refuse(&Error::internal("the request could not be decoded")),
        }
    }

    fn answer(self, rpc: Unary, pieces: &Pieces, reservation: Reservation) {
        let answer = service::answer(self.context.process(), rpc, pieces);
        self.answered(answer, reservation);
    }

    /// As [`Self::answer`], on another thread: it reads the counters of all models, or files.
    async fn answer_off_loop(self, rpc: Unary, pieces: Pieces, reservation: Reservation) {
        let process = Arc::clone(self.context.process());
        let answer = off_loop(move || service::answer(&process, rpc, &pieces)).await;
        self.answered(answer.unwrap_or_else(|_| Err(Error::internal("the call could not be answered"))), reservation);
    }

    fn answered(self, answer: Result<Message>, reservation: Reservation) {
        match answer {
            Ok(message) => self.responder.send(message, Some(reservation)),
            Err(error) => self.refuse(&error),
        }
    }

    /// As [`Self::answer`], about a model that is loaded because somebody asks.
    async fn answer_once_loaded(
        self,
        rpc: Unary,
        (name, version): (String, Option<u64>),
        pieces: Pieces,
        reservation: Reservation,
    ) {
        match self.context.process().models.find(&name, version, self.deadline).await {
            Ok(_) => self.answer(rpc, &pieces, reservation),
            Err(error) => self.refuse(&error),
        }
    }

    /// As [`Self::serve`], for what takes time: models are loaded and drained.
    async fn serve_slow(self, rpc: Slow, pieces: Pieces, reservation: Reservation) {
        let answer = service::answer_slow(self.context.process(), rpc, pieces).await;
        self.answered(answer, reservation);
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
                drop(spawn_local(self.attach(request, shared)));
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

/// Refuses a call whose request is not read; small ones are waited for, because an answer that comes before its request
/// has ended hides what else is wrong with it.
fn refuse_at_its_end(context: &LoopContext, body: RecvStream, responder: Responder, error: Error) {
    if body.is_end_stream() {
        return refuse(context, responder, &error);
    }
    let context = context.clone();
    spawn_local(async move {
        drained(body).await;
        refuse(&context, responder, &error);
    });
}

fn refuse(context: &LoopContext, responder: Responder, error: &Error) {
    context.count_refused(Protocol::Grpc, error);
    responder.refuse(error);
}

#[cold]
fn unknown(path: &str) -> Error {
    Error::new(Kind::UnknownRoute, format!("unknown RPC '{}'", quoted(path)))
}

#[cfg(test)]
mod tests;
