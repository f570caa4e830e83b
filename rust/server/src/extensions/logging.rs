//! The logging extension: what is logged, changed while the server runs.
//!
//! Texts are Triton's where it has one. Unlike Triton, a setting that there is not is refused, and of a request with a
//! mistake nothing is changed.

use std::collections::HashMap;

use mlserve_core::error::{Error, Kind, Result, quoted};

use crate::proto::log_settings_request::SettingValue as Asked;
use crate::proto::log_settings_request::setting_value::ParameterChoice as Choice;
use crate::proto::log_settings_response::SettingValue;
use crate::proto::log_settings_response::setting_value::ParameterChoice;
use crate::proto::{LogSettingsRequest, LogSettingsResponse};
use crate::telemetry::{LogChoices, LogControl};

/// Times as finely as the clock has them.
const DEFAULT: &str = "default";
/// Times to the second.
const ISO8601: &str = "ISO8601";

/// Answers `LogSettings`: changes what the request sets, and tells what is in force.
///
/// **Errors:** a setting that there is not, or a value that is not allowed.
pub(crate) fn settings(request: &LogSettingsRequest) -> Result<LogSettingsResponse> {
    let control = LogControl::of_process().ok_or_else(foreign)?;
    if !request.settings.is_empty() {
        let choices = changed(control.choices(), &request.settings)?;
        control.choose(choices);
        let LogChoices { error, warning, info, verbose_level, whole_seconds } = choices;
        tracing::info!(error, warning, info, verbose_level, whole_seconds, "log settings were changed");
    }
    Ok(answer(control.choices()))
}

fn changed(mut choices: LogChoices, settings: &HashMap<String, Asked>) -> Result<LogChoices> {
    for (name, asked) in settings {
        let value = asked.parameter_choice.as_ref();
        match name.as_str() {
            "log_error" => choices.error = truth(name, value)?,
            "log_warning" => choices.warning = truth(name, value)?,
            "log_info" => choices.info = truth(name, value)?,
            "log_verbose_level" => match value {
                Some(&Choice::Uint32Param(level)) => choices.verbose_level = level,
                _ => return Err(Error::invalid(format!("expect int32 for '{name}'"))),
            },
            "log_format" => choices.whole_seconds = is_iso8601(value)?,
            "log_file" => {
                let text = "log file location can not be updated through network protocol";
                return Err(Error::new(Kind::NotOffered, text));
            }
            unknown => {
                return Err(Error::invalid(format!(
                    "unknown log setting '{}'; there are log_info, log_warning, log_error, log_verbose_level and \
                     log_format",
                    quoted(unknown)
                )));
            }
        }
    }
    Ok(choices)
}

fn truth(name: &str, value: Option<&Choice>) -> Result<bool> {
    match value {
        Some(&Choice::BoolParam(truth)) => Ok(truth),
        _ => Err(Error::invalid(format!("expect boolean for '{name}'"))),
    }
}

fn is_iso8601(value: Option<&Choice>) -> Result<bool> {
    match value {
        Some(Choice::StringParam(format)) if format == ISO8601 => Ok(true),
        Some(Choice::StringParam(format)) if format == DEFAULT => Ok(false),
        Some(Choice::StringParam(format)) => Err(Error::invalid(format!(
            "invalid argument for log_format, got: {}; allowed are {DEFAULT} and {ISO8601}",
            quoted(format)
        ))),
        _ => Err(Error::invalid("expect string for 'log_format'")),
    }
}

fn answer(choices: LogChoices) -> LogSettingsResponse {
    let format = if choices.whole_seconds { ISO8601 } else { DEFAULT };
    let settings = [
        // Standard error.
        ("log_file", ParameterChoice::StringParam(String::new())),
        ("log_info", ParameterChoice::BoolParam(choices.info)),
        ("log_warning", ParameterChoice::BoolParam(choices.warning)),
        ("log_error", ParameterChoice::BoolParam(choices.error)),
        ("log_verbose_level", ParameterChoice::Uint32Param(choices.verbose_level)),
        ("log_format", ParameterChoice::StringParam(format.to_owned())),
    ];
    let value = |(name, choice): (&str, _)| (name.to_owned(), SettingValue { parameter_choice: Some(choice) });
    LogSettingsResponse { settings: settings.into_iter().map(value).collect() }
}

#[cold]
fn foreign() -> Error {
    Error::new(Kind::NotOffered, "the program that the server runs in has set up its logging itself; change it there")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRESENT: LogChoices =
        LogChoices { error: true, warning: true, info: true, verbose_level: 0, whole_seconds: false };

    fn change(settings: &[(&str, Choice)]) -> Result<LogChoices> {
        let asked = |choice: &Choice| Asked { parameter_choice: Some(choice.clone()) };
        changed(PRESENT, &settings.iter().map(|(name, choice)| ((*name).to_owned(), asked(choice))).collect())
    }

    #[test]
    fn what_is_set_is_changed_and_the_rest_stays() {
        let settings = [
            ("log_info", Choice::BoolParam(false)),
            ("log_verbose_level", Choice::Uint32Param(2)),
            ("log_format", Choice::StringParam("ISO8601".to_owned())),
        ];
        let expected = LogChoices { info: false, verbose_level: 2, whole_seconds: true, ..PRESENT };
        assert_eq!(change(&settings).expect("valid"), expected);
    }

    #[test]
    fn what_is_wrong_with_a_setting_is_said() {
        let text = |text: &str| Choice::StringParam(text.to_owned());
        let cases = [
            ("log_info", text("on"), Kind::InvalidArgument, "expect boolean for 'log_info'"),
            (
                "log_verbose_level",
                Choice::BoolParam(true),
                Kind::InvalidArgument,
                "expect int32 for 'log_verbose_level'",
            ),
            ("log_format", Choice::BoolParam(true), Kind::InvalidArgument, "expect string for 'log_format'"),
            (
                "log_format",
                text("json"),
                Kind::InvalidArgument,
                "invalid argument for log_format, got: json; allowed are default and ISO8601",
            ),
            (
                "log_file",
                text("/tmp/x"),
                Kind::NotOffered,
                "log file location can not be updated through network protocol",
            ),
            (
                "log_inof",
                Choice::BoolParam(true),
                Kind::InvalidArgument,
                "unknown log setting 'log_inof'; there are log_info, log_warning, log_error, log_verbose_level and \
                 log_format",
            ),
        ];
        for (name, choice, kind, text) in cases {
            let error = change(&[(name, choice)]).expect_err(text);
            assert_eq!((error.kind(), error.text()), (kind, text));
        }
    }
}
