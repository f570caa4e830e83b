//! `GET …/stats`: what has been counted.

use mlserve_core::error::Result;

use super::json_message;
use crate::extensions::json::Members;
use crate::extensions::statistics::model_statistics;
use crate::http::HttpResponse;
use crate::http::route::Target;
use crate::process::Process;
use crate::proto::ModelStatisticsRequest;

/// The statistics of one model or of all.
pub(super) fn answer(process: &Process, target: &Target) -> Result<HttpResponse> {
    let version = target.version.map(|version| version.to_string()).unwrap_or_default();
    let response = model_statistics(process, &ModelStatisticsRequest { name: target.model.to_string(), version })?;
    json_message(&response, "ModelStatisticsResponse", Members::All, |value| value)
}
