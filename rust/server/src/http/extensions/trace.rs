//! `/v2/trace/setting` and `/v2/models/{model}/trace/setting`.

use http::StatusCode;
use mlserve_core::error::{Error, Result, quoted};
use serde_json::{Map, Value};

use super::Body;
use crate::extensions::trace;
use crate::http::HttpResponse;
use crate::http::route::Target;
use crate::http::status::json_response;
use crate::process::Process;
use crate::proto::TraceSettingRequest;
use crate::proto::trace_setting_request::SettingValue;

/// Changes what the body sets, and tells what is in force.
pub(super) fn answer(process: &Process, target: &Target, body: Option<Body>) -> Result<HttpResponse> {
    let settings = body.unwrap_or_default().into_iter();
    let settings = settings.map(|(name, value)| Ok((name.clone(), SettingValue { value: values(&name, value)? })));
    let request =
        TraceSettingRequest { model_name: target.model.to_string(), settings: settings.collect::<Result<_>>()? };
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

/// The values of a setting as gRPC has them; null clears it, and is no value.
fn values(name: &str, value: Value) -> Result<Vec<String>> {
    let one = |value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(Error::invalid(format!(
            "trace setting '{}' is {other}; allowed are a text, a list of texts, and null, which clears it",
            quoted(name)
        ))),
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(values) => values.into_iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}
