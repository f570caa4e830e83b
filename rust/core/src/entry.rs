//! A request on its way to a run, and the way back of what became of it. Hot path.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::answers::Trial;
use crate::budget::Reservation;
use crate::classify::Classes;
use crate::cut::Uncut;
use crate::error::{Error, Kind, Result};
use crate::failpoint;
use crate::join::Join;
use crate::request::{Answer, BatchPlace, Output, Protocol, Reply, Text};
use crate::stats::Slot;
use crate::trace::Trace;
use crate::validate::CheckedInput;
use crate::version::Version;

/// Who is told.
#[derive(Debug)]
pub enum Waiter {
    /// The caller.
    Caller(Box<dyn Reply>),
    /// The other parts of a request that was too large for one run.
    Part {
        /// Where the parts meet.
        join: Arc<Join>,
        /// Row of the request that this part begins with.
        offset: usize,
        /// Its rows.
        rows: usize,
    },
}

/// A checked request, or a part of one.
#[derive(Debug)]
pub struct Entry {
    /// In the model's order.
    pub inputs: SmallVec<[CheckedInput; 2]>,
    /// Its rows, if they are more than one run takes; `inputs` have their shapes then.
    pub uncut: Option<Box<Uncut>>,
    /// Indices of the wanted outputs; empty: all.
    pub outputs: SmallVec<[u16; 4]>,
    /// Which of them are to be classified, if any.
    pub classes: Option<Arc<[Classes]>>,
    /// Rows it adds to a batch.
    pub rows: usize,
    /// Row of its batch that it begins with, once it has one.
    pub offset: usize,
    /// Only entries with equal keys share a run.
    pub key: u64,
    /// Bytes of all inputs.
    pub bytes: usize,
    /// Level of the queue, 0 the highest.
    pub level: usize,
    /// When it must be answered.
    pub deadline: Option<Instant>,
    /// When it must have left the queue, or is refused.
    pub queue_deadline: Option<Instant>,
    /// When it must have left the queue, or waits behind the others of its level.
    pub delayed_from: Option<Instant>,
    /// Whether it runs although it is expected to take too long.
    pub is_tried: bool,
    /// What is needed to answer it.
    pub ticket: Ticket,
}

/// What is needed to answer a request and to account for it.
#[derive(Debug)]
pub struct Ticket {
    /// Who is told.
    pub waiter: Waiter,
    /// The caller's id.
    pub id: Text,
    /// How it came in.
    pub protocol: Protocol,
    /// When it came in.
    pub arrived: Instant,
    /// The loop it came from, by number.
    pub home: usize,
    /// The bytes it holds: its own, and those that its answer is expected to have.
    pub reservation: Option<Reservation>,
    /// Of these, the bytes that the run and the answer are expected to take.
    pub expected: usize,
    /// Bytes of the answer at most.
    pub most: usize,
    /// What lets it run although its answer is expected not to fit.
    pub trial: Option<Trial>,
    /// Its place among the requests in flight.
    pub in_flight: Option<Reservation>,
    /// What is written of it, if it is traced.
    pub trace: Option<Box<Trace>>,
}

impl Entry {
    /// Whether nobody waits for it any more.
    pub fn is_gone(&mut self) -> bool {
        self.ticket.is_gone()
    }

    /// Ends it without a run.
    pub fn refuse(self, error: Error) -> Outcome {
        Outcome { ticket: self.ticket, result: Err(error), timing: Timing::default() }
    }
}

impl Ticket {
    /// Makes the ticket of a part of this request, which holds nothing yet.
    pub(crate) fn beside(&self) -> impl FnOnce(Waiter) -> Self + use<> {
        let Self { home, protocol, arrived, most, .. } = *self;
        let reservation = self.reservation.as_ref().map(Reservation::beside);
        move |waiter| Self {
            waiter,
            id: Text::default(),
            protocol,
            arrived,
            home,
            reservation,
            expected: 0,
            most,
            trial: None,
            in_flight: None,
            trace: None,
        }
    }

    /// Whether nobody waits for it any more.
    pub(crate) fn is_gone(&mut self) -> bool {
        match &mut self.waiter {
            Waiter::Caller(reply) => reply.is_gone(),
            Waiter::Part { join, .. } => join.is_gone(),
        }
    }
}

/// How long the stages took for one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// From arrival to the run.
    pub queue: Duration,
    /// Copying the batch's inputs together.
    pub gather: Duration,
    /// The run.
    pub compute: Duration,
    /// Cutting the batch's outputs apart.
    pub scatter: Duration,
}

/// A request's rows of a run.
#[derive(Debug)]
pub struct Rows {
    /// In the caller's order.
    pub outputs: SmallVec<[Output; 2]>,
    /// Where they ran.
    pub place: BatchPlace,
    /// How many.
    pub rows: usize,
}

/// What became of an entry; brought home by [`Outcome::deliver`].
#[derive(Debug)]
pub struct Outcome {
    /// What is needed to answer it.
    pub ticket: Ticket,
    /// Its rows, or why there are none.
    pub result: Result<Rows>,
    /// How long the stages took.
    pub timing: Timing,
}

impl Outcome {
    /// Whether it is what became of a part of a request.
    pub(crate) fn is_part(&self) -> bool {
        matches!(self.ticket.waiter, Waiter::Part { .. })
    }

    /// What became of the whole request: this, or for a part what all parts have become, once this is the last.
    pub(crate) fn whole(self) -> Option<Outcome> {
        let Outcome { ticket, result, timing } = self;
        match ticket.waiter {
            Waiter::Part { join, offset, rows } => join.finish(offset, rows, result, timing),
            Waiter::Caller(_) => Some(Outcome { ticket, result, timing }),
        }
    }

    /// Answers the caller, on the loop the request came from, and counts it in that loop's `slot`. `false`: this is a part,
    /// and others are missing.
    pub fn deliver(self, version: &Version, slot: &Slot, now: Instant) -> bool {
        failpoint!("deliver");
        if self.is_part() {
            return self.whole().is_some_and(|whole| whole.deliver(version, slot, now));
        }
        let Outcome { ticket, result, timing } = self;
        let Ticket { waiter, id, protocol, arrived, reservation, expected, most, trial, in_flight, trace, .. } = ticket;
        let Waiter::Caller(reply) = waiter else { return false };
        let trace = trace.map(|trace| trace.ended(result.is_ok().then_some(timing), now));
        let answered = result.and_then(|rows| hold(rows, reservation, expected, most));
        match answered {
            Ok((rows, reservation)) => {
                let count = rows.rows as u64;
                let answer = Answer { version, id, outputs: rows.outputs, place: rows.place, reservation };
                reply.send(Ok(answer));
                slot.answered(protocol, count, &timing, arrived, now);
            }
            Err(error) => {
                slot.failed_late(protocol, &error, now.saturating_duration_since(arrived));
                reply.send(Err(error));
            }
        }
        if let Some(trace) = trace {
            trace.sent(version.clock.now());
        }
        drop((in_flight, trial));
        true
    }
}

/// Holds the answer's bytes beside the request's, until the answer is written; `expected` of them are held already.
fn hold(
    rows: Rows,
    mut reservation: Option<Reservation>,
    expected: usize,
    max_response_bytes: usize,
) -> Result<(Rows, Option<Reservation>)> {
    let bytes = rows.outputs.iter().map(|output| output.data.len()).fold(0, usize::saturating_add);
    if bytes > max_response_bytes {
        return Err(answer_too_large(bytes, max_response_bytes));
    }
    let fits = reservation.as_mut().is_none_or(|held| {
        held.shrink_to(held.units().saturating_sub(expected.saturating_sub(bytes)));
        held.grow(bytes.saturating_sub(expected))
    });
    if !fits {
        return Err(answer_out_of_budget(bytes));
    }
    Ok((rows, reservation))
}

#[cold]
pub(crate) fn answer_too_large(bytes: usize, max_response_bytes: usize) -> Error {
    Error::too_large(format!(
        "the answer has {bytes} bytes; at most {max_response_bytes} are allowed (limits.max_response_bytes)"
    ))
}

#[cold]
pub(crate) fn answer_out_of_budget(bytes: usize) -> Error {
    let text = format!("the {bytes} bytes of the answer would exceed the server's byte budget (limits.byte_budget)");
    Error::new(Kind::OutOfBudget, text)
}
