//! Which requests are traced, and what a trace tells. Hot path.
//!
//! While nothing is traced, a request costs one relaxed load. A [`Trace`] travels with its request and is given to the
//! [`TraceSink`] once the answer has been handed over. What is to be traced is decided elsewhere and put here as
//! [`Samplers`], swapped whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::clock::Clock;
use crate::entry::Timing;
use crate::request::{Protocol, Request};
use crate::version::Version;

/// Takes traces; never blocks.
pub trait TraceSink: Send + Sync + std::fmt::Debug {
    /// Takes a trace that is complete.
    fn record(&self, trace: Trace);
}

/// What is traced, for one model or for all that have no sampler of their own.
#[derive(Debug)]
pub struct Sampler {
    /// Whether anything is.
    pub is_on: bool,
    /// Of so many requests one is traced.
    pub rate: u64,
    /// Traces after which a new file begins; 0: one file for all.
    pub log_frequency: u64,
    /// Requests seen.
    seen: AtomicU64,
    /// Traces that may still begin; negative: any number.
    left: AtomicI64,
}

impl Sampler {
    /// A sampler that has seen nothing; `count` negative: any number of traces.
    pub fn new(is_on: bool, rate: u64, count: i64, log_frequency: u64) -> Self {
        Self { is_on, rate: rate.max(1), log_frequency, seen: AtomicU64::new(0), left: AtomicI64::new(count) }
    }

    /// Traces that may still begin; -1: any number.
    pub fn left(&self) -> i64 {
        self.left.load(Ordering::Relaxed).max(-1)
    }

    fn takes(&self) -> bool {
        if !self.is_on || self.left.load(Ordering::Relaxed) == 0 {
            return false;
        }
        if !(self.seen.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(self.rate) {
            return false;
        }
        let take_one = |left: i64| (left != 0).then_some(if left > 0 { left - 1 } else { left });
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one).is_ok()
    }
}

/// The samplers in force.
#[derive(Clone, Debug)]
pub struct Samplers {
    /// For models without one of their own.
    pub global: Arc<Sampler>,
    /// By model.
    pub models: HashMap<Box<str>, Arc<Sampler>>,
}

impl Samplers {
    /// The sampler of a model.
    pub fn of(&self, model: &str) -> &Arc<Sampler> {
        self.models.get(model).unwrap_or(&self.global)
    }

    fn are_on(&self) -> bool {
        self.global.is_on || self.models.values().any(|sampler| sampler.is_on)
    }
}

/// Chooses requests and begins their traces.
#[derive(Debug)]
pub struct Tracer {
    is_on: AtomicBool,
    samplers: ArcSwap<Samplers>,
    sink: Option<Arc<dyn TraceSink>>,
    clock: Clock,
    last_id: AtomicU64,
}

impl Tracer {
    /// A tracer that traces nothing yet; without a `sink` it never does.
    pub fn new(sink: Option<Arc<dyn TraceSink>>, clock: Clock) -> Self {
        let global = Arc::new(Sampler::new(false, 1, -1, 0));
        Self {
            is_on: AtomicBool::new(false),
            samplers: ArcSwap::from_pointee(Samplers { global, models: HashMap::new() }),
            sink,
            clock,
            last_id: AtomicU64::new(0),
        }
    }

    /// Whether traces can be written.
    pub fn has_sink(&self) -> bool {
        self.sink.is_some()
    }

    /// The samplers in force.
    pub fn samplers(&self) -> Arc<Samplers> {
        self.samplers.load_full()
    }

    /// Puts other samplers in force.
    pub fn set_samplers(&self, samplers: Samplers) {
        let is_on = samplers.are_on();
        self.samplers.store(Arc::new(samplers));
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    /// Begins the trace of a valid request, if it is chosen. `now`: when it was submitted.
    pub fn sample(&self, version: &Version, request: &Request, arrived: Instant, now: Instant) -> Option<Box<Trace>> {
        if !self.is_on.load(Ordering::Relaxed) {
            return None;
        }
        self.begin(version, request, arrived, now)
    }

    #[cold]
    fn begin(&self, version: &Version, request: &Request, arrived: Instant, now: Instant) -> Option<Box<Trace>> {
        let samplers = self.samplers.load();
        let sampler = samplers.of(&version.spec.name);
        let sink = self.sink.as_ref().filter(|_| sampler.takes())?;
        let queued = self.clock.now();
        Some(Box::new(Trace {
            id: self.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            model: Arc::clone(&version.spec.name),
            version: version.spec.version,
            // A copy, because a trace may wait longer than the received bytes should live.
            request_id: request.id.to_string(),
            protocol: request.protocol,
            moments: Moments { arrived, submitted: now, queued, ended: queued, sent: queued },
            timing: None,
            sampler: Arc::clone(sampler),
            sink: Arc::clone(sink),
        }))
    }
}

/// One traced request.
#[derive(Debug)]
pub struct Trace {
    /// Unlike that of every other trace of the process.
    pub id: u64,
    /// The model.
    pub model: Arc<str>,
    /// Its version.
    pub version: u64,
    /// The caller's id; empty if there is none.
    pub request_id: String,
    /// How it came in.
    pub protocol: Protocol,
    /// When what happened.
    pub moments: Moments,
    /// How long the stages took; `None` if it did not run or its run failed.
    pub timing: Option<Timing>,
    /// What chose it.
    pub sampler: Arc<Sampler>,
    sink: Arc<dyn TraceSink>,
}

/// When what happened to a traced request.
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    /// Its first byte was read.
    pub arrived: Instant,
    /// It was decoded and submitted.
    pub submitted: Instant,
    /// It was found valid, and joined its turn.
    pub queued: Instant,
    /// Its result was brought home.
    pub ended: Instant,
    /// Its answer was encoded and handed over.
    pub sent: Instant,
}

impl Trace {
    /// Its result has come home.
    pub fn ended(mut self: Box<Self>, timing: Option<Timing>, now: Instant) -> Box<Self> {
        self.timing = timing;
        self.moments.ended = now;
        self
    }

    /// Its answer is handed over: it is complete.
    pub fn sent(mut self: Box<Self>, now: Instant) {
        self.moments.sent = now;
        let sink = Arc::clone(&self.sink);
        sink.record(*self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(sampler: &Sampler, requests: usize) -> Vec<usize> {
        (1..=requests).filter(|_| sampler.takes()).collect()
    }

    #[test]
    fn every_so_manieth_request_is_taken_up_to_the_count() {
        assert_eq!(taken(&Sampler::new(true, 3, -1, 0), 10), [3, 6, 9]);
        assert_eq!(taken(&Sampler::new(true, 1, 2, 0), 10), [1, 2]);
        assert_eq!(taken(&Sampler::new(true, 4, 1, 0), 10), [4]);
        assert_eq!(taken(&Sampler::new(false, 1, -1, 0), 10), [0; 0]);
    }

    #[test]
    fn what_is_left_of_the_count_can_be_read() {
        let sampler = Sampler::new(true, 1, 2, 0);
        assert_eq!(sampler.left(), 2);
        assert!(sampler.takes());
        assert_eq!(sampler.left(), 1);
        assert_eq!(Sampler::new(true, 1, -1, 0).left(), -1);
    }
}
