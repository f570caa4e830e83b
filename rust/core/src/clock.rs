//! The one place that reads time. Everything else takes `now` as an argument.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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
}

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
        self.start + Duration::from_nanos(self.elapsed_ns.load(Ordering::SeqCst))
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
