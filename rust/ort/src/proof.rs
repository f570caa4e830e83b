//! Whether rows may share a run: the graph is read, then rows are run alone and beside extreme neighbours.
//!
//! Two comparisons. A row alone against the same row in a batch allows for last bits. A row in a batch against the same
//! place of a batch with other neighbours allows for nothing: whatever changes is what the neighbours leaked.

use std::sync::Arc;

use mlserve_core::backend::OutputTensor;
use mlserve_core::config::BatchingChoice;
use mlserve_core::model::Batching;
use mlserve_core::tensor::{BytesElements, DataType, ShapeText};

use crate::candidate::Candidate;
use crate::error::LoadError;
use crate::fault::run_error;
use crate::load::{LoadOptions, now};
use crate::model::constants;
use crate::model::flow::{self, Followed, Refusal};
use crate::model::spec::Port;
use crate::number::{Tolerance, difference};
use crate::probe::{Fill, Knowledge, Probe};
use crate::session::Session;
use crate::value::Failure;

/// What was found out about a model's rows.
pub(crate) struct Proven {
    pub(crate) batching: Batching,
    /// How the model can be tried; `None` if it refused everything.
    pub(crate) probe: Option<Probe>,
}

/// Finds out whether rows of the candidate may share a run; completes its outputs where the graph is silent.
///
/// **Cost:** half a dozen runs of up to three rows, and more while they fit in half of the warm-up budget.
///
/// **Errors:** an output of unknown type of a model that refuses every trial.
pub(crate) fn prove(
    candidate: &mut Candidate<'_>,
    session: &Arc<Session>,
    options: &LoadOptions,
) -> Result<Proven, LoadError> {
    let fixed = options.whole_requests.clone().or_else(|| fixed_reason(candidate));
    let outputs: Vec<usize> = (0..candidate.outputs.len()).collect();
    let start = now();
    let followed = if fixed.is_none() && options.reads_graph {
        flow::follow(candidate.model, &candidate.inputs)
    } else {
        Followed::default()
    };
    let knowledge = Knowledge { constants: Arc::new(constants::of(candidate.model)), tables: followed.bounds };
    let found = Probe::find(session, &candidate.inputs, fixed.is_none(), &outputs, &knowledge);
    let (probe, alone) = match found {
        Ok(found) => found,
        Err(failure) => {
            let proven = refused_everything(candidate, fixed, failure)?;
            return Ok(Proven { batching: chosen(proven.batching, options), ..proven });
        }
    };
    let is_slow = now() - start > options.warmup_budget / SLOW_PART;
    complete(&mut candidate.outputs, &alone);
    if let Some(reason) = fixed {
        return Ok(Proven { batching: Batching::Fixed { reason }, probe: Some(probe) });
    }
    let until = start + options.warmup_budget / 2;
    let neighbours = if is_slow { 1 } else { 2 };
    let mut trial = Trial { session, outputs: &candidate.outputs, indices: outputs, probe };
    let tried = match followed.refusal {
        _ if options.batching == BatchingChoice::Off => Err(trial.refused(alone, neighbours, OFF.to_owned())),
        None => trial.rows_are_independent(alone, neighbours, &|| now() < until),
        Some(Refusal::Uncounted(reason)) if options.batching == BatchingChoice::Auto => Err(Batching::Fixed { reason }),
        Some(Refusal::Uncounted(reason) | Refusal::Dependent(reason)) => Err(trial.refused(alone, neighbours, reason)),
    };
    let batching = chosen(tried.err().unwrap_or(Batching::Rows), options);
    let probe = trial.probe;
    if batching.has_rows() {
        candidate.outputs.iter_mut().for_each(free_first);
    }
    Ok(Proven { batching, probe: Some(probe) })
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

/// Why the first dimension cannot count rows, by the shapes of the graph's inputs alone. What a graph says of its outputs
/// is not held against it: exporters write the sizes of the row that they traced, and runs tell better.
fn fixed_reason(candidate: &Candidate<'_>) -> Option<String> {
    if candidate.inputs.is_empty() {
        return Some("the model has no inputs".to_owned());
    }
    let inputs = candidate.inputs.iter().find_map(|port| fixed_port("input", port));
    let trusts = candidate.options.batching == BatchingChoice::Trust;
    let several = || several_axes(&candidate.inputs).filter(|_| !trusts);
    inputs.or_else(|| candidate.inputs.iter().find_map(repeated_symbol)).or_else(several)
}

/// What keeps the first dimension of an input or output from counting rows.
fn fixed_port(role: &str, port: &Port) -> Option<String> {
    let (name, shape) = (&port.spec.name, &port.spec.shape);
    let problem = if shape.is_empty() { "it has no dimensions" } else { "its first dimension is fixed" };
    let is_fixed = !port.has_free_first() && port.is_known;
    is_fixed.then(|| format!("{role} '{name}' has shape {}: {problem}", ShapeText(shape)))
}

/// Inputs whose first dimensions have names of their own count different things: one user, many items.
fn several_axes(inputs: &[Port]) -> Option<String> {
    let named = |port: &&Port| port.symbols.first().is_some_and(|symbol| is_given(symbol));
    let mut inputs = inputs.iter().filter(named);
    let first = inputs.next()?;
    let other = inputs.find(|port| port.symbols[0] != first.symbols[0])?;
    let (name, other_name) = (&first.spec.name, &other.spec.name);
    let (symbol, other_symbol) = (&first.symbols[0], &other.symbols[0]);
    Some(format!(
        "inputs '{name}' and '{other_name}' have first dimensions of their own, '{symbol}' and '{other_symbol}'; give \
         them one name, or set batching to \"trust\", if both count rows"
    ))
}

/// Whether a person named the dimension. Exporters number those that nobody named, each input's anew.
fn is_given(symbol: &str) -> bool {
    let stem = symbol.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let is_numbered = stem.len() < symbol.len();
    let is_made = matches!(stem, "" | "unk__" | "unk_" | "DynamicDimension." | "?") || stem.ends_with("_dynamic_axes_");
    !(symbol.is_empty() || symbol == "?" || symbol == "None" || (is_numbered && is_made))
}

/// The batch symbol at a second place of one input: rows of different requests cannot be joined.
fn repeated_symbol(port: &Port) -> Option<String> {
    let (first, rest) = port.symbols.split_first()?;
    let is_repeated = !first.is_empty() && rest.contains(first);
    is_repeated.then(|| format!("input '{}' has its first dimension '{first}' a second time", port.spec.name))
}

/// A model that refused every trial is served, but nothing is known about its rows.
fn refused_everything(candidate: &Candidate<'_>, fixed: Option<String>, failure: Failure) -> Result<Proven, LoadError> {
    let refusal = run_error(failure, candidate.runtime.arena_bytes()).text;
    if let Some(port) = candidate.outputs.iter().find(|port| !port.is_known) {
        let name = &port.spec.name;
        let text = format!("output '{name}' has no type and shape in the graph, and no trial run tells it: {refusal}");
        return Err(LoadError::unsupported(text));
    }
    let fixed = fixed.or_else(|| candidate.outputs.iter().find_map(|port| fixed_port("output", port)));
    let unproven = || format!("that rows are independent could not be proven, as every trial run failed: {refusal}");
    let batching = fixed.map_or_else(|| Batching::Unsafe { reason: unproven() }, |reason| Batching::Fixed { reason });
    Ok(Proven { batching, probe: None })
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

/// Rows being tried.
struct Trial<'a> {
    session: &'a Arc<Session>,
    outputs: &'a [Port],
    indices: Vec<usize>,
    probe: Probe,
}

/// What a run of so many rows answered.
struct Answer {
    rows: usize,
    tensors: Vec<OutputTensor>,
}

/// The row under test.
const SUBJECT: Fill = Fill::Plain(1);

/// Where it stands in small batches.
const PLACE: usize = 1;

/// Two ordinary neighbours.
const CALM: [Fill; 2] = [Fill::Plain(3), Fill::Plain(4)];

/// Pairs of neighbours that show a leak, each with its name for the reason.
const WILD: [([Fill; 2], &str); 4] = [
    ([Fill::High, Fill::Low], "extreme values"),
    ([Fill::NotANumber, Fill::NotANumber], "values that are no numbers"),
    ([Fill::Low, Fill::Low], "extreme values"),
    ([Fill::Plain(5), Fill::Plain(6)], "other ordinary values"),
];

/// Rows and places of larger batches. They find little more, so they are tried only while there is time.
const LARGER: [(usize, usize); 5] = [(4, 0), (4, 3), (8, 5), (16, 1), (33, 32)];

/// Neighbours with values that the model knows.
const KNOWN: &str = "values from the model's own constants";

/// How often rows of values that the model knows are tried beside each other.
const KNOWN_ROUNDS: u64 = 6;

/// A row that takes longer than this part of the budget has one neighbour instead of two.
const SLOW_PART: u32 = 16;

impl Trial<'_> {
    /// Runs the trials, the telling ones first; stops early, after those, when there is no more time.
    ///
    /// **Errors:** what to serve the model as instead.
    fn rows_are_independent(
        &mut self,
        alone: Vec<OutputTensor>,
        neighbours: usize,
        has_time: &dyn Fn() -> bool,
    ) -> Result<(), Batching> {
        let alone = Answer { rows: 1, tensors: alone };
        let among = |pair: [Fill; 2]| [pair[0], SUBJECT, pair[1]];
        let calm = self.run(&among(CALM)[..=neighbours]).map_err(|failure| self.unproven(neighbours + 1, failure))?;
        self.equal((&alone, 0), (&calm, PLACE), "ordinary values", None)?;
        for (index, (pair, name)) in WILD.into_iter().enumerate() {
            if index > 0 && !has_time() {
                return Ok(());
            }
            if let Some(wild) = self.run_wild(&among(pair)[..=neighbours]) {
                self.equal((&calm, PLACE), (&wild, PLACE), name, Some(Tolerance::OF_NEIGHBOURS))?;
            }
        }
        if self.probe.knows_values() {
            let pair = [Fill::Known(0), Fill::Known(1)];
            if let Ok(wild) = self.run(&among(pair)[..=neighbours]) {
                self.equal((&calm, PLACE), (&wild, PLACE), KNOWN, Some(Tolerance::OF_NEIGHBOURS))?;
            }
            self.known_rows_are_independent(neighbours, has_time)?;
        }
        for (rows, place) in LARGER {
            if !has_time() {
                return Ok(());
            }
            let subject = Fill::Plain(10 + rows as u64);
            let alone = self.run(&[subject]).map_err(|failure| self.unproven(1, failure))?;
            let fill = |row: usize| if row.is_multiple_of(2) { Fill::High } else { Fill::Low };
            let batch: Vec<Fill> = (0..rows).map(|row| if row == place { subject } else { fill(row) }).collect();
            if let Some(batch) = self.run_wild(&batch) {
                self.equal((&alone, 0), (&batch, place), WILD[0].1, None)?;
            }
        }
        Ok(())
    }

    /// Rows of values that the model knows, beside each other and beside ordinary ones.
    fn known_rows_are_independent(&self, neighbours: usize, has_time: &dyn Fn() -> bool) -> Result<(), Batching> {
        for round in 0..KNOWN_ROUNDS {
            if round > 0 && !has_time() {
                return Ok(());
            }
            let subject = Fill::Known(5 * round + 2);
            let among = |pair: [Fill; 2]| [pair[0], subject, pair[1]];
            // A model may refuse values that are compared with something else.
            let Ok(calm) = self.run(&among(CALM)[..=neighbours]) else { continue };
            if let Ok(alone) = self.run(&[subject]) {
                self.equal((&alone, 0), (&calm, PLACE), KNOWN, None)?;
            }
            let pair = [Fill::Known(2 * round), Fill::Known(2 * round + 1)];
            if let Ok(wild) = self.run(&among(pair)[..=neighbours]) {
                self.equal((&calm, PLACE), (&wild, PLACE), KNOWN, Some(Tolerance::OF_NEIGHBOURS))?;
            }
        }
        Ok(())
    }

    /// What a model is whose rows are not shown to be independent: does it count them at all?
    fn refused(&self, alone: Vec<OutputTensor>, neighbours: usize, reason: String) -> Batching {
        let alone = Answer { rows: 1, tensors: alone };
        let several = self.run(&[CALM[0], SUBJECT, CALM[1]][..=neighbours]);
        for answer in [Some(alone), several.ok()].into_iter().flatten() {
            for (index, port) in self.outputs.iter().enumerate() {
                if let Err(uncounted) = row(&port.spec.name, (&answer, 0), index) {
                    return uncounted;
                }
            }
        }
        Batching::Unsafe { reason }
    }

    fn run(&self, rows: &[Fill]) -> Result<Answer, Failure> {
        let tensors = self.probe.run(self.session, rows, &self.indices)?;
        Ok(Answer { rows: rows.len(), tensors })
    }

    /// Runs rows with extreme values; without extreme integers if the model refuses those, and not at all if it refuses
    /// the rest too.
    fn run_wild(&mut self, rows: &[Fill]) -> Option<Answer> {
        if let Ok(answer) = self.run(rows) {
            return Some(answer);
        }
        self.probe.extreme_integers = false;
        self.run(rows).ok()
    }

    fn unproven(&self, rows: usize, failure: Failure) -> Batching {
        let refusal = run_error(failure, self.session.runtime().arena_bytes()).text;
        let reason =
            format!("that rows are independent could not be proven, as a run of {rows} rows failed: {refusal}");
        Batching::Unsafe { reason }
    }

    /// Holds one row of one run against one row of another. `tolerance` is that of batch sizes unless given.
    fn equal(
        &self,
        expected: (&Answer, usize),
        found: (&Answer, usize),
        neighbours: &str,
        tolerance: Option<Tolerance>,
    ) -> Result<(), Batching> {
        for (index, port) in self.outputs.iter().enumerate() {
            let name = &port.spec.name;
            let (left, left_shape) = row(name, expected, index)?;
            let (right, right_shape) = row(name, found, index)?;
            let datatype = found.0.tensors[index].datatype;
            let changed = if left_shape == right_shape {
                change(datatype, &left, &right, tolerance)
            } else {
                let (left, right) = (ShapeText(left_shape), ShapeText(right_shape));
                Some(format!("changes its shape from {left} to {right}"))
            };
            if let Some(changed) = changed {
                return Err(Batching::Unsafe { reason: self.blame(name, &changed, neighbours) });
            }
        }
        Ok(())
    }

    /// Tells neighbours that leak from a model that never answers the same twice.
    fn blame(&self, name: &str, changed: &str, neighbours: &str) -> String {
        if let (Ok(first), Ok(second)) = (self.run(&[SUBJECT]), self.run(&[SUBJECT])) {
            let mut pairs = first.tensors.iter().zip(&second.tensors);
            if pairs.any(|(first, second)| first.data != second.data) {
                return "the model answers the same row differently from run to run".to_owned();
            }
        }
        format!("rows influence each other: a row's output '{name}' {changed} beside rows with {neighbours}")
    }
}

/// How two rows differ, for the reason.
fn change(datatype: DataType, left: &[u8], right: &[u8], tolerance: Option<Tolerance>) -> Option<String> {
    if datatype == DataType::Bytes {
        return (left != right).then(|| "is another text".to_owned());
    }
    let tolerance = tolerance.unwrap_or(Tolerance::of_batch_size(datatype));
    let found = difference(datatype, left, right, tolerance)?;
    Some(format!("changes from {:.6} to {:.6}", found.expected, found.found))
}

/// The bytes and the shape of one row of one output.
///
/// **Errors:** the output's first dimension does not count rows.
fn row<'a>(name: &str, (answer, row): (&'a Answer, usize), output: usize) -> Result<(Vec<u8>, &'a [i64]), Batching> {
    let tensor = &answer.tensors[output];
    let rows = answer.rows;
    let Some((_, shape)) = tensor.shape.split_first().filter(|(first, _)| **first == rows as i64) else {
        let reason = format!("output '{name}' has shape {} for {rows} rows", ShapeText(&tensor.shape));
        return Err(Batching::Fixed { reason });
    };
    let bytes = if tensor.datatype == DataType::Bytes {
        let elements: Vec<&[u8]> = BytesElements::new(&tensor.data).filter_map(Result::ok).collect();
        let width = elements.len() / rows;
        elements[row * width..(row + 1) * width]
            .iter()
            .flat_map(|text| [&text.len().to_le_bytes()[..], text].concat())
            .collect()
    } else {
        let width = tensor.data.len() / rows;
        tensor.data[row * width..(row + 1) * width].to_vec()
    };
    Ok((bytes, shape))
}
