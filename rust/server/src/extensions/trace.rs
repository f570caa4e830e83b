//! The trace extension: which requests are written to the trace file, and how much of them.

use mlserve_core::error::{Error, Kind, Result};

use crate::process::Process;
use crate::proto::{TraceSettingRequest, TraceSettingResponse};

/// Answers `TraceSetting`: changes what the request sets, and tells what is in force.
///
/// **Errors:** an unknown model; a setting that there is not, or a value that is not allowed.
pub(crate) fn settings(_process: &Process, _request: &TraceSettingRequest) -> Result<TraceSettingResponse> {
    Err(not_offered())
}

#[cold]
fn not_offered() -> Error {
    Error::new(Kind::NotOffered, "not offered yet")
}
