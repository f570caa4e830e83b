//! Rows run alone and beside others, to find mistakes of what the graph is said to do.
//!
//! Two comparisons. A row alone against the same row in a batch allows for last bits. A row in a batch against the same
//! place of a batch with other neighbours allows for nothing: whatever changes is what the neighbours leaked.

use std::time::Duration;

use mlserve_core::backend::OutputTensor;
use mlserve_core::model::Batching;
use mlserve_core::tensor::{BytesElements, DataType, ShapeText};

use super::pace::Pace;
use crate::fault::run_error;
use crate::load::now;
use crate::model::spec::Port;
use crate::number::{Tolerance, difference};
use crate::probe::{Fill, Probe, Runner};
use crate::value::Failure;

/// Rows being tried.
pub(super) struct Trial<'a> {
    runner: Runner<'a>,
    outputs: &'a [Port],
    pace: Pace,
    pub(super) probe: Probe,
    /// Rows and times of those runs that may stand for runs of the warm-up.
    pub(super) times: Vec<(usize, Duration)>,
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

impl<'a> Trial<'a> {
    pub(super) fn new(runner: Runner<'a>, outputs: &'a [Port], probe: Probe, pace: Pace) -> Self {
        Self { runner, outputs, pace, probe, times: Vec::new() }
    }

    /// Runs the trials, the telling ones first; stops early when there is no more time. `took` is the time of the row
    /// alone. Where the graph `is_shown` to keep rows apart, a model with slow rows is tried no further.
    ///
    /// **Errors:** what to serve the model as instead.
    pub(super) fn rows_are_independent(
        &mut self,
        alone: Vec<OutputTensor>,
        took: Duration,
        is_shown: bool,
    ) -> Result<(), Batching> {
        let alone = Answer { rows: 1, tensors: alone };
        if is_shown && self.pace.is_over {
            tracing::debug!(?took, "its rows are too slow to be tried beside each other: the graph alone tells");
            return Ok(());
        }
        if is_shown && self.pace.is_hasty {
            let begun = now();
            let [high, _] = WILD[0].0;
            if let Some(pair) = self.run_wild(&[high, SUBJECT]) {
                self.times = vec![(1, took), (2, now() - begun)];
                self.equal((&alone, 0), (&pair, PLACE), WILD[0].1, None)?;
                if !self.pace.has_time(2) {
                    return Ok(());
                }
            }
        }
        let calm = self.run(&self.among(SUBJECT, CALM)).map_err(|failure| self.unproven(&failure))?;
        self.equal((&alone, 0), (&calm, PLACE), "ordinary values", None)?;
        self.wild_rows_leak_nothing(&calm, &WILD[..1], true)?;
        self.known_rows_leak_nothing(&calm)?;
        self.wild_rows_leak_nothing(&calm, &WILD[1..], false)?;
        self.larger_batches_are_no_different()
    }

    /// A row with its neighbours, or the one that there is time for.
    fn among(&self, subject: Fill, pair: [Fill; 2]) -> Vec<Fill> {
        let all = [pair[0], subject, pair[1]];
        all[..=self.pace.neighbours].to_vec()
    }

    /// Whether a trial of this many rows is left out. Those that tell most are made in any case, unless rows are slow.
    fn is_late(&self, rows: usize, is_telling: bool) -> bool {
        (self.pace.is_hasty || !is_telling) && !self.pace.has_time(rows)
    }

    fn wild_rows_leak_nothing(
        &mut self,
        calm: &Answer,
        neighbours: &[([Fill; 2], &str)],
        is_telling: bool,
    ) -> Result<(), Batching> {
        for &(pair, name) in neighbours {
            let rows = self.among(SUBJECT, pair);
            if self.is_late(rows.len(), is_telling) {
                return Ok(());
            }
            if let Some(wild) = self.run_wild(&rows) {
                self.equal((calm, PLACE), (&wild, PLACE), name, Some(Tolerance::OF_NEIGHBOURS))?;
            }
        }
        Ok(())
    }

    /// Rows of values that the model knows, beside an ordinary one, and beside each other.
    fn known_rows_leak_nothing(&self, calm: &Answer) -> Result<(), Batching> {
        if !self.probe.knows_values() {
            return Ok(());
        }
        let rows = self.among(SUBJECT, [Fill::Known(0), Fill::Known(1)]);
        if self.is_late(rows.len(), true) {
            return Ok(());
        }
        if let Ok(wild) = self.run(&rows) {
            self.equal((calm, PLACE), (&wild, PLACE), KNOWN, Some(Tolerance::OF_NEIGHBOURS))?;
        }
        self.known_rows_are_independent()
    }

    fn larger_batches_are_no_different(&mut self) -> Result<(), Batching> {
        for (rows, place) in LARGER {
            if !self.pace.has_time(rows + 1) {
                return Ok(());
            }
            let subject = Fill::Plain(10 + rows as u64);
            let alone = self.run(&[subject]).map_err(|failure| self.unproven(&failure))?;
            let fill = |row: usize| if row.is_multiple_of(2) { Fill::High } else { Fill::Low };
            let batch: Vec<Fill> = (0..rows).map(|row| if row == place { subject } else { fill(row) }).collect();
            if let Some(batch) = self.run_wild(&batch) {
                self.equal((&alone, 0), (&batch, place), WILD[0].1, None)?;
            }
        }
        Ok(())
    }

    /// Rows of values that the model knows, beside each other and beside ordinary ones.
    fn known_rows_are_independent(&self) -> Result<(), Batching> {
        for round in 0..KNOWN_ROUNDS {
            let subject = Fill::Known(5 * round + 2);
            let rows = self.among(subject, CALM);
            if self.is_late(2 * rows.len() + 1, round == 0) {
                return Ok(());
            }
            // A model may refuse values that are compared with something else.
            let Ok(calm) = self.run(&rows) else { continue };
            if let Ok(alone) = self.run(&[subject]) {
                self.equal((&alone, 0), (&calm, PLACE), KNOWN, None)?;
            }
            let pair = [Fill::Known(2 * round), Fill::Known(2 * round + 1)];
            if let Ok(wild) = self.run(&self.among(subject, pair)) {
                self.equal((&calm, PLACE), (&wild, PLACE), KNOWN, Some(Tolerance::OF_NEIGHBOURS))?;
            }
        }
        Ok(())
    }

    /// What a model is whose rows are not shown to be independent: does it count them at all?
    pub(super) fn refused(&self, alone: Vec<OutputTensor>, reason: String) -> Batching {
        let alone = Answer { rows: 1, tensors: alone };
        let several = self.run(&self.among(SUBJECT, CALM));
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
        let begun = now();
        let tensors = self.probe.run(&self.runner, rows)?;
        self.pace.ran(rows.len(), now() - begun);
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

    fn unproven(&self, failure: &Failure) -> Batching {
        let refusal = run_error(failure.clone(), self.runner.session.runtime().arena_bytes()).text;
        let reason = format!("that rows are independent could not be proven, as a run of rows failed: {refusal}");
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
