//! The bytes of tensors, and the elements of those that are texts. Hot path.
//!
//! Bytes are little-endian and row-major, without padding; BYTES elements are a 4-byte length and the bytes each, as on
//! the wire. A tensor that arrived in several frames stays in several [`Bytes`] until the batch is gathered
//! ([`crate::batch`]); only texts are brought into one piece when they are looked at.

use bytes::Bytes;

use super::{DataType, are_bools};
use crate::error::{Error, Result};

/// Tensors below this size are walked where they are checked.
const WALKED_EARLY_BYTES: usize = 64 << 10;

/// The bytes of one tensor, in the pieces they arrived in.
#[derive(Clone, Debug, Default)]
pub struct TensorBytes {
    first: Bytes,
    rest: Vec<Bytes>,
    walked: Option<Box<Walked>>,
}

impl TensorBytes {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { first: Bytes::new(), rest: Vec::new(), walked: None }
    }

    /// Appends a piece; empty ones vanish.
    pub fn push(&mut self, piece: Bytes) {
        self.walked = None;
        if self.first.is_empty() {
            self.first = piece;
        } else if !piece.is_empty() {
            self.rest.push(piece);
        }
    }

    /// Bytes in all pieces.
    pub fn len(&self) -> usize {
        self.rest.iter().fold(self.first.len(), |len, piece| len + piece.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// All bytes as one slice, if they arrived as one piece.
    pub fn as_contiguous(&self) -> Option<&Bytes> {
        self.rest.is_empty().then_some(&self.first)
    }

    /// The pieces in order.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// Appends all bytes to `buffer`. **Cost:** one copy.
    pub fn append_to(&self, buffer: &mut Vec<u8>) {
        for piece in self.pieces() {
            buffer.extend_from_slice(piece);
        }
    }

    /// All bytes as one piece. **Cost:** one copy, unless they are one piece already.
    pub fn to_contiguous(&self) -> Bytes {
        if let Some(bytes) = self.as_contiguous() {
            return bytes.clone();
        }
        let mut buffer = Vec::with_capacity(self.len());
        self.append_to(&mut buffer);
        buffer.into()
    }

    /// Whether this is a large BYTES or BOOL tensor that has not been looked at.
    pub fn has_to_be_walked(&self, datatype: DataType) -> bool {
        let is_walked = self.walked.is_some() || !matches!(datatype, DataType::Bytes | DataType::Bool);
        !is_walked && self.len() >= WALKED_EARLY_BYTES
    }

    /// Looks at all elements of such a tensor, so that [`Self::texts`] and [`Self::bad_bool`] cost nothing afterwards.
    pub fn walk(&mut self, datatype: DataType) {
        if !self.has_to_be_walked(datatype) {
            return;
        }
        let walked = match datatype {
            DataType::Bytes => Walked::Texts(self.texts()),
            DataType::Bool => Walked::Bools(self.bad_bool()),
            _ => return,
        };
        self.walked = Some(Box::new(walked));
    }

    /// The elements of a BYTES tensor. **Cost:** one pass and, unless they are in one piece, one copy.
    ///
    /// **Errors:** at the first length that does not fit; the text names the element.
    pub fn texts(&mut self) -> Result<Texts> {
        if let Some(Walked::Texts(texts)) = self.walked.as_deref() {
            return texts.clone();
        }
        if !self.rest.is_empty() {
            *self = self.to_contiguous().into();
        }
        Texts::of(&self.first)
    }

    /// The first element of a BOOL tensor that is neither 0 nor 1: where it is, and what. **Cost:** one pass.
    pub fn bad_bool(&self) -> Option<(usize, u8)> {
        if let Some(&Walked::Bools(bad)) = self.walked.as_deref() {
            return bad;
        }
        if self.pieces().all(|piece| are_bools(piece)) {
            return None;
        }
        self.pieces().flat_map(|piece| piece.iter().copied()).enumerate().find(|&(_, byte)| byte > 1)
    }
}

/// What was found in a tensor.
#[derive(Clone, Debug)]
enum Walked {
    Texts(Result<Texts>),
    Bools(Option<(usize, u8)>),
}

/// What is known of the elements of a BYTES tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// How many.
    pub count: usize,
    /// Bytes of the longest.
    pub longest: usize,
    /// The index of the first that is as long.
    pub longest_at: usize,
}

impl Texts {
    /// Walks `wire`, as [`BytesElements`] does.
    ///
    /// **Errors:** at the first length that does not fit; the text names the element.
    pub fn of(wire: &[u8]) -> Result<Self> {
        BytesElements::new(wire).try_fold(Self::default(), |mut texts, element| {
            let len = element?.len();
            if len > texts.longest {
                (texts.longest, texts.longest_at) = (len, texts.count);
            }
            texts.count += 1;
            Ok(texts)
        })
    }
}

impl From<Bytes> for TensorBytes {
    fn from(first: Bytes) -> Self {
        Self { first, rest: Vec::new(), walked: None }
    }
}

impl From<Vec<u8>> for TensorBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

/// The elements of a contiguous BYTES tensor, each a slice of it.
///
/// **Errors:** an iteration ends with an error at the first length that does not fit; the text names the element.
pub struct BytesElements<'a> {
    rest: &'a [u8],
    index: usize,
}

impl<'a> BytesElements<'a> {
    /// Walks `wire`: a little-endian `u32` length and that many bytes, per element.
    pub fn new(wire: &'a [u8]) -> Self {
        Self { rest: wire, index: 0 }
    }
}

impl<'a> Iterator for BytesElements<'a> {
    type Item = Result<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let index = self.index;
        self.index += 1;
        let Some((length, rest)) = self.rest.split_first_chunk::<4>() else {
            let left = std::mem::take(&mut self.rest).len();
            return Some(Err(Error::invalid(format!(
                "element {index} of a BYTES tensor is cut off: {left} bytes are left, its length takes 4"
            ))));
        };
        let length = u32::from_le_bytes(*length) as usize;
        let Some((element, rest)) = rest.split_at_checked(length) else {
            let left = rest.len();
            self.rest = &[];
            return Some(Err(Error::invalid(format!(
                "element {index} of a BYTES tensor says it has {length} bytes, but {left} are left"
            ))));
        };
        self.rest = rest;
        Some(Ok(element))
    }
}

/// Appends one BYTES element to `wire`.
///
/// **Errors:** an element of 4 GiB or more cannot be carried.
pub fn push_bytes_element(wire: &mut Vec<u8>, element: &[u8]) -> Result<()> {
    let length = u32::try_from(element.len())
        .map_err(|_| Error::too_large(format!("a BYTES element of {} bytes; at most 4294967295", element.len())))?;
    wire.extend_from_slice(&length.to_le_bytes());
    wire.extend_from_slice(element);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_walked_early_is_what_is_found_later() {
        let text = b"\x03\0\0\0abc\0\0\0\0";
        let sound = text.repeat(10_000);
        let broken = [&sound[..], b"\x09\0\0\0abc"].concat();
        for wire in [sound, broken] {
            for size in [7, wire.len()] {
                let mut tensor = TensorBytes::new();
                wire.chunks(size).for_each(|piece| tensor.push(Bytes::copy_from_slice(piece)));
                let mut walked = tensor.clone();
                assert!(tensor.has_to_be_walked(DataType::Bytes));
                walked.walk(DataType::Bytes);
                assert!(!walked.has_to_be_walked(DataType::Bytes));
                let texts = walked.texts();
                assert_eq!(texts, tensor.texts());
                assert!(texts.is_err() || texts == Ok(Texts { count: 20_000, longest: 3, longest_at: 0 }));
                walked.push(Bytes::from_static(b"\x05\0\0\0later"));
                assert!(walked.has_to_be_walked(DataType::Bytes), "what is new is looked at, too");
            }
        }
        let mut bools = TensorBytes::from(vec![1; 100_000]);
        bools.push(Bytes::from_static(b"\0\x02\x03"));
        let found = bools.bad_bool();
        bools.walk(DataType::Bool);
        assert_eq!((bools.bad_bool(), found), (Some((100_001, 2)), found));
        bools.walk(DataType::Fp32);
        assert!(!bools.has_to_be_walked(DataType::Fp32), "nothing is said about single numbers");
    }

    #[test]
    fn bytes_elements_refuse_lengths_that_do_not_fit() {
        let mut wire = Vec::new();
        push_bytes_element(&mut wire, b"ab").expect("fits");
        push_bytes_element(&mut wire, b"").expect("fits");
        assert_eq!(BytesElements::new(&wire).collect::<Result<Vec<_>>>(), Ok(vec![&b"ab"[..], b""]));
        wire.extend_from_slice(&[9, 0, 0, 0, b'x']);
        let error = BytesElements::new(&wire).find_map(Result::err).expect("broken");
        assert_eq!(error.text(), "element 2 of a BYTES tensor says it has 9 bytes, but 1 are left");
    }
}
