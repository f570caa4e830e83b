//! What the `parameters` objects of a JSON request mean, with Triton's texts where its clients match on them.
//!
//! A sequence has no state here, as with Triton's models without sequence batching: its id is kept as the request's
//! routing key. gRPC has its own reader of the same table, because there a parameter's type is told apart by field.

use std::time::Duration;

use mlserve_core::error::{Error, Result, quoted};
use mlserve_core::request::{MAX_PARAMETERS, Parameter, Request, Text, too_many_parameters};

use super::json::{Cursor, Token};
use crate::shared_memory::Place;

/// What a request's own `parameters` say beside what goes into [`Request`].
#[derive(Debug, Default)]
pub(super) struct Choices {
    /// Whether outputs that say nothing themselves are answered as binary data.
    pub(super) binary_outputs: bool,
}

/// Reads the request's `parameters` into `request`; those that mean nothing to the server are passed on.
///
/// **Errors:** a value of the wrong kind or out of range; a reserved name; too many.
pub(super) fn read_request(cursor: &mut Cursor<'_>, request: &mut Request) -> Result<Choices> {
    let mut choices = Choices::default();
    cursor.object(|cursor, key| {
        match &*key {
            "priority" => request.priority = unsigned(cursor, &key, "int64_param or uint64_param")?,
            "timeout" => {
                let microseconds = unsigned(cursor, &key, "int64_param")?;
                // 0 is Triton's word for none.
                request.queue_timeout = (microseconds > 0).then(|| Duration::from_micros(microseconds));
            }
            "sequence_id" => {
                if let Some(id) = sequence_id(cursor, &key)? {
                    request.options_mut().routing_key = Text::from(id);
                }
            }
            "sequence_start" | "sequence_end" => {
                boolean(cursor, &key)?;
            }
            "binary_data_output" => choices.binary_outputs = boolean(cursor, &key)?,
            reserved if reserved.starts_with("triton_") => return Err(reserved_name()),
            _ if request.parameters.len() == MAX_PARAMETERS => return Err(too_many_parameters()),
            name => {
                let value = value(cursor, name)?;
                request.parameters.push((Text::from(key.into_owned()), value));
            }
        }
        Ok(())
    })?;
    Ok(choices)
}

/// What an input's `parameters` say.
#[derive(Debug, Default)]
pub(super) struct InputParameters {
    /// Its bytes follow the JSON, this many.
    pub(super) binary_data_size: Option<usize>,
    /// Its bytes are to be found in shared memory.
    pub(super) place: PlaceParameters,
}

/// Reads the `parameters` of an input; others than those that say where its bytes are mean nothing.
pub(super) fn read_input(cursor: &mut Cursor<'_>) -> Result<InputParameters> {
    let mut parameters = InputParameters::default();
    cursor.object(|cursor, key| {
        match &*key {
            "binary_data_size" => {
                let size = unsigned(cursor, &key, "int64_param")?;
                parameters.binary_data_size = Some(usize::try_from(size).unwrap_or(usize::MAX));
            }
            _ if parameters.place.member(cursor, &key)? => {}
            _ => cursor.skip()?,
        }
        Ok(())
    })?;
    Ok(parameters)
}

/// The three parameters that say where in shared memory a tensor lies.
#[derive(Debug, Default)]
pub(super) struct PlaceParameters {
    region: Option<Text>,
    offset: Option<u64>,
    byte_size: Option<u64>,
}

impl PlaceParameters {
    /// Whether a region is named.
    pub(super) fn is_shared(&self) -> bool {
        self.region.is_some()
    }

    /// Reads the value of `key` if it is one of the three; whether it was.
    ///
    /// **Errors:** a value of the wrong kind.
    pub(super) fn member(&mut self, cursor: &mut Cursor<'_>, key: &str) -> Result<bool> {
        match key {
            "shared_memory_region" => {
                if cursor.token()? != Token::Text {
                    return Err(Error::invalid("Unable to parse 'shared_memory_region': a string is expected"));
                }
                self.region = Some(Text::from(cursor.string()?.into_owned()));
            }
            "shared_memory_offset" => {
                self.offset = Some(unsigned_as(cursor, "Unable to parse 'shared_memory_offset'")?)
            }
            "shared_memory_byte_size" => {
                self.byte_size = Some(unsigned_as(cursor, "Unable to parse 'shared_memory_byte_size'")?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The place of `tensor`; `None`: it is in the message.
    ///
    /// **Errors:** a region without a size, or either number without a region.
    pub(super) fn finish(self, tensor: &str) -> Result<Option<Place>> {
        match (self.region, self.offset, self.byte_size) {
            (None, None, None) => Ok(None),
            (Some(region), offset, Some(byte_size)) => {
                Ok(Some(Place { region, offset: offset.unwrap_or(0), byte_size }))
            }
            (Some(_), _, None) => Err(Error::invalid(format!(
                "'shared_memory_byte_size' must be specified along with 'shared_memory_region' parameter for tensor '{}'",
                quoted(tensor)
            ))),
            (None, offset, _) => Err(Error::invalid(format!(
                "'{}' can not be specified without 'shared_memory_region' parameter for tensor '{}'",
                if offset.is_some() { "shared_memory_offset" } else { "shared_memory_byte_size" },
                quoted(tensor)
            ))),
        }
    }
}

/// Reads a whole number of 64 bits; `unable`: how Triton begins the text where it is none.
pub(super) fn unsigned_as(cursor: &mut Cursor<'_>, unable: &str) -> Result<u64> {
    let token = cursor.token()?;
    let number = if token == Token::Number { Some(cursor.number()?) } else { None };
    number.as_ref().filter(|number| number.is_whole).and_then(|number| number.text.parse().ok()).ok_or_else(|| {
        let got = number.map_or(token.name(), |number| number.text);
        Error::invalid(format!(
            "{unable}: attempt to access JSON non-unsigned-integer as unsigned-integer, got {}",
            got.get(..40).unwrap_or(got)
        ))
    })
}

fn unsigned(cursor: &mut Cursor<'_>, key: &str, expected: &str) -> Result<u64> {
    if cursor.token()? != Token::Number {
        return Err(wrong_kind(key, expected));
    }
    let number = cursor.number()?;
    if !number.is_whole {
        return Err(wrong_kind(key, expected));
    }
    match number.text.parse::<u64>() {
        Ok(value) => Ok(value),
        Err(_) if number.is_negative => {
            Err(Error::invalid(format!("invalid value for '{}', expected value >= 0.", quoted(key))))
        }
        Err(_) => Err(Error::invalid(format!("invalid value for '{}', expected value <= {}.", quoted(key), u64::MAX))),
    }
}

/// `None`: it belongs to no sequence, which 0 and "" say too.
fn sequence_id(cursor: &mut Cursor<'_>, key: &str) -> Result<Option<String>> {
    const EXPECTED: &str = "int64_param or string_param";
    let id = match cursor.token()? {
        Token::Text => cursor.string()?.into_owned(),
        Token::Number => match unsigned(cursor, key, EXPECTED)? {
            0 => String::new(),
            id => id.to_string(),
        },
        _ => return Err(wrong_kind(key, EXPECTED)),
    };
    Ok((!id.is_empty()).then_some(id))
}

pub(super) fn boolean(cursor: &mut Cursor<'_>, key: &str) -> Result<bool> {
    if cursor.token()? == Token::Bool { cursor.boolean() } else { Err(wrong_kind(key, "bool_param")) }
}

fn value(cursor: &mut Cursor<'_>, key: &str) -> Result<Parameter> {
    Ok(match cursor.token()? {
        Token::Text => Parameter::Text(Text::from(cursor.string()?.into_owned())),
        Token::Bool => Parameter::Bool(cursor.boolean()?),
        Token::Number => {
            let number = cursor.number()?;
            let double = || number.text.parse().ok().filter(|double: &f64| double.is_finite()).map(Parameter::Double);
            let whole = number.is_whole.then(|| number.text.parse().ok().map(Parameter::Int64)).flatten();
            // Whole numbers beyond 64 bits are doubles, as any JSON reader in a browser has them.
            whole.or_else(double).ok_or_else(|| wrong_kind(key, EXPECTED_VALUES))?
        }
        Token::Object | Token::Array | Token::Null => return Err(wrong_kind(key, EXPECTED_VALUES)),
    })
}

const EXPECTED_VALUES: &str = "int64_param, bool_param, or string_param";

#[cold]
fn wrong_kind(key: &str, expected: &str) -> Error {
    Error::invalid(format!("invalid value type for '{}' parameter, expected {expected}.", quoted(key)))
}

#[cold]
fn reserved_name() -> Error {
    Error::invalid("parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified.")
}
