//! The routes that every server has, from the very table by which requests are routed.

use serde_json::{Map, Value, json};

use super::super::extensions::Extension;
use super::super::plain::Dialect;
use super::super::route::{Action, ROUTES, Route};
use super::error_references;

/// What routes are grouped by.
pub(super) const TAGS: [&str; 6] = ["health", "inference", "models", "repository", "shared memory", "settings"];

/// Adds an operation for each row of the table.
pub(super) fn add(paths: &mut Map<String, Value>) {
    for route in &ROUTES {
        let method = if route.is_post { "post" } else { "get" };
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(method.to_owned(), operation(route, method));
        }
    }
}

fn operation(route: &Route, method: &str) -> Value {
    let (tag, summary) = described(route.action);
    let mut responses = error_references();
    responses.insert("200".to_owned(), answer(route.action));
    let mut operation = json!({
        "tags": [tag],
        "summary": summary,
        "operationId": format!("{method} {}", route.path),
        "parameters": parameters(route.path),
        "responses": responses,
    });
    if route.is_post {
        let json = json!({ "schema": { "type": "object" } });
        let is_required = matches!(route.action, Action::Infer | Action::Plain(_));
        operation["requestBody"] = json!({ "required": is_required, "content": { "application/json": json } });
    }
    operation
}

/// What stands in braces.
fn parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.split('}').next());
    let parameter = |name: &str| {
        let schema = if name == "version" { json!({ "type": "integer" }) } else { json!({ "type": "string" }) };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    };
    names.map(parameter).collect()
}

fn answer(action: Action) -> Value {
    let content_type = match action {
        Action::Plain(Dialect::GenerateStream) => "text/event-stream",
        Action::Page => "text/html",
        _ => "application/json",
    };
    json!({ "description": "the answer", "content": { content_type: { "schema": {} } } })
}

fn described(action: Action) -> (&'static str, &'static str) {
    match action {
        Action::Infer => ("inference", "Inference (Open Inference Protocol)"),
        Action::Plain(Dialect::V1) => ("inference", "Prediction by rows or columns (KServe V1, TensorFlow Serving)"),
        Action::Plain(Dialect::Predict) => ("inference", "Prediction for one row of features, or for several"),
        Action::Plain(Dialect::Generate) => ("inference", "Inputs and outputs as members of one object"),
        Action::Plain(Dialect::GenerateStream) => ("inference", "The same, answered as a server-sent event"),
        Action::ModelMetadata => ("models", "A model's versions, inputs and outputs"),
        Action::V1Models => ("models", "Names of the models that are ready"),
        Action::ModelStatus => ("models", "Every model and version with its state"),
        Action::ModelReady | Action::V1Model => ("health", "Whether a model is ready"),
        Action::ServerMetadata => ("health", "The server's name, version and extensions"),
        Action::Live => ("health", "Whether the server lives"),
        Action::Ready => ("health", "Whether the server takes requests"),
        Action::Health => ("health", "Whether the server lives, and whether it takes requests"),
        Action::Startup => ("health", "Whether the models that are there at the start have settled"),
        Action::OpenApi => ("settings", "This document"),
        Action::Page => ("settings", "A page to try the models from a browser"),
        Action::Root => ("health", "Whether the server lives; browsers are led to the page"),
        Action::Extension(extension) => described_extension(extension),
    }
}

fn described_extension(extension: Extension) -> (&'static str, &'static str) {
    match extension {
        Extension::ModelConfig => ("models", "A model's configuration"),
        Extension::Statistics => ("models", "What models have done"),
        Extension::RepositoryIndex => ("repository", "The models of the repository"),
        Extension::Load => ("repository", "Loads a model"),
        Extension::Unload => ("repository", "Unloads a model"),
        Extension::OtherRepository => ("repository", "Refused: there is one repository"),
        Extension::SharedMemoryStatus => ("shared memory", "Regions of system shared memory"),
        Extension::SharedMemoryRegister => ("shared memory", "Registers a region of system shared memory"),
        Extension::SharedMemoryUnregister => ("shared memory", "Forgets regions of system shared memory"),
        Extension::CudaSharedMemoryStatus => ("shared memory", "Regions of CUDA shared memory"),
        Extension::CudaSharedMemoryRegister => ("shared memory", "Registers a region of CUDA shared memory"),
        Extension::CudaSharedMemoryUnregister => ("shared memory", "Forgets regions of CUDA shared memory"),
        Extension::TraceSetting => ("settings", "Settings of tracing"),
        Extension::Logging => ("settings", "Settings of the log"),
    }
}
