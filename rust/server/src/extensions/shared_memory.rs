//! The shared memory extensions: regions that clients put tensors into instead of messages.
//!
//! Whether shared memory is on or off, clients may ask what is registered and have everything forgotten: they begin with
//! that. There is no CUDA shared memory: this server uses no GPU.

use mlserve_core::error::{Error, Kind, Result};

use crate::process::Process;
use crate::proto::system_shared_memory_status_response::RegionStatus;
use crate::proto::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryRegisterResponse, CudaSharedMemoryStatusRequest,
    CudaSharedMemoryStatusResponse, CudaSharedMemoryUnregisterRequest, CudaSharedMemoryUnregisterResponse,
    SystemSharedMemoryRegisterRequest, SystemSharedMemoryRegisterResponse, SystemSharedMemoryStatusRequest,
    SystemSharedMemoryStatusResponse, SystemSharedMemoryUnregisterRequest, SystemSharedMemoryUnregisterResponse,
};
use crate::shared_memory::unknown;

/// Answers `SystemSharedMemoryStatus`; an empty name means all regions.
///
/// **Errors:** there is no region of that name.
pub(crate) fn status(
    process: &Process,
    request: &SystemSharedMemoryStatusRequest,
) -> Result<SystemSharedMemoryStatusResponse> {
    let regions = process.shared_memory.list(&request.name)?.into_iter().map(|(name, region)| {
        let key = region.key.to_string();
        (name.clone(), RegionStatus { name, key, offset: region.offset, byte_size: region.byte_size })
    });
    Ok(SystemSharedMemoryStatusResponse { regions: regions.collect() })
}

/// Answers `SystemSharedMemoryRegister`.
///
/// **Errors:** off; a name or key that may not be; a name that is taken; an object that cannot be used.
pub(crate) fn register(
    process: &Process,
    request: &SystemSharedMemoryRegisterRequest,
) -> Result<SystemSharedMemoryRegisterResponse> {
    process.shared_memory.register(&request.name, &request.key, request.offset, request.byte_size)?;
    Ok(SystemSharedMemoryRegisterResponse {})
}

/// Answers `SystemSharedMemoryUnregister`; an empty name means all regions.
///
/// **Errors:** off, and one region is named.
pub(crate) fn unregister(
    process: &Process,
    request: &SystemSharedMemoryUnregisterRequest,
) -> Result<SystemSharedMemoryUnregisterResponse> {
    process.shared_memory.unregister(&request.name)?;
    Ok(SystemSharedMemoryUnregisterResponse {})
}

/// Answers `CudaSharedMemoryStatus`: there are no regions.
///
/// **Errors:** a region is named.
pub(crate) fn cuda_status(request: &CudaSharedMemoryStatusRequest) -> Result<CudaSharedMemoryStatusResponse> {
    if request.name.is_empty() {
        Ok(CudaSharedMemoryStatusResponse::default())
    } else {
        Err(unknown("cuda shared memory"))
    }
}

/// Answers `CudaSharedMemoryRegister`.
///
/// **Errors:** always.
pub(crate) fn cuda_register(_request: &CudaSharedMemoryRegisterRequest) -> Result<CudaSharedMemoryRegisterResponse> {
    Err(Error::new(Kind::NotOffered, "CUDA shared memory is not available: this server uses no GPU"))
}

/// Answers `CudaSharedMemoryUnregister`: nothing of any name is registered afterwards, as it was before.
pub(crate) fn cuda_unregister(_request: &CudaSharedMemoryUnregisterRequest) -> CudaSharedMemoryUnregisterResponse {
    CudaSharedMemoryUnregisterResponse {}
}
