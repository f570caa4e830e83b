//! Room for models: a budget of bytes, and who goes when it is spent.

use std::time::{Duration, Instant};

use mlserve_core::plan::State;

use super::{Cause, Manager, Offer};
use crate::lifecycle::catalog::{Catalog, Entry, Stay};
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

    /// Bytes that have to go before `bytes` more fit.
    fn excess(&self, bytes: u64) -> u64 {
        self.budget().map_or(0, |budget| (self.loaded_bytes() + bytes).saturating_sub(budget))
    }

    /// Evicts the least recently used models until `bytes` more fit.
    pub(super) fn make_room(&mut self, name: &str, bytes: u64, cause: Cause) -> Result<(), String> {
        while self.excess(bytes) > 0 {
            let stay = self.stay(name, cause);
            let Some(victim) = self.models.look(|catalog| catalog.least_recently_used(&stay)) else {
                let (loaded, budget) = (self.loaded_bytes(), self.budget().unwrap_or_default());
                return Err(format!(
                    "its files have {bytes} bytes and {loaded} are loaded that cannot go; at most {budget} are allowed \
                     (limits.model_memory_bytes)"
                ));
            };
            self.evict(&victim);
        }
        Ok(())
    }

    /// When there may be room for what is asked for, if that is not now: what was loaded a moment ago stays for a while,
    /// or two models that do not fit together would be loaded anew for every request.
    pub(super) fn room_later(&self, offer: &Offer) -> Option<Instant> {
        let stay = self.stay(&offer.source.name, Cause::Demand);
        let excess = self.excess(offer.versions.iter().map(|found| found.bytes).sum());
        let room = self.models.look(|catalog| catalog.room_from(excess, &stay));
        room.filter(|&room| excess > 0 && room > stay.now)
    }

    /// An order is carried out at once: who gave it knows why.
    fn stay<'a>(&self, name: &'a str, cause: Cause) -> Stay<'a> {
        let residency = if cause == Cause::Demand { self.settings().limits.model_residency_ms } else { 0 };
        Stay { except: name, now: self.clock().now(), residency: Duration::from_millis(residency) }
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
