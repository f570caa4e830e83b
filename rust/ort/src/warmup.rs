//! Chooses how many threads a run takes and measures how long runs of each size take, by running.

use std::sync::Arc;
use std::time::Duration;

use crate::candidate::Candidate;
use crate::error::LoadError;
use crate::fault::run_error;
use crate::limit::Limiter;
use crate::load::{LoadOptions, now};
use crate::probe::{Fill, Probe, Runner};
use crate::proof::Proven;
use crate::session::Session;

/// A row that takes less than this stays on one thread: handing work over costs tens of microseconds.
const HEAVY: Duration = Duration::from_micros(300);

/// Least gain for which a run gets more threads than one.
const MIN_SPEED_UP: f64 = 1.3;

/// Least use that each thread must be of: below, as many instances with fewer threads answer more requests.
const MIN_EFFICIENCY: f64 = 0.6;

/// Runs of one size if they are short: enough for one of them to escape what else the machine does.
const MAX_RUNS: usize = 50;

/// Runs of one size that should be made, unless they are long.
const MIN_RUNS: usize = 5;

/// Part of the budget that runs of one size may take up to [`MIN_RUNS`].
const PART: u32 = 8;

/// Part of that part for the runs beyond: one in a thousand of the budget for each size, as a server may load hundreds
/// of small models.
const SHORT_PART: u32 = 128;

/// A session that is ready to serve.
pub(crate) struct Warm {
    pub(crate) session: Arc<Session>,
    pub(crate) threads: usize,
    pub(crate) instances: usize,
    /// Rows and the smallest time of a run with so many.
    pub(crate) times: Vec<(usize, Duration)>,
}

/// Warms `session` up, or one with more threads if that serves better.
///
/// **Cost:** about half of the warm-up budget; at least one run, and one per thread count that is compared.
pub(crate) fn warm_up(
    candidate: &Candidate<'_>,
    session: Arc<Session>,
    proven: &Proven,
    options: &LoadOptions,
) -> Result<Warm, LoadError> {
    let outputs: Vec<usize> = (0..candidate.outputs.len()).collect();
    let given = options.threads.unwrap_or(1).max(1);
    let mut warm = Warm { session, threads: given, instances: 0, times: Vec::new() };
    if let Some(probe) = &proven.probe {
        let (limiter, part) = (&candidate.limiter, options.warmup_budget / PART);
        let mut trial = Trial { probe, outputs: &outputs, limiter, part, known: &proven.times };
        if options.threads.is_none() {
            trial.choose_threads(candidate, &mut warm, options.cores)?;
        }
        if warm.threads != given {
            trial.known = &[];
        }
        let max_rows = if proven.batching.has_rows() { options.max_batch_rows.max(1) } else { 1 };
        // What the proof took is the warm-up's too, down to half of its share.
        let half = options.warmup_budget / 2;
        warm.times = trial.times(&warm.session, max_rows, half.saturating_sub(proven.owed).max(half / 2));
    }
    warm.instances = options.instances.unwrap_or(options.cores / warm.threads).max(1);
    Ok(warm)
}

struct Trial<'a> {
    probe: &'a Probe,
    outputs: &'a [usize],
    limiter: &'a Limiter,
    part: Duration,
    /// Rows and times of runs that were made before.
    known: &'a [(usize, Duration)],
}

impl Trial<'_> {
    /// Replaces the session by the one with the most threads that are all of use.
    fn choose_threads(&self, candidate: &Candidate<'_>, warm: &mut Warm, cores: usize) -> Result<(), LoadError> {
        let Some(single) = self.time(&warm.session, 1).filter(|&time| time > HEAVY) else { return Ok(()) };
        let doubled = std::iter::successors(Some(2_usize), |threads| threads.checked_mul(2));
        for threads in doubled.take_while(|&threads| threads <= cores) {
            let session = candidate.session(threads)?;
            let Some(time) = self.time(&session, 1) else { return Ok(()) };
            let speed_up = single.as_secs_f64() / time.as_secs_f64().max(f64::MIN_POSITIVE);
            tracing::debug!(threads, speed_up, "measured threads");
            if speed_up < MIN_SPEED_UP || speed_up / (threads as f64) < MIN_EFFICIENCY {
                return Ok(());
            }
            (warm.session, warm.threads) = (session, threads);
        }
        Ok(())
    }

    /// Times of runs of 1, 2, 4… rows up to `max_rows`, while they fit in the budget.
    fn times(&self, session: &Arc<Session>, max_rows: usize, budget: Duration) -> Vec<(usize, Duration)> {
        let until = now() + budget;
        let mut times: Vec<(usize, Duration)> = Vec::new();
        let mut rows = 1;
        loop {
            let Some(time) = self.known(rows).or_else(|| self.time(session, rows)) else { return times };
            times.push((rows, time));
            let next = (rows * 2).min(max_rows);
            // Twice the rows take at most about twice the time.
            if rows == max_rows || (now() + 2 * time > until && self.known(next).is_none()) {
                return times;
            }
            rows = next;
        }
    }

    /// What a run of so many rows took before, if it is long enough to count without being repeated.
    fn known(&self, rows: usize) -> Option<Duration> {
        self.known.iter().find(|(known, time)| *known == rows && *time > self.part).map(|(_, time)| *time)
    }

    /// The smallest time of several runs of so many rows; `None` if the model refuses them.
    fn time(&self, session: &Arc<Session>, rows: usize) -> Option<Duration> {
        let fills: Vec<Fill> = (0..rows).map(|row| Fill::Plain(row as u64 + 1)).collect();
        let batch = self.probe.batch(&fills);
        let mut smallest: Option<Duration> = None;
        let first = now();
        for count in 1..=MAX_RUNS {
            let start = now();
            let runner = Runner { session, outputs: self.outputs, limiter: self.limiter };
            if let Err(failure) = batch.run(&runner) {
                let text = run_error(failure, None).text;
                tracing::debug!(rows, text, "the model refuses a warm-up run");
                return None;
            }
            let end = now();
            smallest = Some(smallest.map_or(end - start, |smallest| smallest.min(end - start)));
            let part = if count < MIN_RUNS { self.part } else { self.part / SHORT_PART };
            if end - first > part {
                break;
            }
        }
        smallest
    }
}
