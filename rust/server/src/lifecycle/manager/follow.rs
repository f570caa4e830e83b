//! Follows a repository that others write to.
//!
//! A change is applied once two looks in a row have found the same, so that a file that is still being copied is left
//! alone. What is damaged all the same fails to load, and is tried again when it changes.

use mlserve_core::plan::State;

use super::{Cause, Manager, Offer};
use crate::lifecycle::catalog::{Entry, Model};
use crate::lifecycle::print::Print;
use crate::lifecycle::repository;

/// What a look at a model's files found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    own: Print,
    versions: Vec<(u64, Print)>,
}

impl Look {
    /// Whether `model` is what was found, or was tried to be.
    fn is_applied(&self, model: &Model) -> bool {
        let entry = |number: u64| model.versions.get(&number);
        let is_present = |&(number, print): &(u64, Print)| entry(number).is_some_and(|entry| entry.print == print);
        let has_failed = |&(number, _): &(u64, Print)| {
            entry(number).is_some_and(|entry| matches!(entry.slot.state, State::Failed(_)))
        };
        let is_offered = |number: u64| self.versions.iter().any(|&(offered, _)| offered == number);
        let is_left = |(&number, entry): (&u64, &Entry)| !is_offered(number) && entry.slot.version.is_some();
        // What should be gone stays while its successor fails.
        model.print == self.own
            && self.versions.iter().all(is_present)
            && (self.versions.iter().any(has_failed) || !model.versions.iter().any(is_left))
    }
}

impl Manager {
    /// Looks at the repository and applies what has changed and stayed so since the last look.
    pub(super) fn follow_repository(&mut self) {
        let listing = match repository::list(self.settings()) {
            Ok(listing) => listing,
            Err(problem) => return self.tell(vec![problem]),
        };
        let mut problems = listing.problems;
        for (name, source) in &listing.models {
            match self.offer(source.clone(), None) {
                Ok(offer) => self.follow(name, &offer),
                Err(problem) => problems.push(problem),
            }
        }
        let gone = self.models.look(|catalog| {
            let missing = catalog.iter().filter(|(name, _)| !listing.models.contains_key(*name));
            // What is there but cannot be served any more is a problem, told below, and no reason to stop.
            let gone = missing.filter(|(_, model)| !model.source.path.exists());
            gone.map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        });
        for name in gone {
            self.follow_removal(&name);
        }
        self.tell(problems);
    }

    fn follow(&mut self, name: &str, offer: &Offer) {
        let versions = offer.versions.iter().map(|found| (found.version, found.print)).collect();
        let look = Look { own: offer.print, versions };
        let is_applied = self.models.look(|catalog| catalog.get(name).is_some_and(|model| look.is_applied(model)));
        // A file that is still being copied differs from look to look.
        let is_settled = self.looked.insert(name.to_owned(), look.clone()).is_some_and(|before| before == look);
        if is_applied || !is_settled {
            return;
        }
        let pin = self.is_pinned(name);
        self.models.change(|catalog| {
            if catalog.get(name).is_none() {
                catalog.put(Model::new(offer.source.clone(), pin));
            }
        });
        if self.models.look(|catalog| catalog.get(name).is_some_and(Model::is_evicted)) {
            self.leave_out(offer);
        } else {
            drop(self.load(offer, Cause::Change));
        }
    }

    /// A model that is gone from the repository: believed at the second look, as a mount may be swapped just now.
    fn follow_removal(&mut self, name: &str) {
        let missing = Look { own: Print::default(), versions: Vec::new() };
        let was_missing = self.looked.insert(name.to_owned(), missing.clone()).is_some_and(|before| before == missing);
        if !was_missing {
            return;
        }
        tracing::info!(model = name, "gone from the repository");
        let models = self.models.clone();
        let forgotten = name.to_owned();
        self.unload(name, move || {
            // It may have come back while it was drained.
            models.change(|catalog| {
                if catalog.get(&forgotten).is_some_and(Model::is_gone) {
                    catalog.remove(&forgotten);
                }
            });
        });
    }

    /// Tells each problem once, not at every look.
    fn tell(&mut self, problems: Vec<String>) {
        for problem in problems.iter().filter(|problem| !self.told.contains(problem)) {
            tracing::warn!(problem, "the repository has an entry that cannot be served");
        }
        self.told = problems;
    }
}
