//! `/v2/trace/setting` and `/v2/models/{model}/trace/setting`.

use std::collections::HashMap;

use http::StatusCode;
use mlserve_core::budget::Reservation;
use mlserve_core::error::{Error, Result, quoted};
use serde_json::{Map, Value};

use super::{MAX_MEMBERS, MAX_SETTINGS_BYTES, Received};
use crate::extensions::trace;
use crate::http::HttpResponse;
use crate::http::json::{Cursor, Token};
use crate::http::route::Target;
use crate::http::status::{Refusal, json_response};
use crate::process::Process;
use crate::proto::TraceSettingRequest;
use crate::proto::trace_setting_request::SettingValue;

/// Changes what the body sets, and tells what is in force.
pub(super) async fn answer(
    process: &Process,
    target: &Target,
    received: Received<'_>,
) -> Result<HttpResponse, Refusal> {
    let mut settings = Settings::new();
    if received.is_post() {
        (settings, _) = received.read(MAX_SETTINGS_BYTES, member).await?;
    }
    let request = TraceSettingRequest { model_name: target.model.to_string(), settings };
    let response = trace::settings(process, &request)?;
    let member = |(name, setting): (String, crate::proto::trace_setting_response::SettingValue)| {
        let mut texts = setting.value.into_iter().map(Value::String);
        // The level alone can have several values, and is a list.
        let value = if name == "trace_level" { texts.collect() } else { texts.next().unwrap_or_default() };
        (name, value)
    };
    let settings: Map<String, Value> = response.settings.into_iter().map(member).collect();
    Ok(json_response(StatusCode::OK, Value::Object(settings).to_string()))
}

type Settings = HashMap<String, SettingValue>;

/// The values of a setting as gRPC has them; null clears it, and is no value.
fn member(settings: &mut Settings, cursor: &mut Cursor<'_>, name: &str, _: &mut Reservation) -> Result<()> {
    let mut value = Vec::new();
    match cursor.token()? {
        Token::Null => cursor.skip()?,
        Token::Array => cursor.array(|cursor| {
            if value.len() == MAX_MEMBERS {
                return Err(too_many(name));
            }
            value.push(text(cursor, name)?);
            Ok(())
        })?,
        _ => value.push(text(cursor, name)?),
    }
    settings.insert(name.to_owned(), SettingValue { value });
    Ok(())
}

fn text(cursor: &mut Cursor<'_>, name: &str) -> Result<String> {
    match cursor.token()? {
        Token::Text => Ok(cursor.string()?.into_owned()),
        Token::Number => Ok(cursor.number()?.text.to_owned()),
        _ => Err(wrong_value(name, cursor.raw()?)),
    }
}

#[cold]
fn too_many(name: &str) -> Error {
    Error::too_large(format!("trace setting '{}' has more than {MAX_MEMBERS} values, which is the limit", quoted(name)))
}

#[cold]
fn wrong_value(name: &str, value: &str) -> Error {
    Error::invalid(format!(
        "trace setting '{}' is {}; allowed are a text, a list of texts, and null, which clears it",
        quoted(name),
        quoted(value)
    ))
}
