//! Follows a repository that others write to.
//!
//! A change is applied once two looks in a row have found the same, so that a file that is still being copied is left
//! alone. What is damaged all the same fails to load, and is tried again when it changes.

use mlserve_core::plan::State;

use super::{Cause, Manager, Offer};
use crate::lifecycle::catalog::Model;
use crate::lifecycle::print::Print;
use crate::lifecycle::repository;

/// What a look at a model's files found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    own: Print,
    versions: Vec<(u64, Print)>,
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
            match self.offer(source.clone()) {
                Ok(offer) => self.follow(name, &offer),
                Err(problem) => problems.push(problem),
            }
        }
        let gone = self.models.look(|catalog| {
            let missing = catalog.iter().filter(|(name, _)| !listing.models.contains_key(*name));
            missing.map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        });
        for name in gone {
            self.follow_removal(&name);
        }
        self.tell(problems);
    }

    fn follow(&mut self, name: &str, offer: &Offer) {
        let versions = offer.versions.iter().map(|found| (found.version, found.print)).collect();
        let look = Look { own: offer.print, versions };
        let is_applied = self.models.look(|catalog| {
            catalog.get(name).is_some_and(|model| {
                let applied = model.versions.iter().filter(|(_, entry)| entry.slot.state != State::Gone);
                model.print == look.own
                    && applied.map(|(&number, entry)| (number, entry.print)).eq(look.versions.iter().copied())
            })
        });
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
            models.change(|catalog| catalog.remove(&forgotten));
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
