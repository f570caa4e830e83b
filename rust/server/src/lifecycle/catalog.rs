//! What models there are, in which state, and which of them would go first. Pure: no files, no threads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use mlserve_core::plan::{Endpoint, Slot, State};
use mlserve_core::stats::Stats;
use mlserve_core::tensor::Shape;
use mlserve_core::version::Version;
use tempfile::TempDir;

use super::print::Print;
use super::repository::Source;

/// A model that is known.
#[derive(Debug)]
pub(crate) struct Model {
    /// Where its files are.
    pub(crate) source: Source,
    /// Its files, if they came with the load; the folder goes with the last of them.
    pub(crate) uploaded: Option<Arc<TempDir>>,
    /// The configuration that came with the load.
    pub(crate) config: Option<String>,
    /// Never evicted.
    pub(crate) is_pinned: bool,
    /// Of its configuration and labels, as last applied.
    pub(crate) print: Print,
    /// When it was last loaded.
    pub(crate) loaded: Option<Instant>,
    /// How often what happened to it.
    pub(crate) counts: LoadCounts,
    /// By number.
    pub(crate) versions: BTreeMap<u64, Entry>,
}

/// How often a model's versions were loaded, failed to, and were evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LoadCounts {
    /// Loads that went well.
    pub(crate) ok: u64,
    /// Loads that failed.
    pub(crate) failed: u64,
    /// Evictions.
    pub(crate) evicted: u64,
}

/// A version of a known model.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its place in the plan.
    pub(crate) slot: Slot,
    /// Of the files that were loaded, or failed to.
    pub(crate) print: Print,
    /// Bytes of these files.
    pub(crate) bytes: u64,
    /// Why these files could not take the place of the version that serves on.
    pub(crate) failed_reload: Option<String>,
    /// What is left of what was loaded before.
    pub(crate) past: Option<Past>,
}

/// What outlives a version object, for the next one of the same number.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    /// What was counted, so that counters do not fall.
    pub(crate) stats: Arc<Stats>,
    /// The shapes that requests had.
    pub(crate) seen: Vec<Vec<Shape>>,
}

impl Past {
    fn of(version: &Version) -> Self {
        Self { stats: Arc::clone(&version.stats), seen: version.seen.list() }
    }
}

/// A line of the repository's index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Indexed {
    /// The model's name.
    pub(crate) name: String,
    /// `None`: the model has never been loaded.
    pub(crate) version: Option<u64>,
    /// Triton's word: READY, UNAVAILABLE, LOADING, UNLOADING; empty if it has never been loaded.
    pub(crate) state: &'static str,
    /// Why it is in this state, where that needs saying.
    pub(crate) reason: String,
}

/// The models of a server.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    models: BTreeMap<Arc<str>, Model>,
    changed: BTreeSet<Arc<str>>,
}

impl Entry {
    /// A version in a state in which it does not answer.
    pub(crate) fn not_serving(state: State, print: Print, bytes: u64) -> Self {
        Self { slot: Slot::not_serving(state), print, bytes, failed_reload: None, past: None }
    }

    /// What the next version of this number is to know.
    pub(crate) fn past(&self) -> Option<Past> {
        self.slot.version.as_deref().map(Past::of).or_else(|| self.past.clone())
    }

    /// Takes the version out and leaves `state` behind.
    pub(crate) fn take_out(&mut self, state: State) -> Option<Arc<Version>> {
        let past = self.past();
        let version = self.slot.version.take();
        *self = Self { past, ..Self::not_serving(state, self.print, self.bytes) };
        version
    }

    fn is_loaded(&self) -> bool {
        self.slot.version.is_some()
    }

    fn indexed(&self) -> (&'static str, String) {
        match &self.slot.state {
            State::Loading | State::Warming => ("LOADING", String::new()),
            State::Ready => ("READY", self.failed_reload.clone().unwrap_or_default()),
            State::Draining => ("UNLOADING", String::new()),
            State::Gone => ("UNAVAILABLE", "unloaded".to_owned()),
            State::Evicted => ("UNAVAILABLE", "evicted: the next request loads it".to_owned()),
            State::Failed(reason) => ("UNAVAILABLE", format!("failed to load: {reason}")),
        }
    }
}

impl Model {
    /// A model of which nothing is loaded.
    pub(crate) fn new(source: Source, is_pinned: bool) -> Self {
        Self {
            source,
            uploaded: None,
            config: None,
            is_pinned,
            print: Print::default(),
            loaded: None,
            counts: LoadCounts::default(),
            versions: BTreeMap::new(),
        }
    }

    /// Bytes of the files that are loaded.
    pub(crate) fn loaded_bytes(&self) -> u64 {
        self.versions.values().filter(|entry| entry.is_loaded()).map(|entry| entry.bytes).sum()
    }

    /// Whether a request would have it loaded.
    pub(crate) fn is_evicted(&self) -> bool {
        self.versions.values().any(|entry| entry.slot.state == State::Evicted)
    }

    /// Whether all of it is unloaded.
    pub(crate) fn is_gone(&self) -> bool {
        self.versions.values().all(|entry| entry.slot.state == State::Gone)
    }

    /// What serves now.
    pub(crate) fn serving(&self) -> impl Iterator<Item = (u64, &Arc<Version>)> {
        self.versions.iter().filter_map(|(&number, entry)| Some((number, entry.slot.version.as_ref()?)))
    }

    /// The shapes that requests for any of its versions had.
    pub(crate) fn seen(&self) -> Vec<Vec<Shape>> {
        let pasts = self.versions.values().rev().filter_map(Entry::past);
        pasts.map(|past| past.seen).find(|seen| !seen.is_empty()).unwrap_or_default()
    }

    /// When it was last asked something, or else loaded.
    fn last_used(&self) -> Option<Instant> {
        self.serving().filter_map(|(_, version)| version.stats.last_used()).chain(self.loaded).max()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new(self.versions.iter().map(|(&number, entry)| (number, entry.slot.clone())).collect())
    }
}

impl Catalog {
    /// The model of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Model> {
        self.models.get(name)
    }

    /// The model of this name, which changes.
    pub(crate) fn edit(&mut self, name: &str) -> Option<&mut Model> {
        let (name, _) = self.models.get_key_value(name)?;
        let name = Arc::clone(name);
        self.changed.insert(Arc::clone(&name));
        self.models.get_mut(&name)
    }

    /// Takes a model in, or replaces it.
    pub(crate) fn put(&mut self, model: Model) -> &mut Model {
        let name: Arc<str> = model.source.name.as_str().into();
        self.changed.insert(Arc::clone(&name));
        self.models.insert(Arc::clone(&name), model);
        self.models.get_mut(&name).expect("just inserted")
    }

    /// Forgets a model.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Model> {
        let (name, model) = self.models.remove_entry(name)?;
        self.changed.insert(name);
        Some(model)
    }

    /// Every model.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Model)> {
        self.models.iter().map(|(name, model)| (&**name, model))
    }

    /// The endpoints that changed since the last call; `None` for those that are gone.
    pub(crate) fn take_changed(&mut self) -> Vec<(Arc<str>, Option<Endpoint>)> {
        let changed = std::mem::take(&mut self.changed).into_iter();
        changed.map(|name| (Arc::clone(&name), self.models.get(&name).map(Model::endpoint))).collect()
    }

    /// Bytes of all files that are loaded.
    pub(crate) fn loaded_bytes(&self) -> u64 {
        self.models.values().map(Model::loaded_bytes).sum()
    }

    /// The loaded model that was not used for the longest time, pinned ones and `except` left aside.
    pub(crate) fn least_recently_used(&self, except: &str) -> Option<String> {
        let can_go = |name: &str, model: &Model| name != except && !model.is_pinned && model.loaded_bytes() > 0;
        let candidates = self.models.iter().filter(|(name, model)| can_go(name, model));
        candidates.min_by_key(|(_, model)| model.last_used()).map(|(name, _)| name.to_string())
    }

    /// What there is, by name and version.
    pub(crate) fn index(&self) -> Vec<Indexed> {
        let mut lines = Vec::with_capacity(self.models.len());
        for (name, model) in self.iter() {
            if model.versions.is_empty() {
                lines.push(Indexed { name: name.to_owned(), version: None, state: "", reason: String::new() });
            }
            for (&number, entry) in &model.versions {
                let (state, reason) = entry.indexed();
                lines.push(Indexed { name: name.to_owned(), version: Some(number), state, reason });
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, states: &[State]) -> Model {
        let source = Source { name: name.to_owned(), path: name.into(), root: ".".into() };
        let entries = states
            .iter()
            .enumerate()
            .map(|(index, state)| (index as u64 + 1, Entry::not_serving(state.clone(), Print::default(), 10)));
        Model { versions: entries.collect(), ..Model::new(source, false) }
    }

    #[test]
    fn the_index_speaks_tritons_words() {
        let mut catalog = Catalog::default();
        catalog.put(model("a", &[State::Gone, State::Failed("no".to_owned()), State::Warming]));
        catalog.put(model("b", &[]));
        catalog.put(model("c", &[State::Evicted]));
        let lines = catalog.index();
        let lines: Vec<_> = lines.iter().map(|line| (&*line.name, line.version, line.state, &*line.reason)).collect();
        assert_eq!(
            lines,
            [
                ("a", Some(1), "UNAVAILABLE", "unloaded"),
                ("a", Some(2), "UNAVAILABLE", "failed to load: no"),
                ("a", Some(3), "LOADING", ""),
                ("b", None, "", ""),
                ("c", Some(1), "UNAVAILABLE", "evicted: the next request loads it"),
            ]
        );
    }

    #[test]
    fn only_what_changed_is_published() {
        let mut catalog = Catalog::default();
        catalog.put(model("a", &[State::Loading]));
        catalog.put(model("b", &[State::Loading]));
        assert_eq!(catalog.take_changed().len(), 2);
        catalog.edit("a").expect("known").versions.clear();
        catalog.remove("b");
        let changed = catalog.take_changed();
        let changed: Vec<_> = changed.iter().map(|(name, endpoint)| (&**name, endpoint.is_some())).collect();
        assert_eq!(changed, [("a", true), ("b", false)]);
        assert!(catalog.take_changed().is_empty());
    }
}
