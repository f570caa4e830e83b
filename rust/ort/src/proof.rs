//! Whether rows may share a run: the graph is read, then rows are run alone and beside extreme neighbours.
//!
//! What is not shown by the graph is not batched, whatever the runs say. Runs take a small part of the load's time.

mod fixed;
mod pace;
mod trial;

use std::sync::Arc;
use std::time::Duration;

use mlserve_core::backend::OutputTensor;
use mlserve_core::config::BatchingChoice;
use mlserve_core::model::Batching;

use self::fixed::{fixed_port, fixed_reason};
use self::pace::Pace;
use self::trial::Trial;
use crate::candidate::Candidate;
use crate::error::LoadError;
use crate::fault::run_error;
use crate::load::{LoadOptions, now};
use crate::model::constants;
use crate::model::flow::{self, Followed, Refusal};
use crate::model::spec::Port;
use crate::probe::{First, Knowledge, Probe, Runner};
use crate::session::Session;
use crate::value::Failure;

/// What was found out about a model's rows.
#[derive(Debug)]
pub(crate) struct Proven {
    pub(crate) batching: Batching,
    /// How the model can be tried; `None` if it refused everything.
    pub(crate) probe: Option<Probe>,
    /// How long reading the graph took.
    pub(crate) analysis: Duration,
    /// How long the first run took, with those that the model refused before.
    pub(crate) first: Duration,
    /// How long the trials took.
    pub(crate) trials: Duration,
    /// What of that the warm-up is to save: trials that the model would not have met without a proof.
    pub(crate) owed: Duration,
    /// Rows and times of those runs that may stand for runs of the warm-up.
    pub(crate) times: Vec<(usize, Duration)>,
}

impl Proven {
    /// Without trials.
    fn untried(batching: Batching, probe: Option<Probe>) -> Self {
        let none = Duration::ZERO;
        Self { batching, probe, analysis: none, first: none, trials: none, owed: none, times: Vec::new() }
    }
}

/// Finds out whether rows of the candidate may share a run; completes its outputs where the graph is silent.
///
/// **Cost:** a run of one row, then as many as fit in a small part of the load's time.
///
/// **Errors:** an output of unknown type of a model that refuses every trial.
pub(crate) fn prove(
    candidate: &mut Candidate<'_>,
    session: &Arc<Session>,
    options: &LoadOptions,
) -> Result<Proven, LoadError> {
    let fixed = options.whole_requests.clone().or_else(|| fixed_reason(candidate));
    let start = now();
    let follows = fixed.is_none() && options.reads_graph;
    let followed = if follows { flow::follow(candidate.model, &candidate.inputs) } else { Followed::default() };
    let knowledge = Knowledge { constants: Arc::new(constants::of(candidate.model)), tables: followed.bounds };
    let read = now();
    let outputs: Vec<usize> = (0..candidate.outputs.len()).collect();
    let runner = Runner { session, outputs: &outputs, limiter: &candidate.limiter };
    let found = Probe::find(&runner, &candidate.inputs, fixed.is_none(), &knowledge);
    let (analysis, first) = (read - start, now() - read);
    let (probe, alone) = match found {
        Ok(found) => found,
        Err(failure) => {
            let batching = chosen(refused_everything(candidate, fixed, failure)?, options);
            return Ok(Proven { analysis, first, ..Proven::untried(batching, None) });
        }
    };
    complete(&mut candidate.outputs, &alone.answer);
    let proven = if let Some(reason) = fixed {
        Proven::untried(Batching::Fixed { reason }, Some(probe))
    } else {
        tried(candidate, &runner, (probe, alone), followed.refusal)
    };
    if proven.batching.has_rows() {
        candidate.outputs.iter_mut().for_each(free_first);
    }
    Ok(Proven { analysis, first, ..proven })
}

/// Runs rows of a model that counts them, as far as it is of use after what the graph tells.
fn tried(
    candidate: &Candidate<'_>,
    runner: &Runner<'_>,
    (probe, First { answer, took }): (Probe, First),
    refusal: Option<Refusal>,
) -> Proven {
    let (options, begun) = (candidate.options, now());
    candidate.limiter.shorten(LONGEST_TRIAL + LONGER * took);
    let pace = Pace::new(begun - candidate.begun, took, options.warmup_budget);
    let mut trial = Trial::new(*runner, &candidate.outputs, probe, pace);
    let is_shown = refusal.is_none() && options.batching != BatchingChoice::Off;
    let found = match refusal {
        _ if options.batching == BatchingChoice::Off => Err(trial.refused(answer, OFF.to_owned())),
        None => trial.rows_are_independent(answer, took, options.reads_graph),
        Some(Refusal::Uncounted(reason)) if options.batching == BatchingChoice::Auto => Err(Batching::Fixed { reason }),
        Some(Refusal::Uncounted(reason) | Refusal::Dependent(reason)) => Err(trial.refused(answer, reason)),
    };
    let found = match candidate.limiter.stopped() {
        Some(after) => Err(unended(found, after)),
        None => found,
    };
    let (trials, batching) = (now() - begun, chosen(found.err().unwrap_or(Batching::Rows), options));
    let owed = if is_shown { trials } else { Duration::ZERO };
    Proven { trials, owed, times: trial.times, ..Proven::untried(batching, Some(trial.probe)) }
}

/// A trial that takes longer than this, and so much longer than the first row, is not waited for.
const LONGEST_TRIAL: Duration = Duration::from_secs(5);

/// How many times the first row's time a trial may take beyond that: it is a few dozen rows at most.
const LONGER: u32 = 100;

/// What a model is that had to be stopped after this time.
fn unended(tried: Result<(), Batching>, after: Duration) -> Batching {
    let what = format!("a trial run did not end within {} s and was stopped", after.as_secs_f64());
    match tried {
        Ok(()) => Batching::Unsafe { reason: format!("that rows are independent could not be proven: {what}") },
        Err(Batching::Fixed { reason }) => Batching::Fixed { reason: format!("{reason}; {what}") },
        Err(other) => {
            let reason = other.reason().unwrap_or_default();
            Batching::Unsafe { reason: format!("{reason}; {what}") }
        }
    }
}

/// Why a model is not batched whose settings say so.
const OFF: &str = "its settings say batching = \"off\"";

/// What was found, as the settings have it: whoever trusts a model batches it whatever was found of its rows.
fn chosen(found: Batching, options: &LoadOptions) -> Batching {
    match (found, options.batching) {
        (Batching::Unsafe { reason }, BatchingChoice::Trust) => Batching::Trusted { reason },
        (Batching::Unsafe { .. }, BatchingChoice::Off) => Batching::Unsafe { reason: OFF.to_owned() },
        (found, _) => found,
    }
}

/// A model that refused every trial is served, but nothing is known about its rows.
fn refused_everything(
    candidate: &Candidate<'_>,
    fixed: Option<String>,
    failure: Failure,
) -> Result<Batching, LoadError> {
    let refusal = run_error(failure, candidate.runtime.arena_bytes()).text;
    if let Some(port) = candidate.outputs.iter().find(|port| !port.is_known) {
        let name = &port.spec.name;
        let text = format!("output '{name}' has no type and shape in the graph, and no trial run tells it: {refusal}");
        return Err(LoadError::unsupported(text));
    }
    let fixed = fixed.or_else(|| candidate.outputs.iter().find_map(|port| fixed_port("output", port)));
    let unproven = || format!("that rows are independent could not be proven, as every trial run failed: {refusal}");
    Ok(fixed.map_or_else(|| Batching::Unsafe { reason: unproven() }, |reason| Batching::Fixed { reason }))
}

/// The first dimension counts rows, whatever size the exporter wrote there.
fn free_first(port: &mut Port) {
    if let Some(first) = port.spec.shape.first_mut() {
        *first = -1;
    }
}

/// Fills in types and ranks that the graph does not tell from a run, or tells wrong.
fn complete(outputs: &mut [Port], answer: &[OutputTensor]) {
    let is_told = |port: &Port, tensor: &OutputTensor| port.is_known && port.spec.shape.len() == tensor.shape.len();
    for (port, tensor) in outputs.iter_mut().zip(answer).filter(|(port, tensor)| !is_told(port, tensor)) {
        port.spec.datatype = tensor.datatype;
        port.spec.shape = tensor.shape.iter().map(|_| -1).collect();
        port.is_known = true;
    }
}
