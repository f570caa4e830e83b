//! What the parameters of a gRPC inference request mean, with Triton's texts where its clients match on them.
//!
//! Sequence parameters are checked and ignored, as Triton does for models without sequence batching.

use std::time::Duration;

use mlserve_core::error::{Error, Result, quoted};
use mlserve_core::request::{Parameter, Request, Text};

use super::decode::Parameters;

/// Sets what `parameters` say on `request`; those that mean nothing to the server are passed on.
///
/// **Errors:** a value of the wrong kind or out of range; a reserved name.
pub(super) fn apply(parameters: Parameters, request: &mut Request) -> Result<()> {
    for (key, value) in parameters {
        match (&*key, value) {
            ("priority", value) => request.priority = priority(value.as_ref())?,
            ("timeout", value) => request.queue_timeout = timeout(value.as_ref())?,
            ("sequence_id", Some(Parameter::Int64(_) | Parameter::Text(_)))
            | ("sequence_start" | "sequence_end" | "triton_enable_empty_final_response", Some(Parameter::Bool(_))) => {}
            ("sequence_id", _) => return Err(wrong_kind(&key, "int64_param or string_param")),
            ("sequence_start" | "sequence_end" | "triton_enable_empty_final_response", _) => {
                return Err(wrong_kind(&key, "bool_param"));
            }
            (name, _) if name.starts_with("triton_") => return Err(reserved()),
            (_, None | Some(Parameter::Uint64(_))) => {
                return Err(wrong_kind(&key, "int64_param, bool_param, or string_param"));
            }
            (_, Some(value)) => request.parameters.push((key, value)),
        }
    }
    Ok(())
}

fn priority(value: Option<&Parameter>) -> Result<u64> {
    match value {
        Some(&Parameter::Uint64(priority)) => Ok(priority),
        Some(&Parameter::Int64(priority)) => {
            u64::try_from(priority).map_err(|_| Error::invalid("invalid value for 'priority', expected value >= 0."))
        }
        _ => Err(wrong_kind(&Text::from("priority"), "int64_param or uint64_param")),
    }
}

/// Microseconds; 0: none.
fn timeout(value: Option<&Parameter>) -> Result<Option<Duration>> {
    let Some(&Parameter::Int64(microseconds)) = value else {
        return Err(wrong_kind(&Text::from("timeout"), "int64_param"));
    };
    let microseconds =
        u64::try_from(microseconds).map_err(|_| Error::invalid("invalid value for 'timeout', expected value >= 0."))?;
    Ok(Some(Duration::from_micros(microseconds)).filter(|timeout| !timeout.is_zero()))
}

#[cold]
fn wrong_kind(key: &Text, expected: &str) -> Error {
    Error::invalid(format!("invalid value type for '{}' parameter, expected {expected}.", quoted(key)))
}

#[cold]
fn reserved() -> Error {
    Error::invalid(
        "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys starting with \
         'triton_' are allowed: triton_enable_empty_final_response",
    )
}
