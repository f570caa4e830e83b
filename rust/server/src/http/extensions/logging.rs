//! `/v2/logging`.

use http::StatusCode;
use mlserve_core::error::{Error, Result, quoted};
use serde_json::{Map, Value};

use super::Body;
use crate::extensions::logging;
use crate::http::HttpResponse;
use crate::http::status::json_response;
use crate::proto::LogSettingsRequest;
use crate::proto::log_settings_request::SettingValue;
use crate::proto::log_settings_request::setting_value::ParameterChoice as Asked;
use crate::proto::log_settings_response::setting_value::ParameterChoice;

/// Changes what the body sets, and tells what is in force.
pub(super) fn answer(body: Option<Body>) -> Result<HttpResponse> {
    let settings = body.unwrap_or_default().into_iter().filter_map(|(name, value)| {
        let choice = choice(&name, value).transpose()?;
        Some(choice.map(|choice| (name, SettingValue { parameter_choice: Some(choice) })))
    });
    let response = logging::settings(&LogSettingsRequest { settings: settings.collect::<Result<_>>()? })?;
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

/// A value as gRPC has it; `None` for null, which changes nothing.
fn choice(name: &str, value: Value) -> Result<Option<Asked>> {
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    Ok(Some(match value {
        Value::Null => return Ok(None),
        Value::Bool(truth) => Asked::BoolParam(truth),
        Value::String(text) => Asked::StringParam(text),
        value => Asked::Uint32Param(number(&value).ok_or_else(|| {
            let text = format!(
                "log setting '{}' is {value}; allowed are true, false, a text, and 0 to {}",
                quoted(name),
                u32::MAX
            );
            Error::invalid(text)
        })?),
    }))
}
