//! Histograms with fixed bounds, one writer each. Hot path.

use super::Counter;

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

    /// Counts `value` `times` times, on the owner's thread. **Cost:** O(log bounds); less for the smallest values, which
    /// is what copying a small batch nearly always takes.
    pub fn record(&self, value: u64, times: u64) {
        let is_least = self.bounds.first().is_some_and(|&least| value <= least);
        let index = if is_least { 0 } else { self.bounds.partition_point(|&bound| bound < value) };
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

/// The sum of histograms over the same bounds; without bounds while nothing has been counted.
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

    /// Adds another sum over the same bounds.
    pub fn merge(&mut self, other: &HistogramTotal) {
        if other.buckets.is_empty() {
            return;
        }
        self.bounds = other.bounds;
        self.buckets.resize(other.buckets.len(), 0);
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(bucket, more)| *bucket += more);
        self.sum += other.sum;
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

    #[test]
    fn sums_add_up_and_an_empty_one_changes_nothing() {
        let histogram = Histogram::new(&ROW_BOUNDS);
        histogram.record(2, 3);
        let (mut total, mut twice) = (HistogramTotal::default(), HistogramTotal::default());
        histogram.add_to(&mut total);
        twice.merge(&total);
        twice.merge(&HistogramTotal::default());
        twice.merge(&total);
        assert_eq!((twice.count(), twice.sum, twice.bounds), (6, 12, total.bounds));
    }
}
