//! JSON text: strings and the elements of tensors. Hot path.
//!
//! FP32 is written as the shortest text that reads back as the same `f32`, FP64 as the shortest that reads back as the
//! same `f64`. What JSON cannot carry is refused with the way out, never written as something else.

use mlserve_core::error::{Error, Result};
use mlserve_core::tensor::{BytesElements, DataType};

/// Elements between two looks at the limit: few enough that little is written in vain.
const ELEMENTS_BETWEEN_LOOKS: usize = 1_024;

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Appends `text` as a JSON string.
pub(super) fn push_string(buffer: &mut Vec<u8>, text: &str) {
    buffer.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        buffer.extend_from_slice(&rest[..at]);
        match rest[at] {
            byte @ (b'"' | b'\\') => buffer.extend_from_slice(&[b'\\', byte]),
            b'\n' => buffer.extend_from_slice(b"\\n"),
            b'\r' => buffer.extend_from_slice(b"\\r"),
            b'\t' => buffer.extend_from_slice(b"\\t"),
            byte => {
                let (high, low) = (HEX_DIGITS[usize::from(byte >> 4)], HEX_DIGITS[usize::from(byte & 15)]);
                buffer.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
        rest = &rest[at + 1..];
    }
    buffer.extend_from_slice(rest);
    buffer.push(b'"');
}

/// Appends a whole number.
pub(super) fn push_integer(buffer: &mut Vec<u8>, number: impl itoa::Integer) {
    buffer.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends the elements of `data` as a flat JSON array. `limit`: how long `buffer` may become.
///
/// **Errors:** too large; values that JSON cannot carry, by their index: NaN and infinities, bytes that are not UTF-8,
/// FP16 and BF16 of any value.
pub(super) fn push_elements(
    buffer: &mut Vec<u8>,
    output: &str,
    datatype: DataType,
    data: &[u8],
    limit: usize,
) -> Result<()> {
    let mut list = List { buffer, output, limit, count: 0 };
    list.buffer.push(b'[');
    match datatype {
        DataType::Bool => list.fixed(data, |buffer, [byte]| {
            buffer.extend_from_slice(if byte == 0 { b"false" } else { b"true" });
            true
        }),
        DataType::Uint8 => list.fixed(data, |buffer, bytes| integer(buffer, u8::from_le_bytes(bytes))),
        DataType::Uint16 => list.fixed(data, |buffer, bytes| integer(buffer, u16::from_le_bytes(bytes))),
        DataType::Uint32 => list.fixed(data, |buffer, bytes| integer(buffer, u32::from_le_bytes(bytes))),
        DataType::Uint64 => list.fixed(data, |buffer, bytes| integer(buffer, u64::from_le_bytes(bytes))),
        DataType::Int8 => list.fixed(data, |buffer, bytes| integer(buffer, i8::from_le_bytes(bytes))),
        DataType::Int16 => list.fixed(data, |buffer, bytes| integer(buffer, i16::from_le_bytes(bytes))),
        DataType::Int32 => list.fixed(data, |buffer, bytes| integer(buffer, i32::from_le_bytes(bytes))),
        DataType::Int64 => list.fixed(data, |buffer, bytes| integer(buffer, i64::from_le_bytes(bytes))),
        DataType::Fp32 => list.fixed(data, |buffer, bytes| real(buffer, f32::from_le_bytes(bytes))),
        DataType::Fp64 => list.fixed(data, |buffer, bytes| real(buffer, f64::from_le_bytes(bytes))),
        DataType::Bytes => list.strings(data),
        DataType::Fp16 | DataType::Bf16 => Err(not_as_json(output, datatype)),
    }?;
    buffer.push(b']');
    Ok(())
}

fn integer(buffer: &mut Vec<u8>, number: impl itoa::Integer) -> bool {
    push_integer(buffer, number);
    true
}

fn real<Float: zmij::Float + Into<f64> + Copy>(buffer: &mut Vec<u8>, number: Float) -> bool {
    let is_finite = number.into().is_finite();
    if is_finite {
        buffer.extend_from_slice(zmij::Buffer::new().format_finite(number).as_bytes());
    }
    is_finite
}

struct List<'a> {
    buffer: &'a mut Vec<u8>,
    output: &'a str,
    limit: usize,
    count: usize,
}

impl List<'_> {
    fn comma(&mut self) -> Result<()> {
        if self.count > 0 {
            self.buffer.push(b',');
        }
        self.count += 1;
        if self.count.is_multiple_of(ELEMENTS_BETWEEN_LOOKS) && self.buffer.len() > self.limit {
            return Err(too_large(self.limit));
        }
        Ok(())
    }

    /// Elements of `SIZE` bytes; `push` writes one, or says that JSON cannot carry it.
    fn fixed<const SIZE: usize>(&mut self, data: &[u8], push: impl Fn(&mut Vec<u8>, [u8; SIZE]) -> bool) -> Result<()> {
        // The rest is empty: the core has checked the byte count of every output.
        let (elements, _) = data.as_chunks::<SIZE>();
        for &element in elements {
            self.comma()?;
            if !push(self.buffer, element) {
                return Err(not_finite(self.output, self.count - 1));
            }
        }
        Ok(())
    }

    fn strings(&mut self, data: &[u8]) -> Result<()> {
        for element in BytesElements::new(data) {
            // The model's output is not the caller's fault, whatever it holds.
            let element = element.map_err(|error| Error::internal(error.text().to_owned()))?;
            self.comma()?;
            let text = std::str::from_utf8(element).map_err(|_| not_utf8(self.output, self.count - 1))?;
            if self.buffer.len() + text.len() > self.limit {
                return Err(too_large(self.limit));
            }
            push_string(self.buffer, text);
        }
        Ok(())
    }
}

#[cold]
pub(super) fn too_large(limit: usize) -> Error {
    Error::too_large(format!(
        "the answer is larger than {limit} bytes, which is the limit; ask for fewer rows or binary data"
    ))
}

#[cold]
fn not_finite(output: &str, index: usize) -> Error {
    Error::invalid(format!(
        "element {index} of output '{output}' is NaN or infinite, which JSON cannot carry; set the output's parameter \
         'binary_data' to true"
    ))
}

#[cold]
fn not_utf8(output: &str, index: usize) -> Error {
    Error::invalid(format!(
        "element {index} of output '{output}' is not UTF-8, which JSON cannot carry; set the output's parameter \
         'binary_data' to true"
    ))
}

#[cold]
fn not_as_json(output: &str, datatype: DataType) -> Error {
    Error::invalid(format!(
        "sending {datatype} data via JSON is not supported. Please use the binary data format for output {output}"
    ))
}
