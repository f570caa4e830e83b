//! Cuts the outputs of a batch apart: each request gets its own rows. Hot path.
//!
//! Rows are slices of the batch's output where that is free of consequences: small ones, which the transports copy into
//! their messages anyway, and the output of a request that ran alone. Large rows of a shared batch are copied here, on the
//! thread that ran it: a slice would keep the whole batch alive for as long as its reader takes
//! (docs/decisions/0005-large-rows-are-copied.md).

use bytes::Bytes;
use smallvec::SmallVec;

use crate::backend::OutputTensor;
use crate::classify::{Classes, classify};
use crate::error::{Error, Result};
use crate::join::row_bounds;
use crate::model::ModelSpec;
use crate::request::Output;
use crate::tensor::{DataType, ShapeText};

/// Rows up to this size stay slices. Both transports copy them into their messages at once.
const SLICED_BYTES: usize = 4 << 10;

/// The outputs of one run, with what is needed to cut them by rows.
#[derive(Debug)]
pub struct Scattered<'a> {
    spec: &'a ModelSpec,
    outputs: Vec<Cuttable<'a>>,
}

#[derive(Debug)]
struct Cuttable<'a> {
    index: usize,
    tensor: &'a OutputTensor,
    /// `None`: the batch is one request, which gets it whole.
    rows: Option<RowBytes>,
}

#[derive(Debug)]
enum RowBytes {
    Every(usize),
    Bounds(Vec<usize>),
}

impl<'a> Scattered<'a> {
    /// Prepares the outputs `indices` of a run over `rows` rows of `requests` requests.
    ///
    /// **Errors:** an output has another number of rows than went in, so that nobody can say whose they are.
    pub fn new(
        tensors: &'a [OutputTensor],
        indices: &[usize],
        rows: usize,
        requests: usize,
        spec: &'a ModelSpec,
    ) -> Result<Self> {
        let outputs = tensors.iter().zip(indices).map(|(tensor, &index)| {
            let rows = if requests == 1 { None } else { Some(row_bytes(tensor, index, rows, spec)?) };
            Ok(Cuttable { index, tensor, rows })
        });
        Ok(Self { outputs: outputs.collect::<Result<_>>()?, spec })
    }

    /// The outputs with the indices `wanted` (none: all) for the `rows` rows that begin at row `offset`; those of `classes`
    /// are classified.
    ///
    /// **Errors:** an output that is to be classified has too many elements.
    pub fn rows_of(
        &self,
        wanted: &[u16],
        classes: &[Classes],
        rows: usize,
        offset: usize,
    ) -> Result<SmallVec<[Output; 2]>> {
        if wanted.is_empty() {
            return self.outputs.iter().map(|output| self.cut(output, classes, rows, offset)).collect();
        }
        let wanted =
            wanted.iter().filter_map(|&index| self.outputs.iter().find(|output| output.index == usize::from(index)));
        wanted.map(|output| self.cut(output, classes, rows, offset)).collect()
    }

    fn cut(&self, output: &Cuttable<'_>, classes: &[Classes], rows: usize, offset: usize) -> Result<Output> {
        let slice = output.slice(offset, rows);
        match classes.iter().find(|classes| usize::from(classes.output) == output.index) {
            None => Ok(output.detached(slice)),
            Some(classes) => {
                classify(&slice, &self.spec.outputs[output.index], *classes, self.spec.batching.has_rows())
            }
        }
    }
}

impl Cuttable<'_> {
    /// The rows as a slice of the batch's output.
    fn slice(&self, offset: usize, rows: usize) -> Output {
        let mut shape = self.tensor.shape.clone();
        let data = match &self.rows {
            None => self.tensor.data.clone(),
            Some(row_bytes) => {
                shape[0] = rows as i64;
                let (start, end) = match row_bytes {
                    RowBytes::Every(bytes) => (offset * bytes, (offset + rows) * bytes),
                    RowBytes::Bounds(bounds) => (bounds[offset], bounds[offset + rows]),
                };
                self.tensor.data.slice(start..end)
            }
        };
        Output { index: self.index, datatype: self.tensor.datatype, shape, data }
    }

    /// The same, so that it does not keep a batch alive that others had their part of.
    fn detached(&self, mut output: Output) -> Output {
        if self.rows.is_some() && output.data.len() > SLICED_BYTES {
            output.data = Bytes::copy_from_slice(&output.data);
        }
        output
    }
}

fn row_bytes(tensor: &OutputTensor, index: usize, rows: usize, spec: &ModelSpec) -> Result<RowBytes> {
    if tensor.shape.first() != Some(&(rows as i64)) {
        return Err(Error::internal(format!(
            "output '{}' of model '{}' has shape {} for {rows} rows, so that requests cannot be told apart; set \
             models.{}.max_batch_rows to 1",
            spec.outputs[index].name,
            spec.name,
            ShapeText(&tensor.shape),
            spec.name
        )));
    }
    Ok(match tensor.datatype {
        DataType::Bytes => RowBytes::Bounds(row_bounds(&tensor.data, rows)),
        _ => RowBytes::Every(tensor.data.len() / rows.max(1)),
    })
}
