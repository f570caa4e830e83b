//! `/v2/systemsharedmemory/…` and `/v2/cudasharedmemory/…`.

use http::StatusCode;
use mlserve_core::budget::Reservation;
use mlserve_core::error::{Error, Result};
use serde_json::{Value, json};

use super::{MAX_SETTINGS_BYTES, Received, done};
use crate::extensions::shared_memory;
use crate::http::HttpResponse;
use crate::http::json::{Cursor, Token};
use crate::http::route::Target;
use crate::http::status::{Refusal, json_response};
use crate::process::Process;
use crate::proto::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryStatusRequest, CudaSharedMemoryUnregisterRequest,
    SystemSharedMemoryRegisterRequest, SystemSharedMemoryStatusRequest, SystemSharedMemoryUnregisterRequest,
};

/// One region, or all: an array, by name.
pub(super) fn status(process: &Process, target: &Target) -> Result<HttpResponse> {
    let request = SystemSharedMemoryStatusRequest { name: target.region.to_string() };
    let mut regions: Vec<_> = shared_memory::status(process, &request)?.regions.into_values().collect();
    regions.sort_by(|left, right| left.name.cmp(&right.name));
    let regions = regions.into_iter().map(
        |region| json!({"name": region.name, "key": region.key, "offset": region.offset, "byte_size": region.byte_size}),
    );
    Ok(json_response(StatusCode::OK, regions.collect::<Value>().to_string()))
}

/// Registers a region.
pub(super) async fn register(
    process: &Process,
    target: &Target,
    received: Received<'_>,
) -> Result<HttpResponse, Refusal> {
    // Before the body is read, so that a caller hears first that all of this is off.
    process.shared_memory.check_allowed()?;
    let (region, _) = received.read(MAX_SETTINGS_BYTES, member).await?;
    let request = SystemSharedMemoryRegisterRequest {
        name: target.region.to_string(),
        key: region.key.ok_or_else(|| missing("key"))?,
        byte_size: region.byte_size.ok_or_else(|| missing("byte_size"))?,
        offset: region.offset.unwrap_or(0),
    };
    shared_memory::register(process, &request)?;
    Ok(done())
}

/// What a body says about a region.
#[derive(Default)]
struct Region {
    key: Option<String>,
    offset: Option<u64>,
    byte_size: Option<u64>,
}

fn member(region: &mut Region, cursor: &mut Cursor<'_>, key: &str, _: &mut Reservation) -> Result<()> {
    let token = cursor.token()?;
    match (key, token) {
        ("key", Token::Text) => region.key = Some(cursor.string()?.into_owned()),
        ("offset", Token::Number) => region.offset = Some(unsigned(cursor, key)?),
        ("byte_size", Token::Number) => region.byte_size = Some(unsigned(cursor, key)?),
        (_, Token::Null) => cursor.skip()?,
        ("key", _) => return Err(wrong_kind(key, "a string")),
        ("offset" | "byte_size", _) => return Err(wrong_kind(key, WHOLE_NUMBER)),
        _ => cursor.skip()?,
    }
    Ok(())
}

/// Forgets one region, or all.
pub(super) fn unregister(process: &Process, target: &Target) -> Result<HttpResponse> {
    shared_memory::unregister(process, &SystemSharedMemoryUnregisterRequest { name: target.region.to_string() })?;
    Ok(done())
}

/// One CUDA region, or all.
pub(super) fn cuda_status(target: &Target) -> Result<HttpResponse> {
    shared_memory::cuda_status(&CudaSharedMemoryStatusRequest { name: target.region.to_string() })?;
    Ok(json_response(StatusCode::OK, "[]"))
}

/// Registers a CUDA region.
pub(super) fn cuda_register(target: &Target) -> Result<HttpResponse> {
    let request = CudaSharedMemoryRegisterRequest { name: target.region.to_string(), ..Default::default() };
    shared_memory::cuda_register(&request)?;
    Ok(done())
}

/// Forgets one CUDA region, or all.
pub(super) fn cuda_unregister(target: &Target) -> HttpResponse {
    shared_memory::cuda_unregister(&CudaSharedMemoryUnregisterRequest { name: target.region.to_string() });
    done()
}

const WHOLE_NUMBER: &str = "a whole number from 0 to 18446744073709551615";

fn unsigned(cursor: &mut Cursor<'_>, member: &str) -> Result<u64> {
    cursor.number()?.text.parse().map_err(|_| wrong_kind(member, WHOLE_NUMBER))
}

#[cold]
fn missing(member: &str) -> Error {
    Error::invalid(format!("Shared memory register request has no '{member}' field"))
}

#[cold]
fn wrong_kind(member: &str, expected: &str) -> Error {
    Error::invalid(format!("Unable to parse '{member}': {expected} is expected"))
}
