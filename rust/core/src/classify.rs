//! The classification extension: an output answered as its highest values, with their indices and labels.
//!
//! Runs on the thread that ran the batch, once for each request that asks for it ([`crate::scatter`]). The elements read
//! as Triton writes them (server `src/classification.cc`): the value as C++'s `std::to_string` prints it, its index in the
//! row, and the label if there is one. Where Triton leaves the order open, ours is fixed: equal values by rising index,
//! values that are no numbers behind all others.

use std::cmp::Ordering;
use std::io::Write;

use crate::error::{Error, Result, quoted};
use crate::model::TensorSpec;
use crate::request::Output;
use crate::tensor::{DataType, Shape, element_count};

/// Elements of a row at most, as in Triton: ordering more would hold up everybody else's answer.
const MAX_ELEMENTS: usize = 1_000_000;

/// Results of a request at most: texts take many times the memory of the numbers that were reserved for the answer.
const MAX_RESULTS: usize = 1_000_000;

/// Bytes that a result takes, guessed for the first allocation: its length, a probability, an index and a short label.
const GUESSED_BYTES: usize = 24;

/// A wanted output that is to be classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classes {
    /// Index in the model's outputs.
    pub output: u16,
    /// How many results a row gets at most.
    pub most: usize,
    /// Rows of the whole request, of which a run may see a part.
    pub rows: usize,
}

/// Refuses outputs whose values have no order that Triton would give them.
///
/// **Errors:** the type is BOOL, FP16, BF16 or BYTES.
pub fn check(spec: &TensorSpec) -> Result<()> {
    match spec.datatype {
        DataType::Bool | DataType::Fp16 | DataType::Bf16 | DataType::Bytes => Err(unsupported(spec)),
        _ => Ok(()),
    }
}

/// The results for `output`, as `classes` asks for them; `has_rows`: the first dimension counts rows.
///
/// **Shapes:** `[rows, n]` BYTES, or `[n]` where nothing counts rows; n is `classes.most`, or what the row has if that is less.
/// **Errors:** as [`check`]; a row of more than a million elements, or more than a million results.
/// **Cost:** O(elements + results · log(results)).
pub fn classify(output: &Output, spec: &TensorSpec, classes: Classes, has_rows: bool) -> Result<Output> {
    let rows = has_rows.then(|| output.shape.first().copied()).flatten();
    let row_shape = if rows.is_some() { &output.shape[1..] } else { &output.shape[..] };
    let elements = element_count(row_shape).unwrap_or(usize::MAX);
    if elements > MAX_ELEMENTS {
        return Err(too_large(spec, elements));
    }
    let count = classes.most.min(elements);
    if rows.is_some() && count.saturating_mul(classes.rows) > MAX_RESULTS {
        return Err(too_many(spec, count, classes.rows));
    }
    let shape: Shape = rows.into_iter().chain([count as i64]).collect();
    let mut writer = Writer {
        wire: Vec::with_capacity(element_count(&shape).unwrap_or(0).saturating_mul(GUESSED_BYTES)),
        labels: spec.labels.as_deref().unwrap_or_default(),
    };
    if let Some(row_bytes) = output.datatype.size().map(|size| size * elements).filter(|&bytes| bytes > 0) {
        for row in output.data.chunks_exact(row_bytes) {
            writer.row(row, output.datatype, count).ok_or_else(|| unsupported(spec))?;
        }
    }
    Ok(Output { index: output.index, datatype: DataType::Bytes, shape, data: writer.wire.into() })
}

/// A number that can be ordered and printed.
trait Score: Copy {
    /// Higher values first; what is no number is the lowest.
    fn falling(self, other: Self) -> Ordering;

    /// Appends the text that `std::to_string` makes.
    fn write(self, text: &mut Vec<u8>);
}

macro_rules! whole_score {
    ($($type:ty),*) => {$(
        impl Score for $type {
            fn falling(self, other: Self) -> Ordering {
                other.cmp(&self)
            }

            fn write(self, text: &mut Vec<u8>) {
                // A vector takes everything.
                let _ = write!(text, "{self}");
            }
        }
    )*};
}

macro_rules! float_score {
    ($($type:ty),*) => {$(
        impl Score for $type {
            fn falling(self, other: Self) -> Ordering {
                other.partial_cmp(&self).unwrap_or_else(|| self.is_nan().cmp(&other.is_nan()))
            }

            fn write(self, text: &mut Vec<u8>) {
                let _ = match (self.is_nan(), self.is_sign_negative()) {
                    (true, false) => write!(text, "nan"),
                    (true, true) => write!(text, "-nan"),
                    _ => write!(text, "{self:.6}"),
                };
            }
        }
    )*};
}

whole_score!(u8, u16, u32, u64, i8, i16, i32, i64);
float_score!(f32, f64);

/// Appends results as elements of a BYTES tensor.
struct Writer<'a> {
    wire: Vec<u8>,
    labels: &'a [Box<str>],
}

impl Writer<'_> {
    /// Appends the results of one row; `None`: the type is not supported.
    fn row(&mut self, row: &[u8], datatype: DataType, count: usize) -> Option<()> {
        macro_rules! scores {
            ($type:ty) => {
                self.highest(
                    &row.as_chunks().0.iter().map(|&bytes| <$type>::from_le_bytes(bytes)).collect::<Vec<_>>(),
                    count,
                )
            };
        }
        match datatype {
            DataType::Uint8 => scores!(u8),
            DataType::Uint16 => scores!(u16),
            DataType::Uint32 => scores!(u32),
            DataType::Uint64 => scores!(u64),
            DataType::Int8 => scores!(i8),
            DataType::Int16 => scores!(i16),
            DataType::Int32 => scores!(i32),
            DataType::Int64 => scores!(i64),
            DataType::Fp32 => scores!(f32),
            DataType::Fp64 => scores!(f64),
            DataType::Bool | DataType::Fp16 | DataType::Bf16 | DataType::Bytes => return None,
        }
        Some(())
    }

    fn highest<T: Score>(&mut self, scores: &[T], count: usize) {
        let order = |&left: &usize, &right: &usize| scores[left].falling(scores[right]).then(left.cmp(&right));
        let mut indices: Vec<usize> = (0..scores.len()).collect();
        if count < indices.len() {
            // Few results of many values: only the few are sorted.
            indices.select_nth_unstable_by(count, order);
            indices.truncate(count);
        }
        indices.sort_unstable_by(order);
        for index in indices {
            self.result(scores[index], index);
        }
    }

    fn result(&mut self, score: impl Score, index: usize) {
        let start = self.wire.len();
        self.wire.extend_from_slice(&[0; 4]);
        score.write(&mut self.wire);
        let _ = write!(self.wire, ":{index}");
        if let Some(label) = self.labels.get(index).filter(|label| !label.is_empty()) {
            self.wire.push(b':');
            self.wire.extend_from_slice(label.as_bytes());
        }
        let length = (self.wire.len() - start - 4) as u32;
        self.wire[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }
}

#[cold]
fn unsupported(spec: &TensorSpec) -> Error {
    Error::invalid(format!(
        "class result not available for output due to unsupported type '{}'; output '{}' asks for classification",
        spec.datatype,
        quoted(&spec.name)
    ))
}

#[cold]
fn too_many(spec: &TensorSpec, count: usize, rows: usize) -> Error {
    Error::invalid(format!(
        "classification output tensor too large: output '{}' gets {count} results for each of {rows} rows; at most \
         {MAX_RESULTS} are allowed together",
        quoted(&spec.name)
    ))
}

#[cold]
fn too_large(spec: &TensorSpec, elements: usize) -> Error {
    Error::invalid(format!(
        "classification output tensor too large: output '{}' has {elements} elements in a row; at most {MAX_ELEMENTS} \
         can be classified",
        quoted(&spec.name)
    ))
}

#[cfg(test)]
mod tests;
