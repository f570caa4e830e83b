//! Values to try a model with: ordinary rows, rows with extreme values, rows with values that the model knows, and sizes
//! for dimensions that the graph leaves open.
//!
//! Rows are made one by one and joined, so that the same row can be run alone and beside others. They are the same in
//! every process: loading a model twice finds the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mlserve_core::backend::{OutputTensor, TensorView, TextRoom};
use mlserve_core::stop::Stop;
use mlserve_core::tensor::{DataType, element_count};

use crate::limit::{Endless, Limiter};
use crate::load::now;
use crate::model::constants::Constants;
use crate::model::spec::Port;
use crate::number::{bfloat_bits, half_bits};
use crate::session::Session;
use crate::stop::Terminator;
use crate::value::Failure;

/// Sizes to try for open dimensions, likeliest first: sequences take any, images want 32 or more.
const SIZES: [i64; 6] = [4, 1, 16, 32, 64, 224];

/// Bounds (exclusive) to try for integers: identifiers start at 0, and even a table of one row has that.
const INTEGER_BOUNDS: [i64; 3] = [4, 2, 1];

/// Magnitude of an extreme number: far outside any sensible feature, yet its square still fits a float.
const EXTREME: f64 = 1e6;

/// Length of an extreme string.
const LONG_STRING: usize = 1000;

/// Most bytes of one input of one row; larger sizes of open dimensions are not tried.
const MAX_ROW_BYTES: usize = 64 << 20;

/// How a row is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Floats within ±1, small integers, short strings; different for each seed.
    Plain(u64),
    /// Large positive numbers, long strings.
    High,
    /// Large negative numbers, empty strings.
    Low,
    /// Floats that are no numbers; otherwise as `High`.
    NotANumber,
    /// Values that the model knows, others for each number; ordinary ones where it knows none.
    Known(u64),
}

/// One input as it is tried.
#[derive(Clone, Debug)]
struct Slot {
    datatype: DataType,
    /// Dimensions of one row, or of the whole tensor if the model has no rows.
    shape: Vec<i64>,
    /// Size of the table that its integers are looked up in.
    table: Option<i64>,
}

/// What is known about a model's values before it is tried.
#[derive(Clone, Debug, Default)]
pub(crate) struct Knowledge {
    pub(crate) constants: Arc<Constants>,
    /// Sizes of tables by input.
    pub(crate) tables: BTreeMap<usize, i64>,
}

/// Where trial rows run: a session, with all of its outputs, as long as there is time.
#[derive(Clone, Copy)]
pub(crate) struct Runner<'a> {
    pub(crate) session: &'a Arc<Session>,
    pub(crate) outputs: &'a [usize],
    pub(crate) limiter: &'a Limiter,
}

/// The first run that a model did not refuse.
pub(crate) struct First {
    pub(crate) answer: Vec<OutputTensor>,
    pub(crate) took: Duration,
}

/// How one model can be tried.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    slots: Vec<Slot>,
    has_rows: bool,
    /// Exclusive bound of plain integers.
    bound: i64,
    /// Whether extreme rows have extreme integers too; a model that looks values up refuses them.
    pub(crate) extreme_integers: bool,
    constants: Arc<Constants>,
}

impl Probe {
    /// Tries sizes and values until the model runs on one row; also returns what it answered.
    ///
    /// **Errors:** the last refusal, if none of them runs.
    pub(crate) fn find(
        runner: &Runner<'_>,
        inputs: &[Port],
        has_rows: bool,
        knowledge: &Knowledge,
    ) -> Result<(Self, First), Failure> {
        let mut refusal = Failure::Output("its inputs are too large to try".to_owned());
        let is_open = |port: &Port| port.spec.shape[usize::from(has_rows)..].contains(&-1);
        let sizes = if inputs.iter().any(is_open) { &SIZES[..] } else { &SIZES[..1] };
        let has_integers = inputs.iter().any(|port| is_integer(port.spec.datatype));
        let bounds = if has_integers { &INTEGER_BOUNDS[..] } else { &INTEGER_BOUNDS[..1] };
        for &size in sizes {
            for &bound in bounds {
                let table = |index: usize| knowledge.tables.get(&index).copied().filter(|&size| size > 0);
                let slots = inputs.iter().enumerate().map(|(index, port)| slot(port, has_rows, size, table(index)));
                let slots: Vec<Slot> = slots.collect();
                let fits = |slot: &Slot| slot.row_bytes().is_some_and(|bytes| bytes <= MAX_ROW_BYTES);
                if !slots.iter().all(fits) {
                    continue;
                }
                let constants = Arc::clone(&knowledge.constants);
                let probe = Self { slots, has_rows, bound, extreme_integers: true, constants };
                let begun = now();
                match probe.run(runner, &[Fill::Plain(1)]) {
                    Ok(answer) => return Ok((probe, First { answer, took: now() - begun })),
                    Err(failure @ Failure::Endless(_)) => return Err(failure),
                    Err(failure) => refusal = failure,
                }
            }
        }
        Err(refusal)
    }

    /// Runs the model on these rows.
    pub(crate) fn run(&self, runner: &Runner<'_>, rows: &[Fill]) -> Result<Vec<OutputTensor>, Failure> {
        self.batch(rows).run(runner)
    }

    /// The inputs of a run of these rows.
    pub(crate) fn batch(&self, rows: &[Fill]) -> Batch {
        let tensors = self.slots.iter().enumerate().map(|(index, slot)| {
            let mut data = Vec::new();
            for &fill in rows {
                self.fill(index, slot, fill, &mut data);
            }
            let count = self.has_rows.then_some(rows.len() as i64);
            (slot.datatype, count.into_iter().chain(slot.shape.iter().copied()).collect(), data)
        });
        Batch { tensors: tensors.collect() }
    }

    /// Whether rows of known values differ from ordinary ones.
    pub(crate) fn knows_values(&self) -> bool {
        self.slots.iter().any(|slot| match slot.datatype {
            DataType::Bytes => !self.constants.strings.is_empty(),
            datatype if is_integer(datatype) => slot.table.is_some() || !self.constants.integers.is_empty(),
            DataType::Bool => false,
            _ => !self.constants.floats.is_empty(),
        })
    }

    /// Appends one row of one input.
    fn fill(&self, index: usize, slot: &Slot, fill: Fill, data: &mut Vec<u8>) {
        let seed = match fill {
            Fill::Plain(seed) => seed,
            Fill::Known(number) => 1000 + number,
            _ => 7,
        };
        let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (index as u64 + 1) << 32);
        for place in 0..element_count(&slot.shape).unwrap_or(0) {
            let known = if let Fill::Known(number) = fill { Some(number as usize + place) } else { None };
            match slot.datatype {
                DataType::Bytes => match known.and_then(|number| pick(&self.constants.strings, number)) {
                    Some(text) => push_text(text.iter().copied(), text.len(), data),
                    None => push_string(fill, &mut noise, data),
                },
                DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => {
                    let known = known.and_then(|number| pick(&self.constants.floats, number)).copied();
                    push_float(slot.datatype, known.unwrap_or_else(|| float(fill, &mut noise)), data);
                }
                datatype => {
                    let value = known.and_then(|number| self.known_integer(slot, number));
                    let value = value.unwrap_or_else(|| self.integer(slot, fill, &mut noise));
                    data.extend_from_slice(&value.to_le_bytes()[..datatype.size().unwrap_or(0)]);
                }
            }
        }
    }

    /// One of the integers that the model knows and the input can hold.
    fn known_integer(&self, slot: &Slot, number: usize) -> Option<i64> {
        let (low, high) = match slot.table {
            // The table's last places, then its first ones, then what lies between.
            Some(size) if number.is_multiple_of(2) => return Some((size - 1 - number as i64 / 2).rem_euclid(size)),
            Some(size) => (0, size - 1),
            None => range(slot.datatype),
        };
        let fits = |number: &&i64| (low..=high).contains(*number);
        let fitting: Vec<i64> = self.constants.integers.iter().filter(fits).copied().collect();
        let first = slot.table.map(|size| (number as i64 / 2).rem_euclid(size));
        pick(&fitting, number).copied().or(first)
    }

    fn integer(&self, slot: &Slot, fill: Fill, noise: &mut Noise) -> i64 {
        let (low, high) = range(slot.datatype);
        let (low, high) = (low.max(-EXTREME as i64), high.min(EXTREME as i64));
        let (low, high) = match slot.table {
            Some(size) => (0, size - 1),
            None if self.extreme_integers => (low, high),
            None => (0, high.min(self.bound - 1)),
        };
        let bound = slot.table.unwrap_or(self.bound).max(1);
        match fill {
            Fill::Plain(_) | Fill::Known(_) => (noise.next() % bound as u64) as i64 % (high + 1),
            Fill::High | Fill::NotANumber => high,
            Fill::Low => low,
        }
    }
}

/// One of a list, by any number.
fn pick<T>(list: &[T], number: usize) -> Option<&T> {
    list.get(number.checked_rem(list.len())?)
}

/// What an integer type can hold.
fn range(datatype: DataType) -> (i64, i64) {
    match datatype {
        DataType::Bool => (0, 1),
        DataType::Uint8 => (0, i64::from(u8::MAX)),
        DataType::Int8 => (i64::from(i8::MIN), i64::from(i8::MAX)),
        DataType::Uint16 => (0, i64::from(u16::MAX)),
        DataType::Int16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        DataType::Int32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        DataType::Uint32 => (0, i64::from(u32::MAX)),
        DataType::Uint64 => (0, i64::MAX),
        _ => (i64::MIN, i64::MAX),
    }
}

impl Slot {
    fn row_bytes(&self) -> Option<usize> {
        element_count(&self.shape)?.checked_mul(self.datatype.size().unwrap_or(LONG_STRING))
    }
}

fn slot(port: &Port, has_rows: bool, size: i64, table: Option<i64>) -> Slot {
    let dimensions = port.spec.shape.iter().skip(usize::from(has_rows));
    let shape = dimensions.map(|&dimension| if dimension < 0 { size } else { dimension }).collect();
    Slot { datatype: port.spec.datatype, shape, table }
}

fn is_integer(datatype: DataType) -> bool {
    use DataType::{Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64};
    matches!(datatype, Int8 | Int16 | Int32 | Int64 | Uint8 | Uint16 | Uint32 | Uint64)
}

fn float(fill: Fill, noise: &mut Noise) -> f64 {
    let unit = (noise.next() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0;
    match fill {
        Fill::Plain(_) | Fill::Known(_) => unit,
        Fill::High => EXTREME * (1.0 + 0.1 * unit),
        Fill::Low => -EXTREME * (1.0 + 0.1 * unit),
        Fill::NotANumber => f64::NAN,
    }
}

fn push_float(datatype: DataType, value: f64, data: &mut Vec<u8>) {
    match datatype {
        DataType::Fp16 => data.extend_from_slice(&half_bits(value as f32).to_le_bytes()),
        DataType::Bf16 => data.extend_from_slice(&bfloat_bits(value as f32).to_le_bytes()),
        DataType::Fp64 => data.extend_from_slice(&value.to_le_bytes()),
        _ => data.extend_from_slice(&(value as f32).to_le_bytes()),
    }
}

fn push_string(fill: Fill, noise: &mut Noise, data: &mut Vec<u8>) {
    let length = match fill {
        Fill::Plain(_) | Fill::Known(_) => 1 + (noise.next() % 8) as usize,
        Fill::High | Fill::NotANumber => LONG_STRING,
        Fill::Low => 0,
    };
    push_text((0..length).map(|_| b'a' + (noise.next() % 26) as u8), length, data);
}

fn push_text(text: impl Iterator<Item = u8>, length: usize, data: &mut Vec<u8>) {
    data.extend_from_slice(&(length as u32).to_le_bytes());
    data.extend(text);
}

/// The inputs of one run.
pub(crate) struct Batch {
    tensors: Vec<(DataType, Vec<i64>, Vec<u8>)>,
}

impl Batch {
    /// **Errors:** what the model refuses, and a run that took too long.
    pub(crate) fn run(&self, runner: &Runner<'_>) -> Result<Vec<OutputTensor>, Failure> {
        let Runner { session, outputs, limiter } = runner;
        let view = |(datatype, shape, data)| TensorView { datatype, shape, data };
        let tensors = self.tensors.iter().map(|(datatype, shape, data)| (*datatype, &shape[..], &data[..]));
        let views: Vec<TensorView<'_>> = tensors.map(view).collect();
        let run = |stop: &Stop| {
            let terminator = stop.switch(|| Terminator::new(session.runtime()));
            session.run_until(&views, outputs, terminator, &mut TextRoom::unbounded())
        };
        limiter.run(run).map_err(|Endless(after)| Failure::Endless(after))?
    }
}

/// A small generator of numbers that look random (xorshift64, Marsaglia 2003).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.max(1);
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
