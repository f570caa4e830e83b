//! Follows a repository that others write to.
//!
//! A change is applied once two looks in a row have found the same, so that a file that is still being copied is left
//! alone. What is damaged all the same fails to load, and is tried again when it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use mlserve_core::failpoint;
use mlserve_core::plan::State;

use super::{Cause, Manager, Offer};
use crate::lifecycle::catalog::{Entry, Model};
use crate::lifecycle::print::Print;
use crate::lifecycle::public;
use crate::lifecycle::repository::{self, Found, Listing, Source, is_gone};

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
        failpoint!("poll");
        let listing = match repository::list(self.settings()) {
            Ok(listing) => listing,
            Err(problem) => return self.tell(vec![problem]),
        };
        let mut problems = Vec::new();
        for (name, source) in &listing.models {
            match self.offer(source.clone(), None) {
                Ok(offer) => self.follow(name, &offer),
                Err(problem) => {
                    self.follow_fault(name, source, &problem);
                    problems.push(problem);
                }
            }
        }
        self.follow_removals(&listing, &mut problems);
        listing.tell_of_others(&self.left_alone);
        self.left_alone = listing.left_alone;
        self.follow_odd(listing.odd);
        self.tell(problems);
    }

    /// Lets go of models that are gone, unless with them everything is gone from where they were.
    fn follow_removals(&mut self, listing: &Listing, problems: &mut Vec<String>) {
        let mut kept = BTreeSet::new();
        for (name, named) in self.gone(listing) {
            let is_there = |source: &Source| source.named == named && !is_gone(&source.path);
            if self.settings().server.repository_follow_empty || listing.models.values().any(is_there) {
                self.follow_removal(&name);
            } else {
                kept.insert(named);
            }
        }
        problems.extend(kept.iter().map(|named| {
            let (named, advice) = (named.display(), "to follow set server.repository_follow_empty");
            format!(
                "{named}: all models are gone at once, as if it were not mounted; what is loaded serves on; {advice}"
            )
        }));
    }

    /// The models that are loaded or known and whose files are gone, and the path that the operator gave for each.
    fn gone(&self, listing: &Listing) -> Vec<(String, PathBuf)> {
        self.models.look(|catalog| {
            // What is there but cannot be served any more is a problem, and no reason to stop.
            let missing = catalog.iter().filter(|(_, model)| is_gone(&model.source.path));
            let gone =
                missing.filter(|(name, model)| !listing.models.contains_key(*name) || model.serving().count() > 0);
            gone.map(|(name, model)| (name.to_owned(), model.source.named.clone())).collect()
        })
    }

    /// A model that cannot be served as it lies there: it has failed, unless an earlier state of it serves on.
    fn follow_fault(&mut self, name: &str, source: &Source, problem: &str) {
        let look = Look { own: Print::of(&source.path), versions: Vec::new() };
        let reason = public(problem, source);
        let is_applied = self.models.look(|catalog| {
            let has_failed = |entry: &Entry| entry.slot.state == State::Failed(reason.clone());
            let is_told = |model: &Model| {
                model.serving().count() > 0 || (!model.versions.is_empty() && model.versions.values().all(has_failed))
            };
            catalog.get(name).is_some_and(is_told)
        });
        if self.is_settled(name, look) && !is_applied {
            self.know(source);
            drop(self.fail(name, problem));
        }
    }

    /// Shows the odd entries that this look and the one before have found.
    fn follow_odd(&mut self, odd: BTreeMap<String, String>) {
        let is_settled = |(name, reason): &(&String, &String)| self.odd.get(*name) == Some(*reason);
        let settled = odd.iter().filter(is_settled).map(|(name, reason)| (name.clone(), reason.clone()));
        let settled: BTreeMap<String, String> = settled.collect();
        self.odd = odd;
        if self.models.look(|catalog| catalog.odd == settled) {
            return;
        }
        self.models.change(|catalog| {
            for (entry, reason) in settled.iter().filter(|(entry, _)| !catalog.odd.contains_key(*entry)) {
                tracing::warn!(entry, reason, "the repository has an entry that cannot be served");
            }
            catalog.odd = settled;
        });
    }

    /// Whether the last look found the same: a file that is still being copied differs from look to look.
    fn is_settled(&mut self, name: &str, look: Look) -> bool {
        let before = self.looked.insert(name.to_owned(), look);
        before.as_ref() == self.looked.get(name)
    }

    /// Takes a model into the catalog, or learns where it lies now.
    fn know(&self, source: &Source) {
        let pin = self.is_pinned(&source.name);
        self.models.change(|catalog| match catalog.edit(&source.name) {
            Some(model) => model.source = source.clone(),
            None => drop(catalog.put(Model::new(source.clone(), pin))),
        });
    }

    fn follow(&mut self, name: &str, offer: &Offer) {
        let versions = offer.versions.iter().map(|found| (found.version, found.print)).collect();
        let look = Look { own: offer.print, versions };
        let is_applied = self.models.look(|catalog| catalog.get(name).is_some_and(|model| look.is_applied(model)));
        if !self.is_settled(name, look) || (is_applied && !self.has_become_readable(offer)) {
            return;
        }
        self.know(&offer.source);
        if self.models.look(|catalog| catalog.get(name).is_some_and(Model::is_evicted)) {
            self.leave_out(offer);
        } else {
            drop(self.load(offer, Cause::Change));
        }
    }

    /// Notes whether a version could be read when it was loaded.
    pub(super) fn note_readable(&mut self, found: &Found, is_readable: bool) {
        let key = (found.name.clone(), found.version);
        if is_readable {
            self.unreadable.remove(&key);
        } else {
            self.unreadable.insert(key);
        }
    }

    /// Whether a version that could not be read before can be now. Its files need not have changed: a network or a disk
    /// may have been away for a moment.
    fn has_become_readable(&self, offer: &Offer) -> bool {
        let was_not = |found: &&Found| self.unreadable.contains(&(found.name.clone(), found.version));
        let can_be = |found: &Found| File::open(&found.path).and_then(|mut file| file.read(&mut [0])).is_ok();
        !self.unreadable.is_empty() && offer.versions.iter().filter(was_not).any(can_be)
    }

    /// A model that is gone from the repository: believed at the second look, as a mount may be swapped just now.
    fn follow_removal(&mut self, name: &str) {
        if !self.is_settled(name, Look { own: Print::default(), versions: Vec::new() }) {
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
