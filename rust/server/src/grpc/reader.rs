//! Reads protobuf fields from a message that arrived in pieces. Hot path.
//!
//! Field by field, without recursion and without copying: what is length-delimited comes out as views of the pieces.
//! Every length is checked against the message it lies in before anything is done with it, and fields are counted: a
//! field of two bytes costs as much as one that says something.

use bytes::Bytes;
use mlserve_core::error::{Error, Result};
use mlserve_core::request::Text;
use mlserve_core::tensor::TensorBytes;

/// Nesting of unknown groups that is still skipped; other decoders stop at the same depth.
const MAX_GROUP_DEPTH: usize = 100;

/// Fields of one message, on all levels together, but for the elements of typed tensors. What makes sense (256 tensors
/// with some parameters each) has a tenth of it, and reading all of them takes about a millisecond.
const MAX_FIELDS: u32 = 1 << 16;

/// How a field's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// A variable-length integer.
    Varint,
    /// Eight bytes.
    Fixed64,
    /// A length and that many bytes.
    Length,
    /// The start of a group: deprecated, only ever skipped.
    Start,
    /// The end of a group.
    End,
    /// Four bytes.
    Fixed32,
}

/// A position in a message, and how far the innermost message goes.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    /// The rest of the piece being read.
    chunk: &'a [u8],
    /// The piece that `chunk` is the end of, and those after it.
    pieces: &'a [Bytes],
    /// Bytes until the innermost message ends; they may lie in later pieces.
    left: usize,
    /// Fields that may still come.
    fields_left: u32,
}

impl<'a> Reader<'a> {
    /// Reads the message that `pieces` are.
    pub(super) fn new(pieces: &'a [Bytes]) -> Self {
        let left = pieces.iter().map(Bytes::len).sum();
        Self { chunk: pieces.first().map_or(&[], |piece| piece), pieces, left, fields_left: MAX_FIELDS }
    }

    /// Bytes until the innermost message ends.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Makes `chunk` non-empty if anything is left.
    #[inline]
    fn advance_if_spent(&mut self) {
        while self.chunk.is_empty() && self.left > 0 {
            self.pieces = &self.pieces[1..];
            self.chunk = &self.pieces[0];
        }
    }

    #[inline]
    fn byte(&mut self) -> Option<u8> {
        if self.left == 0 {
            return None;
        }
        self.advance_if_spent();
        let (&byte, rest) = self.chunk.split_first()?;
        self.chunk = rest;
        self.left -= 1;
        Some(byte)
    }

    /// A variable-length integer.
    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64> {
        match self.byte() {
            Some(byte) if byte < 0x80 => Ok(u64::from(byte)),
            Some(byte) => self.long_varint(byte),
            None => Err(cut_off()),
        }
    }

    fn long_varint(&mut self, first: u8) -> Result<u64> {
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.byte().ok_or_else(cut_off)?;
            // The tenth byte has room for one bit only.
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(malformed("an integer has more than 64 bits"))
    }

    /// The next field's number and form; `None` at the end of the innermost message.
    ///
    /// **Errors:** malformed; too many fields.
    #[inline]
    pub(super) fn key(&mut self) -> Result<Option<(u32, Wire)>> {
        let key = self.element_key()?;
        if key.is_some() {
            self.count()?;
        }
        Ok(key)
    }

    /// Counts a field.
    ///
    /// **Errors:** too many.
    #[inline]
    pub(super) fn count(&mut self) -> Result<()> {
        self.fields_left = self.fields_left.checked_sub(1).ok_or_else(too_many_fields)?;
        Ok(())
    }

    /// As [`Self::key`], for fields that are elements of a tensor: those are not counted, they are charged to the budget.
    #[inline]
    pub(super) fn element_key(&mut self) -> Result<Option<(u32, Wire)>> {
        if self.left == 0 {
            return Ok(None);
        }
        let key = u32::try_from(self.varint()?).map_err(|_| malformed("a field number is too large"))?;
        let wire = match key & 7 {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Length,
            3 => Wire::Start,
            4 => Wire::End,
            5 => Wire::Fixed32,
            _ => return Err(malformed("a field has an unknown wire type")),
        };
        match key >> 3 {
            0 => Err(malformed("a field has the number 0")),
            field => Ok(Some((field, wire))),
        }
    }

    /// The length of a length-delimited field, which lies inside the innermost message. `what` names the field.
    #[inline]
    pub(super) fn length(&mut self, wire: Wire, what: &'static str) -> Result<usize> {
        if wire != Wire::Length {
            return Err(wrong_wire(what));
        }
        let length = self.varint()?;
        usize::try_from(length).ok().filter(|&length| length <= self.left).ok_or_else(cut_off)
    }

    /// Goes into a nested message of `length` bytes; give what this returns to [`Self::leave`] when it has been read.
    #[inline]
    pub(super) fn enter(&mut self, length: usize) -> usize {
        let outside = self.left - length;
        self.left = length;
        outside
    }

    /// Goes back to the surrounding message. The nested one must have been read to its end.
    #[inline]
    pub(super) fn leave(&mut self, outside: usize) {
        debug_assert_eq!(self.left, 0, "a nested message is read to its end");
        self.left += outside;
    }

    /// Passes over `length` bytes, piece by piece. `length` must come from [`Self::length`].
    fn walk(&mut self, mut length: usize, mut see: impl FnMut(&'a Bytes, &'a [u8])) {
        self.left -= length;
        while length > 0 {
            if self.chunk.is_empty() {
                self.pieces = &self.pieces[1..];
                self.chunk = &self.pieces[0];
                continue;
            }
            let (taken, rest) = self.chunk.split_at(length.min(self.chunk.len()));
            see(&self.pieces[0], taken);
            self.chunk = rest;
            length -= taken.len();
        }
    }

    /// `length` bytes in the pieces they arrived in.
    pub(super) fn tensor(&mut self, length: usize) -> TensorBytes {
        let mut bytes = TensorBytes::new();
        self.walk(length, |piece, taken| bytes.push(piece.slice_ref(taken)));
        bytes
    }

    /// `length` bytes as one view; copied only where they lie across pieces.
    pub(super) fn bytes(&mut self, length: usize) -> Bytes {
        if let Some((taken, rest)) = self.chunk.split_at_checked(length).filter(|(taken, _)| !taken.is_empty()) {
            self.chunk = rest;
            self.left -= length;
            return self.pieces[0].slice_ref(taken);
        }
        self.tensor(length).to_contiguous()
    }

    /// How many variable-length integers the next `length` bytes hold.
    pub(super) fn varints_in(&self, length: usize) -> usize {
        let mut count = 0;
        self.clone().walk(length, |_, taken| count += taken.iter().filter(|&&byte| byte < 0x80).count());
        count
    }

    /// Appends `length` bytes to `buffer`.
    pub(super) fn append(&mut self, length: usize, buffer: &mut Vec<u8>) {
        self.walk(length, |_, taken| buffer.extend_from_slice(taken));
    }

    /// A string field; `what` names it.
    pub(super) fn text(&mut self, wire: Wire, what: &'static str) -> Result<Text> {
        let length = self.length(wire, what)?;
        Text::from_utf8(self.bytes(length)).ok_or_else(|| not_utf8(what))
    }

    /// A field of eight bytes.
    pub(super) fn fixed64(&mut self) -> Result<[u8; 8]> {
        self.fixed()
    }

    /// A field of four bytes.
    pub(super) fn fixed32(&mut self) -> Result<[u8; 4]> {
        self.fixed()
    }

    fn fixed<const SIZE: usize>(&mut self) -> Result<[u8; SIZE]> {
        if self.left < SIZE {
            return Err(cut_off());
        }
        let mut value = [0; SIZE];
        let mut at = 0;
        self.walk(SIZE, |_, taken| {
            value[at..at + taken.len()].copy_from_slice(taken);
            at += taken.len();
        });
        Ok(value)
    }

    /// Passes over a field that means nothing here.
    pub(super) fn skip(&mut self, field: u32, wire: Wire) -> Result<()> {
        match wire {
            Wire::Start => self.skip_group(field),
            Wire::End => Err(malformed("a group ends that did not start")),
            _ => self.skip_value(wire),
        }
    }

    fn skip_value(&mut self, wire: Wire) -> Result<()> {
        match wire {
            Wire::Varint => self.varint().map(drop),
            Wire::Fixed64 => self.fixed64().map(drop),
            Wire::Fixed32 => self.fixed32().map(drop),
            Wire::Length | Wire::Start | Wire::End => {
                let length = self.length(wire, "an unknown field")?;
                self.walk(length, |_, _| {});
                Ok(())
            }
        }
    }

    fn skip_group(&mut self, field: u32) -> Result<()> {
        let mut open = vec![field];
        while let Some(&innermost) = open.last() {
            let Some((field, wire)) = self.key()? else { return Err(cut_off()) };
            match wire {
                Wire::Start if open.len() == MAX_GROUP_DEPTH => return Err(malformed("groups are nested too deeply")),
                Wire::Start => open.push(field),
                Wire::End if field == innermost => drop(open.pop()),
                Wire::End => return Err(malformed("a group ends that did not start")),
                _ => self.skip_value(wire)?,
            }
        }
        Ok(())
    }
}

#[cold]
fn cut_off() -> Error {
    Error::invalid("the protobuf message is cut off, or a length in it does not fit")
}

#[cold]
fn too_many_fields() -> Error {
    Error::too_large(format!("the message has more than {MAX_FIELDS} fields, which is the limit"))
}

#[cold]
pub(super) fn malformed(fault: &'static str) -> Error {
    Error::invalid(format!("the bytes are not a valid protobuf message: {fault}"))
}

#[cold]
pub(super) fn wrong_wire(what: &'static str) -> Error {
    Error::invalid(format!("the bytes are not a valid protobuf message: {what} has the wrong wire type"))
}

#[cold]
fn not_utf8(what: &'static str) -> Error {
    Error::invalid(format!("{what} is not valid UTF-8"))
}
