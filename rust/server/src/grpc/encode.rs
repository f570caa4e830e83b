//! Stage 10 for gRPC: from an answer to the bytes of a `ModelInferResponse`, with its message prefix. Hot path.
//!
//! Sizes are computed first, so that one buffer is allocated and filled once. Outputs always go out raw, one entry each,
//! empty ones too: clients index them without a check. Large outputs are not copied: they stay slices of the batch's
//! output between the pieces of the buffer.

use bytes::Bytes;
use mlserve_core::error::{CODE_HEADER, Error};
use mlserve_core::request::{Answer, BatchPlace, Output};
use mlserve_core::version::Version;
use smallvec::SmallVec;

use prost::Message as _;

use super::frame::PREFIX_BYTES;
use crate::proto::infer_parameter::ParameterChoice;
use crate::proto::{InferParameter, ModelInferResponse, ModelStreamInferResponse};

/// Outputs up to this many bytes are copied into the message: cheaper than a frame of their own.
const COPIED_BYTES: usize = 16 << 10;

/// What an answer carries besides its outputs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extras {
    /// Tell where the request ran (test mode).
    pub(crate) reports_batch: bool,
    /// Wrap into a `ModelStreamInferResponse` and say that no more answers follow.
    pub(crate) is_streamed: bool,
}

/// An encoded message: one buffer, and the outputs that lie between its parts.
#[derive(Debug, Default)]
pub(crate) struct Message {
    /// The prefix and everything that is not spliced in.
    pub(crate) buffer: Vec<u8>,
    /// Where in `buffer`, and what.
    splices: SmallVec<[(usize, Bytes); 1]>,
}

impl Message {
    /// Bytes on the wire, prefix included.
    pub(crate) fn len(&self) -> usize {
        self.splices.iter().fold(self.buffer.len(), |len, (_, data)| len + data.len())
    }

    /// The pieces to write, in order; none is empty.
    pub(crate) fn into_pieces(self) -> SmallVec<[Bytes; 2]> {
        let buffer = Bytes::from(self.buffer);
        if self.splices.is_empty() {
            return SmallVec::from_iter([buffer]);
        }
        let mut pieces = SmallVec::<[Bytes; 2]>::new();
        let mut written = 0;
        for (at, data) in self.splices {
            pieces.extend([buffer.slice(written..at), data]);
            written = at;
        }
        pieces.push(buffer.slice(written..));
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }
}

/// Encodes `answer` as one message, prefix included. **Cost:** one allocation; outputs above 16 KiB are not copied.
pub(crate) fn encode(answer: &Answer<'_>, extras: Extras) -> Message {
    let mut version = [0; 20];
    let sizes = Sizes::of(answer, decimal(answer.version.spec.version, &mut version), extras);
    let message = if extras.is_streamed { 1 + prefixed(sizes.message) } else { sizes.message };
    let mut out = Message::default();
    out.buffer.reserve_exact(PREFIX_BYTES + message - sizes.spliced);
    out.buffer.push(0);
    out.buffer.extend_from_slice(&(message as u32).to_be_bytes());
    if extras.is_streamed {
        put_length(&mut out.buffer, 0x12, sizes.message);
    }
    put_head(&mut out.buffer, answer, &sizes, extras);
    for output in &answer.outputs {
        put_length(&mut out.buffer, 0x32, output.data.len());
        if output.data.len() > COPIED_BYTES {
            out.splices.push((out.buffer.len(), output.data.clone()));
        } else {
            out.buffer.extend_from_slice(&output.data);
        }
    }
    debug_assert_eq!(out.len(), PREFIX_BYTES + message, "the computed size is the written one");
    out
}

/// A message of `len` bytes that `write` appends, with its prefix.
pub(crate) fn framed(len: usize, write: impl FnOnce(&mut Vec<u8>)) -> Message {
    let mut buffer = Vec::with_capacity(PREFIX_BYTES + len);
    buffer.push(0);
    buffer.extend_from_slice(&(len as u32).to_be_bytes());
    write(&mut buffer);
    debug_assert_eq!(buffer.len(), PREFIX_BYTES + len, "the computed size is the written one");
    Message { buffer, splices: SmallVec::new() }
}

/// A message that was made elsewhere, with its prefix; it is not copied.
pub(crate) fn framed_bytes(message: Bytes) -> Message {
    let mut framed = Message::default();
    framed.buffer.push(0);
    framed.buffer.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.splices.push((PREFIX_BYTES, message));
    framed
}

/// A `ModelStreamInferResponse` that carries an error and names its row, prefix included.
pub(crate) fn encode_stream_error(error: &Error, id: &str) -> Message {
    let code =
        InferParameter { parameter_choice: Some(ParameterChoice::StringParam(error.kind().row().code.to_owned())) };
    let infer_response = ModelInferResponse {
        id: id.to_owned(),
        parameters: [(CODE_HEADER.to_owned(), code)].into(),
        ..ModelInferResponse::default()
    };
    let response =
        ModelStreamInferResponse { error_message: error.text().to_owned(), infer_response: Some(infer_response) };
    framed(response.encoded_len(), |buffer| buffer.extend_from_slice(&response.encode_to_vec()))
}

/// Byte counts of the parts of one message, by which it is written.
struct Sizes<'a> {
    version: &'a str,
    outputs: SmallVec<[OutputSize; 2]>,
    /// The `ModelInferResponse`.
    message: usize,
    /// Of it, bytes that are spliced in and not copied.
    spliced: usize,
}

struct OutputSize {
    shape: usize,
    message: usize,
}

impl<'a> Sizes<'a> {
    fn of(answer: &Answer<'_>, version: &'a str, extras: Extras) -> Self {
        let spec = &answer.version.spec;
        let mut sizes = Sizes { version, outputs: SmallVec::new(), message: 0, spliced: 0 };
        sizes.message = string_size(&spec.name) + string_size(version) + string_size(&answer.id);
        if extras.is_streamed {
            sizes.message += 1 + prefixed(FINAL.len());
        }
        if extras.reports_batch {
            sizes.message +=
                place_parameters(answer.place).iter().map(|&(key, value)| parameter_size(key, value)).sum::<usize>();
        }
        for output in &answer.outputs {
            let size = OutputSize::of(output, answer.version);
            sizes.message += 1 + prefixed(size.message) + 1 + prefixed(output.data.len());
            if output.data.len() > COPIED_BYTES {
                sizes.spliced += output.data.len();
            }
            sizes.outputs.push(size);
        }
        sizes
    }
}

impl OutputSize {
    fn of(output: &Output, version: &Version) -> Self {
        let shape = output.shape.iter().map(|&dimension| varint_size(dimension as u64)).sum();
        let (name, datatype) = (name(output, version), output.datatype.name());
        let list = if output.shape.is_empty() { 0 } else { 1 + prefixed(shape) };
        Self { shape, message: string_size(name) + string_size(datatype) + list }
    }
}

fn name<'a>(output: &Output, version: &'a Version) -> &'a str {
    version.spec.outputs.get(output.index).map_or("", |spec| &*spec.name)
}

/// Everything before the raw contents.
fn put_head(buffer: &mut Vec<u8>, answer: &Answer<'_>, sizes: &Sizes<'_>, extras: Extras) {
    put_string(buffer, 0x0a, &answer.version.spec.name);
    put_string(buffer, 0x12, sizes.version);
    put_string(buffer, 0x1a, &answer.id);
    if extras.is_streamed {
        put_length(buffer, 0x22, FINAL.len());
        buffer.extend_from_slice(FINAL);
    }
    if extras.reports_batch {
        for (key, value) in place_parameters(answer.place) {
            put_parameter(buffer, key, value);
        }
    }
    for (output, size) in answer.outputs.iter().zip(&sizes.outputs) {
        let (name, datatype) = (name(output, answer.version), output.datatype.name());
        put_length(buffer, 0x2a, size.message);
        put_string(buffer, 0x0a, name);
        put_string(buffer, 0x12, datatype);
        if !output.shape.is_empty() {
            put_length(buffer, 0x1a, size.shape);
            output.shape.iter().for_each(|&dimension| put_varint(buffer, dimension as u64));
        }
    }
}

/// The map entry `"triton_final_response": {bool_param: true}`.
const FINAL: &[u8] = b"\x0a\x15triton_final_response\x12\x02\x08\x01";

fn place_parameters(place: BatchPlace) -> [(&'static str, u64); 3] {
    [
        ("mlserve_batch", place.batch),
        ("mlserve_batch_rows", place.rows as u64),
        ("mlserve_batch_offset", place.offset as u64),
    ]
}

/// A map entry with an `int64_param`.
fn parameter_size(key: &str, value: u64) -> usize {
    1 + prefixed(string_size(key) + 1 + prefixed(1 + varint_size(value)))
}

fn put_parameter(buffer: &mut Vec<u8>, key: &str, value: u64) {
    let choice = 1 + varint_size(value);
    put_length(buffer, 0x22, string_size(key) + 1 + prefixed(choice));
    put_string(buffer, 0x0a, key);
    put_length(buffer, 0x12, choice);
    buffer.push(0x10);
    put_varint(buffer, value);
}

/// Bytes of a length-delimited value of `length` bytes, without its key.
fn prefixed(length: usize) -> usize {
    varint_size(length as u64) + length
}

/// Bytes of a string field with a key of one byte; empty strings are left out.
fn string_size(text: &str) -> usize {
    if text.is_empty() { 0 } else { 1 + prefixed(text.len()) }
}

fn varint_size(value: u64) -> usize {
    // Seven bits a byte; 0 takes one too.
    (70 - (value | 1).leading_zeros() as usize) / 7
}

fn put_varint(buffer: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buffer.push(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.push(value as u8);
}

fn put_length(buffer: &mut Vec<u8>, key: u8, length: usize) {
    buffer.push(key);
    put_varint(buffer, length as u64);
}

fn put_string(buffer: &mut Vec<u8>, key: u8, text: &str) {
    if !text.is_empty() {
        put_length(buffer, key, text.len());
        buffer.extend_from_slice(text.as_bytes());
    }
}

/// A number in digits, without the allocation that formatting takes.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &str {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    std::str::from_utf8(&digits[start..]).unwrap_or_default()
}

#[cfg(test)]
mod tests;
