//! Stage 2 for gRPC: from the bytes of a `ModelInferRequest` to the one `Request`. Hot path.
//!
//! Written by hand because generated code copies every tensor: here raw contents stay views of the received frames,
//! even where a tensor lies across frames. Unknown fields are skipped and the last of a repeated scalar wins, as
//! protobuf wants. Knows no model: names, types and shapes are checked by the core.

use bytes::Bytes;
use mlserve_core::budget::Reservation;
use mlserve_core::config::LimitSettings;
use mlserve_core::error::{Error, Kind, Result, quoted};
use mlserve_core::request::{Input, MAX_PARAMETERS, Parameter, Request, Text, too_many_parameters};
use mlserve_core::tensor::{DataType, Shape, TensorBytes, element_count};
use smallvec::SmallVec;

use super::contents::Contents;
use super::parameters;
use super::reader::{Reader, Wire, wrong_wire};

/// Parameters as they were sent: in order, a repeated name replaced. `None`: a parameter with no value.
pub(super) type Parameters = Vec<(Text, Option<Parameter>)>;

/// A request as its fields arrive, which may be in any order.
#[derive(Default)]
struct Draft {
    model_name: Text,
    model_version: Text,
    id: Text,
    parameters: Parameters,
    inputs: SmallVec<[DraftInput; 2]>,
    outputs: SmallVec<[Text; 2]>,
    raw: SmallVec<[TensorBytes; 2]>,
}

#[derive(Default)]
struct DraftInput {
    name: Text,
    datatype: Option<DataType>,
    /// What `datatype` was made from, where that failed.
    unknown_datatype: Text,
    shape: Shape,
    rank: usize,
    parameters: Parameters,
    contents: Option<Contents>,
}

/// Why a request was not decoded, and the id that it had, as far as that was read: a stream's error names it.
#[derive(Debug)]
pub(super) struct Refused {
    /// What was wrong.
    pub(super) error: Error,
    /// The caller's id, or nothing.
    pub(super) id: Text,
}

/// Decodes one `ModelInferRequest`. `reservation` holds the message's bytes and takes on what typed contents need.
///
/// **Errors:** malformed, too large, out of budget, not offered; the text names the tensor and what is allowed.
/// **Cost:** one reference count per string and tensor; no copy of raw contents.
pub(super) fn decode(
    pieces: &[Bytes],
    limits: &LimitSettings,
    reservation: &mut Reservation,
) -> Result<Request, Refused> {
    let mut draft = Draft::default();
    let mut request = Request::default();
    let decoded = draft.read(pieces, limits, reservation).and_then(|()| draft.fill(&mut request));
    match decoded {
        Ok(()) => {
            request.model_name = draft.model_name;
            request.id = draft.id;
            Ok(request)
        }
        Err(error) => Err(Refused { error, id: draft.id }),
    }
}

impl Draft {
    fn read(&mut self, pieces: &[Bytes], limits: &LimitSettings, reservation: &mut Reservation) -> Result<()> {
        let mut reader = Reader::new(pieces);
        while let Some((field, wire)) = reader.key()? {
            self.field(&mut reader, field, wire, limits, reservation)?;
        }
        Ok(())
    }

    fn field(
        &mut self,
        reader: &mut Reader<'_>,
        field: u32,
        wire: Wire,
        limits: &LimitSettings,
        reservation: &mut Reservation,
    ) -> Result<()> {
        match field {
            1 => self.model_name = reader.text(wire, "model_name")?,
            2 => self.model_version = reader.text(wire, "model_version")?,
            3 => self.id = reader.text(wire, "id")?,
            4 => parameter(reader, wire, &mut self.parameters)?,
            5 => {
                let outside = reader.length(wire, "inputs").map(|length| reader.enter(length))?;
                let input = DraftInput::read(reader, limits, reservation)?;
                reader.leave(outside);
                push_limited(&mut self.inputs, input, limits.max_tensors, "inputs")?;
            }
            6 => {
                let outside = reader.length(wire, "outputs").map(|length| reader.enter(length))?;
                let output = requested_output(reader)?;
                reader.leave(outside);
                push_limited(&mut self.outputs, output, limits.max_tensors, "outputs")?;
            }
            7 => {
                let length = reader.length(wire, "raw_input_contents")?;
                push_limited(&mut self.raw, reader.tensor(length), limits.max_tensors, "raw_input_contents")?;
            }
            _ => reader.skip(field, wire)?,
        }
        Ok(())
    }

    /// Fills in all but the names, which the caller needs for errors.
    fn fill(&mut self, request: &mut Request) -> Result<()> {
        request.model_version = model_version(&self.model_version)?;
        request.outputs = std::mem::take(&mut self.outputs);
        if !self.parameters.is_empty() {
            parameters::apply(std::mem::take(&mut self.parameters), request)?;
        }
        if self.raw.len() > self.inputs.len() {
            return Err(too_many_raw(self.raw.len(), self.inputs.len(), &self.model_name));
        }
        let is_raw = !self.raw.is_empty();
        let mut raw = self.raw.drain(..);
        for input in self.inputs.drain(..) {
            request.inputs.push(input.finish(is_raw, raw.next(), &self.model_name)?);
        }
        Ok(())
    }
}

impl DraftInput {
    fn read(reader: &mut Reader<'_>, limits: &LimitSettings, reservation: &mut Reservation) -> Result<Self> {
        let mut input = Self::default();
        while let Some((field, wire)) = reader.key()? {
            match field {
                1 => input.name = reader.text(wire, "the name of an input")?,
                2 => input.read_datatype(reader, wire)?,
                3 => input.read_shape(reader, wire, limits.max_rank)?,
                4 => parameter(reader, wire, &mut input.parameters)?,
                5 => {
                    let outside = reader.length(wire, "contents").map(|length| reader.enter(length))?;
                    let contents = input.contents.get_or_insert_default();
                    contents.merge(reader, limits.max_string_bytes, reservation)?;
                    reader.leave(outside);
                }
                _ => reader.skip(field, wire)?,
            }
        }
        if input.rank > limits.max_rank {
            return Err(rank_too_large(&input, limits.max_rank));
        }
        refuse_shared_memory(&input.parameters, &input.name)?;
        Ok(input)
    }

    fn read_datatype(&mut self, reader: &mut Reader<'_>, wire: Wire) -> Result<()> {
        let length = reader.length(wire, "the datatype of an input")?;
        let name = reader.bytes(length);
        self.datatype = DataType::from_name(&name);
        if self.datatype.is_none() {
            self.unknown_datatype =
                Text::from_utf8(name).ok_or_else(|| Error::invalid("the datatype of an input is not valid UTF-8"))?;
        }
        Ok(())
    }

    fn read_shape(&mut self, reader: &mut Reader<'_>, wire: Wire, max_rank: usize) -> Result<()> {
        match wire {
            Wire::Varint => {
                let dimension = reader.varint()?;
                self.push_dimension(dimension, max_rank);
            }
            Wire::Length => {
                let outside = reader.length(wire, "shape").map(|length| reader.enter(length))?;
                while reader.left() > 0 {
                    let dimension = reader.varint()?;
                    self.push_dimension(dimension, max_rank);
                }
                reader.leave(outside);
            }
            _ => return Err(wrong_wire("the shape of an input")),
        }
        Ok(())
    }

    /// Counts on above the limit, so that the error can tell the rank and, when it has been read, the name.
    fn push_dimension(&mut self, dimension: u64, max_rank: usize) {
        self.rank += 1;
        if self.rank <= max_rank {
            self.shape.push(dimension as i64);
        }
    }

    /// `is_raw`: the request has raw contents; `raw`: those of this input.
    fn finish(self, is_raw: bool, raw: Option<TensorBytes>, model: &str) -> Result<Input> {
        let Some(datatype) = self.datatype else { return Err(unknown_datatype(&self)) };
        let data = match (raw, self.contents.filter(|contents| !contents.is_empty())) {
            (_, Some(_)) if is_raw => return Err(raw_and_typed(&self.name, model)),
            (_, Some(contents)) => match contents.into_raw(datatype) {
                Ok(bytes) => bytes.into(),
                Err(list) => return Err(wrong_list(&self.name, model, list, datatype)),
            },
            (Some(raw), None) => raw,
            // An empty tensor has nothing to send.
            (None, None) if !is_raw && element_count(&self.shape) == Some(0) => TensorBytes::new(),
            (None, None) => return Err(no_data(&self.name, model)),
        };
        Ok(Input { name: self.name, datatype, shape: self.shape, data })
    }
}

fn requested_output(reader: &mut Reader<'_>) -> Result<Text> {
    let mut name = Text::default();
    let mut parameters = Parameters::new();
    while let Some((field, wire)) = reader.key()? {
        match field {
            1 => name = reader.text(wire, "the name of an output")?,
            2 => parameter(reader, wire, &mut parameters)?,
            _ => reader.skip(field, wire)?,
        }
    }
    refuse_shared_memory(&parameters, &name)?;
    if parameters.iter().any(|(key, _)| &**key == "classification") {
        return Err(not_offered(&name, "classification"));
    }
    Ok(name)
}

/// Reads an entry of a `map<string, InferParameter>`.
fn parameter(reader: &mut Reader<'_>, wire: Wire, parameters: &mut Parameters) -> Result<()> {
    let outside = reader.length(wire, "parameters").map(|length| reader.enter(length))?;
    let (mut key, mut value) = (Text::default(), None);
    while let Some((field, wire)) = reader.key()? {
        match field {
            1 => key = reader.text(wire, "the name of a parameter")?,
            2 => {
                let outside = reader.length(wire, "the value of a parameter").map(|length| reader.enter(length))?;
                parameter_value(reader, &mut value)?;
                reader.leave(outside);
            }
            _ => reader.skip(field, wire)?,
        }
    }
    reader.leave(outside);
    if let Some(present) = parameters.iter_mut().find(|(present, _)| *present == key) {
        present.1 = value;
        return Ok(());
    }
    if parameters.len() == MAX_PARAMETERS {
        return Err(too_many_parameters());
    }
    parameters.push((key, value));
    Ok(())
}

fn parameter_value(reader: &mut Reader<'_>, value: &mut Option<Parameter>) -> Result<()> {
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

/// The number that a version string means; empty: the server chooses.
///
/// **Errors:** not a number, with Triton's text.
pub(crate) fn model_version(text: &str) -> Result<Option<u64>> {
    if text.is_empty() {
        return Ok(None);
    }
    // Rust's parser takes a leading plus sign.
    match text.parse() {
        Ok(number) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Some(number)),
        _ => Err(bad_version(text)),
    }
}

fn push_limited<T, const INLINE: usize>(
    list: &mut SmallVec<[T; INLINE]>,
    item: T,
    limit: usize,
    what: &'static str,
) -> Result<()>
where
    [T; INLINE]: smallvec::Array<Item = T>,
{
    if list.len() == limit {
        return Err(Error::too_large(format!(
            "the request has more than {limit} {what}; at most {limit} are allowed (limits.max_tensors)"
        )));
    }
    list.push(item);
    Ok(())
}

fn refuse_shared_memory(parameters: &Parameters, tensor: &str) -> Result<()> {
    if parameters.iter().any(|(key, _)| key.starts_with("shared_memory_")) {
        return Err(not_offered(tensor, "shared memory"));
    }
    Ok(())
}

#[cold]
fn not_offered(tensor: &str, what: &str) -> Error {
    Error::new(
        Kind::NotOffered,
        format!("{what} is not offered by this server; tensor '{}' asks for it", quoted(tensor)),
    )
}

#[cold]
fn bad_version(text: &str) -> Error {
    Error::invalid(format!(
        "failed to get model version from specified version string '{}', version should be an integral value > 0",
        quoted(text)
    ))
}

#[cold]
fn unknown_datatype(input: &DraftInput) -> Error {
    Error::invalid(format!("invalid datatype for input {}: '{}'", quoted(&input.name), quoted(&input.unknown_datatype)))
}

#[cold]
fn rank_too_large(input: &DraftInput, limit: usize) -> Error {
    Error::too_large(format!(
        "the shape of input '{}' has {} dimensions; at most {limit} are allowed",
        quoted(&input.name),
        input.rank
    ))
}

#[cold]
fn wrong_list(input: &str, model: &str, list: DataType, datatype: DataType) -> Error {
    Error::invalid(format!(
        "unexpected explicit tensor data for input tensor '{}' for model '{}' of type '{list}', expected datatype \
         '{datatype}'",
        quoted(input),
        quoted(model)
    ))
}

#[cold]
fn raw_and_typed(input: &str, model: &str) -> Error {
    Error::invalid(format!(
        "contents field must not be specified when using raw_input_contents for '{}' for model '{}'",
        quoted(input),
        quoted(model)
    ))
}

#[cold]
fn no_data(input: &str, model: &str) -> Error {
    Error::invalid(format!(
        "unable to find data for input tensor '{}' for model '{}' in request.",
        quoted(input),
        quoted(model)
    ))
}

#[cold]
fn too_many_raw(raw: usize, inputs: usize, model: &str) -> Error {
    Error::invalid(format!(
        "expected {inputs} raw_input_contents, one for each input, but got {raw} for model '{}'",
        quoted(model)
    ))
}

#[cfg(test)]
mod tests;
