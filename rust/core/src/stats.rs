//! Counters and histograms that cost next to nothing: one writer each, merged when read. Hot path.
//!
//! A [`Slot`] belongs to one thread (an event loop or an instance). Its writer adds with a plain load and store; a reader
//! on another thread sees whole numbers, possibly a moment old.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::entry::Timing;
use crate::error::{Error, Kind};
use crate::request::Protocol;

/// A number that only its owner increases.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds, on the owner's thread.
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// The value, on any thread.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the duration buckets, in nanoseconds: 10 µs to 10 s, three a decade, which is where the latencies of
/// a model server lie; above is `+Inf`.
pub const DURATION_BOUNDS_NS: [u64; 19] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Upper bounds of the batch size buckets, in rows.
pub const ROW_BOUNDS: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024];

/// A histogram with fixed bounds. `BUCKETS` is the number of bounds.
#[derive(Debug)]
pub struct Histogram<const BUCKETS: usize> {
    bounds: &'static [u64; BUCKETS],
    buckets: [Counter; BUCKETS],
    above: Counter,
    sum: Counter,
}

impl<const BUCKETS: usize> Histogram<BUCKETS> {
    /// An empty histogram over `bounds` (rising).
    pub fn new(bounds: &'static [u64; BUCKETS]) -> Self {
        Self {
            bounds,
            buckets: std::array::from_fn(|_| Counter::default()),
            above: Counter::default(),
            sum: Counter::default(),
        }
    }

    /// Counts `value` `times` times, on the owner's thread. **Cost:** O(log bounds).
    pub fn record(&self, value: u64, times: u64) {
        let index = self.bounds.partition_point(|&bound| bound < value);
        self.buckets.get(index).unwrap_or(&self.above).add(times);
        self.sum.add(value.saturating_mul(times));
    }

    /// Adds this histogram to `total`, on any thread.
    pub fn add_to(&self, total: &mut HistogramTotal) {
        total.bounds = self.bounds;
        total.buckets.resize(BUCKETS + 1, 0);
        for (bucket, counter) in total.buckets.iter_mut().zip(self.buckets.iter().chain([&self.above])) {
            *bucket += counter.get();
        }
        total.sum += self.sum.get();
    }
}

/// The sum of histograms over the same bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramTotal {
    /// Upper bounds, rising.
    pub bounds: &'static [u64],
    /// Counts per bound and, last, above all of them; not cumulative.
    pub buckets: Vec<u64>,
    /// Sum of all values.
    pub sum: u64,
}

impl HistogramTotal {
    /// Values counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// A duration as the histograms take it.
pub fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// What one thread counts for one version.
#[derive(Debug)]
pub struct Slot {
    /// Requests that were accepted for this version.
    pub submitted: Counter,
    /// Answered requests, by [`Protocol`].
    pub success: [Counter; Protocol::ALL.len()],
    /// Failed requests, by [`Protocol`] and [`Kind`], in the order of [`Kind::ALL`].
    pub failure: [[Counter; Kind::ALL.len()]; Protocol::ALL.len()],
    /// Rows answered.
    pub rows: Counter,
    /// Runs of the backend.
    pub runs: Counter,
    /// Runs that repeated part of a failed batch.
    pub retried_runs: Counter,
    /// From arrival to the answer being handed to the socket, per request.
    pub request_duration: Histogram<19>,
    /// From arrival to the run, per request.
    pub queue_duration: Histogram<19>,
    /// The run, per request.
    pub compute_duration: Histogram<19>,
    /// Copying inputs together, summed over requests, in nanoseconds.
    pub gather_ns: Counter,
    /// Cutting outputs apart, summed over requests, in nanoseconds.
    pub scatter_ns: Counter,
    /// Rows per run.
    pub batch_rows: Histogram<11>,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            submitted: Counter::default(),
            success: Default::default(),
            failure: Default::default(),
            rows: Counter::default(),
            runs: Counter::default(),
            retried_runs: Counter::default(),
            request_duration: Histogram::new(&DURATION_BOUNDS_NS),
            queue_duration: Histogram::new(&DURATION_BOUNDS_NS),
            compute_duration: Histogram::new(&DURATION_BOUNDS_NS),
            gather_ns: Counter::default(),
            scatter_ns: Counter::default(),
            batch_rows: Histogram::new(&ROW_BOUNDS),
        }
    }
}

impl Slot {
    /// Counts an answered request, on the owner's thread.
    pub fn answered(&self, protocol: Protocol, rows: u64, timing: &Timing, total_ns: u64) {
        self.success[protocol as usize].add(1);
        self.rows.add(rows);
        self.request_duration.record(total_ns, 1);
        self.queue_duration.record(nanoseconds(timing.queue), 1);
        self.compute_duration.record(nanoseconds(timing.compute), 1);
        self.gather_ns.add(nanoseconds(timing.gather));
        self.scatter_ns.add(nanoseconds(timing.scatter));
    }

    /// Counts a request that ended with `error`, on the owner's thread.
    pub fn failed(&self, protocol: Protocol, error: &Error) {
        self.failure[protocol as usize][error.kind() as usize].add(1);
    }

    /// Counts a run, on the owner's thread.
    pub fn ran(&self, rows: u64, is_retry: bool) {
        self.runs.add(1);
        self.retried_runs.add(u64::from(is_retry));
        self.batch_rows.record(rows, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let histogram = Histogram::new(&ROW_BOUNDS);
        for rows in [1, 2, 3, 4, 5, 1_024, 1_025] {
            histogram.record(rows, 1);
        }
        let mut total = HistogramTotal::default();
        histogram.add_to(&mut total);
        assert_eq!(total.buckets, [1, 1, 2, 1, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(total.sum, 1 + 2 + 3 + 4 + 5 + 1_024 + 1_025);
    }
}
