//! Requests that wait for a version to be loaded, because it is loaded on demand.
//!
//! One per event loop. A request waits here after it was admitted, so that it counts as in flight and keeps its deadline;
//! it goes on when the plan has changed, or is refused when its time is over.

use std::time::Instant;

use crate::budget::Reservation;
use crate::error::{Error, Kind};
use crate::queue::deadline_exceeded;
use crate::request::{Reply, Request};

/// Has a version loaded that somebody asks for.
pub trait Demand: Send + Sync + std::fmt::Debug {
    /// Somebody waits for this model. Called often; must not block. The plan changes once it is loaded or has failed.
    fn wanted(&self, model: &str, version: Option<u64>);
}

/// Nobody loads anything.
impl Demand for () {
    fn wanted(&self, _model: &str, _version: Option<u64>) {}
}

/// What admission adds to a request.
#[derive(Debug)]
pub struct Admitted {
    /// The way back to its caller.
    pub reply: Box<dyn Reply>,
    /// When it came in.
    pub arrived: Instant,
    /// Its place among the requests in flight.
    pub in_flight: Reservation,
}

/// A request that waits.
#[derive(Debug)]
pub struct Parked {
    /// The request.
    pub request: Request,
    /// What it was admitted with.
    pub place: Admitted,
}

/// The requests of one loop that wait.
#[derive(Debug, Default)]
pub struct Park(Vec<Parked>);

impl Park {
    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a request in. Returns whether it is the first for its model and version.
    pub fn push(&mut self, parked: Parked) -> bool {
        let wants = |request: &Request| (request.model_version, request.model_name.clone());
        let wanted = wants(&parked.request);
        let is_first = !self.0.iter().rev().any(|other| wants(&other.request) == wanted);
        self.0.push(parked);
        is_first
    }

    /// Takes everything out, in the order of arrival.
    pub fn take(&mut self) -> Vec<Parked> {
        std::mem::take(&mut self.0)
    }

    /// Takes out what must not wait any longer, with the reason.
    pub fn expire(&mut self, now: Instant) -> Vec<(Parked, Error)> {
        let reason = |parked: &mut Parked| {
            if parked.place.reply.is_gone() {
                return Some(Error::new(Kind::Cancelled, "the caller cancelled the request"));
            }
            parked.request.deadline.filter(|&deadline| deadline <= now).map(|_| deadline_exceeded())
        };
        let mut expired = Vec::new();
        for mut parked in std::mem::take(&mut self.0) {
            match reason(&mut parked) {
                Some(error) => expired.push((parked, error)),
                None => self.0.push(parked),
            }
        }
        expired
    }

    /// When [`Self::expire`] is next worth calling.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.0.iter().filter_map(|parked| parked.request.deadline).min()
    }
}
