//! How often one place of the code may log: whoever sends requests must not be able to fill a disk with lines about them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mlserve_core::clock::Clock;
use parking_lot::Mutex;
use tracing::Metadata;
use tracing::callsite::Identifier;

/// Lines that one place may log at once, and the time in which it earns another: enough to see what is going on.
const LINES: Allowance = Allowance { burst: 50, every: Duration::from_secs(1) };
/// The same for the coming and going of models: the start of a server with hundreds of them is told in full.
const MODEL_LINES: Allowance = Allowance { burst: 2_000, every: Duration::from_millis(100) };
/// Where those lines are.
const MODEL_TARGET: &str = "mlserve_server::lifecycle";

/// A burst, and the time after which one more is allowed.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    burst: u32,
    every: Duration,
}

/// Lines that each place has left.
#[derive(Debug, Default)]
pub(super) struct Limiter(Mutex<HashMap<Identifier, Bucket>>);

#[derive(Debug)]
struct Bucket {
    left: u32,
    earned: Instant,
    left_out: u64,
}

impl Limiter {
    /// Whether a line may be logged by its place; those that may not are counted.
    pub(super) fn allows(&self, place: &'static Metadata<'static>) -> bool {
        let allowance = if place.target().starts_with(MODEL_TARGET) { MODEL_LINES } else { LINES };
        let now = Clock::Monotonic.now();
        let mut buckets = self.0.lock();
        let bucket = buckets.entry(place.callsite()).or_insert_with(|| Bucket::new(allowance, now));
        let left_out = bucket.take(allowance, now);
        drop(buckets);
        if let Some(left_out @ 1..) = left_out {
            // Passes this way once more, as a place of its own.
            tracing::warn!(left_out, target = place.target(), line = place.line(), "lines of one place were left out");
        }
        left_out.is_some()
    }
}

impl Bucket {
    fn new(allowance: Allowance, now: Instant) -> Self {
        Self { left: allowance.burst, earned: now, left_out: 0 }
    }

    /// Takes a line: `None` if there is none left, else how many were left out since the last one.
    fn take(&mut self, allowance: Allowance, now: Instant) -> Option<u64> {
        let earned = now.saturating_duration_since(self.earned).div_duration_f64(allowance.every) as u32;
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(allowance.burst);
            self.earned = now;
        }
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            Some(std::mem::take(&mut self.left_out))
        } else {
            self.left_out += 1;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_its_burst_then_a_line_now_and_then_and_tells_what_was_left_out() {
        let begun = Clock::Monotonic.now();
        let allowance = Allowance { burst: 3, every: Duration::from_secs(1) };
        let mut bucket = Bucket::new(allowance, begun);
        let mut at = |ms| bucket.take(allowance, begun + Duration::from_millis(ms));
        assert_eq!([at(0), at(0), at(999), at(999)], [Some(0), Some(0), Some(0), None]);
        assert_eq!([at(1_000), at(1_500), at(1_999), at(2_100)], [Some(1), None, None, Some(2)]);
        let after_a_while: Vec<_> = (0..5).map(|_| at(60_000)).collect();
        assert_eq!(after_a_while, [Some(0), Some(0), Some(0), None, None]);
    }
}
