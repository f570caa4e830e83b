//! What a model takes and gives, and what the loader found out about it.

use std::sync::Arc;

use crate::tensor::{DataType, Shape};

/// One input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The graph's name.
    pub name: String,
    /// Element type.
    pub datatype: DataType,
    /// Dimensions as the graph gives them, the batch dimension included; -1 where any size fits.
    pub shape: Shape,
    /// What its indices are called, in order; for the classification extension.
    pub labels: Option<Arc<[Box<str>]>>,
}

/// Whether rows of different requests may share a run, and why not.
///
/// A symbolic first dimension is not enough: rows must not see each other. The loader shows that (every operation keeps
/// rows apart, and rows answer alike alone and beside extreme neighbours) before it says `Rows`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Batching {
    /// The first dimension of every input and output counts rows, and rows are independent.
    Rows,
    /// As `Rows`, on the word of whoever configured the model: the loader could not show it.
    Trusted {
        /// What speaks against it, for `inspect`, the metadata and the log.
        reason: String,
    },
    /// The first dimension counts rows, but rows influence each other: one request per run.
    Unsafe {
        /// For `inspect`, the metadata and the log.
        reason: String,
    },
    /// No first dimension that counts rows: one request per run, whole.
    Fixed {
        /// For `inspect`, the metadata and the log.
        reason: String,
    },
}

impl Batching {
    /// Whether requests may share a run.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Batching::Rows | Batching::Trusted { .. })
    }

    /// Whether the first dimension counts rows, shared runs or not.
    pub fn has_rows(&self) -> bool {
        !matches!(self, Batching::Fixed { .. })
    }

    /// Its name in metadata.
    pub fn name(&self) -> &'static str {
        match self {
            Batching::Rows => "rows",
            Batching::Trusted { .. } => "trusted",
            Batching::Unsafe { .. } => "unsafe",
            Batching::Fixed { .. } => "fixed",
        }
    }

    /// Why requests should not share a run; `None` if nothing speaks against it.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Batching::Rows => None,
            Batching::Trusted { reason } | Batching::Unsafe { reason } | Batching::Fixed { reason } => Some(reason),
        }
    }
}

/// What a loaded version of a model is to callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// What clients call it.
    pub name: Arc<str>,
    /// A positive integer.
    pub version: u64,
    /// For metadata, `onnxruntime_onnx` for example.
    pub platform: &'static str,
    /// In the graph's order.
    pub inputs: Vec<TensorSpec>,
    /// In the graph's order.
    pub outputs: Vec<TensorSpec>,
    /// Whether rows may share a run.
    pub batching: Batching,
    /// The operation by which the time or the size of a run follows the values of a request and not only their shapes
    /// (a loop that ends by a value, a range up to one); `None` if there is none. What a run took tells nothing about
    /// the next one of such a model.
    pub time_follows_values: Option<String>,
}

impl ModelSpec {
    /// The input of this name and its index.
    pub fn input(&self, name: &str) -> Option<(usize, &TensorSpec)> {
        self.inputs.iter().enumerate().find(|(_, spec)| spec.name == name)
    }

    /// The output of this name and its index.
    pub fn output(&self, name: &str) -> Option<(usize, &TensorSpec)> {
        self.outputs.iter().enumerate().find(|(_, spec)| spec.name == name)
    }
}
