//! Tensors as they travel: a data type, a shape and views of received bytes. Hot path.

use std::fmt;

use smallvec::SmallVec;

mod data;

pub use data::{BytesElements, TensorBytes, Texts, push_bytes_element};

/// Dimensions of a tensor; the first four live inline.
pub type Shape = SmallVec<[i64; 4]>;

/// A data type of the Open Inference Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// One byte, 0 or 1.
    Bool,
    /// 8 bits, unsigned.
    Uint8,
    /// 16 bits, unsigned.
    Uint16,
    /// 32 bits, unsigned.
    Uint32,
    /// 64 bits, unsigned.
    Uint64,
    /// 8 bits, signed.
    Int8,
    /// 16 bits, signed.
    Int16,
    /// 32 bits, signed.
    Int32,
    /// 64 bits, signed.
    Int64,
    /// IEEE 754 half precision.
    Fp16,
    /// The upper half of a 32-bit float.
    Bf16,
    /// IEEE 754 single precision.
    Fp32,
    /// IEEE 754 double precision.
    Fp64,
    /// Variable-length elements.
    Bytes,
}

impl DataType {
    /// Every data type.
    pub const ALL: [DataType; 14] = [
        DataType::Bool,
        DataType::Uint8,
        DataType::Uint16,
        DataType::Uint32,
        DataType::Uint64,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Fp16,
        DataType::Bf16,
        DataType::Fp32,
        DataType::Fp64,
        DataType::Bytes,
    ];

    /// The protocol's name, `FP32` for example.
    pub const fn name(self) -> &'static str {
        match self {
            DataType::Bool => "BOOL",
            DataType::Uint8 => "UINT8",
            DataType::Uint16 => "UINT16",
            DataType::Uint32 => "UINT32",
            DataType::Uint64 => "UINT64",
            DataType::Int8 => "INT8",
            DataType::Int16 => "INT16",
            DataType::Int32 => "INT32",
            DataType::Int64 => "INT64",
            DataType::Fp16 => "FP16",
            DataType::Bf16 => "BF16",
            DataType::Fp32 => "FP32",
            DataType::Fp64 => "FP64",
            DataType::Bytes => "BYTES",
        }
    }

    /// The data type of a protocol name; `None` if there is none of that name.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"FP32" => DataType::Fp32,
            b"INT64" => DataType::Int64,
            b"INT32" => DataType::Int32,
            b"BOOL" => DataType::Bool,
            b"UINT8" => DataType::Uint8,
            b"UINT16" => DataType::Uint16,
            b"UINT32" => DataType::Uint32,
            b"UINT64" => DataType::Uint64,
            b"INT8" => DataType::Int8,
            b"INT16" => DataType::Int16,
            b"FP16" => DataType::Fp16,
            b"BF16" => DataType::Bf16,
            b"FP64" => DataType::Fp64,
            b"BYTES" => DataType::Bytes,
            _ => return None,
        })
    }

    /// Bytes of one element; `None` for BYTES, whose elements have their own lengths.
    pub const fn size(self) -> Option<usize> {
        match self {
            DataType::Bool | DataType::Uint8 | DataType::Int8 => Some(1),
            DataType::Uint16 | DataType::Int16 | DataType::Fp16 | DataType::Bf16 => Some(2),
            DataType::Uint32 | DataType::Int32 | DataType::Fp32 => Some(4),
            DataType::Uint64 | DataType::Int64 | DataType::Fp64 => Some(8),
            DataType::Bytes => None,
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A shape as the protocol's texts print it: `[-1,8]`.
pub struct ShapeText<'a>(pub &'a [i64]);

impl fmt::Display for ShapeText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (axis, dimension) in self.0.iter().enumerate() {
            if axis > 0 {
                f.write_str(",")?;
            }
            write!(f, "{dimension}")?;
        }
        f.write_str("]")
    }
}

/// Elements of a tensor of this shape: 1 for rank 0.
///
/// **Errors:** `None` if a dimension is negative or the product does not fit.
pub fn element_count(shape: &[i64]) -> Option<usize> {
    // A zero anywhere makes the tensor empty, whatever the product of the others would be.
    if shape.contains(&0) {
        return shape.iter().all(|&dimension| dimension >= 0).then_some(0);
    }
    shape.iter().try_fold(1_usize, |count, &dimension| count.checked_mul(usize::try_from(dimension).ok()?))
}

/// Bytes of a tensor of this shape and fixed-size type.
///
/// **Errors:** `None` if the count or the byte count does not fit, or the type has no fixed size.
pub fn byte_count(datatype: DataType, shape: &[i64]) -> Option<usize> {
    element_count(shape)?.checked_mul(datatype.size()?).filter(|&bytes| isize::try_from(bytes).is_ok())
}

/// Bytes of a text in a backend, beside what it says: an object of its own (32 in C++), its place in the heap or in a
/// list of all.
const TEXT_OBJECT_BYTES: usize = 48;

/// Bytes that a backend takes for a BYTES tensor of `count` elements while it runs, beside the `wire_bytes` of its wire
/// form: an object for each, and a copy of what they say.
pub fn text_object_bytes(count: usize, wire_bytes: usize) -> usize {
    count.saturating_mul(TEXT_OBJECT_BYTES).saturating_add(wire_bytes)
}

/// Whether every byte is 0 or 1, as BOOL elements have to be: any other is undefined behaviour in the runtime's C++.
///
/// **Cost:** 14 µs for each MiB. Looking at bytes one by one, up to the first that is wrong, takes fifty times as long.
pub fn are_bools(bytes: &[u8]) -> bool {
    // Small enough to stay in the first cache, large enough that the loop inside is all that counts.
    const BLOCK: usize = 4096;
    bytes.chunks(BLOCK).all(|block| block.iter().fold(0, |bits, byte| bits | byte) <= 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_types_are_each_others_inverse() {
        for datatype in DataType::ALL {
            assert_eq!(DataType::from_name(datatype.name().as_bytes()), Some(datatype));
        }
        assert_eq!(DataType::from_name(b"fp32"), None);
    }

    #[test]
    fn a_byte_that_is_no_bool_is_found_wherever_it_is() {
        let mut bytes = vec![1; 10_000];
        bytes[77] = 0;
        assert!(are_bools(&bytes) && are_bools(&[]));
        for index in [0, 77, 4095, 4096, 9_999] {
            for wrong in [2, 3, 128, 255] {
                let right = std::mem::replace(&mut bytes[index], wrong);
                assert!(!are_bools(&bytes), "{wrong} at {index}");
                bytes[index] = right;
            }
        }
    }

    #[test]
    fn counts_are_checked() {
        assert_eq!(element_count(&[]), Some(1));
        assert_eq!(element_count(&[2, 0, 5]), Some(0));
        assert_eq!(element_count(&[i64::MAX, i64::MAX, 0]), Some(0));
        assert_eq!(element_count(&[-1, 0]), None);
        assert_eq!(element_count(&[1 << 32, 1 << 32]), None);
        assert_eq!(byte_count(DataType::Fp64, &[1 << 61]), None);
        assert_eq!(byte_count(DataType::Fp32, &[3, 4]), Some(48));
    }
}
