//! The model repository extension: what there is, loading and unloading.

use mlserve_core::error::{Error, Kind, Result};

use crate::process::Process;
use crate::proto::{
    RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest, RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest, RepositoryModelUnloadResponse,
};

/// Answers `RepositoryIndex`.
///
/// **Errors:** a repository is named, which is not supported.
pub(crate) fn index(_process: &Process, _request: &RepositoryIndexRequest) -> Result<RepositoryIndexResponse> {
    Err(not_offered())
}

/// Answers `RepositoryModelLoad` once the model serves or has failed.
///
/// **Errors:** not in explicit mode; no such model; it cannot be loaded.
pub(crate) async fn load(
    _process: &Process,
    _request: RepositoryModelLoadRequest,
) -> Result<RepositoryModelLoadResponse> {
    Err(not_offered())
}

/// Answers `RepositoryModelUnload` once new requests are refused and those in flight are answered.
///
/// **Errors:** not in explicit mode.
pub(crate) async fn unload(
    _process: &Process,
    _request: RepositoryModelUnloadRequest,
) -> Result<RepositoryModelUnloadResponse> {
    Err(not_offered())
}

#[cold]
fn not_offered() -> Error {
    Error::new(Kind::NotOffered, "not offered yet")
}
