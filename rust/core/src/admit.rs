//! Admission: refuses early, with a typed reason, what must not go further. Hot path.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::budget::{LocalBudget, Reservation};
use crate::config::LimitSettings;
use crate::error::{Error, Kind, Result, quoted};
use crate::failpoint;
use crate::queue::deadline_exceeded;
use crate::request::Request;

/// What admission knows.
#[derive(Debug)]
pub struct Admission {
    in_flight: Arc<LocalBudget>,
    max_tensors: usize,
    max_rank: usize,
    default_deadline: Option<Duration>,
    max_deadline: Option<Duration>,
}

impl Admission {
    /// Admission by `limits`, counting requests in flight in `in_flight`.
    pub fn new(limits: &LimitSettings, in_flight: Arc<LocalBudget>) -> Self {
        let milliseconds = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
        Self {
            in_flight,
            max_tensors: limits.max_tensors,
            max_rank: limits.max_rank,
            default_deadline: milliseconds(limits.default_deadline_ms),
            max_deadline: milliseconds(limits.max_deadline_ms),
        }
    }

    /// Lets `request` in: gives it its deadline and a place among the requests in flight.
    ///
    /// **Errors:** too many tensors or dimensions; its deadline has passed; too many requests in flight.
    pub fn admit(&self, request: &mut Request, arrived: Instant, now: Instant) -> Result<Reservation> {
        failpoint!("admit", error => return Err(error));
        self.check_counts(request)?;
        request.deadline = self.deadline(request.deadline, arrived);
        if request.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(deadline_exceeded());
        }
        self.in_flight.reserve(1).ok_or_else(too_many_requests)
    }

    fn deadline(&self, asked: Option<Instant>, arrived: Instant) -> Option<Instant> {
        let most = self.max_deadline.map(|most| arrived + most);
        match asked.or_else(|| self.default_deadline.map(|default| arrived + default)) {
            Some(deadline) => Some(most.map_or(deadline, |most| deadline.min(most))),
            None => most,
        }
    }

    fn check_counts(&self, request: &Request) -> Result<()> {
        let tensors = request.inputs.len().max(request.outputs.len());
        if tensors > self.max_tensors {
            return Err(Error::too_large(format!(
                "the request has {tensors} tensors; at most {} are allowed (limits.max_tensors)",
                self.max_tensors
            )));
        }
        let Some(input) = request.inputs.iter().find(|input| input.shape.len() > self.max_rank) else { return Ok(()) };
        Err(Error::too_large(format!(
            "input '{}' has {} dimensions; at most {} are allowed (limits.max_rank)",
            quoted(&input.name),
            input.shape.len(),
            self.max_rank
        )))
    }
}

#[cold]
fn too_many_requests() -> Error {
    Error::new(Kind::TooManyRequests, "the server has as many requests in flight as it may have; try again later")
}
