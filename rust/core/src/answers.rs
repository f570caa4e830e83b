//! How large answers are, learned per version by the bytes of a row of the request. Hot path.
//!
//! Known for certain is only what the model's fixed dimensions say. The rest is an estimate: it says how much of the
//! byte budget to hold before a run and how many rows to run together, and it must not shut requests out. So what is held
//! follows smaller answers at once and larger ones halfway: where answers follow values, one huge answer is forgotten with
//! the next. When there is no room even so, one request of the version at a time runs all the same and shows how large
//! answers are now. Whatever was expected, an answer is held before it is sent, or refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::budget::Reservation;
use crate::entry::{answer_out_of_budget, answer_too_large};
use crate::error::Result;
use crate::model::{ModelSpec, TensorSpec};
use crate::tensor::text_object_bytes;

/// Powers of four of bytes per row of a request that are kept apart, from 256 bytes: one wide row says nothing of
/// narrow ones.
const SIZE_BUCKETS: usize = 8;
/// What a row is taken for at most: more than any answer may have.
const MOST_PER_ROW: usize = 1 << 31;

/// Bytes of a text in wire form at least: its length.
const LEAST_TEXT_BYTES: usize = 4;

/// What is known of a version's answers.
#[derive(Debug)]
pub struct Answers {
    /// Bytes per row that fixed dimensions make certain.
    least: usize,
    /// Bytes per row, as lately seen.
    cells: [AtomicUsize; SIZE_BUCKETS],
    /// As lately seen, of whatever size of request.
    latest: AtomicUsize,
    /// Whether a request runs whose answer is expected not to fit.
    is_tried: Arc<AtomicBool>,
}

/// Lets one request of a version run although its answer is expected not to fit; the next may when this is dropped.
#[derive(Debug)]
pub struct Trial(Arc<AtomicBool>);

impl Drop for Trial {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Answers {
    /// Nothing seen yet.
    pub fn new(spec: &ModelSpec) -> Self {
        let guess = row_bytes(spec, 1, LEAST_TEXT_BYTES + text_object_bytes(1, LEAST_TEXT_BYTES));
        Self {
            least: row_bytes(spec, 0, LEAST_TEXT_BYTES),
            cells: [const { AtomicUsize::new(0) }; SIZE_BUCKETS].map(|_| AtomicUsize::new(guess)),
            latest: AtomicUsize::new(guess),
            is_tried: Arc::default(),
        }
    }

    /// Bytes that the answer to a request of `rows` rows of `row_bytes` bytes is expected to take, with the texts that a run
    /// makes it of.
    pub fn expected(&self, rows: usize, row_bytes: usize) -> usize {
        self.cell(row_bytes).load(Ordering::Relaxed).saturating_mul(rows)
    }

    /// Bytes of one row of an answer, as lately seen.
    pub fn row_bytes(&self) -> usize {
        self.latest.load(Ordering::Relaxed)
    }

    /// Learns from a run over `rows` rows of `row_bytes` bytes whose outputs took `bytes` bytes together.
    pub(crate) fn learn(&self, rows: usize, row_bytes: usize, bytes: usize) {
        let seen = (bytes / rows.max(1)).min(MOST_PER_ROW);
        // Halfway is in whole bytes and reaches the end. Writers may lose each other's update.
        let halfway =
            |from: usize| if seen > from { from + (seen - from).div_ceil(2) } else { seen + (from - seen) / 2 };
        let cell = self.cell(row_bytes);
        let before = cell.load(Ordering::Relaxed);
        if before != seen {
            cell.store(halfway(before).min(seen), Ordering::Relaxed);
        }
        let before = self.latest.load(Ordering::Relaxed);
        if before != seen {
            self.latest.store(halfway(before), Ordering::Relaxed);
        }
    }

    /// Holds room in `reservation` for the answer to `rows` rows of `row_bytes` bytes. Returns how much is held, and
    /// what lets the request run if that is less than expected.
    ///
    /// **Errors:** the answer is certain to exceed `most`; there is no room for it and another request is on trial.
    pub(crate) fn hold(
        &self,
        reservation: Option<&mut Reservation>,
        rows: usize,
        row_bytes: usize,
        most: usize,
    ) -> Result<(usize, Option<Trial>)> {
        let least = self.least.saturating_mul(rows);
        if least > most {
            return Err(answer_too_large(least, most));
        }
        let Some(reservation) = reservation else { return Ok((0, None)) };
        // No answer has more, so no more need be held, whatever was seen.
        let expected = self.expected(rows, row_bytes).min(most);
        if reservation.grow(expected) {
            return Ok((expected, None));
        }
        match self.trial() {
            Some(trial) if reservation.grow(least) => Ok((least, Some(trial))),
            _ => Err(answer_out_of_budget(expected)),
        }
    }

    #[cold]
    fn trial(&self) -> Option<Trial> {
        let is_tried = self.is_tried.swap(true, Ordering::AcqRel);
        (!is_tried).then(|| Trial(Arc::clone(&self.is_tried)))
    }

    fn cell(&self, row_bytes: usize) -> &AtomicUsize {
        &self.cells[((row_bytes / 256 + 1).ilog2() as usize / 2).min(SIZE_BUCKETS - 1)]
    }
}

/// Bytes of one row of all outputs; dimensions that the model leaves open count as `open`, and texts as `text` bytes.
fn row_bytes(spec: &ModelSpec, open: usize, text: usize) -> usize {
    let from = usize::from(spec.batching.has_rows());
    let bytes = |output: &TensorSpec| {
        let elements = output.shape.iter().skip(from).map(|&dimension| usize::try_from(dimension).unwrap_or(open));
        elements.fold(output.datatype.size().unwrap_or(text), usize::saturating_mul)
    };
    spec.outputs.iter().map(bytes).fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Budget, LocalBudget};
    use crate::error::Kind;
    use crate::model::Batching;
    use crate::tensor::DataType;

    fn answers(output: &[i64]) -> Answers {
        let spec = |name: &str, shape: &[i64]| TensorSpec {
            name: name.to_owned(),
            datatype: DataType::Fp32,
            shape: shape.into(),
            labels: None,
        };
        Answers::new(&ModelSpec {
            name: "m".into(),
            version: 1,
            platform: "test",
            inputs: vec![spec("x", &[-1, -1])],
            outputs: vec![spec("y", output)],
            batching: Batching::Rows,
            time_follows_values: None,
        })
    }

    #[test]
    fn one_huge_answer_is_forgotten_with_the_next() {
        let answers = answers(&[-1, -1]);
        answers.learn(1, 8, 7 << 30);
        assert!(answers.expected(1, 8) > 1 << 29);
        answers.learn(1, 8, 40);
        assert_eq!(answers.expected(1, 8), 40);
        (0..40).for_each(|_| answers.learn(1, 8, 40));
        assert_eq!(answers.row_bytes(), 40, "rows are run together again");
    }

    #[test]
    fn a_wide_row_says_nothing_of_narrow_ones() {
        let answers = answers(&[-1, -1]);
        (0..20).for_each(|_| answers.learn(1, 4 << 20, 4 << 20));
        assert_eq!(answers.expected(100, 4), 400);
    }

    #[test]
    fn what_does_not_fit_is_tried_by_one_request_at_a_time() {
        let answers = answers(&[-1, -1]);
        (0..40).for_each(|_| answers.learn(1, 8, 1 << 30));
        let budget = LocalBudget::new(Budget::new(1 << 20), 0);
        let mut first = budget.reserve(8).expect("fits");
        let mut second = budget.reserve(8).expect("fits");
        let (held, trial) = answers.hold(Some(&mut first), 1, 8, 1 << 28).expect("tried");
        assert_eq!((held, trial.is_some()), (0, true));
        let refused = answers.hold(Some(&mut second), 1, 8, 1 << 28).expect_err("one at a time");
        assert_eq!(refused.kind(), Kind::OutOfBudget);
        assert!(refused.text().contains("limits.byte_budget"), "{refused:?}");
        drop(trial);
        assert!(answers.hold(Some(&mut second), 1, 8, 1 << 28).is_ok());
    }

    #[test]
    fn what_is_certain_to_be_too_large_is_refused_at_once() {
        let answers = answers(&[-1, 2]);
        let refused = answers.hold(None, 100_000_000, 0, 256 << 20).expect_err("800 MB");
        assert_eq!(refused.kind(), Kind::TooLarge);
        assert!(refused.text().contains("limits.max_response_bytes"), "{refused:?}");
        assert!(answers.hold(None, usize::MAX, 0, 256 << 20).is_err(), "and nothing overflows");
    }
}
