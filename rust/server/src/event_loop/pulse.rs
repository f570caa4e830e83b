//! Whether loops live: each answers a ping, now and then, and readiness and liveness follow.
//!
//! A loop that is busy answers in its next turn, an idle one is woken by the ping, and one that is stuck in something
//! does not answer. Nothing here is touched by a request.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::LoopHandle;

/// A loop that has not turned for so long is frozen: its connections get nothing, and nothing else will tell them.
/// Inline runs take a fifth of a millisecond.
pub(crate) const FROZEN_AFTER: Duration = Duration::from_secs(1);
/// Pings in that time. Counted instead of measured: a process that was paused as a whole has missed none.
const PINGS: u32 = 4;

/// What is known of one loop. On a cache line of its own: the loop writes it, and others read it.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Pulse {
    /// The number of the last ping that was answered.
    answered: AtomicU64,
    /// Whether it serves: not before its start, nor while it is started again.
    runs: AtomicBool,
    is_frozen: AtomicBool,
}

impl Pulse {
    /// A loop that is taken to live until something else is known.
    pub(crate) fn new() -> Self {
        Self { answered: AtomicU64::new(0), runs: AtomicBool::new(true), is_frozen: AtomicBool::new(false) }
    }

    /// Whether it takes connections and requests.
    pub(crate) fn lives(&self) -> bool {
        self.runs.load(Ordering::Relaxed) && !self.is_frozen()
    }

    /// Whether it has not turned for [`FROZEN_AFTER`].
    pub(crate) fn is_frozen(&self) -> bool {
        self.is_frozen.load(Ordering::Relaxed)
    }

    pub(super) fn answer(&self, ping: u64) {
        self.answered.store(ping, Ordering::Relaxed);
    }

    pub(super) fn set_runs(&self, runs: bool) {
        self.runs.store(runs, Ordering::Relaxed);
    }
}

/// Feels the pulse of all loops until dropped.
pub(crate) async fn watch(loops: Vec<LoopHandle>) {
    let mut missed = vec![0; loops.len()];
    let mut ping = 0;
    loop {
        ping += 1;
        for handle in &loops {
            handle.mailbox.ping(ping);
        }
        tokio::time::sleep(FROZEN_AFTER / PINGS).await;
        for (home, (handle, missed)) in loops.iter().zip(&mut missed).enumerate() {
            let answers = handle.pulse.answered.load(Ordering::Relaxed) == ping;
            look(&handle.pulse, answers, missed, home);
        }
    }
}

fn look(pulse: &Pulse, answers: bool, missed: &mut u32, home: usize) {
    *missed = if answers { 0 } else { missed.saturating_add(1) };
    let is_frozen = *missed >= PINGS;
    if pulse.is_frozen.swap(is_frozen, Ordering::Relaxed) != is_frozen {
        if is_frozen {
            tracing::error!(home, "an event loop has not turned for a second: the server is not live");
        } else {
            tracing::warn!(home, "the event loop turns again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_frozen_after_some_missed_pings_and_alive_after_one_answer() {
        let (pulse, mut missed) = (Pulse::new(), 0);
        for _ in 1..PINGS {
            look(&pulse, false, &mut missed, 0);
            assert!(pulse.lives());
        }
        look(&pulse, false, &mut missed, 0);
        assert!(pulse.is_frozen() && !pulse.lives());
        look(&pulse, true, &mut missed, 0);
        assert!(pulse.lives());
    }
}
