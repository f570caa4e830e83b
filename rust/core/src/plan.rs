//! The plan: the immutable description of what is served, swapped whole. Hot path.
//!
//! A loop reads the plan through an atomic pointer and sees the old one or the new one, never a mix. [`Version`]s are
//! shared between successive plans, so a swap costs nothing for those that stay.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use rapidhash::fast::RandomState;

use crate::error::{Error, Kind, Result, quoted};
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
            State::Failed(_) => "failed",
        }
    }

    /// Whether nothing more will happen by itself: ready or failed.
    pub fn is_settled(&self) -> bool {
        matches!(self, State::Ready | State::Failed(_) | State::Gone)
    }
}

/// One version in the plan: its state and, once it is ready, itself.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Where it is in its life.
    pub state: State,
    /// What runs it; present while requests may reach it.
    pub version: Option<Arc<Version>>,
}

/// One endpoint: a model's name and its versions.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    /// By version number.
    pub versions: BTreeMap<u64, Slot>,
    latest: Option<Arc<Version>>,
}

impl Endpoint {
    /// An endpoint over these versions; callers that name none get the highest ready one.
    pub fn new(versions: BTreeMap<u64, Slot>) -> Self {
        let latest = versions.values().rev().find_map(|slot| slot.ready().cloned());
        Self { versions, latest }
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
    fn ready(&self) -> Option<&Arc<Version>> {
        self.version.as_ref().filter(|_| self.state == State::Ready)
    }
}

/// Everything that is served.
#[derive(Clone, Default)]
pub struct Plan {
    /// Rises with every change.
    pub number: u64,
    endpoints: HashMap<Box<str>, Endpoint, RandomState>,
}

impl Plan {
    /// A plan over these endpoints.
    pub fn new(number: u64, endpoints: impl IntoIterator<Item = (String, Endpoint)>) -> Self {
        Self { number, endpoints: endpoints.into_iter().map(|(name, endpoint)| (name.into(), endpoint)).collect() }
    }

    /// Every endpoint, by name.
    pub fn endpoints(&self) -> impl Iterator<Item = (&str, &Endpoint)> {
        self.endpoints.iter().map(|(name, endpoint)| (&**name, endpoint))
    }

    /// The endpoint of this name.
    pub fn endpoint(&self, name: &str) -> Option<&Endpoint> {
        self.endpoints.get(name)
    }

    /// The version that answers for `name`: `number`, or the latest.
    ///
    /// **Errors:** not found; known but not ready, with the reason.
    pub fn find(&self, name: &str, number: Option<u64>) -> Result<&Arc<Version>> {
        let Some(endpoint) = self.endpoint(name) else { return Err(unknown_model(name)) };
        let Some(number) = number else {
            return endpoint.latest().ok_or_else(|| no_version(name, endpoint));
        };
        let slot = endpoint.versions.get(&number).ok_or_else(|| unknown_version(name, number))?;
        slot.ready().ok_or_else(|| not_ready(name, number, &slot.state))
    }
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
