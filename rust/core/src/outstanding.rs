//! The versions whose pools owe a loop answers, and how many. One per event loop, which alone counts. Hot path.
//!
//! As long as answers are owed, the loop keeps the version and looks after its callers: what waits is in the queue, on its
//! way to a run, or runs.

use std::sync::Arc;

use crate::entry::{Entry, Waiter};
use crate::version::Version;

/// What pools owe one loop.
#[derive(Debug, Default)]
pub(crate) struct Outstanding(Vec<Owed>);

#[derive(Debug)]
struct Owed {
    version: Arc<Version>,
    answers: usize,
}

impl Outstanding {
    /// The pool of `version` is about to be handed `entries`.
    pub(crate) fn add(&mut self, version: &Arc<Version>, entries: &[Entry]) {
        let answers = answers_to(entries);
        match self.0.iter_mut().find(|owed| Arc::ptr_eq(&owed.version, version)) {
            Some(owed) => owed.answers += answers,
            None => self.0.push(Owed { version: Arc::clone(version), answers }),
        }
    }

    /// Requests that the pool of `version` was handed have been answered, whoever refused or ran them.
    pub(crate) fn answered(&mut self, version: &Arc<Version>, answers: usize) {
        let Some(index) = self.0.iter().position(|owed| Arc::ptr_eq(&owed.version, version)) else { return };
        let owed = &mut self.0[index];
        owed.answers = owed.answers.saturating_sub(answers);
        if owed.answers == 0 {
            self.0.swap_remove(index);
        }
    }

    /// The versions that owe answers.
    pub(crate) fn versions(&self) -> Vec<Arc<Version>> {
        self.0.iter().map(|owed| Arc::clone(&owed.version)).collect()
    }

    /// Whether any is owed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How many requests `entries` are: the parts of one count together.
fn answers_to(entries: &[Entry]) -> usize {
    let is_counted_with_its_rest = |entry: &Entry| {
        let Waiter::Part { join, .. } = &entry.ticket.waiter else { return false };
        let is_rest_of_it = |other: &Entry| {
            other.uncut.is_some()
                && matches!(&other.ticket.waiter, Waiter::Part { join: its, .. } if Arc::ptr_eq(join, its))
        };
        entry.uncut.is_none() && entries.iter().any(is_rest_of_it)
    };
    entries.iter().filter(|entry| !is_counted_with_its_rest(entry)).count()
}
