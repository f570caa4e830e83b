//! `GET /openapi.json`: the server's routes, and those of each model that is loaded now, with its own tensors.
//!
//! Source: the `OpenAPI` Specification 3.1.1. Made anew for each request, away from the loops: it is asked for by people.

use std::fmt::Write as _;
use std::sync::Arc;

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use mlserve_core::error::{CODE_HEADER, Kind, Result};
use mlserve_core::plan::Plan;
use serde_json::{Map, Value, json};

use super::HttpResponse;
use super::infer::off_loop;
use super::plain::counted;
use crate::event_loop::LoopContext;

mod example;
mod model;
mod routes;
mod schema;

/// Answers with the document.
///
/// **Errors:** out of budget.
pub(super) async fn answer(context: &LoopContext) -> Result<HttpResponse> {
    let plan = context.process().plan.load_full();
    let body = off_loop(context.process(), move || document(&plan).to_string()).await?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    counted(context, headers, body.into_bytes())
}

/// The document for what `plan` serves.
fn document(plan: &Arc<Plan>) -> Value {
    let mut paths = Map::new();
    routes::add(&mut paths);
    let mut names: Vec<&str> = plan.endpoints().map(|(name, _)| name).collect();
    names.sort_unstable();
    for name in &names {
        let Some(endpoint) = plan.endpoint(name) else { continue };
        if let Some(latest) = endpoint.latest() {
            model::add(&mut paths, &latest.spec, None);
        }
        // With one version, its number in the path would only be a longer way to say the same.
        let has_several = endpoint.ready().nth(1).is_some();
        for (number, version) in endpoint.ready().filter(|_| has_several) {
            model::add(&mut paths, &version.spec, Some(number));
        }
    }
    let model_tags = names.iter().map(|name| format!("model {name}"));
    let tags = routes::TAGS.iter().map(|&name| name.to_owned()).chain(model_tags);
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "mlserve",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Open Inference Protocol with Triton's extensions, KServe V1, and plain JSON. \
                            Paths with a model's name in them have the schema of that model.",
        },
        "servers": [{ "url": "/" }],
        "tags": tags.map(|name| json!({ "name": name })).collect::<Vec<_>>(),
        "paths": paths,
        "components": { "schemas": { "Error": schema::error() }, "responses": responses() },
    })
}

/// One response for each status that errors have, with the codes that tell them apart.
fn responses() -> Map<String, Value> {
    let mut texts = std::collections::BTreeMap::<u16, String>::new();
    for kind in Kind::ALL {
        let row = kind.row();
        let text = texts.entry(row.http).or_default();
        let separator = if text.is_empty() { "" } else { "; " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}`{}`: {}", row.code, row.meaning);
    }
    let response = |text: String| {
        json!({
            "description": text,
            "headers": { CODE_HEADER: { "description": "the error's row", "schema": { "type": "string" } } },
            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
        })
    };
    texts.into_iter().map(|(status, text)| (format!("Error{status}"), response(text))).collect()
}

/// The error responses of an operation that runs a model.
fn error_references() -> Map<String, Value> {
    let statuses = responses().into_iter().filter_map(|(name, _)| {
        let status = name.strip_prefix("Error")?.to_owned();
        Some((status, json!({ "$ref": format!("#/components/responses/{name}") })))
    });
    statuses.collect()
}

#[cfg(test)]
mod tests;
