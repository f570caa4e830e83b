//! What the `parameters` objects of a JSON request mean, with Triton's texts where its clients match on them.
//!
//! A sequence has no state here, as with Triton's models without sequence batching: its id is kept as the request's
//! routing key. gRPC has its own reader of the same table, because there a parameter's type is told apart by field.

use std::time::Duration;

use mlserve_core::error::{Error, Result, quoted};
use mlserve_core::request::{MAX_PARAMETERS, Parameter, Request, Text, too_many_parameters};

use super::json::{Cursor, Token};
use crate::shared_memory::{BYTE_SIZE, Given, OFFSET, PlaceParameters, REGION};

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
            _ if cursor.null()? => {}
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
    pub(super) place: Option<Box<PlaceParameters>>,
}

/// Reads the `parameters` of an input; others than those that say where its bytes are mean nothing.
pub(super) fn read_input(cursor: &mut Cursor<'_>) -> Result<InputParameters> {
    let mut parameters = InputParameters::default();
    cursor.object(|cursor, key| {
        match &*key {
            _ if cursor.null()? => {}
            "binary_data_size" => {
                let size = unsigned(cursor, &key, "int64_param")?;
                parameters.binary_data_size = Some(usize::try_from(size).unwrap_or(usize::MAX));
            }
            _ if read_place(&mut parameters.place, cursor, &key)? => {}
            _ => cursor.skip()?,
        }
        Ok(())
    })?;
    Ok(parameters)
}

/// Reads the value of `key` if it is one of those that say where in shared memory a tensor lies; whether it was.
pub(super) fn read_place(place: &mut Option<Box<PlaceParameters>>, cursor: &mut Cursor<'_>, key: &str) -> Result<bool> {
    match key {
        REGION => {
            place.get_or_insert_default().region = match cursor.token()? {
                Token::Text => Given::Value(Text::from(cursor.string()?.into_owned())),
                _ => skipped(cursor)?,
            };
        }
        OFFSET => place.get_or_insert_default().offset = whole_number(cursor)?,
        BYTE_SIZE => place.get_or_insert_default().byte_size = whole_number(cursor)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Reads how many results an output's `classification` asks for; 0 means none, as Triton reads it here.
pub(super) fn read_classes(cursor: &mut Cursor<'_>) -> Result<u64> {
    match whole_number(cursor)? {
        Given::Value(most) => Ok(most),
        Given::OutOfRange(number) => Err(Error::invalid(format!(
            "invalid value for 'classification' parameter, expected a value from 1 to {}, got {}",
            i64::MAX,
            quoted(&number)
        ))),
        Given::WrongKind | Given::Nothing => {
            Err(Error::invalid("invalid value type for 'classification' parameter, expected int64_param"))
        }
    }
}

/// Reads a number as gRPC could send it.
fn whole_number(cursor: &mut Cursor<'_>) -> Result<Given<u64>> {
    if cursor.token()? != Token::Number {
        return skipped(cursor);
    }
    let number = cursor.number()?;
    if !number.is_whole {
        return Ok(Given::WrongKind);
    }
    let value = number.text.parse().ok().and_then(|value: i64| u64::try_from(value).ok());
    Ok(value.map_or_else(|| Given::OutOfRange(number.text.to_owned()), Given::Value))
}

fn skipped<T>(cursor: &mut Cursor<'_>) -> Result<Given<T>> {
    cursor.skip()?;
    Ok(Given::WrongKind)
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
