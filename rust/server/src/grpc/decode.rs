//! Stage 2 for gRPC: from the bytes of a `ModelInferRequest` to the one `Request`. Hot path.
//!
//! Written by hand because generated code copies every tensor: here raw contents stay views of the received frames,
//! even where a tensor lies across frames. Unknown fields are skipped and the last of a repeated scalar wins, as
//! protobuf wants. Knows no model: names, types and shapes are checked by the core.

use bytes::Bytes;
use mlserve_core::budget::Reservation;
use mlserve_core::config::LimitSettings;
use mlserve_core::error::{Error, Result, quoted};
use mlserve_core::failpoint;
use mlserve_core::request::{Input, Request, RequestOptions, Text};
use mlserve_core::tensor::{DataType, Shape, TensorBytes, element_count};
use smallvec::SmallVec;

use super::contents::Contents;
use super::parameters::{self, Parameters};
use super::reader::{Reader, Wire, wrong_wire};
use crate::shared_memory::{Place, SharedTensors};

/// A request as its fields arrive, which may be in any order.
#[derive(Default)]
struct Draft {
    model_name: Text,
    model_version: Text,
    id: Text,
    parameters: Parameters,
    inputs: SmallVec<[DraftInput; 2]>,
    outputs: SmallVec<[Text; 2]>,
    /// `None`: all tensors are in the message.
    shared: Option<Box<SharedTensors>>,
    options: Option<Box<RequestOptions>>,
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
    /// Where in shared memory it lies, if it does.
    place: Option<Box<Place>>,
    contents: Option<Contents>,
}

/// A request as it was sent.
#[derive(Debug)]
pub(super) struct Decoded {
    /// All but what lies in shared memory.
    pub(super) request: Request,
    /// What lies there, or is to.
    pub(super) shared: Option<Box<SharedTensors>>,
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
) -> Result<Decoded, Refused> {
    failpoint!("decode", error => return Err(Refused { error, id: Text::default() }));
    let mut draft = Draft::default();
    let mut request = Request::default();
    let decoded = draft.read(pieces, limits, reservation).and_then(|()| draft.fill(&mut request));
    match decoded {
        Ok(()) => {
            request.model_name = draft.model_name;
            request.id = draft.id;
            // Messages with large tensors are decoded off the loop.
            request.walk();
            Ok(Decoded { request, shared: draft.shared })
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
            4 => parameters::read(reader, wire, &mut self.parameters)?,
            5 => {
                let outside = reader.length(wire, "inputs").map(|length| reader.enter(length))?;
                let input = DraftInput::read(reader, limits, reservation)?;
                reader.leave(outside);
                push_limited(&mut self.inputs, input, limits.max_tensors, "inputs")?;
            }
            6 => {
                let outside = reader.length(wire, "outputs").map(|length| reader.enter(length))?;
                let output = self.requested_output(reader)?;
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

    fn requested_output(&mut self, reader: &mut Reader<'_>) -> Result<Text> {
        let mut name = Text::default();
        let mut parameters = Parameters::default();
        while let Some((field, wire)) = reader.key()? {
            match field {
                1 => name = reader.text(wire, "the name of an output")?,
                2 => parameters::read_of_tensor(reader, wire, &mut parameters)?,
                _ => reader.skip(field, wire)?,
            }
        }
        if !parameters.is_empty() {
            if let Some(most) = parameters::classification(&parameters)? {
                self.options.get_or_insert_default().classifications.push((name.clone(), most));
            }
            if let Some(place) = parameters::place(&parameters, &name)? {
                self.shared.get_or_insert_default().outputs.push((name.clone(), place));
            }
        }
        Ok(name)
    }

    /// Fills in all but the names, which the caller needs for errors.
    fn fill(&mut self, request: &mut Request) -> Result<()> {
        request.model_version = model_version(&self.model_version)?;
        request.outputs = std::mem::take(&mut self.outputs);
        request.options = self.options.take();
        if !self.parameters.is_empty() {
            parameters::apply(std::mem::take(&mut self.parameters), request)?;
        }
        let in_message = self.inputs.iter().filter(|input| input.place.is_none()).count();
        if self.raw.len() > in_message {
            return Err(too_many_raw(self.raw.len(), in_message, &self.model_name));
        }
        let is_raw = !self.raw.is_empty();
        let mut raw = self.raw.drain(..);
        for mut input in self.inputs.drain(..) {
            let input = match input.place.take() {
                // Raw contents are those of the other inputs.
                Some(place) => {
                    let index = request.inputs.len();
                    self.shared.get_or_insert_default().inputs.push((index, *place));
                    input.finish_shared(&self.model_name)?
                }
                None => input.finish(is_raw, raw.next(), &self.model_name)?,
            };
            request.inputs.push(input);
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
                4 => parameters::read_of_tensor(reader, wire, &mut input.parameters)?,
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
        if !input.parameters.is_empty() {
            input.place = parameters::place(&input.parameters, &input.name)?.map(Box::new);
        }
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

    /// Counts on above the limit, so that the error can tell the rank and, when it has been read, the name. Linear: a
    /// dimension is a byte at least, and is not kept.
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

    /// Without its bytes, which are read from shared memory later.
    fn finish_shared(self, model: &str) -> Result<Input> {
        let Some(datatype) = self.datatype else { return Err(unknown_datatype(&self)) };
        if self.contents.is_some_and(|contents| !contents.is_empty()) {
            return Err(shared_and_typed(&self.name, model));
        }
        Ok(Input { name: self.name, datatype, shape: self.shape, data: TensorBytes::new() })
    }
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
fn shared_and_typed(input: &str, model: &str) -> Error {
    Error::invalid(format!(
        "unexpected 'content' provided when using shared memory for input tensor '{}' for model '{}'",
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
