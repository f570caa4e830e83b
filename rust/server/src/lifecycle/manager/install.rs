//! Loads what is offered and puts it into the plan, in the place of what was there.

use std::sync::Arc;
use std::time::Duration;

use mlserve_core::failpoint;
use mlserve_core::model::{ModelSpec, TensorSpec};
use mlserve_core::plan::{Slot, State};
use mlserve_core::tensor::ShapeText;
use mlserve_core::version::Version;

use super::{Cause, Manager, Offer};
use crate::lifecycle::catalog::{Entry, Model};
use crate::lifecycle::load::{Failure, Job, LoadReport, batching};
use crate::lifecycle::print::Print;
use crate::lifecycle::public;
use crate::lifecycle::repository::Found;

impl Manager {
    /// Loads what of `offer` is not loaded yet or has changed; then lets go what is not offered any more.
    pub(super) fn load(&mut self, offer: &Offer, cause: Cause) -> Vec<LoadReport> {
        let name = offer.source.name.as_str();
        for warning in offer.config.iter().flat_map(|config| config.warnings()) {
            tracing::warn!(model = name, warning, "a field of config.pbtxt has no effect");
        }
        for folder in &offer.left_out {
            let folder = folder.display();
            tracing::warn!(model = name, %folder, "a version's folder without a model is left out");
        }
        let due = self.models.look(|catalog| {
            let model = catalog.get(name);
            let changed = model.is_none_or(|model| model.print != offer.print);
            let is_due = |found: &&Found| {
                let entry = model.and_then(|model| model.versions.get(&found.version));
                let is_current = |entry: &Entry| {
                    entry.slot.version.is_some() && entry.print == found.print && entry.failed_reload.is_none()
                };
                changed || !entry.is_some_and(is_current)
            };
            offer.versions.iter().filter(is_due).cloned().collect::<Vec<Found>>()
        });
        let mut reports = Vec::with_capacity(due.len());
        let mut replaced = Vec::new();
        for found in &due {
            let (report, old) = self.load_version(offer, found, cause);
            replaced.extend(old);
            reports.push(report);
        }
        let has_failed = reports.iter().any(|report| report.result.is_err());
        let gone = self.let_go_of_others(offer, has_failed);
        let print = offer.print;
        self.models.change(|catalog| catalog.edit(name).map(|model| model.print = print));
        self.retire(name, replaced.into_iter().chain(gone).collect(), || ());
        reports
    }

    /// Loads one version and puts it in the place of the one that it replaces, which is returned.
    fn load_version(&mut self, offer: &Offer, found: &Found, cause: Cause) -> (LoadReport, Option<Arc<Version>>) {
        let name = offer.source.name.as_str();
        let begun = self.clock().now();
        let models = self.models.clone();
        let (serving, past, seen) = models.look(|catalog| {
            let model = catalog.get(name);
            let entry = model.and_then(|model| model.versions.get(&found.version));
            let serving = entry.filter(|entry| entry.slot.version.is_some()).map(|entry| entry.bytes);
            (serving, entry.and_then(Entry::past), model.map(Model::seen).unwrap_or_default())
        });
        let is_new = serving.is_none();
        let place = |state: State| {
            if is_new {
                let slot = Slot { on_demand: cause == Cause::Demand, ..Slot::not_serving(state) };
                let entry =
                    Entry { slot, past: past.clone(), ..Entry::not_serving(State::Loading, found.print, found.bytes) };
                models.change(|catalog| catalog.edit(name).map(|model| model.versions.insert(found.version, entry)));
            }
        };
        place(State::Loading);
        let job = Job {
            found,
            folder: &offer.source.path,
            roots: offer.source.roots(),
            config: offer.config.as_deref(),
            settings: &offer.settings,
            earlier: past.as_ref().map(|past| &past.stats),
            seen: &seen,
            in_background: cause == Cause::Change,
        };
        let room = self.make_room(name, found.bytes.saturating_sub(serving.unwrap_or(0)), cause);
        let result = room.map_err(Failure::from).and_then(|()| job.run(self, &mut || place(State::Warming)));
        self.note_readable(found, !result.as_ref().is_err_and(|failure| failure.may_pass));
        let result = result.map_err(|failure| failure.text);
        let took = self.clock().now().saturating_duration_since(begun);
        let report = LoadReport {
            found: found.clone(),
            result: result.as_ref().map(|version| batching(version)).map_err(Clone::clone),
            took,
        };
        log(&report, !is_new);
        let result = result.map_err(|reason| public(&reason, &offer.source));
        if result.is_ok() {
            self.process.configs.set(name, found.version, offer.config.clone());
        }
        failpoint!("install");
        let new = result.as_ref().ok().map(|version| signature(&version.spec));
        let old = self.settle(name, found, result);
        if let Some((before, now)) =
            old.as_ref().map(|old| signature(&old.spec)).zip(new).filter(|(old, new)| old != new)
        {
            let version = found.version;
            tracing::warn!(model = name, version, before, now, "replaced by a model with other inputs or outputs");
        }
        (report, old)
    }

    /// Puts the outcome of a load into the plan.
    fn settle(&self, name: &str, found: &Found, result: Result<Arc<Version>, String>) -> Option<Arc<Version>> {
        let now = self.clock().now();
        self.models.change(|catalog| {
            let model = catalog.edit(name)?;
            *(if result.is_ok() { &mut model.counts.ok } else { &mut model.counts.failed }) += 1;
            let present = model.versions.get_mut(&found.version)?;
            match result {
                Ok(version) => {
                    model.loaded = Some(now);
                    let slot = Slot::serving(version);
                    let entry = Entry { slot, ..Entry::not_serving(State::Ready, found.print, found.bytes) };
                    std::mem::replace(present, entry).slot.version
                }
                Err(reason) if present.slot.version.is_some() => {
                    // Not tried again before the files change anew.
                    present.print = found.print;
                    present.failed_reload = Some(format!("failed to reload: {reason}"));
                    None
                }
                Err(reason) => {
                    let past = present.past();
                    *present = Entry { past, ..Entry::not_serving(State::Failed(reason), found.print, found.bytes) };
                    None
                }
            }
        })
    }

    /// A model of which not even the versions are known.
    pub(super) fn fail(&mut self, name: &str, reason: &str) -> LoadReport {
        let source = self.models.look(|catalog| catalog.get(name).map(|model| model.source.clone()));
        let public = source.map_or_else(|| reason.to_owned(), |source| public(reason, &source));
        let found = Found { name: name.to_owned(), version: 1, path: name.into(), bytes: 0, print: Print::default() };
        tracing::error!(model = name, reason, "model failed to load");
        self.models.change(|catalog| {
            let Some(model) = catalog.edit(name) else { return };
            model.counts.failed += 1;
            // What serves, serves on.
            model.versions.retain(|_, entry| entry.slot.version.is_some());
            if model.versions.is_empty() {
                let failed = Entry::not_serving(State::Failed(public), found.print, 0);
                model.versions.insert(found.version, failed);
            }
        });
        LoadReport { found, result: Err(reason.to_owned()), took: Duration::ZERO }
    }
}

/// What callers have to know of a model: names, types and shapes.
fn signature(spec: &ModelSpec) -> String {
    let tensors = |specs: &[TensorSpec]| {
        let text = |spec: &TensorSpec| format!("{} {}{}", spec.name, spec.datatype.name(), ShapeText(&spec.shape));
        specs.iter().map(text).collect::<Vec<_>>().join(", ")
    };
    format!("({}) -> ({})", tensors(&spec.inputs), tensors(&spec.outputs))
}

fn log(report: &LoadReport, is_reload: bool) {
    let LoadReport { found, result, took } = report;
    let load_ms = took.as_millis() as u64;
    let (model, version) = (&found.name, found.version);
    match result {
        Ok(batching) => tracing::info!(model, version, load_ms, batching, "model is ready"),
        Err(reason) if is_reload => {
            tracing::error!(
                model,
                version,
                load_ms,
                reason,
                "model failed to reload; what was loaded before serves on"
            );
        }
        Err(reason) => tracing::error!(model, version, load_ms, reason, "model failed to load"),
    }
}
