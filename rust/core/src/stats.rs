//! Counters and histograms that cost next to nothing: one writer each, merged when read. Hot path.
//!
//! A [`Slot`] belongs to one thread (an event loop or an instance). Its writer adds with a plain load and store; a reader
//! on another thread sees whole numbers, possibly a moment old. [`Stats`] holds the slots of one version, and those of
//! the versions that it replaced: counters never fall.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::clock::{Clock, Epoch};
use crate::entry::Timing;
use crate::error::{Error, Kind};
use crate::request::Protocol;
use crate::sync::{Mutex, lock};

pub mod batches;
pub mod histogram;
mod totals;

use batches::BatchSizes;
pub use histogram::{DURATION_BOUNDS_NS, Histogram, HistogramTotal, ROW_BOUNDS};
pub use totals::Totals;

/// A number that only its owner increases.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds, on the owner's thread.
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// The value, on any thread.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A duration as the histograms take it.
pub fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// What one thread counts for one version.
#[derive(Debug)]
pub struct Slot {
    /// What [`Slot::last_answer`] is counted from.
    base: Instant,
    /// Nanoseconds from `base` to the last answer; 0: none yet.
    last_answer_ns: AtomicU64,
    /// Requests that were accepted for this version.
    pub submitted: Counter,
    /// Answered requests, by [`Protocol`].
    pub success: [Counter; Protocol::ALL.len()],
    /// Failed requests, by [`Protocol`] and [`Kind`], in the order of [`Kind::ALL`].
    pub failure: [[Counter; Kind::ALL.len()]; Protocol::ALL.len()],
    /// Of these, requests that failed after they were found valid, by [`Kind`].
    pub failed_late: [Counter; Kind::ALL.len()],
    /// From arrival to failure, summed over those, in nanoseconds.
    pub failed_late_ns: Counter,
    /// Rows answered.
    pub rows: Counter,
    /// Runs of the backend.
    pub runs: Counter,
    /// Runs that repeated part of a failed batch.
    pub retried_runs: Counter,
    /// Panics while a batch was worked on.
    pub panics: Counter,
    /// From arrival to the answer being handed to the socket, per request.
    pub request_duration: Histogram<19>,
    /// From arrival to the run, per request.
    pub queue_duration: Histogram<19>,
    /// Copying inputs together, per request.
    pub gather_duration: Histogram<19>,
    /// The run, per request.
    pub compute_duration: Histogram<19>,
    /// Cutting outputs apart, per request.
    pub scatter_duration: Histogram<19>,
    /// Rows per run.
    pub batch_rows: Histogram<11>,
    /// Runs by their number of rows.
    pub batch_sizes: BatchSizes,
}

impl Slot {
    fn new(base: Instant) -> Self {
        Self {
            base,
            last_answer_ns: AtomicU64::new(0),
            submitted: Counter::default(),
            success: Default::default(),
            failure: Default::default(),
            failed_late: Default::default(),
            failed_late_ns: Counter::default(),
            rows: Counter::default(),
            runs: Counter::default(),
            retried_runs: Counter::default(),
            panics: Counter::default(),
            request_duration: Histogram::new(&DURATION_BOUNDS_NS),
            queue_duration: Histogram::new(&DURATION_BOUNDS_NS),
            gather_duration: Histogram::new(&DURATION_BOUNDS_NS),
            compute_duration: Histogram::new(&DURATION_BOUNDS_NS),
            scatter_duration: Histogram::new(&DURATION_BOUNDS_NS),
            batch_rows: Histogram::new(&ROW_BOUNDS),
            batch_sizes: BatchSizes::default(),
        }
    }

    /// Counts a request that arrived at `arrived` and is answered `now`, on the owner's thread.
    pub fn answered(&self, protocol: Protocol, rows: u64, timing: &Timing, arrived: Instant, now: Instant) {
        self.success[protocol as usize].add(1);
        self.rows.add(rows);
        self.request_duration.record(nanoseconds(now.saturating_duration_since(arrived)), 1);
        self.queue_duration.record(nanoseconds(timing.queue), 1);
        self.gather_duration.record(nanoseconds(timing.gather), 1);
        self.compute_duration.record(nanoseconds(timing.compute), 1);
        self.scatter_duration.record(nanoseconds(timing.scatter), 1);
        let since_base = nanoseconds(now.saturating_duration_since(self.base));
        self.last_answer_ns.store(since_base.max(1), Ordering::Relaxed);
    }

    /// Counts a request that ended with `error`, on the owner's thread.
    pub fn failed(&self, protocol: Protocol, error: &Error) {
        self.failure[protocol as usize][error.kind() as usize].add(1);
    }

    /// Counts a valid request that ended with `error` after `took`, on the owner's thread.
    pub fn failed_late(&self, protocol: Protocol, error: &Error, took: Duration) {
        self.failed(protocol, error);
        self.failed_late[error.kind() as usize].add(1);
        self.failed_late_ns.add(nanoseconds(took));
    }

    /// Counts a run that begins, on the owner's thread.
    pub fn ran(&self, rows: u64, is_retry: bool) {
        self.runs.add(1);
        self.retried_runs.add(u64::from(is_retry));
        self.batch_rows.record(rows, 1);
    }

    /// When a request was last answered, on any thread.
    pub fn last_answer(&self) -> Option<Instant> {
        let since_base = self.last_answer_ns.load(Ordering::Relaxed);
        (since_base > 0).then(|| self.base + Duration::from_nanos(since_base))
    }
}

/// A slot that is made when its thread first counts: thousands of idle versions must not cost a slot for each thread.
#[derive(Debug)]
pub struct LazySlot {
    base: Instant,
    slot: OnceLock<Box<Slot>>,
}

impl LazySlot {
    fn new(base: Instant) -> Self {
        Self { base, slot: OnceLock::new() }
    }

    /// The slot, if its thread has counted anything.
    pub fn get(&self) -> Option<&Slot> {
        self.slot.get().map(Box::as_ref)
    }
}

impl Deref for LazySlot {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        self.slot.get_or_init(|| Box::new(Slot::new(self.base)))
    }
}

/// What has been counted for one version.
#[derive(Debug)]
pub struct Stats {
    /// What each event loop counts.
    pub loops: Box<[LazySlot]>,
    /// What each instance counts.
    pub instances: Box<[LazySlot]>,
    /// Tells when the last answer was.
    pub epoch: Epoch,
    earlier: Mutex<Option<Earlier>>,
}

/// What was counted before a version was replaced.
#[derive(Debug)]
enum Earlier {
    /// Its threads may still count.
    Counting(Arc<Stats>),
    /// They have ended.
    Folded(Box<Totals>),
}

impl Stats {
    /// Nothing counted yet by `loops` event loops and `instances` instances; `earlier` goes on being counted in.
    pub fn new(loops: usize, instances: usize, earlier: Option<Arc<Stats>>, clock: &Clock) -> Arc<Self> {
        if let Some(earlier) = &earlier {
            earlier.fold();
        }
        let now = clock.now();
        let slots = |count: usize| (0..count).map(|_| LazySlot::new(now)).collect();
        let earlier = Mutex::new(earlier.map(Earlier::Counting));
        Arc::new(Self { loops: slots(loops), instances: slots(instances), epoch: clock.epoch(), earlier })
    }

    /// Everything counted, by this version and by those that it replaced.
    pub fn totals(&self) -> Totals {
        self.fold();
        let mut totals = Totals::default();
        self.slots().for_each(|slot| totals.add(slot));
        match &*lock(&self.earlier) {
            Some(Earlier::Counting(stats)) => totals.merge(&stats.totals()),
            Some(Earlier::Folded(earlier)) => totals.merge(earlier),
            None => {}
        }
        totals
    }

    /// When a request was last answered.
    pub fn last_used(&self) -> Option<Instant> {
        let own = self.slots().filter_map(Slot::last_answer).max();
        let earlier = match &*lock(&self.earlier) {
            Some(Earlier::Counting(stats)) => stats.last_used(),
            Some(Earlier::Folded(totals)) => totals.last_answer,
            None => None,
        };
        own.max(earlier)
    }

    /// Keeps plain totals of the replaced version instead of its slots, if nothing counts there any more: that is, if
    /// nobody else holds them. Returns whether there is nothing left to fold. Whoever replaces versions again and again
    /// needs not care: a new version and every reader try this too.
    pub fn fold(&self) -> bool {
        let mut earlier = lock(&self.earlier);
        let Some(Earlier::Counting(stats)) = &mut *earlier else { return true };
        let Some(ended) = Arc::get_mut(stats) else {
            stats.fold();
            return false;
        };
        let totals = ended.totals();
        *earlier = Some(Earlier::Folded(Box::new(totals)));
        true
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.loops.iter().chain(&self.instances).filter_map(LazySlot::get)
    }
}

#[cfg(test)]
mod tests;
