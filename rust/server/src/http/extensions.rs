//! The extensions' routes: from path and JSON body to the RPC's request message, and from its answer to JSON.
//!
//! What the answers are is decided in [`crate::extensions`], the same for gRPC.

use http::StatusCode;
use mlserve_core::error::{Error, Kind, Result};
use prost::Message;
use serde_json::Value;

use super::access::Trail;
use super::find::find;
use super::headers::Fields;
use super::route::Target;
use super::status::{Refusal, json_response};
use super::{HttpRequest, HttpResponse};
use crate::event_loop::LoopContext;
use crate::extensions::json::{Members, to_json};
use crate::inflate::Encoding;

mod config;
mod logging;
mod repository;
mod shared_memory;
mod statistics;
mod trace;

/// A route of an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extension {
    ModelConfig,
    Statistics,
    RepositoryIndex,
    Load,
    Unload,
    /// A route that names a repository, of which there is one.
    OtherRepository,
    SharedMemoryStatus,
    SharedMemoryRegister,
    SharedMemoryUnregister,
    CudaSharedMemoryStatus,
    CudaSharedMemoryRegister,
    CudaSharedMemoryUnregister,
    TraceSetting,
    Logging,
}

/// Answers a route of an extension.
///
/// **Errors:** a body that is too large, or not the JSON object that the route takes; what the extension refuses.
pub(super) async fn answer(
    context: &LoopContext,
    extension: Extension,
    request: HttpRequest,
    target: Target,
    trail: &mut Trail,
) -> Result<HttpResponse, Refusal> {
    let process = context.process();
    let is_post = request.method == http::Method::POST;
    let body = if is_post { Some(body(context, request, trail).await?) } else { None };
    Ok(match extension {
        Extension::ModelConfig => {
            find(context, &target, None).await?;
            config::answer(process, &target)?
        }
        Extension::Statistics => statistics::answer(process, &target).await?,
        Extension::RepositoryIndex => repository::index(process, body.unwrap_or_default()).await?,
        Extension::Load => repository::load(process, &target, body.unwrap_or_default()).await?,
        Extension::Unload => repository::unload(process, &target, body.unwrap_or_default()).await?,
        Extension::OtherRepository => return Err(other_repository().into()),
        Extension::SharedMemoryStatus => shared_memory::status(process, &target)?,
        Extension::SharedMemoryRegister => shared_memory::register(process, &target, body)?,
        Extension::SharedMemoryUnregister => shared_memory::unregister(process, &target)?,
        Extension::CudaSharedMemoryStatus => shared_memory::cuda_status(&target)?,
        Extension::CudaSharedMemoryRegister => shared_memory::cuda_register(&target, body)?,
        Extension::CudaSharedMemoryUnregister => shared_memory::cuda_unregister(&target),
        Extension::TraceSetting => trace::answer(process, &target, body)?,
        Extension::Logging => logging::answer(body)?,
    })
}

/// A body: a JSON object, which an empty body stands for too.
type Body = serde_json::Map<String, Value>;

async fn body(context: &LoopContext, request: HttpRequest, trail: &mut Trail) -> Result<Body, Refusal> {
    let limits = &context.process().settings.limits;
    let fields = Fields::read(&request.headers, context.arrival())?;
    if fields.encoding != Encoding::Identity {
        return Err(Error::new(Kind::NotOffered, "this route takes bodies without content-encoding").into());
    }
    let collected = request.body.collect(context, limits.max_body_bytes, fields.content_length).await?;
    trail.body_was(collected.len);
    let bytes = collected.pieces.concat();
    if bytes.trim_ascii().is_empty() {
        return Ok(Body::new());
    }
    // serde_json refuses more than 128 levels by itself.
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) => Err(Error::invalid("failed to parse the request JSON buffer: the body must be an object").into()),
        Err(error) => Err(Error::invalid(format!("failed to parse the request JSON buffer: {error}")).into()),
    }
}

/// An answer with `message`, which is an `inference.NAME`, as its body, or what `pick` makes of it.
fn json_message(
    message: &impl Message,
    name: &str,
    members: Members,
    pick: impl FnOnce(Value) -> Value,
) -> Result<HttpResponse> {
    Ok(json_response(StatusCode::OK, pick(to_json(message, name, members)?).to_string()))
}

/// An answer without a body.
fn done() -> HttpResponse {
    json_response(StatusCode::OK, "")
}

#[cold]
fn other_repository() -> Error {
    Error::new(Kind::NotOffered, "'repository_name' specification is not supported")
}
