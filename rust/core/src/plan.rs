//! The plan: the immutable description of what is served, swapped whole. Hot path.
//!
//! A loop reads the plan through an atomic pointer and sees the old one or the new one, never a mix. [`Version`]s are
//! shared between successive plans, so a swap costs nothing for those that stay.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use rapidhash::fast::RandomState;

use crate::error::{Error, Kind, Result, quoted};
use crate::failpoint;
use crate::version::Version;

/// Where a version is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Its file is read and checked.
    Loading,
    /// Its session runs probes: the batching proof, thread counts, service times.
    Warming,
    /// It answers.
    Ready,
    /// It finishes what it has; new requests go elsewhere.
    Draining,
    /// It is unloaded.
    Gone,
    /// It made room for others, or there was none for it yet; it is loaded when somebody asks for it.
    Evicted,
    /// It could not be loaded.
    Failed(String),
}

impl State {
    /// The state's word in logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            State::Loading => "loading",
            State::Warming => "warming",
            State::Ready => "ready",
            State::Draining => "draining",
            State::Gone => "gone",
            State::Evicted => "evicted",
            State::Failed(_) => "failed",
        }
    }
}

/// One version in the plan: its state and, once it is ready, itself.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Where it is in its life.
    pub state: State,
    /// What runs it; present while requests may reach it.
    pub version: Option<Arc<Version>>,
    /// Whether requests wait until it is loaded, instead of being told to come back.
    pub on_demand: bool,
}

/// One endpoint: a model's name and its versions.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    /// By version number.
    pub versions: BTreeMap<u64, Slot>,
    latest: Option<Arc<Version>>,
    /// Whether requests that name no version wait for one to be loaded.
    on_demand: bool,
}

impl Endpoint {
    /// An endpoint over these versions; callers that name none get the highest ready one.
    pub fn new(versions: BTreeMap<u64, Slot>) -> Self {
        let latest = versions.values().rev().find_map(|slot| slot.ready().cloned());
        let on_demand = versions.values().any(Slot::comes_on_demand);
        Self { versions, latest, on_demand }
    }

    /// The version for callers that name none.
    pub fn latest(&self) -> Option<&Arc<Version>> {
        self.latest.as_ref()
    }

    /// The versions that answer, by number.
    pub fn ready(&self) -> impl Iterator<Item = (u64, &Arc<Version>)> {
        self.versions.iter().filter_map(|(&number, slot)| Some((number, slot.ready()?)))
    }
}

impl Slot {
    /// A version that answers.
    pub fn serving(version: Arc<Version>) -> Self {
        Self { state: State::Ready, version: Some(version), on_demand: false }
    }

    /// A version that does not answer.
    pub fn not_serving(state: State) -> Self {
        let on_demand = state == State::Evicted;
        Self { state, version: None, on_demand }
    }

    /// Whether a request for it should wait.
    fn comes_on_demand(&self) -> bool {
        self.on_demand && matches!(self.state, State::Evicted | State::Loading | State::Warming)
    }

    fn ready(&self) -> Option<&Arc<Version>> {
        self.version.as_ref().filter(|_| self.state == State::Ready)
    }
}

/// Everything that is served.
#[derive(Clone, Default)]
pub struct Plan {
    /// Rises with every change.
    pub number: u64,
    endpoints: HashMap<Arc<str>, Arc<Endpoint>, RandomState>,
}

impl Plan {
    /// A plan over these endpoints.
    pub fn new(number: u64, endpoints: impl IntoIterator<Item = (String, Endpoint)>) -> Self {
        let endpoints = endpoints.into_iter().map(|(name, endpoint)| (name.into(), Arc::new(endpoint)));
        Self { number, endpoints: endpoints.collect() }
    }

    /// The plan that follows this one: with these endpoints instead, or without those that are `None`.
    pub fn next(&self, changed: impl IntoIterator<Item = (Arc<str>, Option<Endpoint>)>) -> Self {
        let mut endpoints = self.endpoints.clone();
        for (name, endpoint) in changed {
            match endpoint {
                Some(endpoint) => endpoints.insert(name, Arc::new(endpoint)),
                None => endpoints.remove(&name),
            };
        }
        Self { number: self.number + 1, endpoints }
    }

    /// Every endpoint, by name.
    pub fn endpoints(&self) -> impl Iterator<Item = (&str, &Endpoint)> {
        self.endpoints.iter().map(|(name, endpoint)| (&**name, &**endpoint))
    }

    /// The endpoint of this name.
    pub fn endpoint(&self, name: &str) -> Option<&Endpoint> {
        self.endpoints.get(name).map(|endpoint| &**endpoint)
    }

    /// The version that answers for `name`: `number`, or the latest.
    ///
    /// **Errors:** not found; known but not ready, with the reason.
    pub fn find(&self, name: &str, number: Option<u64>) -> Result<&Arc<Version>> {
        match self.look_up(name, number)? {
            Found::Ready(version) => Ok(version),
            Found::OnDemand => Err(not_loaded(name)),
        }
    }

    /// As [`Self::find`], for callers that can wait until a version is loaded.
    ///
    /// **Errors:** not found; known, but waiting will not help.
    pub fn look_up(&self, name: &str, number: Option<u64>) -> Result<Found<'_>> {
        failpoint!("plan", error => return Err(error));
        let Some(endpoint) = self.endpoint(name) else { return Err(unknown_model(name)) };
        let Some(number) = number else {
            return match &endpoint.latest {
                Some(version) => Ok(Found::Ready(version)),
                None if endpoint.on_demand => Ok(Found::OnDemand),
                None => Err(no_version(name, endpoint)),
            };
        };
        let slot = endpoint.versions.get(&number).ok_or_else(|| unknown_version(name, number))?;
        match slot.ready() {
            Some(version) => Ok(Found::Ready(version)),
            None if slot.comes_on_demand() => Ok(Found::OnDemand),
            None => Err(not_ready(name, number, &slot.state)),
        }
    }
}

/// Where a request can go.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// To this version.
    Ready(&'a Arc<Version>),
    /// Nowhere yet: a version will be loaded because it is asked for.
    OnDemand,
}

#[cold]
fn unknown_model(name: &str) -> Error {
    Error::new(Kind::NotFound, format!("Request for unknown model: '{}' is not found", quoted(name)))
}

#[cold]
fn unknown_version(name: &str, number: u64) -> Error {
    Error::new(Kind::NotFound, format!("Request for unknown model: '{name}' version {number} is not found"))
}

#[cold]
fn no_version(name: &str, endpoint: &Endpoint) -> Error {
    match endpoint.versions.iter().next_back() {
        Some((&number, slot)) if slot.state != State::Gone => not_ready(name, number, &slot.state),
        _ => Error::new(Kind::NotFound, format!("Request for unknown model: '{name}' has no available versions")),
    }
}

#[cold]
fn not_loaded(name: &str) -> Error {
    Error::new(Kind::NotReady, format!("model '{name}' is not loaded; it is being loaded now"))
}

#[cold]
fn not_ready(name: &str, number: u64, state: &State) -> Error {
    let detail = match state {
        State::Failed(_) => "failed to load; its reason is in the server's log",
        state => state.name(),
    };
    Error::new(Kind::NotReady, format!("model '{name}' version {number} is not at ready state: it is {detail}"))
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("number", &self.number).field("endpoints", &self.endpoints.len()).finish()
    }
}
