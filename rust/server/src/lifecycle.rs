//! How models come and go: from a repository on disk into the plan, and out of it again.
//!
//! [`Models`] takes orders, from the protocol's repository extension, from requests for models that are not loaded, and
//! from Python. One thread ([`manager`]) carries them out one after the other, because warm-up measures run times and two
//! at once would spoil both: it finds the files ([`repository`]), loads them ([`load`]), keeps the [`catalog`] of what there
//! is, and publishes it as the plan. What is replaced or unloaded is drained beside it ([`drain`]).

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use mlserve_core::config::{ModelControlMode, Settings};
use mlserve_core::error::{Error, Kind, Result};
use mlserve_core::park::Demand;
use mlserve_core::plan::{Found, Plan};
use mlserve_core::version::{Mailbox, Version};
use parking_lot::Mutex;
use tokio::sync::watch;

use self::catalog::{Catalog, LoadCounts};
use self::orders::{Callers, Inbox, Order, Orders};
use self::repository::Source;
use self::upload::{Quota, Share};

pub(crate) mod announce;
pub(crate) mod catalog;
mod drain;
mod load;
pub(crate) mod manager;
pub(crate) mod orders;
mod print;
pub(crate) mod repository;
mod settings;
mod upload;
mod warmup;

pub use load::{LoadReport, Startup};
pub use repository::Found as FoundVersion;

/// What a load brings along instead of what is on disk.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    /// The model's configuration, as JSON.
    pub(crate) config: Option<String>,
    /// Files by their path in the model's folder, `1/model.onnx` for example; none: those on disk.
    pub(crate) files: Vec<(String, Bytes)>,
    /// What the files hold of the quota, once they were let in.
    pub(crate) share: Option<Share>,
}

/// The models of a server: what there is, and who changes it. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Models(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    mode: ModelControlMode,
    orders: Arc<Orders>,
    catalog: Mutex<Catalog>,
    plan: Arc<ArcSwap<Plan>>,
    mailboxes: Arc<[Arc<dyn Mailbox>]>,
    changes: watch::Sender<u64>,
}

impl Models {
    /// No models yet, and the orders that a manager is to carry out. `mailboxes`: one per event loop.
    pub(crate) fn new(
        settings: &Settings,
        plan: Arc<ArcSwap<Plan>>,
        mailboxes: Arc<[Arc<dyn Mailbox>]>,
    ) -> (Self, Inbox) {
        let orders = Arc::new(Orders::new(Arc::new(Quota::new(settings.limits.upload_bytes as u64))));
        let inbox = Inbox(Arc::clone(&orders));
        let inner = Inner {
            mode: settings.server.model_control_mode,
            orders,
            catalog: Mutex::default(),
            plan,
            mailboxes,
            changes: watch::Sender::new(0),
        };
        (Self(Arc::new(inner)), inbox)
    }

    /// Loads a model, or what of it has changed; returns once it serves.
    ///
    /// **Errors:** not in explicit mode; no such model; too many orders or files; it cannot be loaded, and what was loaded
    /// before serves on.
    pub(crate) async fn load(&self, name: &str, mut overrides: Overrides) -> Result<()> {
        let name = self.checked(name)?;
        if !overrides.files.is_empty() {
            overrides.share = Some(self.0.orders.quota.take(&overrides.files)?);
        }
        self.order(Order::Load { name, overrides, callers: Callers::default() }).await
    }

    /// Unloads a model; returns once everything in flight is answered. One that is not loaded is left alone.
    ///
    /// **Errors:** not in explicit mode; no name for a model; too many orders.
    pub(crate) async fn unload(&self, name: &str) -> Result<()> {
        let name = self.checked(name)?;
        self.order(Order::Unload { name, callers: Callers::default() }).await
    }

    /// The version that answers, once it is loaded if it is loaded on demand.
    ///
    /// **Errors:** as [`Plan::find`]; the deadline passed.
    pub(crate) async fn find(
        &self,
        name: &str,
        number: Option<u64>,
        deadline: Option<Instant>,
    ) -> Result<Arc<Version>> {
        let mut changes = self.0.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if let Found::Ready(version) = self.0.plan.load().look_up(name, number)? {
                return Ok(Arc::clone(version));
            }
            self.wanted(name, number);
            let next = changes.changed();
            let in_time = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline.into(), next).await.is_ok(),
                None => next.await.is_ok(),
            };
            if !in_time {
                let text = format!("the deadline passed before model '{name}' was loaded");
                return Err(Error::new(Kind::DeadlineExceeded, text));
            }
        }
    }

    /// What there is, loaded or not, by name and version.
    pub(crate) fn index(&self) -> Vec<catalog::Indexed> {
        self.0.catalog.lock().index()
    }

    /// What happened to each model, and the bytes of it that are loaded, by name.
    pub(crate) fn counts(&self) -> Vec<(String, LoadCounts, u64)> {
        let catalog = self.0.catalog.lock();
        catalog.iter().map(|(name, model)| (name.to_owned(), model.counts, model.loaded_bytes())).collect()
    }

    /// Lets the manager end.
    pub(crate) fn end(&self) {
        self.0.orders.end();
    }

    /// Deletes the files that came with loads, for the end of the process.
    pub(crate) fn discard_uploads(&self) {
        self.0.orders.quota.discard();
    }

    /// Forgets all models, for the end of the server; returns what served.
    pub(crate) fn take_all(&self) -> Vec<Arc<Version>> {
        self.change(|catalog| {
            let names: Vec<String> = catalog.iter().map(|(name, _)| name.to_owned()).collect();
            let models = names.iter().filter_map(|name| catalog.remove(name)).collect::<Vec<_>>();
            models.iter().flat_map(|model| model.serving().map(|(_, version)| Arc::clone(version))).collect()
        })
    }

    /// Changes the catalog and publishes it as the next plan: every loop sees the old one or the new one, never a mix.
    fn change<T>(&self, change: impl FnOnce(&mut Catalog) -> T) -> T {
        let mut catalog = self.0.catalog.lock();
        let result = change(&mut catalog);
        let plan = self.0.plan.load();
        let next = plan.next(catalog.take_changed());
        let number = next.number;
        self.0.plan.store(Arc::new(next));
        drop(catalog);
        self.0.mailboxes.iter().for_each(|mailbox| mailbox.plan_changed());
        self.0.changes.send_replace(number);
        result
    }

    /// Looks at the catalog.
    fn look<T>(&self, look: impl FnOnce(&Catalog) -> T) -> T {
        look(&self.0.catalog.lock())
    }

    /// Checks whether models are loaded and unloaded by whoever asks.
    ///
    /// **Errors:** not in explicit mode.
    pub(crate) fn check_mode(&self) -> Result<()> {
        if self.0.mode == ModelControlMode::Explicit {
            return Ok(());
        }
        // Triton's text, which its scripts match on, and what to do.
        Err(Error::new(
            Kind::ModelControl,
            "explicit model load / unload is not allowed if polling is enabled; start the server with \
             --model-control-mode explicit",
        ))
    }

    /// Checks whether `name` may be loaded and unloaded by request, before a body is read.
    ///
    /// **Errors:** not in explicit mode; no name for a model.
    pub(crate) fn check_name(&self, name: &str) -> Result<()> {
        self.check_mode()?;
        repository::check_name(name).map_err(Error::invalid)
    }

    fn checked(&self, name: &str) -> Result<String> {
        self.check_name(name).map(|()| name.to_owned())
    }

    async fn order(&self, order: Order) -> Result<()> {
        let outcome = self.0.orders.order(order)?;
        outcome.await.unwrap_or_else(|_| Err(orders::ended()))
    }
}

/// A reason without the paths that only this machine knows: relative to the repository or the folder of `source`.
pub(crate) fn public(reason: &str, source: &Source) -> String {
    reason.replace(&format!("{}/", source.folder().display()), "")
}

impl Demand for Models {
    fn wanted(&self, model: &str, _version: Option<u64>) {
        self.0.orders.want(model);
    }
}
