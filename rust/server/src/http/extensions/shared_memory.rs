//! `/v2/systemsharedmemory/…` and `/v2/cudasharedmemory/…`.

use http::StatusCode;
use mlserve_core::error::{Error, Result};
use serde_json::{Value, json};

use super::{Body, done};
use crate::extensions::shared_memory;
use crate::http::HttpResponse;
use crate::http::route::Target;
use crate::http::status::json_response;
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
pub(super) fn register(process: &Process, target: &Target, body: Option<Body>) -> Result<HttpResponse> {
    // Before the body is judged, so that a caller hears first that all of this is off.
    process.shared_memory.check_allowed()?;
    let body = body.unwrap_or_default();
    let key = body.get("key").ok_or_else(|| missing("key"))?;
    let key = key.as_str().ok_or_else(|| wrong_kind("key", "a string"))?;
    let byte_size = unsigned(&body, "byte_size")?.ok_or_else(|| missing("byte_size"))?;
    let offset = unsigned(&body, "offset")?.unwrap_or(0);
    let name = target.region.to_string();
    let request = SystemSharedMemoryRegisterRequest { name, key: key.to_owned(), offset, byte_size };
    shared_memory::register(process, &request)?;
    Ok(done())
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
pub(super) fn cuda_register(target: &Target, _body: Option<Body>) -> Result<HttpResponse> {
    let request = CudaSharedMemoryRegisterRequest { name: target.region.to_string(), ..Default::default() };
    shared_memory::cuda_register(&request)?;
    Ok(done())
}

/// Forgets one CUDA region, or all.
pub(super) fn cuda_unregister(target: &Target) -> HttpResponse {
    shared_memory::cuda_unregister(&CudaSharedMemoryUnregisterRequest { name: target.region.to_string() });
    done()
}

fn unsigned(body: &Body, member: &str) -> Result<Option<u64>> {
    let Some(value) = body.get(member) else { return Ok(None) };
    value.as_u64().map(Some).ok_or_else(|| wrong_kind(member, "a whole number from 0 to 18446744073709551615"))
}

#[cold]
fn missing(member: &str) -> Error {
    Error::invalid(format!("Shared memory register request has no '{member}' field"))
}

#[cold]
fn wrong_kind(member: &str, expected: &str) -> Error {
    Error::invalid(format!("Unable to parse '{member}': {expected} is expected"))
}
