//! The one place that reads time. Everything else takes `now` as an argument.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Where "now" comes from: the monotonic clock, or a clock that only a test moves.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The operating system's monotonic clock.
    Monotonic,
    /// Stands still until [`ManualClock::advance`].
    Manual(ManualClock),
}

impl Clock {
    /// The present moment.
    pub fn now(&self) -> Instant {
        match self {
            #[expect(clippy::disallowed_methods, reason = "the one place that reads time")]
            Clock::Monotonic => Instant::now(),
            Clock::Manual(clock) => clock.now(),
        }
    }

    /// Where the wall clock stands now. Nothing is decided by it: it jumps.
    pub fn epoch(&self) -> Epoch {
        let unix = match self {
            #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
            Clock::Monotonic => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
            Clock::Manual(clock) => MANUAL_WALL + clock.elapsed(),
        };
        Epoch { moment: self.now(), unix }
    }
}

/// Tells moments as time since 1970 (UTC), for people and for other programs: read once, so that a moment that is asked
/// for twice comes out the same, and moments keep their distances when the wall clock jumps.
#[derive(Clone, Copy, Debug)]
pub struct Epoch {
    moment: Instant,
    unix: Duration,
}

impl Epoch {
    /// A moment as time since 1970.
    pub fn unix_time(&self, moment: Instant) -> Duration {
        let later = self.unix + moment.saturating_duration_since(self.moment);
        later.saturating_sub(self.moment.saturating_duration_since(moment))
    }
}

/// Where the wall clock of a [`ManualClock`] begins, since 1970: some moment in 2023.
const MANUAL_WALL: Duration = Duration::from_secs(1_700_000_000);

/// A clock for tests.
#[derive(Clone, Debug)]
pub struct ManualClock {
    start: Instant,
    elapsed_ns: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock that stands at an arbitrary moment.
    pub fn new() -> Self {
        Self { start: Clock::Monotonic.now(), elapsed_ns: Arc::default() }
    }

    /// The moment it stands at.
    pub fn now(&self) -> Instant {
        self.start + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed_ns.load(Ordering::SeqCst))
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        self.elapsed_ns.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_keep_their_distance_on_the_wall_clock() {
        let manual = ManualClock::new();
        let clock = Clock::Manual(manual.clone());
        let first = clock.now();
        manual.advance(Duration::from_millis(1_500));
        let epoch = clock.epoch();
        assert_eq!(epoch.unix_time(first), MANUAL_WALL);
        assert_eq!(epoch.unix_time(clock.now()), MANUAL_WALL + Duration::from_millis(1_500));
        assert_eq!(epoch.unix_time(clock.now() + Duration::from_secs(1)), MANUAL_WALL + Duration::from_millis(2_500));
    }

    #[test]
    fn the_wall_clock_is_past_the_day_this_was_written() {
        let clock = Clock::Monotonic;
        assert!(clock.epoch().unix_time(clock.now()) > MANUAL_WALL);
    }
}
