//! How long a run takes, learned on line per version: t(rows, bytes per row). Hot path.
//!
//! Source: exponentially weighted mean and mean deviation, as TCP estimates round trips (Jacobson, SIGCOMM 1988, §2 and
//! appendix A), with gains of 1/8 and 1/4. One cell per power of two of rows and of bytes per row, so that a model with
//! variable shapes keeps its sizes apart. Writers on several threads may lose each other's update; an estimate can bear
//! that, a lock on the hot path could not.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Powers of two of rows that are kept apart: 1 to 1024 and above.
const ROW_BUCKETS: usize = 11;
/// Powers of four of bytes per row that are kept apart, from 256 bytes.
const SIZE_BUCKETS: usize = 8;
/// Runs after which an estimate is believed.
const KNOWN_AFTER: u32 = 4;
/// A batch size is worth forming if its time per row is below this part of the time of one row alone. Five percent is
/// what two measurements of the same thing differ by on a quiet machine.
const WORTHWHILE: f32 = 0.95;
/// How many runs between two looks at what batch size is worth forming.
const RECONSIDER_EVERY: usize = 64;

/// Of so many requests that are expected to take too long one runs.
const TRY_EVERY: usize = 8;

/// The learned service times of one version.
#[derive(Debug)]
pub struct Times {
    cells: [[Cell; ROW_BUCKETS]; SIZE_BUCKETS],
    runs: AtomicUsize,
    worthwhile: AtomicUsize,
    /// Requests that were expected to take too long.
    too_slow: AtomicUsize,
}

/// An estimate: `f32` mean and mean deviation in microseconds, packed so that they are read together.
#[derive(Debug, Default)]
struct Cell {
    packed: AtomicU64,
    runs: AtomicU32,
}

/// What a run is expected to take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Mean.
    pub mean: Duration,
    /// Mean deviation.
    pub deviation: Duration,
    /// Whether it rests on enough runs of this size.
    pub is_known: bool,
}

impl Estimate {
    /// What nearly every run stays below.
    pub fn upper(&self) -> Duration {
        self.mean + 4 * self.deviation
    }

    /// Whether runs of this size take about the same time each.
    pub fn is_calm(&self) -> bool {
        /// Deviation that any short run shows when the core is interrupted.
        const INTERRUPTS: Duration = Duration::from_micros(20);
        self.is_known && self.deviation <= INTERRUPTS.max(self.mean / 2)
    }
}

impl Times {
    /// Nothing known yet. `max_rows` is what is worth forming until something is.
    pub fn new(max_rows: usize) -> Self {
        Self {
            cells: Default::default(),
            runs: AtomicUsize::new(0),
            worthwhile: AtomicUsize::new(max_rows),
            too_slow: AtomicUsize::new(0),
        }
    }

    /// Takes a measurement of the warm-up for the typical one of several.
    pub fn seed(&self, rows: usize, row_bytes: usize, took: Duration, max_rows: usize) {
        let cell = self.cell(rows, row_bytes);
        cell.store(microseconds(took), microseconds(took) / 4.0);
        cell.runs.store(KNOWN_AFTER, Ordering::Relaxed);
        self.reconsider(max_rows);
    }

    /// Learns from a run.
    pub fn learn(&self, rows: usize, row_bytes: usize, took: Duration, max_rows: usize) {
        self.cell(rows, row_bytes).learn(microseconds(took));
        let runs = self.runs.load(Ordering::Relaxed).wrapping_add(1);
        self.runs.store(runs, Ordering::Relaxed);
        if runs.is_multiple_of(RECONSIDER_EVERY) {
            self.reconsider(max_rows);
        }
    }

    /// What a run of `rows` rows of `row_bytes` bytes is expected to take; `None` before anything is known.
    ///
    /// A size never seen is taken from the next smaller one seen, as if every row cost as much again: too high rather
    /// than too low.
    pub fn predict(&self, rows: usize, row_bytes: usize) -> Option<Estimate> {
        let cells = &self.cells[size_bucket(row_bytes)];
        let bucket = row_bucket(rows);
        if let Some(estimate) = cells[bucket].estimate() {
            return Some(estimate);
        }
        let (seen, estimate) = (0..bucket)
            .rev()
            .find_map(|seen| Some((seen, cells[seen].estimate()?)))
            .or_else(|| (bucket..ROW_BUCKETS).find_map(|seen| Some((seen, cells[seen].estimate()?))))?;
        let factor = 1_u32 << bucket.saturating_sub(seen);
        Some(Estimate {
            mean: estimate.mean * factor,
            deviation: estimate.deviation * factor,
            is_known: estimate.is_known,
        })
    }

    /// Whether a request that is expected to take too long runs all the same: one in [`TRY_EVERY`] does, or a version whose
    /// runs were slow once would refuse requests for good. What it costs ends with its deadline.
    pub fn lets_try(&self) -> bool {
        self.too_slow.fetch_add(1, Ordering::Relaxed) % TRY_EVERY == TRY_EVERY - 1
    }

    /// The most rows that are worth running together: 1 if time per row does not fall.
    pub fn worthwhile_rows(&self) -> usize {
        self.worthwhile.load(Ordering::Relaxed)
    }

    fn cell(&self, rows: usize, row_bytes: usize) -> &Cell {
        &self.cells[size_bucket(row_bytes)][row_bucket(rows)]
    }

    fn reconsider(&self, max_rows: usize) {
        let busiest = self.cells.iter().max_by_key(|cells| cells[0].runs.load(Ordering::Relaxed));
        if let Some(cells) = busiest {
            self.worthwhile.store(worthwhile(cells, max_rows), Ordering::Relaxed);
        }
    }
}

fn worthwhile(cells: &[Cell; ROW_BUCKETS], max_rows: usize) -> usize {
    // Without a time for one row, or with one below what the clock shows, batching has nothing to lose.
    let Some(alone) = cells[0].known_mean().filter(|&alone| alone > 0.0) else { return max_rows };
    let per_row = |bucket: usize| Some(cells[bucket].known_mean()? / (1_u32 << bucket) as f32);
    let largest_known = (1..ROW_BUCKETS).rev().find(|&bucket| per_row(bucket).is_some());
    let Some(largest_known) = largest_known else { return max_rows };
    let best = (1..=largest_known).rev().find(|&bucket| per_row(bucket).is_some_and(|each| each < alone * WORTHWHILE));
    match best {
        // The largest size measured still pays, so larger ones are assumed to.
        Some(bucket) if bucket == largest_known => max_rows,
        Some(bucket) => max_rows.min(1 << bucket),
        None => 1,
    }
}

impl Cell {
    fn load(&self) -> (f32, f32) {
        let packed = self.packed.load(Ordering::Relaxed);
        (f32::from_bits((packed >> 32) as u32), f32::from_bits(packed as u32))
    }

    fn store(&self, mean: f32, deviation: f32) {
        self.packed.store(u64::from(mean.to_bits()) << 32 | u64::from(deviation.to_bits()), Ordering::Relaxed);
    }

    fn learn(&self, took: f32) {
        let runs = self.runs.load(Ordering::Relaxed);
        if runs == 0 {
            self.store(took, took / 2.0);
        } else {
            let (mean, deviation) = self.load();
            let error = took - mean;
            self.store(mean + error / 8.0, deviation + (error.abs() - deviation) / 4.0);
        }
        self.runs.store(runs.saturating_add(1), Ordering::Relaxed);
    }

    fn estimate(&self) -> Option<Estimate> {
        let runs = self.runs.load(Ordering::Relaxed);
        if runs == 0 {
            return None;
        }
        let (mean, deviation) = self.load();
        Some(Estimate { mean: duration(mean), deviation: duration(deviation), is_known: runs >= KNOWN_AFTER })
    }

    fn known_mean(&self) -> Option<f32> {
        (self.runs.load(Ordering::Relaxed) >= KNOWN_AFTER).then(|| self.load().0)
    }
}

fn row_bucket(rows: usize) -> usize {
    // Rounded up, so that a bucket's time is that of its largest size: 1, 2, 3-4, 5-8, …
    (rows.max(1).next_power_of_two().trailing_zeros() as usize).min(ROW_BUCKETS - 1)
}

fn size_bucket(row_bytes: usize) -> usize {
    ((row_bytes / 256 + 1).ilog2() as usize / 2).min(SIZE_BUCKETS - 1)
}

fn microseconds(duration: Duration) -> f32 {
    duration.as_nanos() as f32 / 1_000.0
}

fn duration(microseconds: f32) -> Duration {
    Duration::from_nanos((microseconds.max(0.0) * 1_000.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    #[test]
    fn a_size_never_seen_is_taken_from_the_next_smaller_one() {
        let times = Times::new(64);
        assert_eq!(times.predict(1, 32), None);
        times.seed(1, 32, us(10), 64);
        assert_eq!(times.predict(1, 32).map(|estimate| estimate.mean), Some(us(10)));
        assert_eq!(times.predict(8, 32).map(|estimate| estimate.mean), Some(us(80)));
        times.seed(8, 32, us(12), 64);
        assert_eq!(times.predict(8, 32).map(|estimate| estimate.mean), Some(us(12)));
    }

    #[test]
    fn a_model_whose_rows_do_not_get_cheaper_is_not_batched() {
        let times = Times::new(32);
        times.seed(1, 8192, us(8_000), 32);
        times.seed(32, 8192, us(306_000), 32);
        assert_eq!(times.worthwhile_rows(), 1);
    }

    #[test]
    fn a_model_whose_rows_get_cheaper_is_batched_to_the_maximum() {
        let times = Times::new(32);
        times.seed(1, 2048, us(1_050), 32);
        times.seed(8, 2048, us(2_514), 32);
        times.seed(32, 2048, us(5_810), 32);
        assert_eq!(times.worthwhile_rows(), 32);
    }

    #[test]
    fn an_estimate_follows_a_slowdown_within_fifty_runs() {
        let times = Times::new(8);
        (0..100).for_each(|_| times.learn(4, 32, us(100), 8));
        (0..50).for_each(|_| times.learn(4, 32, us(200), 8));
        let mean = times.predict(4, 32).expect("learned").mean;
        assert!((us(190)..us(210)).contains(&mean), "{mean:?}");
    }

    #[test]
    fn a_restless_model_is_not_calm() {
        let times = Times::new(8);
        (0..100).for_each(|run| times.learn(1, 32, us(if run % 4 == 0 { 2_000 } else { 100 }), 8));
        assert!(!times.predict(1, 32).expect("learned").is_calm());
    }
}
