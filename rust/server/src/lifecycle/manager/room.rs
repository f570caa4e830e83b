//! Room for models: a budget of bytes, and who goes when it is spent.

use std::time::Duration;

use mlserve_core::plan::State;

use super::{Manager, Offer};
use crate::lifecycle::catalog::{Catalog, Entry};
use crate::lifecycle::repository::Found;

/// How long an evicted model's requests may take before its room is given to another all the same.
const EVICTION_PATIENCE: Duration = Duration::from_secs(5);

impl Manager {
    fn budget(&self) -> Option<u64> {
        let budget = self.settings().limits.model_memory_bytes as u64;
        (budget > 0).then_some(budget)
    }

    pub(super) fn has_room(&self, offer: &Offer) -> bool {
        let needed: u64 = offer.versions.iter().map(|found| found.bytes).sum();
        let is_pinned = self.is_pinned(&offer.source.name);
        is_pinned || self.budget().is_none_or(|budget| self.loaded_bytes() + needed <= budget)
    }

    fn loaded_bytes(&self) -> u64 {
        self.models.look(Catalog::loaded_bytes)
    }

    /// Evicts the least recently used models until `bytes` more fit.
    pub(super) fn make_room(&mut self, name: &str, bytes: u64) -> Result<(), String> {
        let Some(budget) = self.budget() else { return Ok(()) };
        while self.loaded_bytes() + bytes > budget {
            let Some(victim) = self.models.look(|catalog| catalog.least_recently_used(name)) else {
                let loaded = self.loaded_bytes();
                return Err(format!(
                    "its files have {bytes} bytes and {loaded} are loaded that cannot go; at most {budget} are allowed \
                     (limits.model_memory_bytes)"
                ));
            };
            self.evict(&victim);
        }
        Ok(())
    }

    fn evict(&mut self, name: &str) {
        let versions = self.take_out(name, |entry| entry.slot.version.is_some().then_some(State::Evicted));
        self.models.change(|catalog| catalog.edit(name).map(|model| model.counts.evicted += 1));
        tracing::info!(model = name, versions = versions.len(), "evicted: the next request loads it");
        // On this thread: the room must be there before it is given to another.
        self.drain(versions, EVICTION_PATIENCE).run();
    }

    /// Announces a model for which there is no room.
    pub(super) fn leave_out(&mut self, offer: &Offer) {
        let name = &offer.source.name;
        tracing::info!(model = name, "not loaded: there is no room for it; the first request loads it");
        self.models.change(|catalog| {
            let Some(model) = catalog.edit(name) else { return };
            let evicted = |found: &Found| (found.version, Entry::not_serving(State::Evicted, found.print, found.bytes));
            model.versions = offer.versions.iter().map(evicted).collect();
        });
    }
}
