//! `GET /model/status`: every model and version, its state, and how it batches.

use std::path::Path;
use std::sync::Arc;

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use mlserve_core::config::Settings;
use mlserve_core::error::Result;
use mlserve_core::model::TensorSpec;
use mlserve_core::plan::{Plan, Slot, State};
use serde_json::{Value, json};

use super::HttpResponse;
use super::infer::off_loop;
use super::plain::counted;
use crate::event_loop::LoopContext;
use crate::process::Process;

/// Answers with all models, in order of their names. There may be thousands, so it is written away from the loop.
///
/// **Errors:** out of budget.
pub(super) async fn status(context: &LoopContext) -> Result<HttpResponse> {
    let process = Arc::clone(context.process());
    let body = off_loop(move || described(&process).to_string()).await?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    counted(context, headers, body.into_bytes())
}

fn described(process: &Process) -> Value {
    let plan = process.plan.load();
    let mut names: Vec<&str> = plan.endpoints().map(|(name, _)| name).collect();
    names.sort_unstable();
    let models: Vec<Value> = names.into_iter().map(|name| model(&plan, name, &process.settings)).collect();
    json!({ "ready": process.status.is_ready(&plan), "models": models })
}

fn model(plan: &Plan, name: &str, settings: &Settings) -> Value {
    let own = settings.models.get(name).and_then(|model| model.path.as_deref());
    let folders = [own, settings.server.models_path.as_deref()];
    let versions = plan.endpoint(name).into_iter().flat_map(|endpoint| &endpoint.versions);
    let versions: Vec<Value> = versions.map(|(number, slot)| version(*number, slot, folders)).collect();
    json!({ "name": name, "ready": plan.find(name, None).is_ok(), "versions": versions })
}

fn version(number: u64, slot: &Slot, folders: [Option<&Path>; 2]) -> Value {
    let reason = if let State::Failed(reason) = &slot.state { Some(without_folders(reason, folders)) } else { None };
    let mut version = json!({ "version": number.to_string(), "state": slot.state.name(), "reason": reason });
    if let Some(loaded) = &slot.version {
        let spec = &loaded.spec;
        version["platform"] = spec.platform.into();
        version["batching"] = json!({
            "shares_runs": spec.batching.is_allowed(),
            "max_batch_rows": spec.batching.is_allowed().then_some(loaded.settings.max_batch_rows),
            "reason": spec.batching.reason(),
        });
        version["inputs"] = tensors(&spec.inputs);
        version["outputs"] = tensors(&spec.outputs);
    }
    version
}

/// A reason for callers, who may know what a file is called in the repository, but not where that lies.
fn without_folders(reason: &str, folders: [Option<&Path>; 2]) -> String {
    let mut reason = reason.to_owned();
    for folder in folders.into_iter().flatten() {
        // The path may be that of a model's file.
        for folder in [Some(folder), folder.parent()].into_iter().flatten() {
            let prefix = format!("{}/", folder.display());
            if prefix.len() > 1 {
                reason = reason.replace(&prefix, "");
            }
        }
    }
    reason
}

fn tensors(tensors: &[TensorSpec]) -> Value {
    let tensor = |tensor: &TensorSpec| {
        json!({
            "name": tensor.name, "datatype": tensor.datatype.name(), "shape": tensor.shape.to_vec(),
        })
    };
    tensors.iter().map(tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_do_not_tell_where_the_repository_lies() {
        let folder = |path| [None, Some(Path::new(path))];
        let shown = |reason, path| without_folders(reason, folder(path));
        assert_eq!(shown("/srv/models/iris/1/model.onnx is cut off", "/srv/models"), "iris/1/model.onnx is cut off");
        assert_eq!(shown("/srv/iris.onnx is cut off", "/srv/iris.onnx"), "iris.onnx is cut off");
        assert_eq!(shown("a / b", "/models"), "a / b");
        assert_eq!(shown("models/iris/1/model.onnx", "models"), "iris/1/model.onnx");
    }
}
