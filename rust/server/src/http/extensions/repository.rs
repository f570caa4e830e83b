//! `POST /v2/repository/…`: what there is, loading and unloading.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mlserve_core::budget::Reservation;
use mlserve_core::error::{Error, Kind, Result, quoted};
use serde_json::Value;

use super::{MAX_SETTINGS_BYTES, Received, done, json_message};
use crate::extensions::json::Members;
use crate::extensions::repository;
use crate::http::HttpResponse;
use crate::http::json::{Cursor, Token};
use crate::http::route::Target;
use crate::http::status::Refusal;
use crate::process::Process;
use crate::proto::model_repository_parameter::ParameterChoice;
use crate::proto::{
    ModelRepositoryParameter, RepositoryIndexRequest, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
};

/// Parameters of a load: a configuration, and files.
const MAX_PARAMETERS: usize = 4_096;

/// The index, a bare array whose members are left out where they are empty.
pub(super) async fn index(process: &Arc<Process>, received: Received<'_>) -> Result<HttpResponse, Refusal> {
    let (ready, _) = received.read(MAX_SETTINGS_BYTES, index_member).await?;
    let request = RepositoryIndexRequest { ready, ..RepositoryIndexRequest::default() };
    let response = repository::index(process, request).await?;
    let answer = json_message(&response, "RepositoryIndexResponse", Members::Set, |mut index| {
        // Nothing is there at all if there are no models.
        index.get_mut("models").map_or_else(|| Value::Array(Vec::new()), Value::take)
    });
    Ok(answer?)
}

fn index_member(ready: &mut bool, cursor: &mut Cursor<'_>, key: &str, _: &mut Reservation) -> Result<()> {
    match (key, cursor.token()?) {
        ("ready", Token::Bool) => *ready = cursor.boolean()?,
        ("ready", Token::Text | Token::Number | Token::Object | Token::Array) => {
            let value = quoted(cursor.raw()?);
            return Err(Error::invalid(format!("Unable to parse 'ready': it is {value}; true or false is expected")));
        }
        _ => cursor.skip()?,
    }
    Ok(())
}

/// Loads a model.
pub(super) async fn load(
    process: &Arc<Process>,
    target: &Target,
    received: Received<'_>,
) -> Result<HttpResponse, Refusal> {
    // Before the body is read: it may be large.
    process.models.check_name(&target.model)?;
    let (parameters, _held) = received.read(usize::MAX, load_member).await?;
    let request = RepositoryModelLoadRequest { model_name: target.model.to_string(), parameters, ..Default::default() };
    repository::load(process, request).await?;
    Ok(done())
}

/// Unloads a model.
pub(super) async fn unload(
    process: &Arc<Process>,
    target: &Target,
    received: Received<'_>,
) -> Result<HttpResponse, Refusal> {
    process.models.check_name(&target.model)?;
    let (parameters, _) = received.read(MAX_SETTINGS_BYTES, unload_member).await?;
    let request =
        RepositoryModelUnloadRequest { model_name: target.model.to_string(), parameters, ..Default::default() };
    repository::unload(process, request).await?;
    Ok(done())
}

type Parameters = HashMap<String, ModelRepositoryParameter>;

fn load_member(
    parameters: &mut Parameters,
    cursor: &mut Cursor<'_>,
    key: &str,
    reservation: &mut Reservation,
) -> Result<()> {
    read_parameters(parameters, cursor, key, |cursor, key, token| match token {
        Token::Text if key.starts_with("file:") => {
            let content = file(cursor, key, reservation)?;
            Ok(ParameterChoice::BytesParam(content))
        }
        // A configuration as an object is what people write by hand.
        Token::Object if key == "config" => Ok(ParameterChoice::StringParam(cursor.raw()?.to_owned())),
        _ => other_kind(cursor, token),
    })
}

/// A file's content, charged before it is allocated.
fn file(cursor: &mut Cursor<'_>, key: &str, reservation: &mut Reservation) -> Result<Vec<u8>> {
    let text = cursor.string()?;
    let bytes = base64::decoded_len_estimate(text.len());
    if !reservation.grow(bytes) {
        let text = format!("a file of {bytes} bytes would exceed the server's byte budget");
        return Err(Error::new(Kind::OutOfBudget, text));
    }
    let mut content = Vec::with_capacity(bytes);
    STANDARD
        .decode_vec(text.as_bytes(), &mut content)
        .map_err(|error| Error::invalid(format!("parameter '{}' is not base64: {error}", quoted(key))))?;
    Ok(content)
}

fn unload_member(parameters: &mut Parameters, cursor: &mut Cursor<'_>, key: &str, _: &mut Reservation) -> Result<()> {
    read_parameters(parameters, cursor, key, |cursor, _, token| other_kind(cursor, token))
}

/// Reads the member `parameters`; others mean nothing. A parameter that is null is one that is not there.
fn read_parameters(
    parameters: &mut Parameters,
    cursor: &mut Cursor<'_>,
    key: &str,
    mut read: impl FnMut(&mut Cursor<'_>, &str, Token) -> Result<ParameterChoice>,
) -> Result<()> {
    let token = cursor.token()?;
    if key != "parameters" || token == Token::Null {
        return cursor.skip();
    }
    if token != Token::Object {
        let value = quoted(cursor.raw()?);
        return Err(Error::invalid(format!("Unable to parse 'parameters': it is {value}; an object is expected")));
    }
    cursor.object(|cursor, key| {
        let token = cursor.token()?;
        if token == Token::Null {
            return cursor.skip();
        }
        if parameters.len() == MAX_PARAMETERS {
            return Err(too_many_parameters());
        }
        let parameter_choice = Some(read(cursor, &key, token)?);
        parameters.insert(key.into_owned(), ModelRepositoryParameter { parameter_choice });
        Ok(())
    })
}

/// Values whose kind the extension judges.
fn other_kind(cursor: &mut Cursor<'_>, token: Token) -> Result<ParameterChoice> {
    Ok(match token {
        Token::Bool => ParameterChoice::BoolParam(cursor.boolean()?),
        Token::Text => ParameterChoice::StringParam(cursor.string()?.into_owned()),
        _ => ParameterChoice::Int64Param(cursor.raw()?.parse().map_err(|_| wrong_value())?),
    })
}

#[cold]
fn too_many_parameters() -> Error {
    Error::too_large(format!("the request has more than {MAX_PARAMETERS} parameters, which is the limit"))
}

#[cold]
fn wrong_value() -> Error {
    Error::invalid("a parameter of a model repository request is a string, a whole number, true or false")
}
