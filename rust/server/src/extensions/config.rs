//! The model configuration extension: what a loaded model is configured as.

use mlserve_core::error::{Error, Kind, Result};

use crate::process::Process;
use crate::proto::{ModelConfigRequest, ModelConfigResponse};

/// Answers `ModelConfig`.
///
/// **Errors:** not found; not ready.
pub(crate) fn model_config(_process: &Process, _request: &ModelConfigRequest) -> Result<ModelConfigResponse> {
    Err(not_offered())
}

#[cold]
fn not_offered() -> Error {
    Error::new(Kind::NotOffered, "not offered yet")
}
