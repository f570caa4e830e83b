//! `GET /openapi.json`: the server's routes, and those of each model that is loaded now, with its own tensors. Of many
//! models only one is described, the one that the query names.
//!
//! Source: the `OpenAPI` Specification 3.1.1. Made away from the loops, and once for each plan.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use mlserve_core::error::{CODE_HEADER, Error, Kind, Result, quoted};
use mlserve_core::plan::Plan;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use super::HttpResponse;
use super::infer::off_loop;
use super::plain::counted;
use super::route::percent_decoded;
use crate::event_loop::LoopContext;

mod example;
mod model;
mod routes;
mod schema;

/// Models that are described together: for ten thousand it would take seconds and have 66 MB.
const MAX_MODELS: usize = 100;

/// The document of the present plan, made by the first who asks for it.
#[derive(Debug, Default)]
pub(crate) struct Document(Mutex<Option<(u64, Bytes)>>);

impl Document {
    /// The document of `plan`; whoever asks while somebody has `make` make it waits.
    async fn of(&self, plan: Arc<Plan>, make: impl AsyncFnOnce(Arc<Plan>) -> Result<String>) -> Result<Bytes> {
        let mut kept = self.0.lock().await;
        match &*kept {
            Some((number, text)) if *number == plan.number => Ok(text.clone()),
            _ => {
                let number = plan.number;
                let text = Bytes::from(make(plan).await?);
                *kept = Some((number, text.clone()));
                Ok(text)
            }
        }
    }
}

/// Answers with the document; `query`: `model=NAME` for the one with that model alone.
///
/// **Errors:** a query that is something else; an unknown model; out of budget.
pub(super) async fn answer(context: &LoopContext, query: Option<&str>) -> Result<HttpResponse> {
    let process = context.process();
    let plan = process.plan.load_full();
    let whole = async |plan: Arc<Plan>| off_loop(process, move || document(&plan, None).to_string()).await;
    let body = match asked_model(query)? {
        None => process.openapi.of(plan, whole).await?,
        Some(name) => {
            if plan.endpoint(&name).is_none() {
                plan.find(&name, None)?;
            }
            Bytes::from(off_loop(process, move || document(&plan, Some(&name)).to_string()).await?)
        }
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    counted(context, headers, body)
}

/// The model that the query asks for.
fn asked_model(query: Option<&str>) -> Result<Option<String>> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(None) };
    let Some(name) = query.strip_prefix("model=").filter(|name| !name.contains('&')) else {
        return Err(Error::invalid(format!("unknown query '{}': allowed is 'model=NAME'", quoted(query))));
    };
    Ok(Some(percent_decoded(name)?.into_owned()))
}

/// The document for what `plan` serves: all of it, unless that is too much, or the model `only`.
fn document(plan: &Arc<Plan>, only: Option<&str>) -> Value {
    let mut paths = Map::new();
    routes::add(&mut paths);
    let mut names: Vec<&str> = plan.endpoints().map(|(name, _)| name).collect();
    let count = names.len();
    match only {
        Some(only) => names.retain(|name| *name == only),
        None if count > MAX_MODELS => names.clear(),
        None => names.sort_unstable(),
    }
    for name in &names {
        add_model(&mut paths, plan, name);
    }
    let model_tags = names.iter().map(|name| format!("model {name}"));
    let tags = routes::TAGS.iter().map(|&name| name.to_owned()).chain(model_tags);
    let left_out = if names.len() < count {
        format!(" There are {count} models; /openapi.json?model=NAME describes one of them.")
    } else {
        String::new()
    };
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "mlserve",
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!(
                "Open Inference Protocol with Triton's extensions, KServe V1, and plain JSON. Paths with a model's name \
                 in them have the schema of that model.{left_out}"
            ),
        },
        "servers": [{ "url": "/" }],
        "tags": tags.map(|name| json!({ "name": name })).collect::<Vec<_>>(),
        "paths": paths,
        "components": { "schemas": { "Error": schema::error() }, "responses": responses() },
    })
}

fn add_model(paths: &mut Map<String, Value>, plan: &Plan, name: &str) {
    let Some(endpoint) = plan.endpoint(name) else { return };
    if let Some(latest) = endpoint.latest() {
        model::add(paths, &latest.spec, None);
    }
    // With one version, its number in the path would only be a longer way to say the same.
    let has_several = endpoint.ready().nth(1).is_some();
    for (number, version) in endpoint.ready().filter(|_| has_several) {
        model::add(paths, &version.spec, Some(number));
    }
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
