//! Typed tensor contents (`InferTensorContents`), brought into the form of raw ones.
//!
//! Elements are gathered at the width they have on the wire and narrowed once the data type is known, because a message
//! may carry them before it. Memory is reserved before it is allocated: a varint of one byte becomes up to eight.

use mlserve_core::budget::Reservation;
use mlserve_core::error::{Error, Kind, Result};
use mlserve_core::tensor::DataType;

use super::reader::{Reader, Wire, malformed, wrong_wire};

/// Bytes of the length before each element of a BYTES tensor.
const LENGTH_BYTES: usize = 4;

/// Least bytes that the gathered elements grow by.
const LEAST_GROWTH: usize = 256;

/// Which of the eight lists elements came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Bool,
    Int,
    Int64,
    Uint,
    Uint64,
    Fp32,
    Fp64,
    Bytes,
}

impl List {
    fn from_field(field: u32) -> Option<(Self, &'static str)> {
        Some(match field {
            1 => (List::Bool, "contents.bool_contents"),
            2 => (List::Int, "contents.int_contents"),
            3 => (List::Int64, "contents.int64_contents"),
            4 => (List::Uint, "contents.uint_contents"),
            5 => (List::Uint64, "contents.uint64_contents"),
            6 => (List::Fp32, "contents.fp32_contents"),
            7 => (List::Fp64, "contents.fp64_contents"),
            8 => (List::Bytes, "contents.bytes_contents"),
            _ => return None,
        })
    }

    /// The data type that the list is named after.
    fn datatype(self) -> DataType {
        match self {
            List::Bool => DataType::Bool,
            List::Int => DataType::Int32,
            List::Int64 => DataType::Int64,
            List::Uint => DataType::Uint32,
            List::Uint64 => DataType::Uint64,
            List::Fp32 => DataType::Fp32,
            List::Fp64 => DataType::Fp64,
            List::Bytes => DataType::Bytes,
        }
    }

    /// Bytes that an element is gathered in; of BYTES, without what it says.
    fn width(self) -> usize {
        match self {
            List::Bool => 1,
            List::Int | List::Uint | List::Fp32 | List::Bytes => 4,
            List::Int64 | List::Uint64 | List::Fp64 => 8,
        }
    }

    /// The list that a data type's elements come in; `None`: only raw.
    fn of(datatype: DataType) -> Option<Self> {
        Some(match datatype {
            DataType::Bool => List::Bool,
            DataType::Int8 | DataType::Int16 | DataType::Int32 => List::Int,
            DataType::Int64 => List::Int64,
            DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => List::Uint,
            DataType::Uint64 => List::Uint64,
            DataType::Fp32 => List::Fp32,
            DataType::Fp64 => List::Fp64,
            DataType::Bytes => List::Bytes,
            DataType::Fp16 | DataType::Bf16 => return None,
        })
    }
}

/// The elements of one tensor as they are gathered.
#[derive(Debug, Default)]
pub(super) struct Contents {
    list: Option<List>,
    /// A second list with elements: never right, whatever the data type.
    other: Option<List>,
    data: Vec<u8>,
}

impl Contents {
    /// Whether no list has elements.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_none()
    }

    /// Reads one `InferTensorContents` and adds its elements.
    ///
    /// **Errors:** malformed; an element above `max_string_bytes`; out of budget.
    pub(super) fn merge(
        &mut self,
        reader: &mut Reader<'_>,
        max_string_bytes: usize,
        reservation: &mut Reservation,
    ) -> Result<()> {
        while let Some((field, wire)) = reader.element_key()? {
            let Some((list, what)) = List::from_field(field) else {
                reader.count()?;
                reader.skip(field, wire)?;
                continue;
            };
            match (list, wire) {
                (List::Bytes, _) => {
                    let length = reader.length(wire, what)?;
                    if length > max_string_bytes {
                        return Err(element_too_large(length, max_string_bytes));
                    }
                    self.note(list);
                    self.reserve(length.saturating_add(LENGTH_BYTES), reservation)?;
                    let prefix = u32::try_from(length).map_err(|_| element_too_large(length, u32::MAX as usize))?;
                    self.data.extend_from_slice(&prefix.to_le_bytes());
                    reader.append(length, &mut self.data);
                }
                (_, Wire::Length) => self.packed(reader, list, what, reservation)?,
                _ => {
                    self.note(list);
                    self.element(reader, list, wire, what, reservation)?;
                }
            }
        }
        Ok(())
    }

    fn packed(
        &mut self,
        reader: &mut Reader<'_>,
        list: List,
        what: &'static str,
        reservation: &mut Reservation,
    ) -> Result<()> {
        let length = reader.length(Wire::Length, what)?;
        if length == 0 {
            return Ok(());
        }
        self.note(list);
        let width = match list {
            List::Fp32 => 4,
            List::Fp64 => 8,
            _ => {
                self.reserve(list.width() * reader.varints_in(length), reservation)?;
                let outside = reader.enter(length);
                while reader.left() > 0 {
                    self.element(reader, list, Wire::Varint, what, reservation)?;
                }
                reader.leave(outside);
                return Ok(());
            }
        };
        if length % width != 0 {
            return Err(malformed("a packed list does not end with an element"));
        }
        // The wire has floats as the tensor has them: little-endian, one after the other.
        self.reserve(length, reservation)?;
        reader.append(length, &mut self.data);
        Ok(())
    }

    fn element(
        &mut self,
        reader: &mut Reader<'_>,
        list: List,
        wire: Wire,
        what: &'static str,
        reservation: &mut Reservation,
    ) -> Result<()> {
        self.reserve(list.width(), reservation)?;
        match (list, wire) {
            (List::Fp32, Wire::Fixed32) => self.data.extend_from_slice(&reader.fixed32()?),
            (List::Fp64, Wire::Fixed64) => self.data.extend_from_slice(&reader.fixed64()?),
            (List::Fp32 | List::Fp64 | List::Bytes, _) => return Err(wrong_wire(what)),
            (_, Wire::Varint) => {
                let value = reader.varint()?;
                match list {
                    List::Bool => self.data.push(u8::from(value != 0)),
                    List::Int | List::Uint => self.data.extend_from_slice(&(value as u32).to_le_bytes()),
                    _ => self.data.extend_from_slice(&value.to_le_bytes()),
                }
            }
            _ => return Err(wrong_wire(what)),
        }
        Ok(())
    }

    fn note(&mut self, list: List) {
        match self.list {
            None => self.list = Some(list),
            Some(noted) if noted != list => self.other = Some(list),
            Some(_) => {}
        }
    }

    /// Makes room for `more` bytes, half as much again as there was, with the budget's consent.
    #[inline]
    fn reserve(&mut self, more: usize, reservation: &mut Reservation) -> Result<()> {
        if self.data.capacity() - self.data.len() >= more {
            return Ok(());
        }
        self.grow(more.max(self.data.len() / 2).max(LEAST_GROWTH), reservation)
    }

    fn grow(&mut self, by: usize, reservation: &mut Reservation) -> Result<()> {
        if !reservation.grow(by) {
            return Err(out_of_budget(by));
        }
        self.data.reserve_exact(by);
        Ok(())
    }

    /// The elements as raw tensor bytes of `datatype`, or the data type that their list is for.
    pub(super) fn into_raw(self, datatype: DataType) -> std::result::Result<Vec<u8>, DataType> {
        let Some(list) = self.list else { return Ok(Vec::new()) };
        if let Some(wrong) = Some(list).into_iter().chain(self.other).find(|&list| List::of(datatype) != Some(list)) {
            return Err(wrong.datatype());
        }
        Ok(match (list, datatype.size()) {
            (List::Int | List::Uint, Some(width)) if width < 4 => narrowed(self.data, width),
            _ => self.data,
        })
    }
}

/// Keeps the low `width` bytes of each four, in place.
fn narrowed(mut data: Vec<u8>, width: usize) -> Vec<u8> {
    let count = data.len() / 4;
    for index in 0..count {
        data.copy_within(4 * index..4 * index + width, width * index);
    }
    data.truncate(width * count);
    data
}

#[cold]
fn element_too_large(length: usize, limit: usize) -> Error {
    Error::too_large(format!("an element of contents.bytes_contents has {length} bytes; at most {limit} are allowed"))
}

#[cold]
fn out_of_budget(bytes: usize) -> Error {
    Error::new(
        Kind::OutOfBudget,
        format!("{bytes} more bytes for typed contents would exceed the server's byte budget (limits.byte_budget)"),
    )
}
