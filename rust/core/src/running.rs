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
    /// Parts of a failed batch that will run next; the last one first.
    aside: Vec<Vec<Entry>>,
    is_going_on: bool,
    /// Nobody waits for its end.
    is_abandoned: bool,
}

impl Running {
    /// A run over `entries` begins.
    pub(crate) fn begin(&self, entries: Vec<Entry>) {
        let mut state = lock(&self.state);
        state.entries = entries;
        state.is_going_on = true;
    }

    /// The run has ended: gives back those who still wait for it, and whether it was stopped.
    pub(crate) fn end(&self) -> (Vec<Entry>, bool) {
        let mut state = lock(&self.state);
        let was_stopped = self.stop.is_asked();
        if was_stopped {
            // Under the lock, so that nobody stops the next run for this one.
            self.stop.reset();
        }
        (state.is_going_on, state.is_abandoned) = (false, false);
        (std::mem::take(&mut state.entries), was_stopped)
    }

    /// Keeps entries whose run comes later.
    pub(crate) fn put_aside(&self, entries: Vec<Entry>) {
        lock(&self.state).aside.push(entries);
    }

    /// The entries that were put aside last, as far as they still wait.
    pub(crate) fn take_aside(&self) -> Option<Vec<Entry>> {
        lock(&self.state).aside.pop()
    }

    /// Takes out the entries of loop `home` that are to be answered now, and stops the run if they were the last. Tells
    /// when the next one's deadline passes.
    pub(crate) fn expire(&self, home: usize, now: Instant, refused: &mut Vec<Outcome>) -> Option<Instant> {
        let mut state = lock(&self.state);
        let State { entries, aside, .. } = &mut *state;
        let mut next: Option<Instant> = None;
        for entries in std::iter::once(entries).chain(aside) {
            if !entries.iter().any(|entry| entry.ticket.home == home) {
                continue;
            }
            for mut entry in std::mem::take(entries) {
                let reason = if entry.ticket.home == home { reason_to_answer(&mut entry, now) } else { None };
                if let Some(error) = reason {
                    refused.push(entry.refuse(error));
                    continue;
                }
                if entry.ticket.home == home {
                    next = [next, entry.deadline].into_iter().flatten().min();
                }
                entries.push(entry);
            }
        }
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
