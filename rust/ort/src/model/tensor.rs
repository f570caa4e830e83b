//! A tensor of a model file without its weights: dimensions, type, where the data lies, and how much of it there is.
//!
//! The values of small integer tensors are kept (axes and shapes often come as initialisers); all else is skipped, so
//! that reading a model of gigabytes costs its structure only.

use bytes::{Buf, BufMut, Bytes};
use prost::DecodeError;
use prost::encoding::{self, DecodeContext, WireType};

use super::proto::Entry;

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

/// Number of `TensorProto.DataType.INT64`.
const INT64: i32 = 7;

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
}

impl Tensor {
    /// Whether its data lies in another file.
    pub(crate) fn is_external(&self) -> bool {
        self.location == IS_EXTERNAL || !self.external.is_empty()
    }

    /// The values of a small INT64 tensor.
    pub(crate) fn int64s(&self) -> Option<Vec<i64>> {
        if self.element != INT64 || self.is_external() {
            return None;
        }
        let count = self.dims.iter().try_fold(1_i64, |count, &dimension| count.checked_mul(dimension))?;
        let values = match self.raw_bytes {
            Some(_) => self
                .kept_raw
                .chunks_exact(8)
                .filter_map(|bytes| Some(i64::from_le_bytes(bytes.try_into().ok()?)))
                .collect(),
            None => self.kept_int64s.clone(),
        };
        (i64::try_from(values.len()) == Ok(count)).then_some(values)
    }

    /// Counts a typed field; keeps small `int64_data`.
    fn merge_typed(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let before = buf.remaining();
        if tag == tag::INT64S && self.kept_int64s.len() < MAX_KEPT && peek_length(wire_type, buf) <= MAX_KEPT {
            encoding::int64::merge_repeated(wire_type, &mut self.kept_int64s, buf, ctx)?;
        } else {
            encoding::skip_field(wire_type, tag, buf, ctx)?;
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
