//! `POST /v2/repository/…`: what there is, loading and unloading.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mlserve_core::error::{Error, Result, quoted};
use serde_json::Value;

use super::{Body, done, json_message};
use crate::extensions::json::Members;
use crate::extensions::repository;
use crate::http::HttpResponse;
use crate::http::route::Target;
use crate::process::Process;
use crate::proto::model_repository_parameter::ParameterChoice;
use crate::proto::{
    ModelRepositoryParameter, RepositoryIndexRequest, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
};

/// The index, a bare array whose members are left out where they are empty.
pub(super) async fn index(process: &Arc<Process>, body: Body) -> Result<HttpResponse> {
    let ready = match body.get("ready") {
        None => false,
        Some(Value::Bool(ready)) => *ready,
        Some(other) => {
            return Err(Error::invalid(format!("Unable to parse 'ready': it is {other}; true or false is expected")));
        }
    };
    let request = RepositoryIndexRequest { ready, ..RepositoryIndexRequest::default() };
    let response = repository::index(process, request).await?;
    json_message(&response, "RepositoryIndexResponse", Members::Set, |mut index| {
        // Nothing is there at all if there are no models.
        index.get_mut("models").map_or_else(|| Value::Array(Vec::new()), Value::take)
    })
}

/// Loads a model.
pub(super) async fn load(process: &Arc<Process>, target: &Target, body: Body) -> Result<HttpResponse> {
    let parameters = parameters(body, |key, value| match value {
        Value::String(text) if key.starts_with("file:") => {
            let content = STANDARD
                .decode(text)
                .map_err(|error| Error::invalid(format!("parameter '{}' is not base64: {error}", quoted(key))))?;
            Ok(ParameterChoice::BytesParam(content))
        }
        Value::String(text) => Ok(ParameterChoice::StringParam(text)),
        // A configuration as an object is what people write by hand.
        Value::Object(config) if key == "config" => Ok(ParameterChoice::StringParam(Value::Object(config).to_string())),
        other => other_kind(other),
    })?;
    let request = RepositoryModelLoadRequest { model_name: target.model.to_string(), parameters, ..Default::default() };
    repository::load(process, request).await?;
    Ok(done())
}

/// Unloads a model.
pub(super) async fn unload(process: &Arc<Process>, target: &Target, body: Body) -> Result<HttpResponse> {
    let parameters = parameters(body, |_, value| other_kind(value))?;
    let request =
        RepositoryModelUnloadRequest { model_name: target.model.to_string(), parameters, ..Default::default() };
    repository::unload(process, request).await?;
    Ok(done())
}

type Parameters = HashMap<String, ModelRepositoryParameter>;

fn parameters(mut body: Body, read: impl Fn(&str, Value) -> Result<ParameterChoice>) -> Result<Parameters> {
    let parameters = match body.remove("parameters") {
        None => return Ok(Parameters::new()),
        Some(Value::Object(parameters)) => parameters,
        Some(other) => {
            return Err(Error::invalid(format!("Unable to parse 'parameters': it is {other}; an object is expected")));
        }
    };
    let read = |(key, value): (String, Value)| {
        let parameter_choice = Some(read(&key, value)?);
        Ok((key, ModelRepositoryParameter { parameter_choice }))
    };
    parameters.into_iter().map(read).collect()
}

/// Values whose kind the extension judges.
fn other_kind(value: Value) -> Result<ParameterChoice> {
    match value {
        Value::Bool(value) => Ok(ParameterChoice::BoolParam(value)),
        Value::String(text) => Ok(ParameterChoice::StringParam(text)),
        Value::Number(number) if number.is_i64() => {
            Ok(ParameterChoice::Int64Param(number.as_i64().unwrap_or_default()))
        }
        _ => {
            Err(Error::invalid("a parameter of a model repository request is a string, a whole number, true or false"))
        }
    }
}
