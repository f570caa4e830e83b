//! Runs a batch: gather, one backend call, scatter; and, if it fails, its halves. Hot path.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use smallvec::SmallVec;

use crate::backend::{OutputTensor, RunError, TensorView};
use crate::batch::Gathered;
use crate::clock::Clock;
use crate::entry::{Entry, Outcome, Rows, Timing};
use crate::error::{Error, Kind};
use crate::failpoint;
use crate::request::BatchPlace;
use crate::scatter::Scattered;
use crate::stats::Slot;
use crate::version::Version;

/// What a thread needs to run batches; its memory is used again.
#[derive(Debug)]
pub struct Runner {
    clock: Clock,
    gathered: Gathered,
}

/// A run and how long it took.
struct Ran {
    result: Result<Vec<OutputTensor>, RunError>,
    /// Gather and compute; the rest is not known yet.
    timing: Timing,
    /// When gathering began.
    started: Instant,
}

impl Runner {
    /// A runner that reads time from `clock`.
    pub fn new(clock: Clock) -> Self {
        Self { clock, gathered: Gathered::default() }
    }

    /// Runs `batch`, whose entries all have the same key, and appends an outcome for each to `outcomes`.
    pub fn run(&mut self, version: &Version, slot: &Slot, batch: Vec<Entry>, outcomes: &mut Vec<Outcome>) {
        let mut failed = match self.run_once(version, slot, batch, false, outcomes) {
            Ok(()) => return,
            Err(failed) => vec![failed],
        };
        // Depth first, so that at most log2(batch) halves wait.
        while let Some((mut entries, error)) = failed.pop() {
            if entries.len() == 1 {
                outcomes.extend(entries.drain(..).map(|entry| entry.refuse(blame(&error))));
                continue;
            }
            if !version.retries.withdraw() {
                self.run_each(version, slot, entries, outcomes);
                continue;
            }
            let later = entries.split_off(entries.len() / 2);
            for half in [entries, later] {
                if let Err(half) = self.run_once(version, slot, half, true, outcomes) {
                    failed.push(half);
                }
            }
        }
    }

    /// Runs entries of a failed batch one by one: what it would have cost not to batch them.
    fn run_each(&mut self, version: &Version, slot: &Slot, entries: Vec<Entry>, outcomes: &mut Vec<Outcome>) {
        for entry in entries {
            if let Err((alone, error)) = self.run_once(version, slot, vec![entry], true, outcomes) {
                outcomes.extend(alone.into_iter().map(|entry| entry.refuse(blame(&error))));
            }
        }
    }

    /// Gives back memory that only an unusually large batch needed.
    pub fn trim(&mut self) {
        self.gathered.trim();
    }

    fn run_once(
        &mut self,
        version: &Version,
        slot: &Slot,
        batch: Vec<Entry>,
        is_retry: bool,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), (Vec<Entry>, RunError)> {
        let rows: usize = batch.iter().map(|entry| entry.rows).sum();
        let indices = wanted_outputs(version, &batch);
        slot.ran(rows as u64, is_retry);
        let Ran { result, mut timing, started } = self.call(version, &batch, &indices);
        let tensors = match result {
            Ok(tensors) => tensors,
            Err(error) => {
                slot.batch_sizes.record(rows as u64, &timing);
                return Err((batch, error));
            }
        };
        let row_bytes = batch.iter().map(|entry| entry.bytes).sum::<usize>() / rows.max(1);
        version.times.learn(rows, row_bytes, timing.compute, version.max_rows());
        version.retries.deposit(rows);
        version.seen.note(batch[0].key, batch[0].inputs.iter().map(|input| &input.shape));
        if indices.len() == version.spec.outputs.len() {
            version.learn_answer(tensors.iter().map(|tensor| tensor.data.len()).sum(), rows);
        }
        let first = outcomes.len();
        let scattered = Scattered::new(&tensors, &indices, rows, batch.len(), &version.spec);
        scatter(version, batch, rows, &scattered, outcomes);
        let ended = started + timing.gather + timing.compute;
        timing.scatter = self.clock.now().saturating_duration_since(ended);
        slot.batch_sizes.record(rows as u64, &timing);
        for outcome in &mut outcomes[first..] {
            let queue = started.saturating_duration_since(outcome.ticket.arrived);
            outcome.timing = Timing { queue, ..timing };
        }
        Ok(())
    }

    fn call(&mut self, version: &Version, batch: &[Entry], indices: &[usize]) -> Ran {
        let begun = self.clock.now();
        failpoint!("gather");
        self.gathered.gather(batch, &version.spec);
        let views: SmallVec<[TensorView<'_>; 2]> = self.gathered.views(&version.spec).collect();
        let started = self.clock.now();
        // A panic in a backend is its bug; it must cost these requests, not the loop with all its connections.
        let result = catch_unwind(AssertUnwindSafe(|| {
            failpoint!("run", error => return Err(RunError { is_input_fault: false, text: error.text().to_owned() }));
            version.backend.run(&views, indices)
        }));
        let compute = self.clock.now().saturating_duration_since(started);
        let result =
            result.unwrap_or_else(|_| Err(RunError { is_input_fault: false, text: "the backend panicked".to_owned() }));
        let gather = started.saturating_duration_since(begun);
        Ran { result, timing: Timing { gather, compute, ..Timing::default() }, started: begun }
    }
}

/// The outputs that some entry wants, in the model's order.
fn wanted_outputs(version: &Version, batch: &[Entry]) -> SmallVec<[usize; 8]> {
    if batch.iter().any(|entry| entry.outputs.is_empty()) {
        return (0..version.spec.outputs.len()).collect();
    }
    let is_wanted = |index: &usize| batch.iter().any(|entry| entry.outputs.contains(&(*index as u16)));
    (0..version.spec.outputs.len()).filter(is_wanted).collect()
}

/// Appends an outcome for each entry of `batch`; how long it took is filled in afterwards.
fn scatter(
    version: &Version,
    batch: Vec<Entry>,
    rows: usize,
    scattered: &Result<Scattered<'_>, Error>,
    outcomes: &mut Vec<Outcome>,
) {
    failpoint!("scatter");
    let number = version.next_batch();
    let mut offset = 0;
    for entry in batch {
        let result = match scattered {
            Ok(scattered) => scattered.rows_of(&entry, offset).map(|outputs| Rows {
                outputs,
                place: BatchPlace { batch: number, rows, offset },
                rows: entry.rows,
            }),
            Err(error) => Err(error.clone()),
        };
        offset += entry.rows;
        outcomes.push(Outcome { ticket: entry.ticket, result, timing: Timing::default() });
    }
}

/// The error of a request that failed alone.
fn blame(error: &RunError) -> Error {
    let kind = if error.is_input_fault { Kind::InvalidArgument } else { Kind::Internal };
    Error::new(kind, error.text.clone())
}
