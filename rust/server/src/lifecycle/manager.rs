//! Carries out orders, one after the other, and follows the repository where it is told to.
//!
//! A version is never taken from callers before its successor answers: what is new is loaded beside what is old, one change
//! of the plan swaps them, and a load that fails changes nothing but the index, the log and the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use mlserve_core::clock::Clock;
use mlserve_core::config::{ModelControlMode, ModelSettings, Settings};
use mlserve_core::error::{Error, Kind};
use mlserve_core::version::Mailbox;
use mlserve_ort::{LoadError, Runtime};

use self::follow::Look;
use super::catalog::Model;
use super::load::LoadReport;
use super::print::Print;
use super::repository::{self, Found, Source};
use super::{Models, Order, Overrides, public, settings, upload};
use crate::model_config::{self, ConfigFile};
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
}

/// What is to be served of a model.
struct Offer {
    source: Source,
    config: Option<Arc<ConfigFile>>,
    settings: ModelSettings,
    print: Print,
    versions: Vec<Found>,
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
        Self { models: process.models.clone(), process, runtime, looked: BTreeMap::new(), told: Vec::new() }
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
            match self.offer(source, None) {
                Ok(offer) if self.has_room(&offer) => reports.extend(self.load(&offer, Cause::Start)),
                Ok(offer) => self.leave_out(&offer),
                Err(reason) => reports.push(self.fail(&name, &reason)),
            }
        }
        reports
    }

    /// Carries out orders until the server ends.
    pub(crate) fn run(&mut self, orders: &Receiver<Order>) {
        let server = &self.settings().server;
        let polls = server.model_control_mode == ModelControlMode::Poll;
        let interval = Duration::from_secs(server.repository_poll_secs);
        let mut next_look = self.clock().now() + interval;
        loop {
            let order = if polls {
                let left = next_look.saturating_duration_since(self.clock().now());
                orders.recv_timeout(left)
            } else {
                orders.recv().map_err(RecvTimeoutError::from)
            };
            match order {
                Ok(Order::Load { name, overrides, done }) => drop(done.send(self.load_by_order(&name, &overrides))),
                Ok(Order::Unload { name, done }) => self.unload(&name, move || drop(done.send(Ok(())))),
                Ok(Order::Wanted { name }) => self.load_on_demand(&name),
                Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    self.follow_repository();
                    next_look = self.clock().now() + interval;
                }
            }
        }
    }

    fn load_by_order(&mut self, name: &str, overrides: &Overrides) -> Result<(), Error> {
        // What the caller sent is the caller's to mend; what lies in the repository is not.
        let is_sent = overrides.config.is_some() || !overrides.files.is_empty();
        let kind = if is_sent { Kind::InvalidArgument } else { Kind::Internal };
        let failed = |reason: &str| Error::new(kind, format!("failed to load '{name}', {reason}"));
        let (source, uploaded) = if overrides.files.is_empty() {
            (repository::source(self.settings(), name)?, None)
        } else {
            let (source, folder) = upload::store(name, &overrides.files)?;
            (source, Some(folder))
        };
        let offer = self
            .offer(source.clone(), overrides.config.as_deref())
            .map_err(|reason| failed(&public(&reason, &source)))?;
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
            (model.source, model.uploaded, model.config) = (source, uploaded, overrides.config.clone());
        });
        Ok(())
    }

    fn load_on_demand(&mut self, name: &str) {
        let evicted = self.models.look(|catalog| {
            let model = catalog.get(name).filter(|model| model.is_evicted())?;
            Some((model.source.clone(), model.config.clone()))
        });
        // Otherwise it is there, or somebody was faster.
        let Some((source, config)) = evicted else { return };
        match self.offer(source, config.as_deref()) {
            Ok(offer) => drop(self.load(&offer, Cause::Demand)),
            Err(reason) => drop(self.fail(name, &reason)),
        }
    }

    /// What is to be served of `source` now; `config`: a configuration in the place of its `config.pbtxt`, as JSON.
    ///
    /// **Errors:** a text that names what is wrong with the configuration or the files.
    fn offer(&self, source: Source, config: Option<&str>) -> Result<Offer, String> {
        let own = if source.path.is_dir() { Print::of_files_in(&source.path) } else { Print::default() };
        let print = own.with(config.unwrap_or_default());
        let config = configuration(&source, config)?;
        let settings = settings::of_model(self.settings(), &source.name, config.as_deref())?;
        let file = config.as_ref().map(|config| config.model_file_name());
        let versions = repository::versions(&source, &settings, file)?;
        Ok(Offer { source, config, settings, print, versions })
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
            repository::within(&source.path.join(model_config::FILE), &source.root)?;
            ConfigFile::read(&source.path, &source.name)?
        }
        None => None,
    };
    Ok(config.map(Arc::new))
}
