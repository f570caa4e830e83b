//! Stage 2 and 10 for gRPC: which RPC a stream calls, and who answers it. Hot path.
//!
//! What can be refused before the body is looked at is refused here; unary calls go on in [`call`]. Only what has to
//! wait (the rest of a body, a thread for a large one, a stream) gets a task.

use std::rc::Rc;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Method;
use mlserve_core::config::LimitSettings;
use mlserve_core::error::{Error, Kind, Result, quoted};
use mlserve_core::request::Protocol;

use self::asker::Asker;
use self::call::Call;
use self::reply::Responder;
use self::service::{MAX_REQUEST_BYTES, Slow, Unary};
use self::trail::Trail;
use crate::body::RequestBody;
use crate::event_loop::LoopContext;
use crate::http2::{Connected, drained, rest};
use crate::metadata::{Content, Metadata};

mod asker;
mod call;
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
pub(crate) use health::Watches;
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
            Rpc::Slow(slow) => slow.changes(),
            Rpc::Unary(unary) => unary.is_guarded(),
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
    ("/inference.GRPCInferenceService/ModelStatistics", Rpc::Slow(Slow::Statistics)),
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
    let responder = Responder::new(respond, connected, metadata.answer_encoding(), echo, trail, asker);
    let checked = header_fits
        .and_then(|()| check_origin(context, rpc, &request))
        .and_then(|()| check(&metadata, rpc, &request))
        .and_then(|()| check_mode(context, rpc));
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
fn check(metadata: &Metadata, rpc: Rpc, request: &http::Request<RecvStream>) -> Result<()> {
    if *request.method() != Method::POST {
        return Err(Error::new(Kind::MethodNotAllowed, "gRPC calls use the HTTP method POST"));
    }
    if metadata.content == Content::Foreign {
        return Err(Error::new(Kind::NotOffered, "the content-type is not offered; offered is application/grpc+proto"));
    }
    if rpc == Rpc::Unknown { Err(unknown(request.uri().path())) } else { Ok(()) }
}

/// A load may bring files: whoever may not load need not send them.
fn check_mode(context: &LoopContext, rpc: Rpc) -> Result<()> {
    match rpc {
        Rpc::Slow(Slow::Load | Slow::Unload) => context.process().models.check_mode(),
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
            context.clone().serve_stream(stream::serve(context.clone(), call, body, responder));
        }
        Rpc::Reflection(path) => match connected.reflection.call(path, body) {
            Ok(begun) => context.clone().serve_stream(reflection::answer(context.clone(), begun, responder)),
            Err(error) => refuse(context, responder, &error),
        },
        _ => {
            let call = Call { context: context.clone(), rpc, encoding, arrived: None, deadline, responder };
            call.receive(RequestBody::Http2(body), metadata.content_length);
        }
    }
}

/// Refuses a call whose request is not read; small ones are waited for, because an answer that comes before its request
/// has ended hides what else is wrong with it.
fn refuse_at_its_end(context: &LoopContext, body: RecvStream, responder: Responder, error: Error) {
    if body.is_end_stream() {
        return refuse(context, responder, &error);
    }
    let refusing = context.clone();
    context.clone().serve_stream(async move {
        drained(body).await;
        refuse(&refusing, responder, &error);
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
