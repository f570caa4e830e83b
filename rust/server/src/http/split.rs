//! A body of the binary extension: JSON first, then one blob per binary input, as slices of what was received. Hot path.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use mlserve_core::tensor::TensorBytes;

/// What follows the JSON, still to be taken.
#[derive(Debug, Default)]
pub(super) struct Blobs {
    pieces: VecDeque<Bytes>,
    left: usize,
}

impl Blobs {
    /// All of `pieces`.
    pub(super) fn new(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let pieces: VecDeque<Bytes> = pieces.into_iter().collect();
        Self { left: pieces.iter().map(Bytes::len).sum(), pieces }
    }

    /// Bytes that nobody has taken.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// The next `count` bytes, in as many pieces as they lie in; `None` if there are fewer. **Cost:** no copy.
    pub(super) fn take(&mut self, count: usize) -> Option<TensorBytes> {
        let left = self.left.checked_sub(count)?;
        let mut taken = TensorBytes::new();
        let mut missing = count;
        while missing > 0 {
            let first = self.pieces.front_mut()?;
            let piece = first.split_to(missing.min(first.len()));
            missing -= piece.len();
            taken.push(piece);
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
        self.left = left;
        Some(taken)
    }

    /// The next `count` bytes as one piece; `None` if there are fewer. **Cost:** a copy if they lie in several.
    pub(super) fn take_joined(&mut self, count: usize) -> Option<Bytes> {
        let left = self.left.checked_sub(count)?;
        let first = self.pieces.front_mut().filter(|first| first.len() >= count);
        let joined = match first {
            Some(first) => first.split_to(count),
            None => self.join(count),
        };
        self.left = left;
        Some(joined)
    }

    /// Copies piece after piece and lets each go, so that a large body is hardly ever held twice.
    fn join(&mut self, count: usize) -> Bytes {
        let mut joined = Vec::with_capacity(count);
        while joined.len() < count {
            let Some(first) = self.pieces.front_mut() else { break };
            let part = first.len().min(count - joined.len());
            joined.extend_from_slice(&first[..part]);
            first.advance(part);
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
        joined.into()
    }
}
