//! `GET …/stats`: what has been counted.

use std::sync::Arc;

use http::StatusCode;
use mlserve_core::error::Result;

use super::{json_message, json_response};
use crate::extensions::json::Members;
use crate::extensions::statistics::{Form, Statistics, model_statistics};
use crate::http::HttpResponse;
use crate::http::infer::off_loop;
use crate::http::route::Target;
use crate::process::Process;
use crate::proto::ModelStatisticsRequest;

/// The statistics of one model or of all.
pub(super) async fn answer(process: &Arc<Process>, target: &Target) -> Result<HttpResponse> {
    if target.model.is_empty() {
        return Ok(json_response(StatusCode::OK, Statistics::of_all(process, Form::Json).await?));
    }
    let version = target.version.map(|version| version.to_string()).unwrap_or_default();
    let request = ModelStatisticsRequest { name: target.model.to_string(), version };
    let shared = Arc::clone(process);
    let write = move || {
        let response = model_statistics(&shared, &request)?;
        json_message(&response, "ModelStatisticsResponse", Members::All, |value| value)
    };
    off_loop(process, write).await?
}
