//! `GET /model/status`: every model and version, its state, and how it batches.

use std::sync::Arc;

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
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
    let body = off_loop(context.process(), move || described(&process).to_string()).await?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    counted(context, headers, body.into_bytes())
}

fn described(process: &Process) -> Value {
    let plan = process.plan.load();
    let mut names: Vec<&str> = plan.endpoints().map(|(name, _)| name).collect();
    names.sort_unstable();
    let models: Vec<Value> = names.into_iter().map(|name| model(&plan, name)).collect();
    json!({ "ready": process.status.is_ready(&plan), "models": models })
}

fn model(plan: &Plan, name: &str) -> Value {
    let versions = plan.endpoint(name).into_iter().flat_map(|endpoint| &endpoint.versions);
    let versions: Vec<Value> = versions.map(|(number, slot)| version(*number, slot)).collect();
    json!({ "name": name, "ready": plan.look_up(name, None).is_ok(), "versions": versions })
}

fn version(number: u64, slot: &Slot) -> Value {
    let reason = if let State::Failed(reason) = &slot.state { Some(reason) } else { None };
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

fn tensors(tensors: &[TensorSpec]) -> Value {
    let tensor = |tensor: &TensorSpec| {
        json!({
            "name": tensor.name, "datatype": tensor.datatype.name(), "shape": tensor.shape.to_vec(),
        })
    };
    tensors.iter().map(tensor).collect()
}
