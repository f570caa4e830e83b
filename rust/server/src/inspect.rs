//! What `mlserve inspect` says about a model.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use mlserve_core::model::{Batching, TensorSpec};
use mlserve_core::tensor::ShapeText;
use mlserve_ort::LoadedModel;
use serde_json::{Value, json};

/// For people.
pub(crate) fn to_text(path: &Path, loaded: &LoadedModel, took: Duration) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    line(format!("{}: {} bytes, loaded in {} ms", path.display(), loaded.file_bytes, took.as_millis()));
    line(format!("  made by    {} (IR {})", loaded.facts.producer, loaded.facts.ir_version));
    for tensor in &loaded.inputs {
        line(format!("  input      {} {} {}", tensor.name, tensor.datatype, ShapeText(&tensor.shape)));
    }
    for tensor in &loaded.outputs {
        line(format!("  output     {} {} {}", tensor.name, tensor.datatype, ShapeText(&tensor.shape)));
    }
    line(format!("  batching   {}", batching(&loaded.batching)));
    if let Some(operation) = &loaded.time_follows_values {
        line(format!("  time       follows values, by {operation}: runs are never made on an event loop"));
    }
    line(format!("  runs       {} at once, {} thread(s) each", loaded.instances, loaded.threads));
    for (rows, run) in &loaded.warmup {
        line(format!("  measured   {:.1} µs for {rows} row(s)", run.as_secs_f64() * 1e6));
    }
    let operations: Vec<String> =
        loaded.facts.operations.iter().map(|(name, count)| format!("{name}×{count}")).collect();
    line(format!("  operations {}", operations.join(" ")));
    text
}

fn batching(batching: &Batching) -> String {
    match batching {
        Batching::Rows => "rows of different requests share runs: proven independent".to_owned(),
        Batching::Trusted { reason } => {
            format!("rows of different requests share runs on your word, although {reason}")
        }
        Batching::Unsafe { reason } | Batching::Fixed { reason } => format!("one request per run: {reason}"),
    }
}

/// For programs.
pub(crate) fn to_json(path: &Path, loaded: &LoadedModel, took: Duration) -> Value {
    let tensors = |tensors: &[TensorSpec]| -> Vec<Value> {
        let tensor = |tensor: &TensorSpec| {
            json!({
                "name": tensor.name, "datatype": tensor.datatype.name(), "shape": tensor.shape.as_slice(),
            })
        };
        tensors.iter().map(tensor).collect()
    };
    json!({
        "path": path.display().to_string(),
        "bytes": loaded.file_bytes,
        "loaded_in_s": took.as_secs_f64(),
        "inputs": tensors(&loaded.inputs),
        "outputs": tensors(&loaded.outputs),
        "batching": loaded.batching.is_allowed(),
        "batching_kind": loaded.batching.name(),
        "batching_reason": loaded.batching.reason(),
        "time_follows_values": loaded.time_follows_values,
        "threads": loaded.threads,
        "instances": loaded.instances,
        "measured_us": loaded.warmup.iter().map(|(rows, run)| json!([rows, run.as_secs_f64() * 1e6])).collect::<Vec<_>>(),
        "operations": loaded.facts.operations,
        "producer": loaded.facts.producer,
        "ir_version": loaded.facts.ir_version,
    })
}
