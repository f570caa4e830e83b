//! What the parameters of a gRPC inference request and its tensors mean, with Triton's texts where its clients match on
//! them.
//!
//! A sequence has no state here, as with Triton's models without sequence batching: its id is kept as the request's
//! routing key.

use std::time::Duration;

use mlserve_core::error::{Error, Result, quoted};
use mlserve_core::request::{MAX_PARAMETERS, Parameter, Request, Text, too_many_parameters};

use super::reader::{Reader, Wire, wrong_wire};
use crate::shared_memory::{BYTE_SIZE, Given, OFFSET, Place, PlaceParameters, REGION};

/// Parameters as they were sent: in order, a repeated name replaced. `None`: a parameter with no value.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    entries: Vec<(Text, Option<Parameter>)>,
    /// Entries that were read, those of a repeated name too: each is compared with all before it.
    read: usize,
}

impl Parameters {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn get(&self, key: &str) -> Option<&Option<Parameter>> {
        self.entries.iter().find(|(name, _)| &**name == key).map(|(_, value)| value)
    }

    fn set(&mut self, key: Text, value: Option<Parameter>) {
        match self.entries.iter_mut().find(|(present, _)| *present == key) {
            Some((_, present)) => *present = value,
            None => self.entries.push((key, value)),
        }
    }
}

/// The parameters of a tensor that mean something; others are checked and dropped.
const OF_TENSORS: [&str; 4] = [REGION, OFFSET, BYTE_SIZE, CLASSIFICATION];

/// How many results of an output the caller wants.
const CLASSIFICATION: &str = "classification";

/// Reads an entry of a request's `map<string, InferParameter>`.
///
/// **Errors:** malformed; too many.
pub(super) fn read(reader: &mut Reader<'_>, wire: Wire, parameters: &mut Parameters) -> Result<()> {
    let (key, value) = entry(reader, wire, parameters)?;
    parameters.set(key, value);
    Ok(())
}

/// Reads an entry of a tensor's `map<string, InferParameter>`.
///
/// **Errors:** malformed; too many.
pub(super) fn read_of_tensor(reader: &mut Reader<'_>, wire: Wire, parameters: &mut Parameters) -> Result<()> {
    let (key, value) = entry(reader, wire, parameters)?;
    if OF_TENSORS.contains(&&*key) {
        parameters.set(key, value);
    }
    Ok(())
}

fn entry(reader: &mut Reader<'_>, wire: Wire, parameters: &mut Parameters) -> Result<(Text, Option<Parameter>)> {
    if parameters.read == MAX_PARAMETERS {
        return Err(too_many_parameters());
    }
    parameters.read += 1;
    let outside = reader.length(wire, "parameters").map(|length| reader.enter(length))?;
    let (mut key, mut value) = (Text::default(), None);
    while let Some((field, wire)) = reader.key()? {
        match field {
            1 => key = reader.text(wire, "the name of a parameter")?,
            2 => {
                let outside = reader.length(wire, "the value of a parameter").map(|length| reader.enter(length))?;
                read_value(reader, &mut value)?;
                reader.leave(outside);
            }
            _ => reader.skip(field, wire)?,
        }
    }
    reader.leave(outside);
    Ok((key, value))
}

fn read_value(reader: &mut Reader<'_>, value: &mut Option<Parameter>) -> Result<()> {
    while let Some((field, wire)) = reader.key()? {
        *value = Some(match (field, wire) {
            (1, Wire::Varint) => Parameter::Bool(reader.varint()? != 0),
            (2, Wire::Varint) => Parameter::Int64(reader.varint()? as i64),
            (3, Wire::Length) => Parameter::Text(reader.text(wire, "the value of a parameter")?),
            (4, Wire::Fixed64) => Parameter::Double(f64::from_le_bytes(reader.fixed64()?)),
            (5, Wire::Varint) => Parameter::Uint64(reader.varint()?),
            (1..=5, _) => return Err(wrong_wire("the value of a parameter")),
            _ => {
                reader.skip(field, wire)?;
                continue;
            }
        });
    }
    Ok(())
}

/// Sets what `parameters` say on `request`; those that mean nothing to the server are passed on.
///
/// **Errors:** a value of the wrong kind or out of range; a reserved name.
pub(super) fn apply(parameters: Parameters, request: &mut Request) -> Result<()> {
    for (key, value) in parameters.entries {
        match (&*key, value) {
            ("priority", value) => request.priority = priority(value.as_ref())?,
            ("timeout", value) => request.queue_timeout = timeout(value.as_ref())?,
            // 0 and "" mean that there is none. A number is the same over HTTP, where it has no sign.
            ("sequence_id", Some(Parameter::Int64(id))) => {
                if id != 0 {
                    request.options_mut().routing_key = Text::from((id as u64).to_string());
                }
            }
            ("sequence_id", Some(Parameter::Text(id))) => {
                if !id.is_empty() {
                    request.options_mut().routing_key = id;
                }
            }
            // Every request has one answer, so no empty one follows it.
            ("sequence_start" | "sequence_end" | "triton_enable_empty_final_response", Some(Parameter::Bool(_))) => {}
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

/// How many results an output's `classification` asks for; `None`: it is not classified.
///
/// **Errors:** no whole number above 0.
pub(super) fn classification(parameters: &Parameters) -> Result<Option<usize>> {
    match parameters.get(CLASSIFICATION) {
        None => Ok(None),
        Some(&Some(Parameter::Int64(most))) if most > 0 => Ok(Some(usize::try_from(most).unwrap_or(usize::MAX))),
        Some(&Some(Parameter::Int64(most))) => Err(Error::invalid(format!(
            "invalid value for 'classification' parameter, expected a value from 1 to {}, got {most}",
            i64::MAX
        ))),
        Some(_) => Err(Error::invalid("invalid value type for 'classification' parameter, expected int64_param")),
    }
}

/// Where in shared memory `tensor` lies; `None`: it is in the message.
///
/// **Errors:** a value of the wrong kind or below 0; a region without a size, or either number without a region.
pub(super) fn place(parameters: &Parameters, tensor: &str) -> Result<Option<Place>> {
    let region = match parameters.get(REGION) {
        None => Given::Nothing,
        Some(Some(Parameter::Text(region))) => Given::Value(region.clone()),
        Some(_) => Given::WrongKind,
    };
    let number = |key| match parameters.get(key) {
        None => Given::Nothing,
        Some(&Some(Parameter::Int64(number))) => {
            u64::try_from(number).map_or_else(|_| Given::OutOfRange(number.to_string()), Given::Value)
        }
        Some(_) => Given::WrongKind,
    };
    PlaceParameters { region, offset: number(OFFSET), byte_size: number(BYTE_SIZE) }.finish(tensor)
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
