//! How large an inference request may be, by the tensors that its beginning declares.
//!
//! Asked only while a compressed message is inflated that goes further than its received bytes explain: a tensor of zeros
//! may, a crowd of empty fields may not. Reads what may be cut off anywhere, so it knows errors only as an end.

use mlserve_core::tensor::{DataType, byte_count, element_count};

/// Fields that are looked at; a request that declares anything does so in a few.
const MOST_FIELDS: usize = 1 << 16;

/// Dimensions of a tensor that are looked at.
const MOST_DIMENSIONS: usize = 64;

/// Typed contents take up to this many bytes for each byte of the tensor; raw ones take one.
const TYPED_FACTOR: usize = 2;

/// Bytes of a BYTES element that are declared: its length.
const LENGTH_BYTES: usize = 4;

/// Bytes that a `ModelInferRequest` which begins with `start` may have.
pub(super) fn message_bytes(start: &[u8]) -> usize {
    let mut scan = Scan { rest: start, fields_left: MOST_FIELDS };
    let mut total = 0_usize;
    while let Some((field, content)) = scan.field() {
        if field == 5 {
            let mut input = Scan { rest: content, fields_left: scan.fields_left };
            total = total.saturating_add(input.tensor_bytes());
            scan.fields_left = input.fields_left;
        }
    }
    total.saturating_mul(TYPED_FACTOR).saturating_add(start.len())
}

/// What is left of a message, which may go on where this ends.
struct Scan<'a> {
    rest: &'a [u8],
    fields_left: usize,
}

impl<'a> Scan<'a> {
    /// The next field and, if it is length-delimited, as much of its content as is here; `None` at the end of what makes
    /// sense.
    fn field(&mut self) -> Option<(u64, &'a [u8])> {
        self.fields_left = self.fields_left.checked_sub(1)?;
        let key = self.varint()?;
        let content = match key & 7 {
            0 => {
                self.varint()?;
                &[]
            }
            1 => self.take(8),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                self.take(length)
            }
            5 => self.take(4),
            _ => return None,
        };
        Some((key >> 3, content))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// What the input that this is declares.
    fn tensor_bytes(&mut self) -> usize {
        let (mut datatype, mut shape) = (None, Vec::new());
        while let Some((field, content)) = self.field() {
            match field {
                2 => datatype = DataType::from_name(content),
                3 => shape.extend(dimensions(content)),
                _ => {}
            }
        }
        match datatype {
            _ if shape.len() > MOST_DIMENSIONS => 0,
            None => 0,
            Some(DataType::Bytes) => element_count(&shape).unwrap_or(0).saturating_mul(LENGTH_BYTES),
            Some(datatype) => byte_count(datatype, &shape).unwrap_or(0),
        }
    }
}

/// The dimensions of a packed shape, the only form that clients send.
fn dimensions(packed: &[u8]) -> impl Iterator<Item = i64> {
    let mut scan = Scan { rest: packed, fields_left: 0 };
    std::iter::from_fn(move || scan.varint().map(|dimension| dimension as i64)).take(MOST_DIMENSIONS + 1)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::ModelInferRequest;
    use crate::proto::model_infer_request::InferInputTensor;

    fn request(inputs: &[(&str, &[i64])]) -> Vec<u8> {
        let input = |(datatype, shape): &(&str, &[i64])| InferInputTensor {
            name: "x".to_owned(),
            datatype: (*datatype).to_owned(),
            shape: shape.to_vec(),
            ..InferInputTensor::default()
        };
        let raw = ModelInferRequest { inputs: inputs.iter().map(input).collect(), ..ModelInferRequest::default() };
        ModelInferRequest { raw_input_contents: vec![vec![0; 1_000]], ..raw }.encode_to_vec()
    }

    #[test]
    fn declared_tensors_may_come_and_nothing_else() {
        let sent = request(&[("FP32", &[1_000, 1_000]), ("BYTES", &[1_000]), ("INT8", &[-1])]);
        assert_eq!(message_bytes(&sent), 2 * (4_000_000 + 4_000) + sent.len());
        assert_eq!(message_bytes(&request(&[])), request(&[]).len());
        assert_eq!(message_bytes(&[]), 0);
    }

    #[test]
    fn whatever_is_cut_off_is_read_as_far_as_it_goes() {
        let sent = request(&[("FP32", &[1_000]), ("FP64", &[1_000])]);
        let mut last = 0;
        for end in 0..=sent.len() {
            let declared = message_bytes(&sent[..end]) - end;
            assert!(declared >= last, "{end}");
            last = declared;
        }
        assert_eq!(last, 2 * 12_000);
    }

    #[test]
    fn crowds_declare_nothing() {
        for piece in [&b"\x22\x00"[..], b"\x2a\x00", b"\xf8\x07\x00", b"\xfb\x07", b"\0\0"] {
            let crowd = piece.repeat(1 << 20);
            assert_eq!(message_bytes(&crowd), crowd.len());
        }
    }
}
