//! What models there are, in which state, and which of them would go first. Pure: no files, no threads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlserve_core::plan::{Endpoint, Slot, State};
use mlserve_core::stats::Stats;
use mlserve_core::tensor::Shape;
use mlserve_core::version::Version;

use super::print::Print;
use super::repository::Source;
use super::upload::Upload;

/// A model that is known.
#[derive(Debug)]
pub(crate) struct Model {
    /// Where its files are.
    pub(crate) source: Source,
    /// Its files, if they came with the load; the folder goes with the last of them.
    pub(crate) uploaded: Option<Arc<Upload>>,
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

impl Indexed {
    /// An entry of the repository that cannot be served.
    pub(crate) fn failed(name: String, reason: &str) -> Self {
        Self { name, version: None, state: "UNAVAILABLE", reason: format!("failed to load: {reason}") }
    }
}

/// Which models are to stay while room is made for another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stay<'a> {
    /// The model that needs the room.
    pub(crate) except: &'a str,
    /// The present moment.
    pub(crate) now: Instant,
    /// How long a model stays after it was loaded.
    pub(crate) residency: Duration,
}

impl Stay<'_> {
    /// When `model` may go; `None`: never.
    fn end(&self, name: &str, model: &Model) -> Option<Instant> {
        let may_go = name != self.except && !model.is_pinned;
        may_go.then(|| model.loaded.map_or(self.now, |loaded| loaded + self.residency))
    }
}

/// The models of a server.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    /// Why entries of the repository are no models, by their names on disk.
    pub(crate) odd: BTreeMap<String, String>,
    /// Files of the repository that nobody takes for models, as they were at the start.
    pub(crate) left_alone: BTreeSet<String>,
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

    /// The loaded model that was not used for the longest time, of those that may go now.
    pub(crate) fn least_recently_used(&self, stay: &Stay<'_>) -> Option<String> {
        let candidates = self.loaded().filter(|(name, model)| stay.end(name, model).is_some_and(|end| end <= stay.now));
        candidates.min_by_key(|(_, model)| model.last_used()).map(|(name, _)| name.to_owned())
    }

    /// When models of `bytes` bytes may have gone: now or later; `None`: never, so much does not go.
    pub(crate) fn room_from(&self, bytes: u64, stay: &Stay<'_>) -> Option<Instant> {
        let ends = self.loaded().filter_map(|(name, model)| Some((stay.end(name, model)?, model.loaded_bytes())));
        let mut ends: Vec<(Instant, u64)> = ends.collect();
        ends.sort_unstable();
        let mut free = 0;
        let mut room = ends.into_iter().skip_while(|&(_, bytes_of_one)| {
            free += bytes_of_one;
            free < bytes
        });
        room.next().map(|(end, _)| end.max(stay.now))
    }

    fn loaded(&self) -> impl Iterator<Item = (&str, &Model)> {
        self.iter().filter(|(_, model)| model.loaded_bytes() > 0)
    }

    /// What there is, by name and version.
    pub(crate) fn index(&self) -> Vec<Indexed> {
        let mut lines = Vec::with_capacity(self.models.len() + self.odd.len());
        for (name, model) in self.iter() {
            if model.versions.is_empty() {
                lines.push(Indexed { name: name.to_owned(), version: None, state: "", reason: String::new() });
            }
            for (&number, entry) in &model.versions {
                let (state, reason) = entry.indexed();
                lines.push(Indexed { name: name.to_owned(), version: Some(number), state, reason });
            }
        }
        let odd = self.odd.iter().filter(|(name, _)| !self.models.contains_key(name.as_str()));
        lines.extend(odd.map(|(name, reason)| Indexed::failed(name.clone(), reason)));
        lines.sort_by(|one, other| (&one.name, one.version).cmp(&(&other.name, other.version)));
        lines
    }
}

#[cfg(test)]
mod tests {
    use mlserve_core::clock::ManualClock;

    use super::*;

    fn model(name: &str, states: &[State]) -> Model {
        let (path, trusted) = (name.into(), Arc::new([]));
        let source = Source { name: name.to_owned(), path, named: ".".into(), trusted, fault: None };
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
    fn odd_entries_are_in_the_index_as_failed() {
        let mut catalog = Catalog::default();
        catalog.put(model("b", &[State::Gone]));
        catalog.odd = [("a b".to_owned(), "no name".to_owned()), ("b".to_owned(), "not told".to_owned())].into();
        let lines = catalog.index();
        let lines: Vec<_> = lines.iter().map(|line| (&*line.name, line.version, line.state, &*line.reason)).collect();
        let odd = ("a b", None, "UNAVAILABLE", "failed to load: no name");
        assert_eq!(lines, [odd, ("b", Some(1), "UNAVAILABLE", "unloaded")]);
    }

    /// A model of 10 bytes that was loaded at `moment`.
    fn loaded(name: &str, moment: Instant) -> Model {
        let mut model = model(name, &[State::Ready]);
        model.loaded = Some(moment);
        let version = crate::grpc::fixture::version(1, Arc::new([]));
        model.versions.values_mut().for_each(|entry| entry.slot = Slot::serving(Arc::clone(&version)));
        model
    }

    #[test]
    fn what_was_loaded_a_moment_ago_stays_for_a_while() {
        let clock = ManualClock::new();
        let residency = Duration::from_secs(2);
        let mut catalog = Catalog::default();
        catalog.put(loaded("old", clock.now()));
        clock.advance(Duration::from_secs(1));
        catalog.put(loaded("new", clock.now()));
        catalog.put(Model { is_pinned: true, ..loaded("pinned", clock.now()) });
        let later = |seconds| clock.now() + Duration::from_secs(seconds);
        let stay = Stay { except: "wanted", now: clock.now(), residency };
        assert_eq!(catalog.least_recently_used(&stay), None);
        assert_eq!(catalog.room_from(10, &stay), Some(later(1)), "then the old one may go");
        assert_eq!(catalog.room_from(20, &stay), Some(later(2)), "then both");
        assert_eq!(catalog.room_from(21, &stay), None, "so much never goes");
        let at_once = Stay { residency: Duration::ZERO, ..stay };
        assert_eq!(catalog.room_from(20, &at_once), Some(clock.now()), "an order does not wait");
        clock.advance(Duration::from_secs(1));
        let stay = Stay { now: clock.now(), ..stay };
        assert_eq!(catalog.least_recently_used(&stay).as_deref(), Some("old"));
        assert_eq!(catalog.room_from(10, &stay), Some(clock.now()));
        let own = Stay { except: "old", ..stay };
        assert_eq!(catalog.least_recently_used(&own), None, "a model makes no room for itself");
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
