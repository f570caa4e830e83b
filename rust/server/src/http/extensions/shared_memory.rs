//! `/v2/systemsharedmemory/…` and `/v2/cudasharedmemory/…`.

use mlserve_core::error::Result;

use super::{Body, done};
use crate::extensions::shared_memory;
use crate::http::HttpResponse;
use crate::http::route::Target;
use crate::process::Process;
use crate::proto::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryStatusRequest, CudaSharedMemoryUnregisterRequest,
    SystemSharedMemoryRegisterRequest, SystemSharedMemoryStatusRequest, SystemSharedMemoryUnregisterRequest,
};

/// One region, or all.
pub(super) fn status(process: &Process, target: &Target) -> Result<HttpResponse> {
    shared_memory::status(process, &SystemSharedMemoryStatusRequest { name: target.region.to_string() })?;
    Ok(done())
}

/// Registers a region.
pub(super) fn register(process: &Process, target: &Target, _body: Option<Body>) -> Result<HttpResponse> {
    let request = SystemSharedMemoryRegisterRequest { name: target.region.to_string(), ..Default::default() };
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
    Ok(done())
}

/// Registers a CUDA region.
pub(super) fn cuda_register(target: &Target, _body: Option<Body>) -> Result<HttpResponse> {
    let request = CudaSharedMemoryRegisterRequest { name: target.region.to_string(), ..Default::default() };
    shared_memory::cuda_register(&request)?;
    Ok(done())
}

/// Forgets one CUDA region, or all.
pub(super) fn cuda_unregister(target: &Target) -> Result<HttpResponse> {
    shared_memory::cuda_unregister(&CudaSharedMemoryUnregisterRequest { name: target.region.to_string() })?;
    Ok(done())
}
