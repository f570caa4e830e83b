//! `GET …/config`: a model's configuration.

use mlserve_core::error::Result;

use super::json_message;
use crate::extensions::config::model_config;
use crate::extensions::json::Members;
use crate::http::HttpResponse;
use crate::http::route::Target;
use crate::process::Process;
use crate::proto::ModelConfigRequest;

/// The whole configuration, members with their default value included.
pub(super) fn answer(process: &Process, target: &Target) -> Result<HttpResponse> {
    let version = target.version.map(|version| version.to_string()).unwrap_or_default();
    let response = model_config(process, &ModelConfigRequest { name: target.model.to_string(), version })?;
    json_message(&response.config.unwrap_or_default(), "ModelConfig", Members::All, |value| value)
}
