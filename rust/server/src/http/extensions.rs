//! The extensions' routes: from path and JSON body to the RPC's request message, and from its answer to JSON.
//!
//! What the answers are is decided in [`crate::extensions`], the same for gRPC. Bodies go straight into the request
//! messages: a general value would take fifty times the memory of its text.

use http::StatusCode;
use mlserve_core::budget::Reservation;
use mlserve_core::error::{Error, Kind, Result};
use prost::Message;
use serde_json::Value;

use super::access::Trail;
use super::find::find;
use super::headers::Fields;
use super::infer::{MAX_BYTES_ON_LOOP, off_loop};
use super::json::{Cursor, Token};
use super::route::Target;
use super::split::Blobs;
use super::status::{Refusal, json_response};
use super::{HttpRequest, HttpResponse};
use crate::body::Collected;
use crate::event_loop::LoopContext;
use crate::extensions::json::{Members, to_json};
use crate::inflate::Encoding;

mod config;
mod logging;
mod repository;
mod shared_memory;
mod statistics;
mod trace;

/// Bytes of the body of a route that takes a few settings: a thousand times what clients send.
const MAX_SETTINGS_BYTES: usize = 64 << 10;

/// Members of an object, and values of a list, that a route takes.
const MAX_MEMBERS: usize = 64;

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
    let received = Received { context, request, trail };
    Ok(match extension {
        Extension::ModelConfig => {
            find(context, &target, None).await?;
            config::answer(process, &target)?
        }
        Extension::Statistics => statistics::answer(process, &target).await?,
        Extension::RepositoryIndex => repository::index(process, received).await?,
        Extension::Load => repository::load(process, &target, received).await?,
        Extension::Unload => repository::unload(process, &target, received).await?,
        Extension::OtherRepository => return Err(other_repository().into()),
        Extension::SharedMemoryStatus => shared_memory::status(process, &target)?,
        Extension::SharedMemoryRegister => shared_memory::register(process, &target, received).await?,
        Extension::SharedMemoryUnregister => shared_memory::unregister(process, &target)?,
        Extension::CudaSharedMemoryStatus => shared_memory::cuda_status(&target)?,
        Extension::CudaSharedMemoryRegister => shared_memory::cuda_register(&target)?,
        Extension::CudaSharedMemoryUnregister => shared_memory::cuda_unregister(&target),
        Extension::TraceSetting => trace::answer(process, &target, received).await?,
        Extension::Logging => logging::answer(received).await?,
    })
}

/// A request whose body a route reads once it knows that it wants it.
struct Received<'a> {
    context: &'a LoopContext,
    request: HttpRequest,
    trail: &'a mut Trail,
}

impl Received<'_> {
    /// Whether it is one that can have a body.
    fn is_post(&self) -> bool {
        self.request.method == http::Method::POST
    }

    /// Reads a body of at most `limit` bytes: a JSON object, which an empty body stands for too. `member` reads the value
    /// of each key into what is returned, and adds what it allocates to the reservation.
    ///
    /// **Errors:** too large; a content-encoding; not a JSON object; what `member` refuses.
    async fn read<T: Default + Send + 'static>(
        self,
        limit: usize,
        member: Member<T>,
    ) -> Result<(T, Reservation), Refusal> {
        let Self { context, request, trail } = self;
        let limits = &context.process().settings.limits;
        let fields = Fields::read(&request.headers, context.arrival())?;
        if fields.encoding != Encoding::Identity {
            return Err(Error::new(Kind::NotOffered, "this route takes bodies without content-encoding").into());
        }
        let body = request.body.collect(context, limit.min(limits.max_body_bytes), fields.content_length).await?;
        trail.body_was(body.len);
        let max_depth = limits.max_json_depth;
        let is_large = body.len > MAX_BYTES_ON_LOOP;
        let job = move || parse(body, max_depth, member);
        Ok(if is_large { off_loop(context.process(), job).await?? } else { job()? })
    }
}

/// Reads the value of one member.
type Member<T> = fn(&mut T, &mut Cursor<'_>, &str, &mut Reservation) -> Result<()>;

fn parse<T: Default>(body: Collected, max_depth: usize, member: Member<T>) -> Result<(T, Reservation)> {
    let Collected { pieces, len, mut reservation } = body;
    let bytes = Blobs::new(pieces).take_joined(len).unwrap_or_default();
    let mut read = T::default();
    if !bytes.trim_ascii().is_empty() {
        let mut cursor = Cursor::of_body(&bytes, max_depth)?;
        if cursor.token()? != Token::Object {
            cursor.skip()?;
            return Err(cursor.broken("the body must be an object"));
        }
        let mut count = 0_usize;
        cursor.object(|cursor, key| {
            count += 1;
            if count > MAX_MEMBERS {
                return Err(too_many_members());
            }
            member(&mut read, cursor, &key, &mut reservation)
        })?;
        cursor.end()?;
    }
    drop(bytes);
    reservation.shrink_to(reservation.units().saturating_sub(len));
    Ok((read, reservation))
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
fn too_many_members() -> Error {
    Error::too_large(format!("the request has more than {MAX_MEMBERS} members, which is the limit"))
}

#[cold]
fn other_repository() -> Error {
    Error::new(Kind::NotOffered, "'repository_name' specification is not supported")
}
