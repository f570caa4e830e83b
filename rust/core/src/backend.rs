//! The seam to whatever runs a batch (ONNX Runtime in rust/ort). Hot path.

use std::fmt;

use bytes::Bytes;

use crate::stop::Stop;
use crate::tensor::{DataType, Shape};

/// Alignment in bytes of every fixed-size tensor that a backend is given, so that it can be used in place.
pub const ALIGNMENT: usize = 64;

/// One input of a batch, gathered: contiguous and aligned to [`ALIGNMENT`] (BYTES: wire form, see [`crate::tensor`]).
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// Element type; equals the model's.
    pub datatype: DataType,
    /// Dimensions of the whole batch.
    pub shape: &'a [i64],
    /// As many bytes as type and shape say; checked before.
    pub data: &'a [u8],
}

/// One output of a batch. `data` may be the runtime's own memory; dropping the last slice of it gives it back.
#[derive(Clone, Debug)]
pub struct OutputTensor {
    /// Element type.
    pub datatype: DataType,
    /// Dimensions of the whole batch.
    pub shape: Shape,
    /// Little-endian, row-major (BYTES: wire form).
    pub data: Bytes,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunError {
    /// Whether the values that were sent are to blame (an index out of range), not the model or the runtime.
    pub is_input_fault: bool,
    /// For the caller: no internals, no paths.
    pub text: String,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for RunError {}

/// Runs batches of one loaded version. Runs may happen at once on several threads; weights are held once.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Runs the model on `inputs` (all of them, in the model's order) and returns the outputs with the indices
    /// `outputs`, in that order.
    ///
    /// **Errors:** the run failed; nothing about the backend changes.
    fn run(&self, inputs: &[TensorView<'_>], outputs: &[usize]) -> Result<Vec<OutputTensor>, RunError>;

    /// As [`Backend::run`], and ends before its end if `stop` asks for that: as soon as the backend can, at the latest
    /// when it would have ended anyway.
    ///
    /// **Errors:** also if it was stopped.
    fn run_until(
        &self,
        inputs: &[TensorView<'_>],
        outputs: &[usize],
        stop: &Stop,
    ) -> Result<Vec<OutputTensor>, RunError> {
        let _ = stop;
        self.run(inputs, outputs)
    }
}
