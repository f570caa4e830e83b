//! Runs a batch: gather, one backend call, scatter; and, if it fails, its halves. Hot path.
//!
//! A panic in one of them costs the requests of the batch, and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use smallvec::SmallVec;

use crate::backend::{OutputTensor, RunError, TensorView, TextRoom};
use crate::batch::Gathered;
use crate::budget::Reservation;
use crate::clock::Clock;
use crate::entry::{Entry, Outcome, Rows, Timing};
use crate::error::{Error, Kind};
use crate::failpoint;
use crate::request::BatchPlace;
use crate::running::Running;
use crate::scatter::Scattered;
use crate::stats::Slot;
use crate::stop::Stop;
use crate::version::Version;
use crate::watch::LoopSigns;

/// What a thread needs to run batches; its memory is used again.
#[derive(Debug)]
pub struct Runner {
    clock: Clock,
    gathered: Gathered,
}

/// Where a batch runs, and who can stop it there.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// On a loop. What is stopped there goes to the pool.
    Loop(&'a LoopSigns),
    /// On an instance. What is stopped there has nobody left who waits, or the server ends.
    Instance(&'a Running),
}

/// What is run, and where.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// What runs.
    pub version: &'a Version,
    /// What the thread counts for it.
    pub slot: &'a Slot,
    /// Where.
    pub place: Place<'a>,
}

/// A run and how long it took.
struct Ran {
    /// Those who still wait.
    batch: Vec<Entry>,
    result: Result<Vec<OutputTensor>, Error>,
    was_stopped: bool,
    /// Held until each request holds its rows.
    room: TextRoom,
    /// Gather and compute; the rest is not known yet.
    timing: Timing,
    /// When gathering began.
    started: Instant,
}

/// A batch that was not answered.
enum Failed {
    /// The run failed.
    Run(Vec<Entry>, Error),
    /// The run was stopped before its end.
    Stopped(Vec<Entry>),
}

impl Runner {
    /// A runner that reads time from `clock`.
    pub fn new(clock: Clock) -> Self {
        Self { clock, gathered: Gathered::default() }
    }

    /// Runs `batch`, whose entries all have the same key, and appends an outcome for each to `outcomes`. Returns those
    /// whose run was stopped on a loop, because it took too long there.
    pub fn run(&mut self, job: Job<'_>, batch: Vec<Entry>, outcomes: &mut Vec<Outcome>) -> Vec<Entry> {
        match self.run_once(job, batch, false, outcomes) {
            Ok(()) => Vec::new(),
            Err(failed) => self.retry(job, failed, outcomes),
        }
    }

    /// Runs the halves of a batch that failed, depth first, so that at most log2(batch) of them wait.
    #[cold]
    fn retry(&mut self, job: Job<'_>, failed: Failed, outcomes: &mut Vec<Outcome>) -> Vec<Entry> {
        let mut aside = Aside { place: job.place, lists: Vec::new() };
        let mut failed = Some(failed);
        loop {
            match failed.take() {
                Some(Failed::Stopped(entries)) => return stopped(job, entries, aside, outcomes),
                Some(Failed::Run(entries, error)) if entries.len() <= 1 => {
                    outcomes.extend(entries.into_iter().map(|entry| entry.refuse(error.clone())));
                }
                Some(Failed::Run(mut entries, _)) if job.version.retries.withdraw() => {
                    aside.push(entries.split_off(entries.len() / 2));
                    aside.push(entries);
                }
                // One by one: what it would have cost not to batch them.
                Some(Failed::Run(entries, _)) => entries.into_iter().rev().for_each(|entry| aside.push(vec![entry])),
                None => {}
            }
            let Some(next) = aside.pop() else { return Vec::new() };
            if !next.is_empty() {
                failed = self.run_once(job, next, true, outcomes).err();
            }
        }
    }

    /// Gives back memory that only an unusually large batch needed.
    pub fn trim(&mut self) {
        self.gathered.trim();
    }

    fn run_once(
        &mut self,
        job: Job<'_>,
        mut batch: Vec<Entry>,
        is_retry: bool,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), Failed> {
        let Job { version, slot, .. } = job;
        let (mut rows, mut bytes) = (0_usize, 0_usize);
        for entry in &mut batch {
            entry.offset = rows;
            rows = rows.saturating_add(entry.rows);
            bytes = bytes.saturating_add(entry.bytes);
        }
        let (requests, row_bytes) = (batch.len(), bytes / rows.max(1));
        let indices = wanted_outputs(version, &batch);
        slot.ran(rows as u64, is_retry);
        let Ran { batch, result, was_stopped, room, mut timing, started } = self.call(job, batch, &indices);
        if result.is_ok() || was_stopped {
            version.times.learn(rows, row_bytes, timing.compute, version.max_rows());
        }
        let tensors = match result {
            Ok(tensors) => tensors,
            Err(error) => {
                slot.batch_sizes.record(rows as u64, &timing);
                return Err(if was_stopped { Failed::Stopped(batch) } else { Failed::Run(batch, error) });
            }
        };
        version.retries.deposit(rows);
        if indices.len() == version.spec.outputs.len() {
            let bytes = tensors.iter().map(OutputTensor::run_bytes).fold(0, usize::saturating_add);
            version.answers.learn(rows, row_bytes, bytes);
        }
        if let Some(entry) = batch.first() {
            version.seen.note(entry.key, entry.inputs.iter().map(|input| &input.shape));
        }
        let first = outcomes.len();
        let scattered = guarded(slot, || Scattered::new(&tensors, &indices, rows, requests, &version.spec));
        scatter(job, batch, rows, &scattered, outcomes);
        drop(room);
        let ended = started + timing.gather + timing.compute;
        timing.scatter = self.clock.now().saturating_duration_since(ended);
        slot.batch_sizes.record(rows as u64, &timing);
        for outcome in &mut outcomes[first..] {
            let queue = started.saturating_duration_since(outcome.ticket.arrived);
            outcome.timing = Timing { queue, ..timing };
        }
        Ok(())
    }

    fn call(&mut self, job: Job<'_>, batch: Vec<Entry>, indices: &[usize]) -> Ran {
        let Job { version, slot, place } = job;
        let started = self.clock.now();
        let gathered = guarded(slot, || {
            failpoint!("gather");
            self.gathered.gather(&batch, &version.spec);
            Ok(())
        });
        let computing = self.clock.now();
        let gather = computing.saturating_duration_since(started);
        let timing = Timing { gather, ..Timing::default() };
        let mut room = text_room(version, &batch);
        if let Err(error) = gathered {
            return Ran { batch, result: Err(error), was_stopped: false, room, timing, started };
        }
        let views: SmallVec<[TensorView<'_>; 2]> = self.gathered.views(&version.spec).collect();
        let mut run = |stop: &Stop| {
            // A panic in a backend is its bug; it must cost these requests, not the loop with all its connections.
            let result = catch_unwind(AssertUnwindSafe(|| {
                failpoint!("run", error => return Err(RunError { is_input_fault: false, text: error.text().to_owned() }));
                version.backend.run_until(&views, indices, stop, &mut room)
            }));
            result.unwrap_or_else(|_| {
                slot.panics.add(1);
                Err(RunError { is_input_fault: false, text: "the backend panicked".to_owned() })
            })
        };
        let (batch, result, was_stopped) = match place {
            Place::Loop(signs) => {
                if signs.stop.is_asked() {
                    // It came too late for an earlier batch.
                    signs.stop.reset();
                }
                signs.turn_inline();
                let result = run(&signs.stop);
                signs.turn_inline();
                (batch, result, signs.stop.is_asked())
            }
            Place::Instance(running) => {
                running.begin(batch);
                let result = run(&running.stop);
                let (batch, was_stopped) = running.end();
                (batch, result, was_stopped)
            }
        };
        let compute = self.clock.now().saturating_duration_since(computing);
        drop(views);
        self.gathered.release();
        let result = result.map_err(|error| room.take_refusal().unwrap_or_else(|| blame(&error)));
        Ran { batch, result, was_stopped, room, timing: Timing { compute, ..timing }, started }
    }
}

/// Room for the texts that a run of `batch` may give: what its requests expect, and what they may have.
fn text_room(version: &Version, batch: &[Entry]) -> TextRoom {
    let (true, Some(first)) = (version.has_text_outputs, batch.first()) else { return TextRoom::unbounded() };
    let sum = |bytes: fn(&Entry) -> usize| batch.iter().map(bytes).fold(0, usize::saturating_add);
    let reservation = first.ticket.reservation.as_ref().map(Reservation::beside);
    TextRoom::new(sum(|entry| entry.ticket.most), sum(|entry| entry.ticket.expected), reservation)
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
    job: Job<'_>,
    batch: Vec<Entry>,
    rows: usize,
    scattered: &Result<Scattered<'_>, Error>,
    outcomes: &mut Vec<Outcome>,
) {
    let number = job.version.next_batch();
    for entry in batch {
        let Entry { ticket, outputs, classes, rows: count, offset, .. } = entry;
        // The ticket stays out here, so that its caller is answered whatever happens.
        let result = guarded(job.slot, || {
            failpoint!("scatter");
            let scattered = scattered.as_ref().map_err(Error::clone)?;
            let outputs = scattered.rows_of(&outputs, classes.as_deref().unwrap_or_default(), count, offset)?;
            Ok(Rows { outputs, place: BatchPlace { batch: number, rows, offset }, rows: count })
        });
        outcomes.push(Outcome { ticket, result, timing: Timing::default() });
    }
}

/// Parts of a failed batch that wait for their runs. On an instance they lie where the loops can still answer them.
struct Aside<'a> {
    place: Place<'a>,
    lists: Vec<Vec<Entry>>,
}

impl Aside<'_> {
    fn push(&mut self, entries: Vec<Entry>) {
        match self.place {
            Place::Loop(_) => self.lists.push(entries),
            Place::Instance(running) => running.put_aside(entries),
        }
    }

    fn pop(&mut self) -> Option<Vec<Entry>> {
        match self.place {
            Place::Loop(_) => self.lists.pop(),
            Place::Instance(running) => running.take_aside(),
        }
    }
}

/// What becomes of a batch that was stopped, and of what was to run after it: on a loop it is given back, on an instance
/// nobody is left who could be answered with it.
#[cold]
fn stopped(job: Job<'_>, mut entries: Vec<Entry>, mut aside: Aside<'_>, outcomes: &mut Vec<Outcome>) -> Vec<Entry> {
    while let Some(later) = aside.pop() {
        entries.extend(later);
    }
    if let Place::Loop(_) = job.place {
        return entries;
    }
    let error = Error::new(Kind::Draining, "the server is shutting down, and the run was stopped");
    outcomes.extend(entries.into_iter().map(|entry| entry.refuse(error.clone())));
    Vec::new()
}

/// Does `work`; a panic in it is counted, and an error of those whom it concerns.
fn guarded<T>(slot: &Slot, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        slot.panics.add(1);
        Err(panicked())
    })
}

/// The error of requests whose processing panicked.
#[cold]
pub(crate) fn panicked() -> Error {
    Error::internal("the server failed while it worked on the request")
}

/// The error of a request that failed alone.
fn blame(error: &RunError) -> Error {
    let kind = if error.is_input_fault { Kind::InvalidArgument } else { Kind::Internal };
    Error::new(kind, error.text.clone())
}
