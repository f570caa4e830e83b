//! The `data` field of a JSON input: nested or flat, row-major, straight into the declared type's bytes. Hot path.
//!
//! Must not trust the declared shape for an allocation: the text that is left bounds it.

use std::fmt;

use mlserve_core::budget::Reservation;
use mlserve_core::error::{Error, Kind, Result, quoted};
use mlserve_core::tensor::{DataType, ShapeText, element_count, push_bytes_element};
use smallvec::SmallVec;

use super::json::{Cursor, Token};
use super::numbers::Number;

/// Least characters an element takes in JSON: a digit and a comma.
const LEAST_ELEMENT_CHARACTERS: usize = 2;

/// What the caller declared about the tensor whose data comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Declared<'a> {
    /// Its name, for error texts.
    pub(super) name: &'a str,
    /// Its type.
    pub(super) datatype: DataType,
    /// Its shape.
    pub(super) shape: &'a [i64],
    /// Bytes of one string at most.
    pub(super) max_string_bytes: usize,
}

/// Reads the value of `data` into the wire form of `declared`, and adds its bytes to `reservation`.
///
/// **Errors:** not as many elements, or not nested, as the shape says; an element of another kind or out of range; a
/// type that JSON cannot carry. Each names the tensor. **Cost:** one pass, one allocation for types of fixed size.
pub(super) fn read(cursor: &mut Cursor<'_>, declared: Declared<'_>, reservation: &mut Reservation) -> Result<Vec<u8>> {
    match declared.datatype {
        DataType::Bool => bools(cursor, declared, reservation),
        DataType::Uint8 => numbers::<u8>(cursor, declared, reservation),
        DataType::Uint16 => numbers::<u16>(cursor, declared, reservation),
        DataType::Uint32 => numbers::<u32>(cursor, declared, reservation),
        DataType::Uint64 => numbers::<u64>(cursor, declared, reservation),
        DataType::Int8 => numbers::<i8>(cursor, declared, reservation),
        DataType::Int16 => numbers::<i16>(cursor, declared, reservation),
        DataType::Int32 => numbers::<i32>(cursor, declared, reservation),
        DataType::Int64 => numbers::<i64>(cursor, declared, reservation),
        DataType::Fp32 => numbers::<f32>(cursor, declared, reservation),
        DataType::Fp64 => numbers::<f64>(cursor, declared, reservation),
        DataType::Bytes => strings(cursor, declared, reservation),
        DataType::Fp16 | DataType::Bf16 => Err(not_as_json(declared)),
    }
}

fn numbers<Element: Number>(
    cursor: &mut Cursor<'_>,
    declared: Declared<'_>,
    reservation: &mut Reservation,
) -> Result<Vec<u8>> {
    let mut wire = room(cursor, declared, size_of::<Element>(), reservation)?;
    walk(cursor, declared, |cursor, token, index| {
        if token != Token::Number {
            return Err(wrong_kind(declared, index, token, "a number"));
        }
        let number = cursor.number()?;
        let element =
            Element::from_decimal(&number).ok_or_else(|| out_of_range(declared, index, number.text, Element::RANGE))?;
        wire.extend_from_slice(element.wire().as_ref());
        Ok(())
    })?;
    Ok(wire)
}

fn bools(cursor: &mut Cursor<'_>, declared: Declared<'_>, reservation: &mut Reservation) -> Result<Vec<u8>> {
    let mut wire = room(cursor, declared, 1, reservation)?;
    walk(cursor, declared, |cursor, token, index| {
        if token != Token::Bool {
            return Err(wrong_kind(declared, index, token, "true or false"));
        }
        wire.push(u8::from(cursor.boolean()?));
        Ok(())
    })?;
    Ok(wire)
}

fn strings(cursor: &mut Cursor<'_>, declared: Declared<'_>, reservation: &mut Reservation) -> Result<Vec<u8>> {
    let mut wire = Vec::new();
    walk(cursor, declared, |cursor, token, index| {
        if token != Token::Text {
            return Err(wrong_kind(declared, index, token, "a string"));
        }
        let text = cursor.string()?;
        if text.len() > declared.max_string_bytes {
            return Err(long_string(declared, index, text.len()));
        }
        push_string(&mut wire, text.as_bytes(), reservation)
    })?;
    Ok(wire)
}

/// Adds an element of a BYTES tensor, and charges what the buffer grows by.
///
/// **Errors:** out of budget; too large.
pub(super) fn push_string(wire: &mut Vec<u8>, element: &[u8], reservation: &mut Reservation) -> Result<()> {
    let before = wire.capacity();
    push_bytes_element(wire, element)?;
    if wire.capacity() > before { hold(reservation, wire.capacity() - before) } else { Ok(()) }
}

/// An empty buffer for as many elements as the shape says, if so many can still come.
fn room(
    cursor: &Cursor<'_>,
    declared: Declared<'_>,
    element_bytes: usize,
    reservation: &mut Reservation,
) -> Result<Vec<u8>> {
    let count = element_count(declared.shape).ok_or_else(|| too_many_elements(declared))?;
    let most = cursor.remaining() / LEAST_ELEMENT_CHARACTERS + 1;
    let bytes = count.min(most).saturating_mul(element_bytes);
    hold(reservation, bytes)?;
    Ok(Vec::with_capacity(bytes))
}

fn hold(reservation: &mut Reservation, bytes: usize) -> Result<()> {
    if reservation.grow(bytes) {
        return Ok(());
    }
    Err(Error::new(
        Kind::OutOfBudget,
        format!("{bytes} more bytes for tensors would exceed the server's byte budget (limits.byte_budget)"),
    ))
}

/// Walks nested or flat arrays and gives each element to `element`, with what comes and its index.
fn walk<'a>(
    cursor: &mut Cursor<'a>,
    declared: Declared<'_>,
    mut element: impl FnMut(&mut Cursor<'a>, Token, usize) -> Result<()>,
) -> Result<()> {
    let mut nesting = Nesting::new(declared)?;
    loop {
        let token = cursor.token()?;
        if token == Token::Array {
            cursor.enter(b'[')?;
            nesting.lengths.push(0);
            if !cursor.leave(b']') {
                continue;
            }
            nesting.close()?;
        } else if nesting.lengths.is_empty() {
            nesting.elements_may_come()?;
            element(cursor, token, 0)?;
            nesting.seen = 1;
        } else if elements(cursor, &mut nesting, &mut element)? {
            nesting.close()?;
        } else {
            continue;
        }
        while !nesting.lengths.is_empty() && !cursor.more(b']')? {
            nesting.close()?;
        }
        if nesting.lengths.is_empty() {
            return nesting.end();
        }
    }
}

/// Reads elements up to the end of their array (true) or up to an array between them (false).
fn elements<'a>(
    cursor: &mut Cursor<'a>,
    nesting: &mut Nesting<'_>,
    element: &mut impl FnMut(&mut Cursor<'a>, Token, usize) -> Result<()>,
) -> Result<bool> {
    let start = nesting.seen;
    let end = nesting.elements_may_come()?;
    let mut index = start;
    let has_ended = loop {
        let token = cursor.token()?;
        if token == Token::Array {
            break false;
        }
        if index == end {
            return Err(wrong_count(nesting.declared, nesting.expected, &"more"));
        }
        element(cursor, token, index)?;
        index += 1;
        if !cursor.more(b']')? {
            break true;
        }
    };
    nesting.seen = index;
    if let Some(length) = nesting.lengths.last_mut() {
        *length += index - start;
    }
    Ok(has_ended)
}

/// Where a walk is. Flat is one level, nested is as many levels as the shape has, each as long as its dimension. Anything
/// between would leave open which element is meant, so it is refused.
struct Nesting<'a> {
    declared: Declared<'a>,
    expected: usize,
    seen: usize,
    /// How many levels deep the first element was; the others must be, too.
    level: Option<usize>,
    /// Of the open arrays, the innermost last.
    lengths: SmallVec<[usize; 8]>,
}

impl<'a> Nesting<'a> {
    fn new(declared: Declared<'a>) -> Result<Self> {
        let expected = element_count(declared.shape).ok_or_else(|| too_many_elements(declared))?;
        Ok(Self { declared, expected, seen: 0, level: None, lengths: SmallVec::new() })
    }

    /// Elements come at this level; returns the index before which they must end.
    fn elements_may_come(&mut self) -> Result<usize> {
        let (level, rank) = (self.lengths.len(), self.declared.shape.len());
        let is_allowed = self.level.map_or(level == 1 || level == rank, |first| level == first);
        if !is_allowed {
            return Err(wrong_level(self.declared, self.seen, level));
        }
        self.level = Some(level);
        Ok(self.expected)
    }

    /// An array ended. In nested data it must be as long as its dimension; otherwise the count tells.
    fn close(&mut self) -> Result<()> {
        let level = self.lengths.len();
        let length = self.lengths.pop().unwrap_or_default();
        if let Some(outer) = self.lengths.last_mut() {
            *outer += 1;
        }
        let rank = self.declared.shape.len();
        let is_nested = rank > 1 && self.level == Some(rank);
        match level.checked_sub(1).and_then(|axis| self.declared.shape.get(axis)) {
            Some(&dimension) if is_nested && usize::try_from(dimension) != Ok(length) => {
                Err(wrong_length(self.declared, level, length))
            }
            _ => Ok(()),
        }
    }

    fn end(&self) -> Result<()> {
        if self.seen == self.expected {
            return Ok(());
        }
        Err(wrong_count(self.declared, self.expected, &self.seen))
    }
}

#[cold]
fn not_as_json(declared: Declared<'_>) -> Error {
    Error::invalid(format!(
        "receiving {} data via JSON is not supported. Please use the binary data format for input {}",
        declared.datatype,
        quoted(declared.name)
    ))
}

#[cold]
fn wrong_kind(declared: Declared<'_>, index: usize, token: Token, wanted: &str) -> Error {
    Error::invalid(format!(
        "Unable to parse 'data': element {index} of input '{}' is {}; {wanted} is expected for {}",
        quoted(declared.name),
        token.name(),
        declared.datatype
    ))
}

#[cold]
fn out_of_range(declared: Declared<'_>, index: usize, number: &str, range: &str) -> Error {
    // A number may have a million digits; its first ones tell enough.
    let shown = number.get(..40).map_or(number.to_owned(), |start| format!("{start}…"));
    Error::invalid(format!(
        "Unable to parse 'data': element {index} of input '{}' is {shown}; {} takes {range}",
        quoted(declared.name),
        declared.datatype
    ))
}

#[cold]
fn long_string(declared: Declared<'_>, index: usize, bytes: usize) -> Error {
    Error::too_large(format!(
        "element {index} of input '{}' has {bytes} bytes; at most {} are allowed",
        quoted(declared.name),
        declared.max_string_bytes
    ))
}

#[cold]
fn too_many_elements(declared: Declared<'_>) -> Error {
    Error::invalid(format!(
        "shape {} of input '{}' has more elements than fit",
        ShapeText(declared.shape),
        quoted(declared.name)
    ))
}

#[cold]
fn wrong_count(declared: Declared<'_>, expected: usize, got: &dyn fmt::Display) -> Error {
    wrong_shape(declared, format_args!("it takes {expected} elements, got {got}"))
}

#[cold]
fn wrong_level(declared: Declared<'_>, index: usize, level: usize) -> Error {
    let rank = declared.shape.len();
    wrong_shape(
        declared,
        format_args!("element {index} is {level} levels deep; all must be 1 (flat) or {rank} (nested)"),
    )
}

#[cold]
fn wrong_length(declared: Declared<'_>, level: usize, length: usize) -> Error {
    wrong_shape(declared, format_args!("an array at level {level} has {length} elements"))
}

fn wrong_shape(declared: Declared<'_>, what: fmt::Arguments<'_>) -> Error {
    Error::invalid(format!(
        "Unable to parse 'data': Shape does not match true shape of 'data' field: input '{}' of shape {}: {what}",
        quoted(declared.name),
        ShapeText(declared.shape)
    ))
}

#[cfg(test)]
mod tests;
