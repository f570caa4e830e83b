//! What one instance runs at this moment, so that its callers can be answered before the run has ended. Hot path.
//!
//! A run may take longer than its callers wait. The loops they came from look here now and then: whoever's time is over,
//! or is gone, is taken out and answered; the others get their rows when the run ends. Once nobody is left, the run is
//! stopped.

use std::time::{Duration, Instant};

use crate::entry::{Entry, Outcome};
use crate::queue::reason_to_answer;
use crate::stop::Stop;
use crate::sync::{Mutex, lock};

/// How often callers of a run are looked at: how long a run may go on whose callers have all gone.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(250);

/// An instance's run.
#[derive(Debug, Default)]
pub struct Running {
    state: Mutex<State>,
    /// Ends the run.
    pub(crate) stop: Stop,
}

#[derive(Debug, Default)]
struct State {
    /// Those who wait for the run; in the order of their rows.
    entries: Vec<Entry>,
    is_going_on: bool,
    /// Nobody waits for its end.
    is_abandoned: bool,
}

impl Running {
    /// A run over `entries` begins.
    pub(crate) fn begin(&self, entries: Vec<Entry>) {
        *lock(&self.state) = State { entries, is_going_on: true, is_abandoned: false };
    }

    /// The run has ended: gives back those who still wait for it, and whether it was stopped.
    pub(crate) fn end(&self) -> (Vec<Entry>, bool) {
        let mut state = lock(&self.state);
        let was_stopped = self.stop.is_asked();
        if was_stopped {
            // Under the lock, so that nobody stops the next run for this one.
            self.stop.reset();
        }
        (std::mem::take(&mut *state).entries, was_stopped)
    }

    /// Takes out the entries of loop `home` that are to be answered now, and stops the run if they were the last. Tells
    /// when the next one's deadline passes.
    pub(crate) fn expire(&self, home: usize, now: Instant, refused: &mut Vec<Outcome>) -> Option<Instant> {
        let mut state = lock(&self.state);
        if !state.entries.iter().any(|entry| entry.ticket.home == home) {
            return None;
        }
        let mut next: Option<Instant> = None;
        let mut left = Vec::with_capacity(state.entries.len());
        for mut entry in std::mem::take(&mut state.entries) {
            if entry.ticket.home != home {
                left.push(entry);
            } else if let Some(error) = reason_to_answer(&mut entry, now) {
                refused.push(entry.refuse(error));
            } else {
                next = [next, entry.deadline].into_iter().flatten().min();
                left.push(entry);
            }
        }
        state.entries = left;
        if state.entries.is_empty() && state.is_going_on {
            state.is_abandoned = true;
            self.stop.ask();
        }
        next
    }

    /// Whether a run goes on for whose end nobody waits.
    pub(crate) fn is_abandoned(&self) -> bool {
        lock(&self.state).is_abandoned
    }

    /// Stops the run, if one goes on.
    pub(crate) fn stop(&self) {
        let state = lock(&self.state);
        if state.is_going_on {
            self.stop.ask();
        }
    }
}
