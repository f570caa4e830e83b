//! A JSON inference body, with or without binary blobs behind it, to one `Request`. Hot path.
//!
//! One pass: the numbers of an input whose name, type and shape came first go straight into its bytes; data that came
//! earlier is read again once they are known. Must not check tensors against a model; that is the core's.

use std::borrow::Cow;

use bytes::Bytes;
use mlserve_core::budget::Reservation;
use mlserve_core::config::LimitSettings;
use mlserve_core::error::{Error, Result, quoted};
use mlserve_core::request::{Input, Request, Text};
use mlserve_core::tensor::{DataType, Shape, TensorBytes};

use super::arrays::{self, Declared};
use super::json::{Cursor, Token};
use super::parameters::{self, InputParameters};
use super::split::Blobs;
use super::wanted::{OutputForm, Outputs, Wants};
use crate::shared_memory::{Place, SharedTensors};

/// A request as it was sent, and how it wants to be answered.
#[derive(Debug)]
pub(super) struct Decoded {
    /// Inputs, outputs, id and parameters; the rest, and what lies in shared memory, is the caller's to fill in.
    pub(super) request: Request,
    /// The form of the answer.
    pub(super) wants: Wants,
    /// What lies in shared memory, or is to.
    pub(super) shared: Option<Box<SharedTensors>>,
}

/// What decoding works with.
#[derive(Debug)]
pub(super) struct Source<'a> {
    /// The model's name, for error texts.
    pub(super) model: &'a str,
    /// The limits in force.
    pub(super) limits: &'a LimitSettings,
    /// Grows by what is allocated.
    pub(super) reservation: &'a mut Reservation,
    /// What follows the JSON.
    pub(super) blobs: Blobs,
}

/// Decodes `json` and the blobs of `source`.
///
/// **Errors:** not JSON, too deep, too many tensors; a field missing, of the wrong kind, twice, or contradicting another;
/// too few or too many blob bytes. Texts name the tensor and the value.
pub(super) fn decode(json: &Bytes, source: &mut Source<'_>) -> Result<Decoded> {
    let mut cursor = Cursor::of_body(json, source.limits.max_json_depth)?;
    let mut body = Body::default();
    if cursor.token()? != Token::Object {
        cursor.skip()?;
        return Err(cursor.broken("the request must be an object"));
    }
    cursor.object(|cursor, key| body.member(cursor, &key, source))?;
    cursor.end()?;
    if source.blobs.left() > 0 {
        return Err(left_over(source.model));
    }
    body.finish()
}

/// A body while its members come.
#[derive(Default)]
struct Body {
    request: Request,
    has_id: bool,
    has_inputs: bool,
    outputs: Option<Outputs>,
    shared: Option<Box<SharedTensors>>,
    choices: Option<parameters::Choices>,
}

impl Body {
    fn member(&mut self, cursor: &mut Cursor<'_>, key: &str, source: &mut Source<'_>) -> Result<()> {
        if cursor.null()? {
            return Ok(());
        }
        match key {
            "id" => {
                once(!self.has_id, key)?;
                self.has_id = true;
                self.request.id = Text::from(text(cursor, key)?.into_owned());
            }
            "inputs" => {
                once(!self.has_inputs, key)?;
                self.has_inputs = true;
                self.inputs(cursor, source)?;
            }
            "outputs" => {
                once(self.outputs.is_none(), key)?;
                self.outputs = Some(Outputs::read(cursor, source.limits.max_tensors)?);
            }
            "parameters" => {
                once(self.choices.is_none(), key)?;
                kind(cursor, Token::Object, key)?;
                self.choices = Some(parameters::read_request(cursor, &mut self.request)?);
            }
            _ => cursor.skip()?,
        }
        Ok(())
    }

    fn inputs(&mut self, cursor: &mut Cursor<'_>, source: &mut Source<'_>) -> Result<()> {
        kind(cursor, Token::Array, "inputs")?;
        cursor.array(|cursor| {
            if self.request.inputs.len() == source.limits.max_tensors {
                return Err(too_many("inputs", source.limits.max_tensors));
            }
            kind(cursor, Token::Object, "inputs")?;
            let mut draft = Draft::default();
            cursor.object(|cursor, key| draft.member(cursor, &key, source))?;
            let (input, place) = draft.finish(source)?;
            if let Some(place) = place {
                self.shared.get_or_insert_default().inputs.push((self.request.inputs.len(), place));
            }
            self.request.inputs.push(input);
            Ok(())
        })
    }

    fn finish(mut self) -> Result<Decoded> {
        if !self.has_inputs {
            return Err(missing("inputs"));
        }
        let is_binary = self.choices.is_some_and(|choices| choices.binary_outputs);
        let otherwise = if is_binary { OutputForm::Binary } else { OutputForm::Json };
        let mut outputs = self.outputs.unwrap_or_default();
        outputs.take_rare(&mut self.request.options, &mut self.shared);
        let wants = outputs.finish(otherwise, &mut self.request.outputs);
        Ok(Decoded { request: self.request, wants, shared: self.shared })
    }
}

/// One input while its members come, in whatever order.
#[derive(Default)]
struct Draft<'a> {
    name: Option<Cow<'a, str>>,
    datatype: Option<DataType>,
    unknown_datatype: Option<String>,
    shape: Option<Shape>,
    data: Option<Data<'a>>,
    parameters: Option<InputParameters>,
}

enum Data<'a> {
    Read(Vec<u8>),
    /// Came before what it is was known.
    Later(Cursor<'a>),
}

impl<'a> Draft<'a> {
    fn member(&mut self, cursor: &mut Cursor<'a>, key: &str, source: &mut Source<'_>) -> Result<()> {
        if cursor.null()? {
            return Ok(());
        }
        match key {
            "name" => {
                once(self.name.is_none(), key)?;
                self.name = Some(text(cursor, key)?);
            }
            "datatype" => {
                once(self.datatype.is_none() && self.unknown_datatype.is_none(), key)?;
                let name = text(cursor, key)?;
                self.datatype = DataType::from_name(name.as_bytes());
                self.unknown_datatype = self.datatype.is_none().then(|| name.into_owned());
            }
            "shape" => {
                once(self.shape.is_none(), key)?;
                self.shape = Some(self.read_shape(cursor, source.limits.max_rank)?);
            }
            "parameters" => {
                once(self.parameters.is_none(), key)?;
                kind(cursor, Token::Object, key)?;
                self.parameters = Some(parameters::read_input(cursor)?);
            }
            "data" => {
                once(self.data.is_none(), key)?;
                self.data = Some(self.read_data(cursor, source)?);
            }
            _ => cursor.skip()?,
        }
        Ok(())
    }

    /// For error texts.
    fn label(&self) -> String {
        quoted(self.name.as_deref().unwrap_or_default())
    }

    fn read_shape(&self, cursor: &mut Cursor<'_>, max_rank: usize) -> Result<Shape> {
        kind(cursor, Token::Array, "shape")?;
        let mut shape = Shape::new();
        cursor.array(|cursor| {
            if shape.len() == max_rank {
                return Err(too_deep_shape(&self.label(), max_rank));
            }
            let token = cursor.token()?;
            if token != Token::Number {
                return Err(wrong_dimension(&self.label(), shape.len(), token.name()));
            }
            let number = cursor.number()?;
            let dimension = number.digits.filter(|_| number.is_whole && !number.is_negative);
            let dimension = dimension.and_then(|dimension| i64::try_from(dimension).ok());
            shape.push(dimension.ok_or_else(|| wrong_dimension(&self.label(), shape.len(), number.text))?);
            Ok(())
        })?;
        Ok(shape)
    }

    fn read_data(&self, cursor: &mut Cursor<'a>, source: &mut Source<'_>) -> Result<Data<'a>> {
        let (Some(name), Some(datatype), Some(shape)) = (&self.name, self.datatype, &self.shape) else {
            let start = cursor.clone();
            cursor.skip()?;
            return Ok(Data::Later(start));
        };
        let declared = Declared { name, datatype, shape, max_string_bytes: source.limits.max_string_bytes };
        arrays::read(cursor, declared, source.reservation).map(Data::Read)
    }

    /// The input, and where it lies if its bytes are still to be read from shared memory.
    fn finish(mut self, source: &mut Source<'_>) -> Result<(Input, Option<Place>)> {
        let parameters = self.parameters.take().unwrap_or_default();
        let data = self.data.take();
        let label = self.label();
        if self.name.is_none() {
            return Err(missing("name"));
        }
        if self.shape.is_none() {
            return Err(missing("shape"));
        }
        let datatype = match self.datatype {
            Some(datatype) => datatype,
            None if self.unknown_datatype.is_some() => {
                let datatype = self.unknown_datatype.unwrap_or_default();
                return Err(Error::invalid(format!("invalid datatype for input {label}: '{}'", quoted(&datatype))));
            }
            None => return Err(missing("datatype")),
        };
        let is_shared = parameters.place.as_ref().is_some_and(|place| place.is_shared());
        let data = match (data, parameters.binary_data_size, is_shared) {
            (Some(Data::Read(bytes)), None, false) => bytes.into(),
            (Some(Data::Later(mut cursor)), None, false) => match self.read_data(&mut cursor, source)? {
                Data::Read(bytes) => bytes.into(),
                Data::Later(_) => return Err(missing("name")),
            },
            (None, Some(size), false) => take_blob(&label, size, source)?,
            (None, None, true) => TensorBytes::new(),
            (data, size, is_shared) => return Err(not_one_source(data.is_some(), size.is_some(), is_shared)),
        };
        let name = Text::from(self.name.unwrap_or_default().into_owned());
        let place = parameters.place.map(|place| place.finish(&name)).transpose()?.flatten();
        Ok((Input { name, datatype, shape: self.shape.unwrap_or_default(), data }, place))
    }
}

fn take_blob(label: &str, size: usize, source: &mut Source<'_>) -> Result<TensorBytes> {
    let left = source.blobs.left();
    source.blobs.take(size).ok_or_else(|| {
        Error::invalid(format!(
            "unexpected size for input '{label}', expecting {} additional bytes for model '{}'",
            size - left,
            quoted(source.model)
        ))
    })
}

/// Reads a string.
pub(super) fn text<'a>(cursor: &mut Cursor<'a>, key: &str) -> Result<Cow<'a, str>> {
    kind(cursor, Token::Text, key)?;
    cursor.string()
}

/// Checks that a value of this kind comes next.
pub(super) fn kind(cursor: &mut Cursor<'_>, wanted: Token, key: &str) -> Result<()> {
    let token = cursor.token()?;
    if token == wanted {
        return Ok(());
    }
    // A value that is too deep is refused as such, not for its kind.
    cursor.skip()?;
    Err(Error::invalid(format!("Unable to parse '{key}': it is {}; {} is expected", token.name(), wanted.name())))
}

/// Two values for one key leave open which is meant, and readers before us may have taken the other.
pub(super) fn once(is_first: bool, key: &str) -> Result<()> {
    if is_first { Ok(()) } else { Err(Error::invalid(format!("'{key}' is there twice; once is allowed"))) }
}

#[cold]
pub(super) fn missing(key: &str) -> Error {
    Error::invalid(format!("Unable to parse '{key}': attempt to access non-existing object member '{key}'"))
}

#[cold]
fn left_over(model: &str) -> Error {
    Error::invalid(format!("unexpected additional input data for model '{}'", quoted(model)))
}

#[cold]
pub(super) fn too_many(what: &str, limit: usize) -> Error {
    Error::too_large(format!(
        "the request has more than {limit} {what}; at most {limit} are allowed (limits.max_tensors)"
    ))
}

#[cold]
fn too_deep_shape(label: &str, limit: usize) -> Error {
    Error::too_large(format!(
        "input '{label}' has more than {limit} dimensions; at most {limit} are allowed (limits.max_rank)"
    ))
}

#[cold]
fn wrong_dimension(label: &str, axis: usize, got: &str) -> Error {
    Error::invalid(format!(
        "Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer: dimension {axis} of input \
         '{label}' is {}; a whole number from 0 to {} is expected",
        got.get(..40).unwrap_or(got),
        i64::MAX
    ))
}

#[cold]
fn not_one_source(data: bool, binary: bool, shared: bool) -> Error {
    let set: String = [(data, " 'data'"), (binary, " 'binary_data_size'"), (shared, " 'shared_memory_region'")]
        .into_iter()
        .filter_map(|(is_set, name)| is_set.then_some(name))
        .collect();
    let but = if set.is_empty() { " no field is set".to_owned() } else { format!(" set{set}") };
    Error::invalid(format!(
        "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', \
         'shared_memory_region' in 'parameters'. But{but}"
    ))
}

#[cfg(test)]
mod tests;
