//! What all threads counted for one version, added up for a reader.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Slot;
use super::batches::BatchTotal;
use super::histogram::HistogramTotal;
use crate::error::Kind;
use crate::request::Protocol;

/// The sum over all threads of what was counted for one version, and for those that it replaced.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Requests that were accepted for this version.
    pub submitted: u64,
    /// Answered requests, by [`Protocol`].
    pub success: [u64; Protocol::ALL.len()],
    /// Failed requests, by [`Protocol`] and [`Kind`].
    pub failure: [[u64; Kind::ALL.len()]; Protocol::ALL.len()],
    /// Of these, requests that failed after they were found valid, by [`Kind`]: in the queue, in the run or after it.
    pub failed_late: [u64; Kind::ALL.len()],
    /// How long these took, in nanoseconds.
    pub failed_late_ns: u64,
    /// Rows answered.
    pub rows: u64,
    /// Runs of the backend.
    pub runs: u64,
    /// Runs that repeated part of a failed batch.
    pub retried_runs: u64,
    /// Panics while a batch was worked on.
    pub panics: u64,
    /// From arrival to the answer being handed to the socket, per answered request.
    pub request: HistogramTotal,
    /// From arrival to the run, per answered request.
    pub queue: HistogramTotal,
    /// Copying inputs together, per answered request.
    pub gather: HistogramTotal,
    /// The run, per answered request.
    pub compute: HistogramTotal,
    /// Cutting outputs apart, per answered request.
    pub scatter: HistogramTotal,
    /// Rows per run.
    pub batch_rows: HistogramTotal,
    /// Runs by batch size; those above [`super::batches::MAX_EXACT_ROWS`] together.
    pub batches: BTreeMap<u64, BatchTotal>,
    /// When a request was last answered.
    pub last_answer: Option<Instant>,
}

impl Totals {
    /// Answered requests.
    pub fn succeeded(&self) -> u64 {
        self.success.iter().sum()
    }

    /// Failed requests of these kinds.
    pub fn failed(&self, kinds: impl Fn(Kind) -> bool) -> u64 {
        self.failure.iter().map(|counts| sum_of(counts, &kinds)).sum()
    }

    /// Requests of these kinds that failed after they were found valid.
    pub fn failed_late(&self, kinds: impl Fn(Kind) -> bool) -> u64 {
        sum_of(&self.failed_late, &kinds)
    }

    /// Requests that are not answered yet.
    pub fn in_flight(&self) -> u64 {
        self.submitted.saturating_sub(self.succeeded() + self.failed(|_| true))
    }

    /// Adds what one thread counted.
    pub fn add(&mut self, slot: &Slot) {
        for protocol in Protocol::ALL {
            let index = protocol as usize;
            self.success[index] += slot.success[index].get();
            for kind in Kind::ALL {
                self.failure[index][kind as usize] += slot.failure[index][kind as usize].get();
            }
        }
        for (total, counter) in self.failed_late.iter_mut().zip(&slot.failed_late) {
            *total += counter.get();
        }
        self.failed_late_ns += slot.failed_late_ns.get();
        self.submitted += slot.submitted.get();
        self.rows += slot.rows.get();
        self.runs += slot.runs.get();
        self.retried_runs += slot.retried_runs.get();
        self.panics += slot.panics.get();
        slot.request_duration.add_to(&mut self.request);
        slot.queue_duration.add_to(&mut self.queue);
        slot.gather_duration.add_to(&mut self.gather);
        slot.compute_duration.add_to(&mut self.compute);
        slot.scatter_duration.add_to(&mut self.scatter);
        slot.batch_rows.add_to(&mut self.batch_rows);
        slot.batch_sizes.add_to(&mut self.batches);
        self.last_answer = self.last_answer.max(slot.last_answer());
    }

    /// Adds other totals.
    pub fn merge(&mut self, other: &Totals) {
        let counters = self.success.iter_mut().chain(self.failure.iter_mut().flatten()).chain(&mut self.failed_late);
        let others = other.success.iter().chain(other.failure.iter().flatten()).chain(&other.failed_late);
        counters.zip(others).for_each(|(counter, more)| *counter += more);
        self.failed_late_ns += other.failed_late_ns;
        self.submitted += other.submitted;
        self.rows += other.rows;
        self.runs += other.runs;
        self.retried_runs += other.retried_runs;
        self.panics += other.panics;
        self.request.merge(&other.request);
        self.queue.merge(&other.queue);
        self.gather.merge(&other.gather);
        self.compute.merge(&other.compute);
        self.scatter.merge(&other.scatter);
        self.batch_rows.merge(&other.batch_rows);
        for (&rows, batch) in &other.batches {
            self.batches.entry(rows).or_default().merge(batch);
        }
        self.last_answer = self.last_answer.max(other.last_answer);
    }
}

fn sum_of(counts: &[u64; Kind::ALL.len()], kinds: &impl Fn(Kind) -> bool) -> u64 {
    Kind::ALL.iter().filter(|&&kind| kinds(kind)).map(|&kind| counts[kind as usize]).sum()
}
