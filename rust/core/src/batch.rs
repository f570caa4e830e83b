//! Copies the inputs of a batch together: the one copy that a tensor's bytes see. Hot path.
//!
//! Texts of a request that runs alone are not copied: a backend makes its own objects of them, wherever they lie.

use bytes::Bytes;

use crate::backend::{ALIGNMENT, TensorView};
use crate::entry::Entry;
use crate::model::ModelSpec;
use crate::tensor::{DataType, Shape};

/// Memory that is kept between batches; more is given back.
const KEPT_BYTES: usize = 1 << 20;

/// The gathered inputs of one batch. One per thread that runs batches; its memory is used again.
#[derive(Debug, Default)]
pub struct Gathered {
    inputs: Vec<GatheredInput>,
    used: usize,
}

#[derive(Debug, Default)]
struct GatheredInput {
    buffer: AlignedBuffer,
    /// The texts of the only request, where they are.
    texts: Bytes,
    shape: Shape,
}

impl Gathered {
    /// Copies the inputs of `entries` together, which all have the same key.
    pub fn gather(&mut self, entries: &[Entry], spec: &ModelSpec) {
        self.used = spec.inputs.len();
        if self.inputs.len() < self.used {
            self.inputs.resize_with(self.used, GatheredInput::default);
        }
        for (index, gathered) in self.inputs[..self.used].iter_mut().enumerate() {
            gathered.texts = match entries {
                [only] if spec.inputs[index].datatype == DataType::Bytes => only.inputs[index].data.to_contiguous(),
                _ => Bytes::new(),
            };
            if gathered.texts.is_empty() {
                gathered.copy(entries, index);
            }
            gathered.shape.clone_from(&entries[0].inputs[index].shape);
            if spec.batching.has_rows()
                && let Some(first) = gathered.shape.first_mut()
            {
                *first = entries.iter().map(|entry| entry.rows as i64).fold(0, i64::saturating_add);
            }
        }
    }

    /// The inputs as a backend takes them.
    pub fn views<'a>(&'a self, spec: &'a ModelSpec) -> impl Iterator<Item = TensorView<'a>> {
        self.inputs[..self.used].iter().zip(&spec.inputs).map(|(gathered, spec)| TensorView {
            datatype: spec.datatype,
            shape: &gathered.shape,
            data: gathered.as_slice(),
        })
    }

    /// The run has ended: lets go of what belongs to requests.
    pub fn release(&mut self) {
        for gathered in self.inputs[..self.used].iter_mut().filter(|gathered| !gathered.texts.is_empty()) {
            gathered.texts = Bytes::new();
        }
    }

    /// Gives back memory that only an unusually large batch needed.
    pub fn trim(&mut self) {
        self.inputs.iter_mut().for_each(|gathered| gathered.buffer.trim());
    }
}

impl GatheredInput {
    fn copy(&mut self, entries: &[Entry], index: usize) {
        let bytes = entries.iter().map(|entry| entry.inputs[index].data.len()).sum();
        self.buffer.reset(bytes);
        for entry in entries {
            for piece in entry.inputs[index].data.pieces() {
                self.buffer.append(piece);
            }
        }
    }

    fn as_slice(&self) -> &[u8] {
        if self.texts.is_empty() { self.buffer.as_slice() } else { &self.texts }
    }
}

/// Bytes that begin at a multiple of [`ALIGNMENT`].
#[derive(Debug, Default)]
struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl AlignedBuffer {
    /// Empties it and makes room for `len` bytes that will not move.
    fn reset(&mut self, len: usize) {
        self.bytes.clear();
        self.bytes.reserve(len + ALIGNMENT);
        // `align_offset` may say that it cannot tell; then the backend is given what the allocator gave.
        let start = self.bytes.as_ptr().align_offset(ALIGNMENT);
        self.start = if start < ALIGNMENT { start } else { 0 };
        self.bytes.resize(self.start, 0);
    }

    fn append(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn trim(&mut self) {
        if self.bytes.capacity() > KEPT_BYTES {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathered_bytes_are_aligned_whatever_was_there_before() {
        let mut buffer = AlignedBuffer::default();
        for len in [1, 63, 64, 65, 4_096, 7] {
            buffer.reset(len);
            buffer.append(&vec![1; len]);
            assert_eq!(buffer.as_slice().as_ptr() as usize % ALIGNMENT, 0);
            assert_eq!(buffer.as_slice().len(), len);
        }
    }
}
