//! A request on its way to a run, and the way back of what became of it. Hot path.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::budget::Reservation;
use crate::classify::Classes;
use crate::error::{Error, Kind, Result};
use crate::failpoint;
use crate::join::{Held, Join};
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
        /// Which part this is.
        index: usize,
    },
}

/// A checked request, or a part of one.
#[derive(Debug)]
pub struct Entry {
    /// In the model's order.
    pub inputs: SmallVec<[CheckedInput; 2]>,
    /// Indices of the wanted outputs; empty: all.
    pub outputs: SmallVec<[u16; 4]>,
    /// Which of them are to be classified, if any.
    pub classes: Option<Arc<[Classes]>>,
    /// Rows it adds to a batch.
    pub rows: usize,
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
    /// Of these, the bytes of the answer.
    pub expected: usize,
    /// Its place among the requests in flight.
    pub in_flight: Option<Reservation>,
    /// What is written of it, if it is traced.
    pub trace: Option<Box<Trace>>,
}

impl Entry {
    /// Whether nobody waits for it any more.
    pub fn is_gone(&mut self) -> bool {
        match &mut self.ticket.waiter {
            Waiter::Caller(reply) => reply.is_gone(),
            Waiter::Part { join, .. } => join.is_gone(),
        }
    }

    /// Ends it without a run.
    pub fn refuse(self, error: Error) -> Outcome {
        Outcome { ticket: self.ticket, result: Err(error), timing: Timing::default() }
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
    /// Answers the caller, on the loop the request came from, and counts it in that loop's `slot`.
    pub fn deliver(self, version: &Version, slot: &Slot, max_response_bytes: usize, now: Instant) {
        failpoint!("deliver");
        let Outcome { ticket, result, timing } = self;
        let Ticket { waiter, id, protocol, arrived, home: _, reservation, expected, in_flight, trace } = ticket;
        let (reply, result, Held { reservation, expected, in_flight, trace }) = match waiter {
            Waiter::Caller(reply) => (reply, result, Held { reservation, expected, in_flight, trace }),
            Waiter::Part { join, index } => match join.finish(index, result) {
                Some(whole) => whole,
                None => return,
            },
        };
        let trace = trace.map(|trace| trace.ended(result.is_ok().then_some(timing), now));
        let answered = result.and_then(|rows| hold(rows, reservation, expected, max_response_bytes));
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
        drop(in_flight);
    }
}

/// Holds the answer's bytes beside the request's, until the answer is written; `expected` of them are held already.
fn hold(
    rows: Rows,
    mut reservation: Option<Reservation>,
    expected: usize,
    max_response_bytes: usize,
) -> Result<(Rows, Option<Reservation>)> {
    let bytes: usize = rows.outputs.iter().map(|output| output.data.len()).sum();
    if bytes > max_response_bytes {
        return Err(Error::too_large(format!(
            "the answer has {bytes} bytes; at most {max_response_bytes} are allowed (limits.max_response_bytes)"
        )));
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
pub(crate) fn answer_out_of_budget(bytes: usize) -> Error {
    Error::new(Kind::OutOfBudget, format!("the {bytes} bytes of the answer would exceed the server's byte budget"))
}
