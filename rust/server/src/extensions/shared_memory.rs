//! The shared memory extensions: regions that clients put tensors into instead of messages.

use mlserve_core::error::{Error, Kind, Result};

use crate::process::Process;
use crate::proto::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryRegisterResponse, CudaSharedMemoryStatusRequest,
    CudaSharedMemoryStatusResponse, CudaSharedMemoryUnregisterRequest, CudaSharedMemoryUnregisterResponse,
    SystemSharedMemoryRegisterRequest, SystemSharedMemoryRegisterResponse, SystemSharedMemoryStatusRequest,
    SystemSharedMemoryStatusResponse, SystemSharedMemoryUnregisterRequest, SystemSharedMemoryUnregisterResponse,
};

/// Answers `SystemSharedMemoryStatus`.
pub(crate) fn status(
    _process: &Process,
    _request: &SystemSharedMemoryStatusRequest,
) -> Result<SystemSharedMemoryStatusResponse> {
    Err(not_offered())
}

/// Answers `SystemSharedMemoryRegister`.
pub(crate) fn register(
    _process: &Process,
    _request: &SystemSharedMemoryRegisterRequest,
) -> Result<SystemSharedMemoryRegisterResponse> {
    Err(not_offered())
}

/// Answers `SystemSharedMemoryUnregister`; an empty name means all regions.
pub(crate) fn unregister(
    _process: &Process,
    _request: &SystemSharedMemoryUnregisterRequest,
) -> Result<SystemSharedMemoryUnregisterResponse> {
    Err(not_offered())
}

/// Answers `CudaSharedMemoryStatus`.
pub(crate) fn cuda_status(_request: &CudaSharedMemoryStatusRequest) -> Result<CudaSharedMemoryStatusResponse> {
    Err(not_offered())
}

/// Answers `CudaSharedMemoryRegister`.
pub(crate) fn cuda_register(_request: &CudaSharedMemoryRegisterRequest) -> Result<CudaSharedMemoryRegisterResponse> {
    Err(not_offered())
}

/// Answers `CudaSharedMemoryUnregister`.
pub(crate) fn cuda_unregister(
    _request: &CudaSharedMemoryUnregisterRequest,
) -> Result<CudaSharedMemoryUnregisterResponse> {
    Err(not_offered())
}

#[cold]
fn not_offered() -> Error {
    Error::new(Kind::NotOffered, "not offered yet")
}
