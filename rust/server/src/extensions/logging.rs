//! The logging extension: what is logged, changed while the server runs.

use mlserve_core::error::{Error, Kind, Result};

use crate::process::Process;
use crate::proto::{LogSettingsRequest, LogSettingsResponse};

/// Answers `LogSettings`: changes what the request sets, and tells what is in force.
///
/// **Errors:** a setting that there is not, or a value that is not allowed.
pub(crate) fn settings(_process: &Process, _request: &LogSettingsRequest) -> Result<LogSettingsResponse> {
    Err(not_offered())
}

#[cold]
fn not_offered() -> Error {
    Error::new(Kind::NotOffered, "not offered yet")
}
