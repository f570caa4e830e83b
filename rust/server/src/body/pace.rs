//! How fast bytes have to flow: a grace, then a rate.

use std::time::Duration;

use mlserve_core::config::LimitSettings;
use tokio::time::Instant;

/// Where "never" lies: far enough, and still safe to add to.
const NEVER: Duration = Duration::from_hours(365 * 24);

/// Up to here a body needs the least rate only: on a bad line the first bytes are slow, and a few cost nothing.
const SMALL_BODY: usize = 64 << 10;

/// How many times as fast a body has to come beyond that: at 1 KiB/s, 64 MiB would be held for 18 hours.
const LARGE_FACTOR: u64 = 256;

/// How many graces a body that came fast may rest: what it has sent is held meanwhile.
const LONGEST_REST: u32 = 6;

/// Nobody rests for less, however short the grace is.
const LEAST_REST: Duration = Duration::from_secs(1);

/// A flow: a grace, and time that each byte adds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    started: Instant,
    grace: Duration,
    bytes_per_second: u64,
}

impl Pace {
    /// Bytes that start to flow now; a rate of 0 means that the grace is enough for ever.
    pub(crate) fn with(grace: Duration, bytes_per_second: u64) -> Self {
        Self { started: Instant::now(), grace, bytes_per_second }
    }

    /// Bytes that have been flowing since `started`.
    pub(crate) fn since(started: Instant, grace: Duration, bytes_per_second: u64) -> Self {
        Self { started, grace, bytes_per_second }
    }

    /// When a flow of which `bytes` are here has been too slow.
    pub(crate) fn too_slow_at(&self, bytes: usize) -> Instant {
        self.started + self.grace.min(NEVER) + time_for(bytes, self.bytes_per_second)
    }
}

/// A body that is coming. The larger it is, the faster it has to come, and it cannot save up more than a short rest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyPace {
    too_slow_at: Instant,
    longest_rest: Duration,
    bytes_per_second: u64,
    seen: usize,
}

impl BodyPace {
    /// A body of which `bytes` are here, and that starts to be waited for now.
    pub(crate) fn start(limits: &LimitSettings, bytes: usize) -> Self {
        let grace = Duration::from_millis(limits.body_grace_ms).min(NEVER);
        Self {
            too_slow_at: Instant::now() + grace,
            longest_rest: grace.saturating_mul(LONGEST_REST).clamp(LEAST_REST, NEVER),
            bytes_per_second: limits.min_body_rate,
            seen: bytes,
        }
    }

    /// When the body, of which `bytes` are here now, has been too slow.
    pub(crate) fn too_slow_at(&mut self, bytes: usize) -> Instant {
        if self.bytes_per_second == 0 {
            return Instant::now() + NEVER;
        }
        if bytes > self.seen {
            let earned = self.earned(bytes).saturating_sub(self.earned(self.seen));
            self.too_slow_at = (self.too_slow_at + earned).min(Instant::now() + self.longest_rest);
            self.seen = bytes;
        }
        self.too_slow_at
    }

    fn earned(&self, bytes: usize) -> Duration {
        let small = bytes.min(SMALL_BODY);
        let fast = self.bytes_per_second.saturating_mul(LARGE_FACTOR);
        time_for(small, self.bytes_per_second) + time_for(bytes - small, fast)
    }
}

/// How long `bytes` take at a rate; for ever at none.
fn time_for(bytes: usize, bytes_per_second: u64) -> Duration {
    match bytes_per_second {
        0 => NEVER,
        rate => Duration::from_secs_f64(bytes as f64 / rate as f64).min(NEVER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(grace_ms: u64, rate: u64) -> BodyPace {
        let limits = LimitSettings { body_grace_ms: grace_ms, min_body_rate: rate, ..LimitSettings::default() };
        BodyPace::start(&limits, 0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_flow_earns_its_time_by_its_bytes() {
        let pace = Pace::with(Duration::from_secs(5), 1_000);
        let started = Instant::now();
        assert_eq!(pace.too_slow_at(0) - started, Duration::from_secs(5));
        assert_eq!(pace.too_slow_at(2_500) - started, Duration::from_millis(7_500));
        assert!(Pace::with(Duration::from_secs(5), 0).too_slow_at(0) - started > Duration::from_secs(1 << 20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_body_earns_its_time_by_its_bytes() {
        let mut pace = pace(5_000, 1_000);
        let started = Instant::now();
        assert_eq!(pace.too_slow_at(0) - started, Duration::from_secs(5));
        assert_eq!(pace.too_slow_at(2_500) - started, Duration::from_millis(7_500));
        assert_eq!(pace.too_slow_at(2_500) - started, Duration::from_millis(7_500), "time is earned once");
    }

    /// Feeds a body of `size` bytes at a rate; how long it lived, or `None` if it arrived.
    async fn end_of(mut pace: BodyPace, size: usize, bytes_per_second: usize) -> Option<Duration> {
        let started = Instant::now();
        let mut sent = 0;
        while sent < size {
            tokio::time::advance(Duration::from_millis(100)).await;
            if pace.too_slow_at(sent) <= Instant::now() {
                return Some(started.elapsed());
            }
            sent += bytes_per_second / 10;
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_has_to_come_faster_than_a_small_one() {
        assert_eq!(
            end_of(pace(5_000, 1_024), 60 << 10, 1_100).await,
            None,
            "a small one at a little more than 1 KiB/s"
        );
        let lived = end_of(pace(5_000, 1_024), 64 << 20, 1_100).await.expect("a large one is cut off");
        assert!(lived < Duration::from_mins(20), "{lived:?}");
        assert_eq!(end_of(pace(5_000, 1_024), 64 << 20, 300 << 10).await, None, "a modest line is fast enough");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_came_fast_cannot_rest_for_long() {
        let mut pace = pace(5_000, 1_024);
        let started = Instant::now();
        assert_eq!(pace.too_slow_at(63 << 20) - started, Duration::from_secs(30));
        tokio::time::advance(Duration::from_secs(29)).await;
        let rest = pace.too_slow_at((63 << 20) + 1) - started;
        assert!(rest < Duration::from_millis(30_001), "a byte buys its own time only: {rest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_there_is_no_end() {
        let mut pace = pace(0, 0);
        assert!(pace.too_slow_at(1 << 30) - Instant::now() > Duration::from_secs(1 << 20));
    }
}
