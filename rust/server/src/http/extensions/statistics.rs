//! `GET …/stats`: what has been counted.

use std::sync::Arc;

use mlserve_core::error::Result;

use super::json_message;
use crate::extensions::json::Members;
use crate::extensions::statistics::model_statistics;
use crate::http::HttpResponse;
use crate::http::infer::off_loop;
use crate::http::route::Target;
use crate::process::Process;
use crate::proto::ModelStatisticsRequest;

/// The statistics of one model or of all. Written off the loop: a thousand models make half a megabyte of JSON.
pub(super) async fn answer(process: &Arc<Process>, target: &Target) -> Result<HttpResponse> {
    let version = target.version.map(|version| version.to_string()).unwrap_or_default();
    let request = ModelStatisticsRequest { name: target.model.to_string(), version };
    let shared = Arc::clone(process);
    let write = move || {
        let response = model_statistics(&shared, &request)?;
        json_message(&response, "ModelStatisticsResponse", Members::All, |value| value)
    };
    off_loop(process, write).await?
}
