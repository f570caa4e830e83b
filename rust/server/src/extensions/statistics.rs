//! The statistics extension: what has been counted, per model and version.

use mlserve_core::error::{Error, Kind, Result};

use crate::process::Process;
use crate::proto::{ModelStatisticsRequest, ModelStatisticsResponse};

/// Answers `ModelStatistics`; an empty name means all models.
///
/// **Errors:** an unknown or unloaded model or version.
pub(crate) fn model_statistics(
    _process: &Process,
    _request: &ModelStatisticsRequest,
) -> Result<ModelStatisticsResponse> {
    Err(not_offered())
}

#[cold]
fn not_offered() -> Error {
    Error::new(Kind::NotOffered, "not offered yet")
}
