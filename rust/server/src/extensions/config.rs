//! The model configuration extension: what a loaded model is configured as.

use mlserve_core::error::Result;

use crate::grpc::model_version;
use crate::model_config::describe;
use crate::process::Process;
use crate::proto::{ModelConfigRequest, ModelConfigResponse};

/// Answers `ModelConfig`: what is in force for the version that is named, or the one that callers get who name none.
///
/// **Errors:** not found; not ready; a version that is no number.
pub(crate) fn model_config(process: &Process, request: &ModelConfigRequest) -> Result<ModelConfigResponse> {
    let number = model_version(&request.version)?;
    let plan = process.plan.load();
    let version = plan.find(&request.name, number)?;
    let file = process.configs.get(&version.spec.name, version.spec.version);
    Ok(ModelConfigResponse { config: Some(describe(version, file.as_deref())) })
}
