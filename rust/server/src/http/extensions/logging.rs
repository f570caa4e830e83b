//! `/v2/logging`.

use mlserve_core::error::Result;

use super::{Body, done};
use crate::extensions::logging;
use crate::http::HttpResponse;
use crate::process::Process;
use crate::proto::LogSettingsRequest;

/// Changes what the body sets, and tells what is in force.
pub(super) fn answer(process: &Process, _body: Option<Body>) -> Result<HttpResponse> {
    logging::settings(process, &LogSettingsRequest::default())?;
    Ok(done())
}
