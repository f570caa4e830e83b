//! Tensors as nested JSON: whole ones, single rows, single elements.
//!
//! Numbers are written as [`super::write`] writes them, and what JSON cannot carry is refused here too; bytes that are no
//! text are written as `{"b64": …}`.

use std::cell::Cell;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mlserve_core::error::{Error, Result};
use mlserve_core::tensor::{BytesElements, DataType, Texts};

use super::draft::DraftOutput;
use super::values::BASE64_KEY;
use super::write::{push_integer, push_string, too_large};

/// Bytes of the length before each element of a BYTES tensor.
const LENGTH_BYTES: usize = 4;

/// One output, ready to be written element by element.
#[derive(Debug)]
pub(super) struct Elements<'a> {
    output: &'a DraftOutput<'a>,
    count: usize,
    /// Of BYTES, whose elements have no fixed size: the element behind the one that was read last, and where it begins.
    /// They are read one after the other; a table of them would take many times their bytes.
    next: Cell<(usize, usize)>,
}

impl<'a> Elements<'a> {
    /// The elements of `output`.
    ///
    /// **Errors:** a type that JSON does not carry here; an answer of the model that is broken.
    pub(super) fn new(output: &'a DraftOutput<'a>) -> Result<Self> {
        let count = match (output.datatype, output.datatype.size()) {
            (DataType::Fp16 | DataType::Bf16, _) => return Err(not_as_json(output)),
            (_, Some(size)) => output.data.len() / size,
            (_, None) => {
                // The model's output is not the caller's fault, whatever it holds.
                Texts::of(&output.data).map_err(|error| Error::internal(error.text().to_owned()))?.count
            }
        };
        Ok(Self { output, count, next: Cell::new((0, 0)) })
    }

    /// What the output is called.
    pub(super) fn name(&self) -> &'a str {
        &self.output.name
    }

    /// Its dimensions.
    pub(super) fn shape(&self) -> &'a [i64] {
        &self.output.shape
    }

    /// Its type.
    pub(super) fn datatype(&self) -> DataType {
        self.output.datatype
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The element at `index` of a float output.
    pub(super) fn float(&self, index: usize) -> Option<f64> {
        match self.output.datatype {
            DataType::Fp32 => self.bytes(index).map(|bytes| f64::from(f32::from_le_bytes(bytes))),
            DataType::Fp64 => self.bytes(index).map(f64::from_le_bytes),
            _ => None,
        }
    }

    /// Writes all elements, nested by the shape. `limit`: how long `buffer` may become.
    ///
    /// **Errors:** as [`Self::push_element`]; too large.
    pub(super) fn push_whole(&self, buffer: &mut Vec<u8>, limit: usize) -> Result<()> {
        self.push_block(buffer, &self.output.shape, 0, limit).map(drop)
    }

    /// Writes one row: what lies at `row` of the first dimension.
    ///
    /// **Errors:** as [`Self::push_whole`].
    pub(super) fn push_row(&self, buffer: &mut Vec<u8>, row: usize, limit: usize) -> Result<()> {
        let dimensions = self.output.shape.get(1..).unwrap_or_default();
        self.push_block(buffer, dimensions, row * self.row_len(), limit).map(drop)
    }

    /// Elements of one row.
    pub(super) fn row_len(&self) -> usize {
        let rows = self.output.shape.first().map_or(1, |&rows| usize::try_from(rows).unwrap_or_default());
        self.len().checked_div(rows).unwrap_or_default()
    }

    /// Writes the block of `dimensions` from the element `start` on; returns the element behind it.
    fn push_block(&self, buffer: &mut Vec<u8>, dimensions: &[i64], start: usize, limit: usize) -> Result<usize> {
        let Some((&length, inner)) = dimensions.split_first() else {
            self.push_element(buffer, start)?;
            return if buffer.len() > limit { Err(too_large(limit)) } else { Ok(start + 1) };
        };
        buffer.push(b'[');
        let mut next = start;
        for index in 0..length {
            if index > 0 {
                buffer.push(b',');
            }
            next = self.push_block(buffer, inner, next, limit)?;
            // Also where nothing is inside: empty lists can be many.
            if buffer.len() > limit {
                return Err(too_large(limit));
            }
        }
        buffer.push(b']');
        Ok(next)
    }

    /// Writes one element.
    ///
    /// **Errors:** NaN or infinite.
    pub(super) fn push_element(&self, buffer: &mut Vec<u8>, index: usize) -> Result<()> {
        let written = match self.output.datatype {
            DataType::Bool => self.bytes(index).map(|[byte]| {
                buffer.extend_from_slice(if byte == 0 { b"false" } else { b"true" });
            }),
            DataType::Uint8 => self.bytes(index).map(|bytes| push_integer(buffer, u8::from_le_bytes(bytes))),
            DataType::Uint16 => self.bytes(index).map(|bytes| push_integer(buffer, u16::from_le_bytes(bytes))),
            DataType::Uint32 => self.bytes(index).map(|bytes| push_integer(buffer, u32::from_le_bytes(bytes))),
            DataType::Uint64 => self.bytes(index).map(|bytes| push_integer(buffer, u64::from_le_bytes(bytes))),
            DataType::Int8 => self.bytes(index).map(|bytes| push_integer(buffer, i8::from_le_bytes(bytes))),
            DataType::Int16 => self.bytes(index).map(|bytes| push_integer(buffer, i16::from_le_bytes(bytes))),
            DataType::Int32 => self.bytes(index).map(|bytes| push_integer(buffer, i32::from_le_bytes(bytes))),
            DataType::Int64 => self.bytes(index).map(|bytes| push_integer(buffer, i64::from_le_bytes(bytes))),
            DataType::Fp32 => {
                let number = self.bytes(index).map(f32::from_le_bytes);
                number.map(|number| self.push_real(buffer, index, number)).transpose()?
            }
            DataType::Fp64 => {
                let number = self.bytes(index).map(f64::from_le_bytes);
                number.map(|number| self.push_real(buffer, index, number)).transpose()?
            }
            DataType::Bytes => self.text(index).map(|bytes| push_text(buffer, bytes)),
            DataType::Fp16 | DataType::Bf16 => return Err(not_as_json(self.output)),
        };
        written.ok_or_else(|| Error::internal("an output has fewer elements than its shape says"))
    }

    fn push_real<Float: zmij::Float + Into<f64> + Copy>(
        &self,
        buffer: &mut Vec<u8>,
        index: usize,
        number: Float,
    ) -> Result<()> {
        if !number.into().is_finite() {
            return Err(not_finite(self.output, index));
        }
        buffer.extend_from_slice(zmij::Buffer::new().format_finite(number).as_bytes());
        Ok(())
    }

    /// The element at `index` of a BYTES output. **Cost:** that of the elements since the last one, or from the first on if
    /// it lies before that.
    fn text(&self, index: usize) -> Option<&'a [u8]> {
        let (first, start) = Some(self.next.get()).filter(|&(first, _)| first <= index).unwrap_or_default();
        let mut end = start;
        let rest = BytesElements::new(self.output.data.get(start..)?).map_while(Result::ok);
        let text = rest.inspect(|text| end += LENGTH_BYTES + text.len()).nth(index - first)?;
        self.next.set((index + 1, end));
        Some(text)
    }

    fn bytes<const SIZE: usize>(&self, index: usize) -> Option<[u8; SIZE]> {
        self.output.data.get(index * SIZE..)?.first_chunk().copied()
    }
}

fn push_text(buffer: &mut Vec<u8>, bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return push_string(buffer, text);
    }
    buffer.extend_from_slice(b"{\"");
    buffer.extend_from_slice(BASE64_KEY.as_bytes());
    buffer.extend_from_slice(b"\":\"");
    buffer.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    buffer.extend_from_slice(b"\"}");
}

#[cold]
fn not_finite(output: &DraftOutput<'_>, index: usize) -> Error {
    Error::invalid(format!(
        "element {index} of output '{}' is NaN or infinite, which JSON cannot carry; ask /v2/models/…/infer for binary \
         data",
        output.name
    ))
}

#[cold]
fn not_as_json(output: &DraftOutput<'_>) -> Error {
    Error::invalid(format!(
        "sending {} data via JSON is not supported; ask /v2/models/…/infer for binary data of output '{}'",
        output.datatype, output.name
    ))
}

#[cfg(test)]
mod tests {
    use mlserve_core::tensor::push_bytes_element;

    use super::super::fixture::{floats, output};
    use super::*;

    fn written(output: &DraftOutput<'_>) -> Result<String> {
        let mut buffer = Vec::new();
        Elements::new(output)?.push_whole(&mut buffer, 1_000)?;
        Ok(String::from_utf8(buffer).expect("JSON"))
    }

    #[test]
    fn nesting_follows_the_shape() {
        let data = floats(&[1.0, -2.5, 0.1, 4.0, 5.0, 6.0]);
        let text = |shape: &[i64]| written(&output("y", DataType::Fp32, shape, data.clone())).expect("written");
        assert_eq!(text(&[6]), "[1.0,-2.5,0.1,4.0,5.0,6.0]");
        assert_eq!(text(&[2, 3]), "[[1.0,-2.5,0.1],[4.0,5.0,6.0]]");
        assert_eq!(text(&[3, 1, 2]), "[[[1.0,-2.5]],[[0.1,4.0]],[[5.0,6.0]]]");
        assert_eq!(written(&output("y", DataType::Int8, &[], vec![255])).as_deref(), Ok("-1"));
        assert_eq!(written(&output("y", DataType::Bool, &[2, 0], vec![])).as_deref(), Ok("[[],[]]"));
        assert_eq!(written(&output("y", DataType::Bool, &[2], vec![0, 1])).as_deref(), Ok("[false,true]"));
    }

    #[test]
    fn bytes_that_are_no_text_are_base64() {
        let mut data = Vec::new();
        push_bytes_element(&mut data, "é\"".as_bytes()).expect("short");
        push_bytes_element(&mut data, &[0xff, 0x00]).expect("short");
        let written = written(&output("y", DataType::Bytes, &[2], data)).expect("written");
        assert_eq!(written, r#"["é\"",{"b64":"/wA="}]"#);
    }

    #[test]
    fn texts_are_found_in_any_order() {
        let mut data = Vec::new();
        for text in ["a", "", "ccc", "dd"] {
            push_bytes_element(&mut data, text.as_bytes()).expect("short");
        }
        let output = output("y", DataType::Bytes, &[4], data);
        let elements = Elements::new(&output).expect("elements");
        for (index, text) in [(0, "a"), (1, ""), (3, "dd"), (2, "ccc"), (2, "ccc"), (0, "a")] {
            assert_eq!(elements.text(index), Some(text.as_bytes()), "{index}");
        }
        assert_eq!(elements.text(4), None);
        assert_eq!(elements.text(3), Some(&b"dd"[..]), "also after one that is not there");
    }

    #[test]
    fn what_json_cannot_carry_is_refused_by_its_place() {
        let fault = |output: &DraftOutput<'_>| written(output).expect_err("refused").text().to_owned();
        let text = fault(&output("y", DataType::Fp32, &[2], floats(&[1.0, f32::NAN])));
        assert!(text.starts_with("element 1 of output 'y' is NaN or infinite"), "{text}");
        let text = fault(&output("y", DataType::Fp16, &[1], vec![0, 0]));
        assert!(text.starts_with("sending FP16 data via JSON is not supported"), "{text}");
    }

    #[test]
    fn the_limit_holds_for_empty_lists_too() {
        let output = output("y", DataType::Fp32, &[1 << 40, 0], vec![]);
        let error = written(&output).expect_err("too large");
        assert_eq!(error.kind(), mlserve_core::error::Kind::TooLarge);
    }
}
