//! Carries out orders, one after the other, and follows the repository where it is told to.
//!
//! A version is never taken from callers before its successor answers: what is new is loaded beside what is old, one change
//! of the plan swaps them, and a load that fails changes nothing but the index, the log and the metrics.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlserve_core::clock::Clock;
use mlserve_core::config::{ModelControlMode, ModelSettings, Settings};
use mlserve_core::error::{Error, Kind};
use mlserve_core::plan::State;
use mlserve_core::version::Mailbox;
use mlserve_ort::{LoadError, Runtime};

use self::follow::Look;
use super::catalog::{Entry, Model};
use super::load::{LoadReport, PANICKED};
use super::orders::{Callers, Inbox, Next, Order};
use super::print::Print;
use super::repository::{self, Found, Source, Versions};
use super::{Models, Overrides, public, settings, upload};
use crate::model_config::{self, ConfigFile};
use crate::panics::{self, Place};
use crate::process::Process;
use crate::status::Phase;

mod follow;
mod install;
mod leave;
mod room;

/// Loads and unloads models.
pub(crate) struct Manager {
    process: Arc<Process>,
    models: Models,
    /// ONNX Runtime, or why there is none.
    pub(super) runtime: Result<Arc<Runtime>, LoadError>,
    /// What the last look at the repository found of each model: a change is believed once two looks agree.
    looked: BTreeMap<String, Look>,
    /// Problems of the repository that were told already.
    told: Vec<String>,
    /// The odd entries that the last look found.
    odd: BTreeMap<String, String>,
    /// The files that the last look left alone.
    left_alone: BTreeSet<String>,
    /// Versions that could not be read when they were to be loaded.
    unreadable: BTreeSet<(String, u64)>,
    /// Models that are asked for and for which there is no room yet: from when on there may be, in the order of asking.
    postponed: Vec<(Instant, String)>,
}

/// What is to be served of a model.
struct Offer {
    source: Source,
    config: Option<Arc<ConfigFile>>,
    settings: ModelSettings,
    print: Print,
    versions: Vec<Found>,
    /// Folders that are named like versions and hold no model.
    left_out: Vec<PathBuf>,
}

/// Why a model is loaded, which decides what is loaded and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The server starts: nothing is served yet.
    Start,
    /// Somebody ordered it, or its files changed.
    Change,
    /// Requests wait for it.
    Demand,
}

impl Manager {
    /// A manager of the models of `process`. To be made on a thread of normal priority.
    pub(crate) fn new(process: Arc<Process>, runtime: Result<Arc<Runtime>, LoadError>) -> Self {
        let models = process.models.clone();
        let (odd, left_alone) = models.look(|catalog| (catalog.odd.clone(), catalog.left_alone.clone()));
        Self {
            models,
            process,
            runtime,
            looked: BTreeMap::new(),
            told: Vec::new(),
            odd,
            left_alone,
            unreadable: BTreeSet::new(),
            postponed: Vec::new(),
        }
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.process.clock
    }

    pub(super) fn mailboxes(&self) -> Arc<[Arc<dyn Mailbox>]> {
        Arc::clone(&self.models.0.mailboxes)
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.process.settings
    }

    /// Loads what is announced, pinned models first. Models for which there is no room stay evicted.
    pub(crate) fn load_announced(&mut self) -> Vec<LoadReport> {
        let mut names = self.models.look(|catalog| {
            let named = catalog.iter().filter(|(_, model)| !model.versions.is_empty());
            named.map(|(name, model)| (!model.is_pinned, name.to_owned())).collect::<Vec<_>>()
        });
        names.sort();
        let mut reports = Vec::new();
        for (_, name) in names {
            if self.process.status.phase() >= Phase::Closing {
                break;
            }
            let Some(source) = self.models.look(|catalog| catalog.get(&name).map(|model| model.source.clone())) else {
                continue;
            };
            let loaded = self.guarded(Some(&name), |manager| manager.load_one_announced(&name, source));
            reports.extend(loaded.unwrap_or_default());
        }
        reports
    }

    fn load_one_announced(&mut self, name: &str, source: Source) -> Vec<LoadReport> {
        match self.offer(source, None) {
            Ok(offer) if self.has_room(&offer) => self.load(&offer, Cause::Start),
            Ok(offer) => {
                self.leave_out(&offer);
                Vec::new()
            }
            Err(reason) => vec![self.fail(name, &reason)],
        }
    }

    /// Deletes what servers that died have left behind, where there could be such things.
    pub(crate) fn clear_left_behind(&self) {
        if self.settings().server.model_control_mode == ModelControlMode::Explicit {
            upload::clear_left_behind();
        }
    }

    /// Carries out orders until the server ends.
    pub(crate) fn run(&mut self, inbox: &Inbox) {
        let server = &self.settings().server;
        let polls = server.model_control_mode == ModelControlMode::Poll;
        let interval = Duration::from_secs(server.repository_poll_secs);
        let mut next_look = polls.then(|| self.clock().now() + interval);
        loop {
            let next_room = self.postponed.iter().map(|&(room, _)| room).min();
            match inbox.next(next_look.into_iter().chain(next_room).min()) {
                Next::Order(order) => self.carry_out(order),
                Next::Late => {}
                Next::End => return,
            }
            // Also if orders come without a pause.
            if next_look.is_some_and(|look| look <= self.clock().now()) {
                self.guarded(None, Self::follow_repository).unwrap_or_default();
                next_look = Some(self.clock().now() + interval);
            }
            self.load_postponed();
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Load { name, overrides, callers } => {
                let loaded = self.guarded(Some(&name), |manager| manager.load_by_order(&name, overrides));
                callers.answer(
                    &loaded.unwrap_or_else(|| Err(Error::internal(format!("failed to load '{name}', {PANICKED}")))),
                );
            }
            Order::Unload { name, callers } => self.unload_by_order(&name, callers),
            Order::Wanted { name } => self.load_on_demand(&name),
        }
    }

    fn load_by_order(&mut self, name: &str, overrides: Overrides) -> Result<(), Error> {
        let Overrides { config, files, share } = overrides;
        // What the caller sent is the caller's to mend; what lies in the repository is not.
        let kind = if config.is_some() || share.is_some() { Kind::InvalidArgument } else { Kind::Internal };
        let failed = |reason: &str| Error::new(kind, format!("failed to load '{name}', {reason}"));
        let (source, uploaded) = match share {
            None => (repository::source(self.settings(), name)?, None),
            Some(share) => {
                let (source, upload) = upload::store(name, &files, share)?;
                (source, Some(upload))
            }
        };
        drop(files);
        let offer =
            self.offer(source.clone(), config.as_deref()).map_err(|reason| failed(&public(&reason, &source)))?;
        let pin = self.is_pinned(name);
        self.models.change(|catalog| {
            if catalog.get(name).is_none() {
                catalog.put(Model::new(source.clone(), pin));
            }
        });
        let reports = self.load(&offer, Cause::Change);
        let reasons = reports.iter().filter_map(|report| {
            let reason = public(report.result.as_ref().err()?, &source);
            Some(format!("version {} is at UNAVAILABLE state: {reason}", report.found.version))
        });
        let reasons: Vec<String> = reasons.collect();
        if !reasons.is_empty() {
            return Err(failed(&reasons.join("; ")));
        }
        // Only now: what serves on after a failed load is loaded from where it came from, should it be evicted.
        self.models.change(|catalog| {
            let Some(model) = catalog.edit(name) else { return };
            (model.source, model.uploaded, model.config) = (source, uploaded, config);
        });
        Ok(())
    }

    /// Unloads a model, and forgets the files that came with its load.
    fn unload_by_order(&mut self, name: &str, callers: Callers) {
        let (models, gone) = (self.models.clone(), name.to_owned());
        let uploaded = models.look(|catalog| catalog.get(name).and_then(|model| model.uploaded.clone()));
        self.unload(name, move || {
            models.change(|catalog| {
                // It may have been loaded again while it was drained.
                let is_same = |model: &&mut Model| match (&model.uploaded, &uploaded) {
                    (Some(present), Some(before)) => Arc::ptr_eq(present, before),
                    _ => false,
                };
                if let Some(model) = catalog.edit(&gone).filter(is_same) {
                    (model.uploaded, model.config) = (None, None);
                }
            });
            drop(uploaded);
            callers.answer(&Ok(()));
        });
    }

    fn load_on_demand(&mut self, name: &str) {
        let evicted = self.models.look(|catalog| {
            let model = catalog.get(name).filter(|model| model.is_evicted())?;
            Some((model.source.clone(), model.config.clone()))
        });
        // Otherwise it is there, or somebody was faster.
        let Some((source, config)) = evicted else { return };
        let load = |manager: &mut Self| match manager.offer(source, config.as_deref()) {
            Ok(offer) => match manager.room_later(&offer) {
                Some(room) => manager.postpone(room, name),
                None => drop(manager.load(&offer, Cause::Demand)),
            },
            Err(reason) => drop(manager.fail(name, &reason)),
        };
        self.guarded(Some(name), load).unwrap_or_default();
    }

    /// Has a model loaded once there may be room for it. Its requests wait meanwhile, within their deadlines.
    fn postpone(&mut self, room: Instant, name: &str) {
        if !self.postponed.iter().any(|(_, other)| other == name) {
            self.postponed.push((room, name.to_owned()));
        }
    }

    /// Loads what was postponed until now, in the order in which it was asked for.
    fn load_postponed(&mut self) {
        let now = self.clock().now();
        let (due, later) = std::mem::take(&mut self.postponed).into_iter().partition(|&(room, _)| room <= now);
        self.postponed = later;
        let due: Vec<(Instant, String)> = due;
        for (_, name) in &due {
            self.load_on_demand(name);
        }
    }

    /// Does `work`; a panic ends only that, and with it what is being loaded of the model `name`.
    fn guarded<T>(&mut self, name: Option<&str>, work: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(|| work(self)));
        done.map_err(|payload| {
            self.note_panic(&*payload);
            self.give_up(name.unwrap_or_default());
        })
        .ok()
    }

    /// Counts a panic in what the manager does, and says so.
    pub(super) fn note_panic(&self, payload: &(dyn Any + Send)) {
        self.process.panics.note(Place::Manager, &panics::text(payload));
    }

    /// Nobody loads any more what is marked as being loaded.
    fn give_up(&self, name: &str) {
        let is_loading = |entry: &Entry| matches!(entry.slot.state, State::Loading | State::Warming);
        self.models.change(|catalog| {
            let Some(model) = catalog.edit(name) else { return };
            for entry in model.versions.values_mut().filter(|entry| is_loading(entry)) {
                model.counts.failed += 1;
                entry.take_out(State::Failed(PANICKED.to_owned()));
            }
        });
    }

    /// What is to be served of `source` now; `config`: a configuration in the place of its `config.pbtxt`, as JSON.
    ///
    /// **Errors:** a text that names what is wrong with the configuration or the files.
    fn offer(&self, source: Source, config: Option<&str>) -> Result<Offer, String> {
        if let Some(fault) = source.fault {
            return Err(fault);
        }
        let own = if source.path.is_dir() { Print::of_files_in(&source.path) } else { Print::default() };
        let print = own.with(config.unwrap_or_default());
        let config = configuration(&source, config)?;
        let settings = settings::of_model(self.settings(), &source.name, config.as_deref())?;
        let file = config.as_ref().map(|config| config.model_file_name());
        let Versions { found: versions, left_out } = repository::versions(&source, &settings, file)?;
        Ok(Offer { source, config, settings, print, versions, left_out })
    }

    fn is_pinned(&self, name: &str) -> bool {
        self.settings().models.get(name).is_some_and(|model| model.pin)
    }
}

/// The configuration of `source`: what came with the load, else its `config.pbtxt`.
fn configuration(source: &Source, sent: Option<&str>) -> Result<Option<Arc<ConfigFile>>, String> {
    let config = match sent {
        Some(text) => Some(ConfigFile::from_json(text, &source.name)?),
        None if source.path.is_dir() => {
            source.roots().check(&source.path.join(model_config::FILE))?;
            ConfigFile::read(&source.path, &source.name)?
        }
        None => None,
    };
    Ok(config.map(Arc::new))
}
