//! How many trials a load can afford: the proof is to add little to it.
//!
//! The graph is what shows rows independent; trials look for mistakes in that. So they are the part that gives way.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::load::now;

/// Part of the load that trials may take.
const PART: u32 = 10;

/// Part of the load that a row may take and still be tried beside another.
const ROW_PART: u32 = 5;

/// Part of the warm-up budget in which a row and a pair fit that the warm-up need not run again.
const SHARED_PART: u32 = 6;

/// Rows of the telling trials: ordinary, extreme and known neighbours on both sides.
const TELLING_ROWS: u32 = 9;

/// How long the trials may take, and how long they take.
pub(super) struct Pace {
    until: Instant,
    /// About what one more row takes.
    row: Cell<Duration>,
    /// Neighbours of a row in the telling trials.
    pub(super) neighbours: usize,
    /// Whether there is time for one pair only, before it is looked again.
    pub(super) is_hasty: bool,
    /// Whether there is no time for any trial.
    pub(super) is_over: bool,
}

impl Pace {
    /// For a model that took `loaded` so far, `one` of it for its first row, and may be warmed up for `budget`.
    pub(super) fn new(loaded: Duration, one: Duration, budget: Duration) -> Self {
        let part = (loaded + budget / 2) / PART;
        let is_hasty = one * TELLING_ROWS > part;
        // Without a trial it runs once more, to be warmed up.
        let is_over = one > (budget / SHARED_PART).max((loaded + one) / ROW_PART);
        let neighbours = if is_hasty { 1 } else { 2 };
        Self { until: now() + part, row: Cell::new(one), neighbours, is_hasty, is_over }
    }

    /// So many rows were run in this time.
    pub(super) fn ran(&self, rows: usize, took: Duration) {
        self.row.set(took / rows.max(1) as u32);
    }

    /// Whether there is time for a run of so many rows.
    pub(super) fn has_time(&self, rows: usize) -> bool {
        now() + self.row.get() * rows as u32 <= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(loaded_ms: u64, one_ms: u64) -> (usize, bool, bool) {
        let pace = Pace::new(Duration::from_millis(loaded_ms), Duration::from_millis(one_ms), Duration::from_secs(1));
        (pace.neighbours, pace.is_hasty, pace.is_over)
    }

    #[test]
    fn the_slower_a_row_the_fewer_trials() {
        assert_eq!(pace(50, 2), (2, false, false));
        assert_eq!(pace(400, 20), (1, true, false));
        assert_eq!(pace(1_500, 160), (1, true, false));
        assert_eq!(pace(1_500, 400), (1, true, true));
        assert_eq!(pace(10_000, 400), (1, true, false), "a long load has time for a slow row");
    }
}
