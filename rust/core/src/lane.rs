//! Chooses where a turn's batch runs: on the loop itself (inline) or on an instance (pool). Hot path.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::sync::{Mutex, lock};
use crate::version::Version;

/// What a loop may spend on runs in one turn. Other connections of the loop wait that long at most; a tenth of a
/// millisecond-scale p99, and enough for a batch of 64 rows of a small network.
pub const INLINE_BOUND: Duration = Duration::from_micros(200);
/// A run shorter than this costs less than waking an instance and being woken by it (about 10 µs each way, measured), so
/// a full loop gains nothing by giving it away.
const WORTH_GIVING_AWAY: Duration = Duration::from_micros(20);
/// Thousandths of a loop's time above which it counts as full, and below which another counts as having room.
const FULL: u32 = 900;
const ROOM: u32 = 500;

/// How long a version's runs stay away from loops after one took too long there; each further time twice as long.
const BARRED: Duration = Duration::from_secs(60);
/// Doublings at most: some two hours.
const MOST_DOUBLINGS: u32 = 7;

/// Where a batch runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// On the loop, at the end of the turn; it is expected to take this long.
    Inline(Duration),
    /// On the loop, at the end of the next turn: this one is spent, and waking an instance would cost more than the run.
    NextTurn,
    /// On an instance.
    Pool,
}

/// How busy each loop is, in thousandths of its time; written by the loops now and then.
#[derive(Debug)]
pub struct Occupancy(Box<[AtomicU32]>);

impl Occupancy {
    /// `loops` idle loops.
    pub fn new(loops: usize) -> Self {
        Self((0..loops).map(|_| AtomicU32::new(0)).collect())
    }

    /// Tells how busy loop `home` has been.
    pub fn set(&self, home: usize, thousandths: u32) {
        self.0[home].store(thousandths, Ordering::Relaxed);
    }

    /// Whether loop `home` is full while another has room.
    pub fn should_give_away(&self, home: usize) -> bool {
        let busy = |index: usize| self.0[index].load(Ordering::Relaxed);
        busy(home) > FULL && (0..self.0.len()).any(|other| other != home && busy(other) < ROOM)
    }
}

/// Whether a version may run on loops: not for a while after a run took too long there.
#[derive(Debug, Default)]
pub struct Inline {
    /// How often a run took too long; 0: never.
    times: AtomicU32,
    /// Until when it may not.
    until: Mutex<Option<Instant>>,
}

impl Inline {
    /// A run has taken too long.
    pub(crate) fn bar(&self, now: Instant) {
        let times = self.times.fetch_add(1, Ordering::Relaxed).min(MOST_DOUBLINGS);
        *lock(&self.until) = Some(now + BARRED * (1 << times));
    }

    fn is_barred(&self, clock: &Clock) -> bool {
        // Nearly always never.
        self.times.load(Ordering::Relaxed) > 0 && lock(&self.until).is_some_and(|until| clock.now() < until)
    }
}

/// Chooses the lane for `rows` rows of `row_bytes` bytes, after `spent` of the turn went to other batches.
///
/// Inline only while the model's times are known and calm and the turn's sum stays below [`INLINE_BOUND`], nothing is
/// queued that must come first, and no setting asks for what only the queue can do. Traffic that is spread over many small
/// models exceeds the sum with runs of which none is worth an instance; those go on after another look at the sockets.
pub fn choose(
    version: &Version,
    rows: usize,
    row_bytes: usize,
    spent: Duration,
    give_away: bool,
    clock: &Clock,
) -> Lane {
    let settings = &version.settings;
    if !settings.inline || settings.max_delay_us > 0 || settings.priority_levels > 1 || version.pool.waiting() > 0 {
        return Lane::Pool;
    }
    // How long the next run takes, its values say, and not the runs before.
    if version.spec.time_follows_values.is_some() || version.inline.is_barred(clock) {
        return Lane::Pool;
    }
    let max_rows = version.forming().max_rows.max(1);
    let (full_runs, rest) = (rows / max_rows, rows % max_rows);
    let Some(estimate) = version.times.predict(rows.min(max_rows), row_bytes) else { return Lane::Pool };
    let runs = u32::try_from(full_runs).unwrap_or(u32::MAX).saturating_add(u32::from(rest > 0 || full_runs == 0));
    let expected = estimate.mean.saturating_mul(runs);
    if !estimate.is_calm() {
        return Lane::Pool;
    }
    if estimate.upper().saturating_mul(runs).saturating_add(spent) > INLINE_BOUND {
        let is_cheap = !spent.is_zero() && expected < WORTH_GIVING_AWAY;
        return if is_cheap { Lane::NextTurn } else { Lane::Pool };
    }
    if give_away && expected >= WORTH_GIVING_AWAY {
        return Lane::Pool;
    }
    Lane::Inline(expected)
}
