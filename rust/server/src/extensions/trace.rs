//! The trace extension: which requests are written to the trace file, and how much of them.
//!
//! Texts are Triton's where it has one. Unlike Triton, a setting or level that there is not is refused.

use std::ops::RangeInclusive;

use mlserve_core::error::{Error, Kind, Result, quoted};

use crate::process::Process;
use crate::proto::trace_setting_request::SettingValue as Asked;
use crate::proto::trace_setting_response::SettingValue;
use crate::proto::{TraceSettingRequest, TraceSettingResponse};
use crate::trace::{Change, TraceChange};

/// The one mode there is: traces are written to a file, in Triton's form.
const MODE: &str = "triton";

/// Answers `TraceSetting`: changes what the request sets, and tells what is in force.
///
/// **Errors:** an unknown model; a setting that there is not, or a value that is not allowed.
pub(crate) fn settings(process: &Process, request: &TraceSettingRequest) -> Result<TraceSettingResponse> {
    let model = &request.model_name;
    if !model.is_empty() && process.plan.load().look_up(model, None).is_err() {
        return Err(Error::invalid(format!("Request for unknown model : {}", quoted(model))));
    }
    if !request.settings.is_empty() {
        process.tracer.change(model, change(request)?)?;
        let sampler = process.tracer.in_force(model);
        let (is_on, rate, count) = (sampler.is_on, sampler.rate, sampler.left());
        tracing::info!(model, is_on, rate, count, sampler.log_frequency, "trace settings were changed");
    }
    let settings = in_force(process, model);
    let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), SettingValue { value: vec![value] }));
    Ok(TraceSettingResponse { settings: settings.collect() })
}

fn in_force(process: &Process, model: &str) -> [(&'static str, String); 6] {
    let sampler = process.tracer.in_force(model);
    let file = process.tracer.file().map(|path| path.display().to_string());
    [
        ("trace_level", if sampler.is_on { "TIMESTAMPS" } else { "OFF" }.to_owned()),
        ("trace_rate", sampler.rate.to_string()),
        ("trace_count", sampler.left().to_string()),
        ("log_frequency", sampler.log_frequency.to_string()),
        ("trace_file", file.unwrap_or_default()),
        ("trace_mode", MODE.to_owned()),
    ]
}

fn change(request: &TraceSettingRequest) -> Result<TraceChange> {
    let mut change = TraceChange::default();
    for (name, Asked { value }) in &request.settings {
        match name.as_str() {
            "trace_level" => change.is_on = level(value)?,
            "trace_rate" => change.rate = number(name, value, 0..=u32::MAX)?,
            "trace_count" => change.count = count(value)?,
            "log_frequency" => change.log_frequency = number(name, value, 0..=u32::MAX)?,
            "trace_mode" => mode(value)?,
            "trace_file" => {
                let text = "trace file location can not be updated through network protocol";
                return Err(Error::new(Kind::NotOffered, text));
            }
            unknown => {
                return Err(Error::invalid(format!(
                    "unknown trace setting '{}'; there are trace_level, trace_rate, trace_count, log_frequency and \
                     trace_mode",
                    quoted(unknown)
                )));
            }
        }
    }
    Ok(change)
}

fn level(values: &[String]) -> Result<Change<bool>> {
    let mut is_on = false;
    for value in values {
        match value.as_str() {
            "OFF" if values.len() > 1 => {
                return Err(Error::invalid("Expect only one trace level 'OFF' is specified"));
            }
            "OFF" => is_on = false,
            "TIMESTAMPS" => is_on = true,
            "TENSORS" => {
                let text = "trace level TENSORS is not offered: traces tell times, not values; allowed are OFF and \
                            TIMESTAMPS";
                return Err(Error::new(Kind::NotOffered, text));
            }
            unknown => {
                return Err(Error::invalid(format!(
                    "unknown trace level '{}'; allowed are OFF and TIMESTAMPS",
                    quoted(unknown)
                )));
            }
        }
    }
    Ok(if values.is_empty() { Change::Clear } else { Change::Set(is_on) })
}

fn mode(values: &[String]) -> Result<()> {
    match values {
        [] => Ok(()),
        [mode] if mode == MODE => Ok(()),
        [mode] if mode == "opentelemetry" => {
            let text = "trace mode opentelemetry is not offered; the only mode is triton";
            Err(Error::new(Kind::NotOffered, text))
        }
        _ => {
            Err(Error::invalid(format!("unknown trace mode '{}'; the only mode is triton", quoted(&values.join(",")))))
        }
    }
}

fn count(values: &[String]) -> Result<Change<i32>> {
    let change = number("trace_count", values, -1..=i32::MAX)?;
    match change {
        Change::Set(count) if count < -1 => {
            Err(Error::invalid(format!("Unable to parse 'trace_count'. Expecting value >= -1, got: {count}")))
        }
        change => Ok(change),
    }
}

/// The number that a setting has. Texts name the `allowed` range; a type may hold more, which its setting checks.
fn number<T>(name: &str, values: &[String], allowed: RangeInclusive<T>) -> Result<Change<T>>
where
    T: TryFrom<i128> + std::fmt::Display,
{
    let value = match values {
        [] => return Ok(Change::Clear),
        [value] => value,
        _ => return Err(Error::invalid(format!("expect only 1 value for '{name}'"))),
    };
    let Ok(number) = value.parse::<i128>() else {
        return Err(Error::invalid(format!("Unable to parse '{name}', got: {}", quoted(value))));
    };
    T::try_from(number).map(Change::Set).map_err(|_| {
        let (least, most) = allowed.into_inner();
        Error::invalid(format!("Unable to parse '{name}', value is out of range [ {least}, {most} ], got: {number}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(settings: &[(&str, &[&str])]) -> TraceSettingRequest {
        let value = |values: &[&str]| Asked { value: values.iter().map(|&value| value.to_owned()).collect() };
        let settings = settings.iter().map(|&(name, values)| (name.to_owned(), value(values))).collect();
        TraceSettingRequest { settings, model_name: String::new() }
    }

    #[test]
    fn settings_are_read_and_empty_ones_are_cleared() {
        let change = change(&request(&[
            ("trace_level", &["TIMESTAMPS"]),
            ("trace_rate", &["7"]),
            ("trace_count", &["-1"]),
            ("log_frequency", &[]),
            ("trace_mode", &["triton"]),
        ]));
        let expected = TraceChange {
            is_on: Change::Set(true),
            rate: Change::Set(7),
            count: Change::Set(-1),
            log_frequency: Change::Clear,
        };
        assert_eq!(change.expect("valid"), expected);
    }

    #[test]
    fn what_is_wrong_with_a_setting_is_said() {
        let cases: [(&str, &[&str], Kind, &str); 10] = [
            ("trace_rate", &["x"], Kind::InvalidArgument, "Unable to parse 'trace_rate', got: x"),
            (
                "trace_rate",
                &["-1"],
                Kind::InvalidArgument,
                "Unable to parse 'trace_rate', value is out of range [ 0, 4294967295 ], got: -1",
            ),
            ("trace_rate", &["1", "2"], Kind::InvalidArgument, "expect only 1 value for 'trace_rate'"),
            (
                "trace_count",
                &["-2"],
                Kind::InvalidArgument,
                "Unable to parse 'trace_count'. Expecting value >= -1, got: -2",
            ),
            (
                "trace_level",
                &["OFF", "TIMESTAMPS"],
                Kind::InvalidArgument,
                "Expect only one trace level 'OFF' is specified",
            ),
            (
                "trace_level",
                &["MAX"],
                Kind::InvalidArgument,
                "unknown trace level 'MAX'; allowed are OFF and TIMESTAMPS",
            ),
            (
                "trace_level",
                &["TENSORS"],
                Kind::NotOffered,
                "trace level TENSORS is not offered: traces tell times, not values; allowed are OFF and TIMESTAMPS",
            ),
            (
                "trace_mode",
                &["opentelemetry"],
                Kind::NotOffered,
                "trace mode opentelemetry is not offered; the only mode is triton",
            ),
            (
                "trace_file",
                &["/tmp/x"],
                Kind::NotOffered,
                "trace file location can not be updated through network protocol",
            ),
            (
                "trace_rte",
                &["1"],
                Kind::InvalidArgument,
                "unknown trace setting 'trace_rte'; there are trace_level, trace_rate, trace_count, log_frequency and \
                 trace_mode",
            ),
        ];
        for (name, values, kind, text) in cases {
            let error = change(&request(&[(name, values)])).expect_err(text);
            assert_eq!((error.kind(), error.text()), (kind, text));
        }
    }
}
