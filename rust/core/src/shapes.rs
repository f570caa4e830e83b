//! The shapes that a version's requests had, so that its successor can be warmed up with them. Hot path.
//!
//! A handful is kept, by the key that also says which requests may share a run. Looking a known key up costs a few loads.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::{Mutex, lock};
use crate::tensor::Shape;

/// Shapes that are kept. A model with more kinds of requests has its usual ones among the first.
const MAX_SHAPES: usize = 8;

/// No key is 0 here: [`SeenShapes::note`] turns that one into 1.
const EMPTY: u64 = 0;

/// Which shapes were seen.
#[derive(Debug, Default)]
pub struct SeenShapes {
    keys: [AtomicU64; MAX_SHAPES],
    shapes: Mutex<Vec<Vec<Shape>>>,
}

impl SeenShapes {
    /// Notes that requests with `key` ran; `shapes`: the dimensions of each input, of all rows that ran.
    pub fn note<'a>(&self, key: u64, shapes: impl Iterator<Item = &'a Shape>) {
        let key = key.max(1);
        for known in &self.keys {
            let known = known.load(Ordering::Relaxed);
            if known == key {
                return;
            }
            if known == EMPTY {
                return self.add(key, shapes);
            }
        }
    }

    /// What was noted: per kind of request, the shape of each input.
    pub fn list(&self) -> Vec<Vec<Shape>> {
        lock(&self.shapes).clone()
    }

    #[cold]
    fn add<'a>(&self, key: u64, shapes: impl Iterator<Item = &'a Shape>) {
        let mut kept = lock(&self.shapes);
        // Another thread may have been here first.
        if kept.len() < MAX_SHAPES && !self.keys.iter().any(|known| known.load(Ordering::Relaxed) == key) {
            self.keys[kept.len()].store(key, Ordering::Relaxed);
            kept.push(shapes.cloned().collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_kept_once_and_not_too_many() {
        let seen = SeenShapes::default();
        for key in [5, 5, 0, 5, 0] {
            seen.note(key, [Shape::from_slice(&[1, key as i64])].iter());
        }
        assert_eq!(seen.list(), [[Shape::from_slice(&[1, 5])], [Shape::from_slice(&[1, 0])]]);
        for key in 10..30 {
            seen.note(key, [Shape::from_slice(&[1])].iter());
        }
        assert_eq!(seen.list().len(), MAX_SHAPES);
    }
}
