//! Chooses where a turn's batch runs: on the loop itself (inline) or on an instance (pool). Hot path.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

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

/// Chooses the lane for `rows` rows of `row_bytes` bytes, after `spent` of the turn went to other batches.
///
/// Inline only while the model's times are known and calm and the turn's sum stays below [`INLINE_BOUND`], nothing is
/// queued that must come first, and no setting asks for what only the queue can do. Traffic that is spread over many small
/// models exceeds the sum with runs of which none is worth an instance; those go on after another look at the sockets.
pub fn choose(version: &Version, rows: usize, row_bytes: usize, spent: Duration, give_away: bool) -> Lane {
    let settings = &version.settings;
    if !settings.inline || settings.max_delay_us > 0 || settings.priority_levels > 1 || version.pool.waiting() > 0 {
        return Lane::Pool;
    }
    let max_rows = version.forming().max_rows.max(1);
    let (full_runs, rest) = (rows / max_rows, rows % max_rows);
    let Some(estimate) = version.times.predict(rows.min(max_rows), row_bytes) else { return Lane::Pool };
    let runs = full_runs as u32 + u32::from(rest > 0 || full_runs == 0);
    let expected = estimate.mean * runs;
    if !estimate.is_calm() {
        return Lane::Pool;
    }
    if estimate.upper() * runs + spent > INLINE_BOUND {
        let is_cheap = !spent.is_zero() && expected < WORTH_GIVING_AWAY;
        return if is_cheap { Lane::NextTurn } else { Lane::Pool };
    }
    if give_away && expected >= WORTH_GIVING_AWAY {
        return Lane::Pool;
    }
    Lane::Inline(expected)
}
