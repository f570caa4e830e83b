//! A tensor of a model file without its weights: dimensions, type, where the data lies, and how much of it there is.
//!
//! The values of small tensors are kept (axes, shapes and what inputs are compared with often come as initialisers); all
//! else is skipped, so that reading a model of gigabytes costs its structure only.

use bytes::{Buf, BufMut, Bytes};
use prost::DecodeError;
use prost::encoding::{self, DecodeContext, WireType};

use super::proto::Entry;
use crate::number::half;

/// Longest payload whose values are kept, in bytes: more axes than any rank that the protocol carries.
const MAX_KEPT: usize = 512;

/// Tags of `TensorProto`.
mod tag {
    pub(super) const DIMS: u32 = 1;
    pub(super) const ELEMENT: u32 = 2;
    pub(super) const FLOATS: u32 = 4;
    pub(super) const INT32S: u32 = 5;
    pub(super) const STRINGS: u32 = 6;
    pub(super) const INT64S: u32 = 7;
    pub(super) const NAME: u32 = 8;
    pub(super) const RAW: u32 = 9;
    pub(super) const DOUBLES: u32 = 10;
    pub(super) const UINT64S: u32 = 11;
    pub(super) const EXTERNAL: u32 = 13;
    pub(super) const LOCATION: u32 = 14;
}

/// Most strings of a tensor that are kept.
const MAX_KEPT_STRINGS: usize = 64;

/// Numbers of `TensorProto.DataType`.
mod element {
    pub(super) const FLOAT: i32 = 1;
    pub(super) const UINT8: i32 = 2;
    pub(super) const INT8: i32 = 3;
    pub(super) const UINT16: i32 = 4;
    pub(super) const INT16: i32 = 5;
    pub(super) const INT32: i32 = 6;
    pub(super) const INT64: i32 = 7;
    pub(super) const BOOL: i32 = 9;
    pub(super) const FLOAT16: i32 = 10;
    pub(super) const DOUBLE: i32 = 11;
    pub(super) const UINT32: i32 = 12;
    pub(super) const UINT64: i32 = 13;
}

/// Number of `TensorProto.DataLocation.EXTERNAL`.
const IS_EXTERNAL: i32 = 1;

/// `TensorProto` without the weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) dims: Vec<i64>,
    pub(crate) element: i32,
    pub(crate) name: String,
    pub(crate) external: Vec<Entry>,
    pub(crate) location: i32,
    /// Length of `raw_data`, if it is there.
    pub(crate) raw_bytes: Option<usize>,
    /// Encoded bytes of all typed fields (`float_data` and the like).
    pub(crate) typed_bytes: usize,
    kept_raw: Bytes,
    kept_int64s: Vec<i64>,
    kept_uint64s: Vec<u64>,
    kept_int32s: Vec<i32>,
    kept_floats: Vec<f32>,
    kept_doubles: Vec<f64>,
    kept_strings: Vec<Vec<u8>>,
}

impl Tensor {
    /// Whether its data lies in another file.
    pub(crate) fn is_external(&self) -> bool {
        self.location == IS_EXTERNAL || !self.external.is_empty()
    }

    /// The values of a small tensor of numbers, in order.
    pub(crate) fn numbers(&self) -> Option<Vec<f64>> {
        if self.is_external() {
            return None;
        }
        let count = self.dims.iter().try_fold(1_i64, |count, &dimension| count.checked_mul(dimension))?;
        let values = if self.raw_bytes.is_some() { self.raw_numbers()? } else { self.typed_numbers()? };
        (i64::try_from(values.len()) == Ok(count)).then_some(values)
    }

    /// The first strings of a tensor of strings.
    pub(crate) fn strings(&self) -> &[Vec<u8>] {
        &self.kept_strings
    }

    fn raw_numbers(&self) -> Option<Vec<f64>> {
        let raw = &self.kept_raw;
        Some(match self.element {
            element::FLOAT => raw.chunks_exact(4).map(|bytes| f64::from(f32::from_bits(word(bytes) as u32))).collect(),
            element::DOUBLE => raw.chunks_exact(8).map(|bytes| f64::from_bits(word(bytes))).collect(),
            element::FLOAT16 => raw.chunks_exact(2).map(|bytes| half(word(bytes) as u16)).collect(),
            element::INT64 => raw.chunks_exact(8).map(|bytes| word(bytes) as i64 as f64).collect(),
            element::UINT64 => raw.chunks_exact(8).map(|bytes| word(bytes) as f64).collect(),
            element::INT32 => raw.chunks_exact(4).map(|bytes| f64::from(word(bytes) as i32)).collect(),
            element::UINT32 => raw.chunks_exact(4).map(|bytes| word(bytes) as f64).collect(),
            element::INT16 => raw.chunks_exact(2).map(|bytes| f64::from(word(bytes) as i16)).collect(),
            element::UINT16 => raw.chunks_exact(2).map(|bytes| word(bytes) as f64).collect(),
            element::INT8 => raw.iter().map(|&byte| f64::from(byte as i8)).collect(),
            element::UINT8 | element::BOOL => raw.iter().map(|&byte| f64::from(byte)).collect(),
            _ => return None,
        })
    }

    fn typed_numbers(&self) -> Option<Vec<f64>> {
        Some(match self.element {
            element::FLOAT => self.kept_floats.iter().map(|&value| f64::from(value)).collect(),
            element::DOUBLE => self.kept_doubles.clone(),
            element::INT64 => self.kept_int64s.iter().map(|&value| value as f64).collect(),
            element::UINT32 | element::UINT64 => self.kept_uint64s.iter().map(|&value| value as f64).collect(),
            element::FLOAT16 => self.kept_int32s.iter().map(|&bits| half(bits as u16)).collect(),
            element::INT32 | element::INT16 | element::UINT16 | element::INT8 | element::UINT8 | element::BOOL => {
                self.kept_int32s.iter().map(|&value| f64::from(value)).collect()
            }
            _ => return None,
        })
    }

    /// Counts a typed field; keeps small ones.
    fn merge_typed(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let before = buf.remaining();
        if self.typed_bytes > MAX_KEPT || peek_length(wire_type, buf) > MAX_KEPT {
            encoding::skip_field(wire_type, tag, buf, ctx)?;
        } else {
            match tag {
                tag::INT64S => encoding::int64::merge_repeated(wire_type, &mut self.kept_int64s, buf, ctx)?,
                tag::UINT64S => encoding::uint64::merge_repeated(wire_type, &mut self.kept_uint64s, buf, ctx)?,
                tag::INT32S => encoding::int32::merge_repeated(wire_type, &mut self.kept_int32s, buf, ctx)?,
                tag::FLOATS => encoding::float::merge_repeated(wire_type, &mut self.kept_floats, buf, ctx)?,
                tag::DOUBLES => encoding::double::merge_repeated(wire_type, &mut self.kept_doubles, buf, ctx)?,
                tag::STRINGS if self.kept_strings.len() < MAX_KEPT_STRINGS => {
                    encoding::bytes::merge_repeated(wire_type, &mut self.kept_strings, buf, ctx)?;
                }
                _ => encoding::skip_field(wire_type, tag, buf, ctx)?,
            }
        }
        self.typed_bytes = self.typed_bytes.saturating_add(before - buf.remaining());
        Ok(())
    }

    fn merge_raw(&mut self, wire_type: WireType, buf: &mut impl Buf, ctx: DecodeContext) -> Result<(), DecodeError> {
        let before = buf.remaining();
        if peek_length(wire_type, buf) <= MAX_KEPT {
            encoding::bytes::merge(wire_type, &mut self.kept_raw, buf, ctx)?;
            self.raw_bytes = Some(self.kept_raw.len());
            return Ok(());
        }
        encoding::skip_field(wire_type, tag::RAW, buf, ctx)?;
        // What was skipped is the data and its length, which takes more than MAX_KEPT and at most 5 bytes less.
        let skipped = before - buf.remaining();
        let prefix = (1..=10).find(|&prefix| encoding::encoded_len_varint((skipped - prefix) as u64) == prefix);
        self.raw_bytes = Some(skipped - prefix.unwrap_or(0));
        Ok(())
    }
}

/// Bytes, lowest first, as a number.
fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// Length of a length-delimited field without reading it; 0 for other fields, huge if it does not fit.
fn peek_length(wire_type: WireType, buf: &impl Buf) -> usize {
    if wire_type != WireType::LengthDelimited {
        return 0;
    }
    let mut length = 0_u64;
    for (index, &byte) in buf.chunk().iter().take(10).enumerate() {
        length |= u64::from(byte & 0x7f) << (7 * index).min(63);
        if byte < 0x80 {
            return usize::try_from(length).unwrap_or(usize::MAX);
        }
    }
    usize::MAX
}

impl prost::Message for Tensor {
    /// Structure only: nothing in this crate writes models.
    fn encode_raw(&self, buf: &mut impl BufMut) {
        encoding::int64::encode_packed(tag::DIMS, &self.dims, buf);
        encoding::int32::encode(tag::ELEMENT, &self.element, buf);
        encoding::string::encode(tag::NAME, &self.name, buf);
        encoding::message::encode_repeated(tag::EXTERNAL, &self.external, buf);
        encoding::int32::encode(tag::LOCATION, &self.location, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            tag::DIMS => encoding::int64::merge_repeated(wire_type, &mut self.dims, buf, ctx),
            tag::ELEMENT => encoding::int32::merge(wire_type, &mut self.element, buf, ctx),
            tag::NAME => encoding::string::merge(wire_type, &mut self.name, buf, ctx),
            tag::EXTERNAL => encoding::message::merge_repeated(wire_type, &mut self.external, buf, ctx),
            tag::LOCATION => encoding::int32::merge(wire_type, &mut self.location, buf, ctx),
            tag::RAW => self.merge_raw(wire_type, buf, ctx),
            tag::FLOATS | tag::INT32S | tag::STRINGS | tag::INT64S | tag::DOUBLES | tag::UINT64S => {
                self.merge_typed(tag, wire_type, buf, ctx)
            }
            _ => encoding::skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        encoding::int64::encoded_len_packed(tag::DIMS, &self.dims)
            + encoding::int32::encoded_len(tag::ELEMENT, &self.element)
            + encoding::string::encoded_len(tag::NAME, &self.name)
            + encoding::message::encoded_len_repeated(tag::EXTERNAL, &self.external)
            + encoding::int32::encoded_len(tag::LOCATION, &self.location)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}
