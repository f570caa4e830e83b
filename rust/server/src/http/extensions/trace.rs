//! `/v2/trace/setting` and `/v2/models/{model}/trace/setting`.

use mlserve_core::error::Result;

use super::{Body, done};
use crate::extensions::trace;
use crate::http::HttpResponse;
use crate::http::route::Target;
use crate::process::Process;
use crate::proto::TraceSettingRequest;

/// Changes what the body sets, and tells what is in force.
pub(super) fn answer(process: &Process, target: &Target, _body: Option<Body>) -> Result<HttpResponse> {
    let request = TraceSettingRequest { model_name: target.model.to_string(), ..Default::default() };
    trace::settings(process, &request)?;
    Ok(done())
}
