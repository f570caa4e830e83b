//! Takes versions out of the plan and ends them.

use std::sync::Arc;
use std::time::Duration;

use mlserve_core::plan::{Slot, State};
use mlserve_core::version::Version;

use super::{Manager, Offer};
use crate::lifecycle::catalog::Entry;
use crate::lifecycle::drain::Drain;

impl Manager {
    pub(super) fn unload(&mut self, name: &str, then: impl FnOnce() + Send + 'static) {
        let versions =
            self.take_out(name, |entry| Some(if entry.slot.version.is_some() { State::Draining } else { State::Gone }));
        self.looked.remove(name);
        self.retire(name, versions, then);
    }

    /// Takes the versions out of the plan for which `state` gives a state; returns what served.
    pub(super) fn take_out(&self, name: &str, state: impl Fn(&Entry) -> Option<State>) -> Vec<Arc<Version>> {
        self.models.change(|catalog| {
            let Some(model) = catalog.edit(name) else { return Vec::new() };
            let mut versions = Vec::new();
            for entry in model.versions.values_mut() {
                if let Some(state) = state(entry) {
                    versions.extend(entry.take_out(state));
                }
            }
            versions
        })
    }

    /// Takes versions out that `offer` does not have any more; with `keeps_serving` not those that answer.
    pub(super) fn let_go_of_others(&self, offer: &Offer, keeps_serving: bool) -> Vec<Arc<Version>> {
        let is_offered = |number: u64| offer.versions.iter().any(|found| found.version == number);
        self.models.change(|catalog| {
            let Some(model) = catalog.edit(&offer.source.name) else { return Vec::new() };
            let mut versions = Vec::new();
            model.versions.retain(|&number, entry| {
                if is_offered(number) || (keeps_serving && entry.slot.version.is_some()) {
                    return true;
                }
                let Some(version) = entry.take_out(State::Draining) else { return false };
                versions.push(version);
                true
            });
            versions
        })
    }

    /// Drains versions that have left the plan, beside the manager; what is marked as draining is gone then.
    pub(super) fn retire(&self, name: &str, versions: Vec<Arc<Version>>, then: impl FnOnce() + Send + 'static) {
        if versions.is_empty() {
            return then();
        }
        let (models, name) = (self.models.clone(), name.to_owned());
        let drained = move || {
            models.change(|catalog| {
                let Some(model) = catalog.edit(&name) else { return };
                let draining = model.versions.iter_mut().filter(|(_, entry)| entry.slot.state == State::Draining);
                for (version, entry) in draining {
                    tracing::info!(model = name, version, "unloaded: every request in flight was answered");
                    entry.slot = Slot::not_serving(State::Gone);
                }
            });
            then();
        };
        let patience = Duration::from_millis(self.settings().server.drain_timeout_ms);
        if let Err(error) = self.drain(versions, patience).start(drained) {
            tracing::error!(%error, "no thread could be started for draining; memory comes back with the last request");
        }
    }

    pub(super) fn drain(&self, versions: Vec<Arc<Version>>, patience: Duration) -> Drain {
        Drain { versions, clock: self.clock().clone(), patience }
    }
}
