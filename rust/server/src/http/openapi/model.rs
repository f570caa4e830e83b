//! The operations of one model, with the schemas of its own tensors.

use mlserve_core::model::{ModelSpec, TensorSpec};
use mlserve_core::tensor::DataType;
use serde_json::{Map, Value, json};

use super::{error_references, example, schema};

/// A way to ask a model.
struct Operation {
    path: String,
    /// What is said of it.
    summary: &'static str,
    /// Told apart from all others by generators of clients.
    verb: &'static str,
    body: Value,
    example: Option<Value>,
    answer: Value,
}

/// Adds the operations of the model of `spec`; `version`: for the paths that name it.
pub(super) fn add(paths: &mut Map<String, Value>, spec: &ModelSpec, version: Option<u64>) {
    let mut operations = vec![infer(spec, version)];
    let tensors = || spec.inputs.iter().chain(&spec.outputs);
    // What JSON cannot carry has binary data only, which is infer's.
    if !tensors().any(|tensor| matches!(tensor.datatype, DataType::Fp16 | DataType::Bf16)) {
        operations.extend([v1(spec, version), generate(spec, version)]);
        operations.extend(version.is_none().then(|| predict(spec)));
    }
    let versioned = version.map(|version| format!(" version {version}")).unwrap_or_default();
    for operation in operations {
        let mut body = json!({ "schema": operation.body });
        if let Some(example) = operation.example {
            body["example"] = example;
        }
        let mut responses = error_references();
        let answer = json!({ "application/json": { "schema": operation.answer } });
        responses.insert("200".to_owned(), json!({ "description": "the answer", "content": answer }));
        let post = json!({
            "tags": [format!("model {}", spec.name)],
            "summary": operation.summary,
            "operationId": format!("{} {}{versioned}", operation.verb, spec.name),
            "requestBody": { "required": true, "content": { "application/json": body } },
            "responses": responses,
        });
        paths.insert(operation.path, json!({ "post": post }));
    }
}

fn infer(spec: &ModelSpec, version: Option<u64>) -> Operation {
    let mut body = schema::object(&[("inputs", schema::tensors(&spec.inputs))]);
    body["properties"]["inputs"]["minItems"] = spec.inputs.len().into();
    let output = schema::object(&[("name", json!({ "enum": names(&spec.outputs) }))]);
    body["properties"]["outputs"] = json!({ "type": "array", "items": output });
    body["properties"]["id"] = json!({ "type": "string" });
    body["properties"]["parameters"] = json!({ "type": "object" });
    let is_json = !spec.inputs.iter().any(|tensor| matches!(tensor.datatype, DataType::Fp16 | DataType::Bf16));
    Operation {
        path: format!("{}/infer", v2(spec, version)),
        summary: "Inference (Open Inference Protocol)",
        verb: "infer",
        body,
        example: (is_json && example::is_short(spec)).then(|| example::infer(spec)),
        answer: schema::object(&[
            ("model_name", json!({ "type": "string" })),
            ("model_version", json!({ "type": "string" })),
            ("outputs", schema::tensors(&spec.outputs)),
        ]),
    }
}

fn v1(spec: &ModelSpec, version: Option<u64>) -> Operation {
    let rows =
        json!({ "type": "array", "minItems": 1, "items": schema::of_all(&spec.inputs, |tensor| row(spec, tensor)) });
    let whole =
        |tensors: &[TensorSpec]| schema::of_all(tensors, |tensor| schema::nested(&tensor.shape, tensor.datatype));
    let predictions = schema::of_all(&spec.outputs, |tensor| row(spec, tensor));
    let versioned = version.map(|version| format!("/versions/{version}")).unwrap_or_default();
    Operation {
        path: format!("/v1/models/{}{versioned}:predict", spec.name),
        summary: "Prediction by rows or columns (KServe V1, TensorFlow Serving)",
        verb: "predict V1",
        body: json!({ "oneOf": [
            schema::object(&[("instances", rows)]),
            schema::object(&[("inputs", whole(&spec.inputs))]),
        ]}),
        example: example::is_short(spec).then(|| json!({ "instances": [example::row(spec)] })),
        answer: json!({ "oneOf": [
            schema::object(&[("predictions", json!({ "type": "array", "items": predictions }))]),
            schema::object(&[("outputs", whole(&spec.outputs))]),
        ]}),
    }
}

fn predict(spec: &ModelSpec) -> Operation {
    let row = schema::of_all(&spec.inputs, |tensor| row(spec, tensor));
    let rows = json!({ "type": "array", "minItems": 1, "items": row });
    Operation {
        path: format!("/predict/{}", spec.name),
        summary: "Prediction for one row of features, or for several",
        verb: "predict",
        body: schema::object(&[("features", json!({ "anyOf": [row, rows] }))]),
        example: example::is_short(spec).then(|| json!({ "features": example::row(spec) })),
        answer: schema::object(&[
            ("prediction", json!({ "description": "for each row, or for the one that was sent bare" })),
            ("confidence", json!({ "type": ["number", "array", "null"] })),
            ("model_name", json!({ "type": "string" })),
            ("model_version", json!({ "type": "string" })),
            ("processing_time", json!({ "type": "number", "description": "seconds" })),
        ]),
    }
}

fn generate(spec: &ModelSpec, version: Option<u64>) -> Operation {
    let value = |tensor: &TensorSpec| {
        let element = schema::element(tensor.datatype);
        json!({ "anyOf": [element, { "type": "array", "items": { "anyOf": [element, { "type": "array" }] } }] })
    };
    let mut body = schema::by_name(&spec.inputs, value);
    if spec.input("parameters").is_none() {
        body["properties"]["parameters"] = json!({ "type": "object" });
    }
    let mut answer = schema::by_name(&spec.outputs, value);
    answer["properties"]["model_name"] = json!({ "type": "string" });
    answer["properties"]["model_version"] = json!({ "type": "string" });
    Operation {
        path: format!("{}/generate", v2(spec, version)),
        summary: "Inputs and outputs as members of one object (Triton's generate)",
        verb: "generate",
        body,
        example: example::is_short(spec).then(|| example::generate(spec)),
        answer,
    }
}

/// One row of `tensor`.
fn row(spec: &ModelSpec, tensor: &TensorSpec) -> Value {
    let dimensions = tensor.shape.get(usize::from(spec.batching.has_rows())..).unwrap_or_default();
    schema::nested(dimensions, tensor.datatype)
}

fn names(tensors: &[TensorSpec]) -> Vec<&str> {
    tensors.iter().map(|tensor| tensor.name.as_str()).collect()
}

/// Where its routes begin. Names of models hold no character that paths escape.
fn v2(spec: &ModelSpec, version: Option<u64>) -> String {
    let versioned = version.map(|version| format!("/versions/{version}")).unwrap_or_default();
    format!("/v2/models/{}{versioned}", spec.name)
}
