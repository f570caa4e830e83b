//! `/v2/logging`.

use std::collections::HashMap;

use http::StatusCode;
use mlserve_core::budget::Reservation;
use mlserve_core::error::{Error, Result, quoted};
use serde_json::{Map, Value};

use super::{MAX_SETTINGS_BYTES, Received};
use crate::extensions::logging;
use crate::http::HttpResponse;
use crate::http::json::{Cursor, Token};
use crate::http::status::{Refusal, json_response};
use crate::proto::LogSettingsRequest;
use crate::proto::log_settings_request::SettingValue;
use crate::proto::log_settings_request::setting_value::ParameterChoice as Asked;
use crate::proto::log_settings_response::setting_value::ParameterChoice;

/// Changes what the body sets, and tells what is in force.
pub(super) async fn answer(received: Received<'_>) -> Result<HttpResponse, Refusal> {
    let mut settings = Settings::new();
    if received.is_post() {
        (settings, _) = received.read(MAX_SETTINGS_BYTES, member).await?;
    }
    let response = logging::settings(&LogSettingsRequest { settings })?;
    let member = |(name, setting): (String, crate::proto::log_settings_response::SettingValue)| {
        let value = match setting.parameter_choice {
            Some(ParameterChoice::BoolParam(truth)) => truth.into(),
            Some(ParameterChoice::Uint32Param(number)) => number.into(),
            Some(ParameterChoice::StringParam(text)) => text.into(),
            None => Value::Null,
        };
        (name, value)
    };
    let settings: Map<String, Value> = response.settings.into_iter().map(member).collect();
    Ok(json_response(StatusCode::OK, Value::Object(settings).to_string()))
}

type Settings = HashMap<String, SettingValue>;

/// A value as gRPC has it; null changes nothing.
fn member(settings: &mut Settings, cursor: &mut Cursor<'_>, name: &str, _: &mut Reservation) -> Result<()> {
    let choice = match cursor.token()? {
        Token::Null => return cursor.skip(),
        Token::Bool => Asked::BoolParam(cursor.boolean()?),
        Token::Text => Asked::StringParam(cursor.string()?.into_owned()),
        _ => {
            let value = cursor.raw()?;
            Asked::Uint32Param(value.parse().map_err(|_| wrong_value(name, value))?)
        }
    };
    settings.insert(name.to_owned(), SettingValue { parameter_choice: Some(choice) });
    Ok(())
}

#[cold]
fn wrong_value(name: &str, value: &str) -> Error {
    Error::invalid(format!(
        "log setting '{}' is {}; allowed are true, false, a text, and 0 to {}",
        quoted(name),
        quoted(value),
        u32::MAX
    ))
}
