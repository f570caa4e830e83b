//! An answer to a body: JSON, and behind it the outputs that are wanted as binary data. Hot path.

use bytes::Bytes;
use mlserve_core::budget::Reservation;
use mlserve_core::error::{Error, Kind, Result};
use mlserve_core::request::BatchPlace;

use super::draft::{Draft, DraftOutput};
use super::wanted::OutputForm;
use super::write::{push_elements, push_integer, push_string, too_large};

/// Outputs up to this size are copied behind the JSON: one write instead of two, and a reader that lags keeps no batch.
const COPIED_BYTES: usize = 4 << 10;

/// Bytes of an answer's JSON beside its elements: one allocation covers nearly every answer.
const FRAME_BYTES: usize = 256;

/// Characters that an element of four bytes takes at most, comma included, nearly always.
const CHARACTERS_PER_BYTE: usize = 3;

/// A body ready to be written.
#[derive(Debug)]
pub(super) struct Encoded {
    /// In order.
    pub(super) pieces: Vec<Bytes>,
    /// Bytes of the JSON, if binary data follows it.
    pub(super) json_length: Option<usize>,
    /// Covers every piece.
    pub(super) reservation: Option<Reservation>,
}

impl Encoded {
    /// Bytes in all pieces.
    pub(super) fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }
}

/// Encodes `draft` into at most `limit` bytes.
///
/// **Errors:** too large; values that JSON cannot carry; out of budget. **Cost:** one buffer for the JSON; large binary
/// outputs are not copied.
pub(super) fn encode(mut draft: Draft<'_>, limit: usize) -> Result<Encoded> {
    let binary: usize =
        draft.outputs.iter().filter(|output| output.form == OutputForm::Binary).map(|output| output.data.len()).sum();
    let json_limit = limit.checked_sub(binary).ok_or_else(|| too_large(limit))?;
    let json_bytes = draft.json_bytes();
    let mut json = Vec::with_capacity(FRAME_BYTES + (json_bytes * CHARACTERS_PER_BYTE).min(json_limit));
    push_frame(&mut json, &draft, json_limit)?;
    if json.len() > json_limit {
        return Err(too_large(limit));
    }
    let mut reservation = draft.reservation.take();
    if let Some(reservation) = &mut reservation {
        // The text takes the place of the tensors it was written from.
        if !reservation.grow(json.len()) {
            return Err(out_of_budget(json.len()));
        }
        reservation.shrink_to(reservation.units().saturating_sub(json_bytes));
    }
    let has_binary = draft.outputs.iter().any(|output| output.form == OutputForm::Binary);
    let json_length = has_binary.then_some(json.len());
    Ok(Encoded { pieces: pieces(json, draft), json_length, reservation })
}

fn pieces(json: Vec<u8>, draft: Draft<'_>) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut tail = json;
    for output in draft.outputs.into_iter().filter(|output| output.form == OutputForm::Binary) {
        if output.data.len() <= COPIED_BYTES {
            tail.extend_from_slice(&output.data);
            continue;
        }
        if !tail.is_empty() {
            pieces.push(std::mem::take(&mut tail).into());
        }
        pieces.push(output.data);
    }
    if !tail.is_empty() {
        pieces.push(tail.into());
    }
    pieces
}

/// The whole JSON, keys in Triton's order.
fn push_frame(json: &mut Vec<u8>, draft: &Draft<'_>, limit: usize) -> Result<()> {
    json.push(b'{');
    if !draft.id.is_empty() {
        json.extend_from_slice(b"\"id\":");
        push_string(json, &draft.id);
        json.push(b',');
    }
    json.extend_from_slice(b"\"model_name\":");
    push_string(json, &draft.model);
    json.extend_from_slice(b",\"model_version\":\"");
    push_integer(json, draft.version);
    json.push(b'"');
    if let Some(place) = draft.place {
        push_place(json, place);
    }
    json.extend_from_slice(b",\"outputs\":[");
    for (index, output) in draft.outputs.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        push_output(json, output, limit)?;
    }
    json.extend_from_slice(b"]}");
    Ok(())
}

fn push_place(json: &mut Vec<u8>, place: BatchPlace) {
    json.extend_from_slice(b",\"parameters\":{\"mlserve_batch\":");
    push_integer(json, place.batch);
    json.extend_from_slice(b",\"mlserve_batch_rows\":");
    push_integer(json, place.rows);
    json.extend_from_slice(b",\"mlserve_batch_offset\":");
    push_integer(json, place.offset);
    json.push(b'}');
}

fn push_output(json: &mut Vec<u8>, output: &DraftOutput<'_>, limit: usize) -> Result<()> {
    json.extend_from_slice(b"{\"name\":");
    push_string(json, &output.name);
    json.extend_from_slice(b",\"datatype\":\"");
    json.extend_from_slice(output.datatype.name().as_bytes());
    json.extend_from_slice(b"\",\"shape\":[");
    for (axis, &dimension) in output.shape.iter().enumerate() {
        if axis > 0 {
            json.push(b',');
        }
        push_integer(json, dimension);
    }
    json.push(b']');
    match output.form {
        OutputForm::Binary => {
            json.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
            push_integer(json, output.data.len());
            json.push(b'}');
        }
        OutputForm::Json => {
            json.extend_from_slice(b",\"data\":");
            push_elements(json, &output.name, output.datatype, &output.data, limit)?;
        }
        // Clients take an object of parameters without a size for a mistake.
        OutputForm::Shared => {}
    }
    json.push(b'}');
    Ok(())
}

#[cold]
fn out_of_budget(bytes: usize) -> Error {
    Error::new(
        Kind::OutOfBudget,
        format!("an answer of {bytes} bytes would exceed the server's byte budget (limits.byte_budget)"),
    )
}

#[cfg(test)]
mod tests;
