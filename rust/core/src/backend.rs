//! The seam to whatever runs a batch (ONNX Runtime in rust/ort). Hot path.

use std::fmt;

use bytes::Bytes;

use crate::budget::Reservation;
use crate::entry::answer_too_large;
use crate::error::{Error, Kind};
use crate::stop::Stop;
use crate::tensor::{DataType, Shape, element_count, text_object_bytes};

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

impl OutputTensor {
    /// Bytes that it took until it was as it is: those of its data and, for texts, those of the backend's objects.
    pub fn run_bytes(&self) -> usize {
        let objects = match self.datatype {
            DataType::Bytes => text_object_bytes(element_count(&self.shape).unwrap_or(0), self.data.len()),
            _ => 0,
        };
        self.data.len().saturating_add(objects)
    }
}

/// Room for the texts that a run gives. They lie in no arena and only the run tells how long they are, so a backend asks
/// here before it copies them.
#[derive(Debug)]
pub struct TextRoom {
    /// Bytes in wire form that may still come.
    most: usize,
    /// Bytes that the requests of the run hold already for what it gives.
    held: usize,
    /// Grows by the rest.
    reservation: Option<Reservation>,
    refusal: Option<Error>,
}

impl TextRoom {
    /// For runs that nobody sent.
    pub const fn unbounded() -> Self {
        Self { most: usize::MAX, held: 0, reservation: None, refusal: None }
    }

    /// For texts of `most` bytes, of which `held` are held elsewhere; the rest is added to `reservation`.
    pub fn new(most: usize, held: usize, reservation: Option<Reservation>) -> Self {
        Self { most, held, reservation, refusal: None }
    }

    /// Takes room for `count` texts that have `wire_bytes` bytes together in wire form.
    ///
    /// **Errors:** more than an answer may have; out of budget.
    pub fn take(&mut self, count: usize, wire_bytes: usize) -> Result<(), RunError> {
        if wire_bytes > self.most {
            return Err(self.refuse(answer_too_large(wire_bytes, self.most)));
        }
        self.most -= wire_bytes;
        let bytes = wire_bytes.saturating_add(text_object_bytes(count, wire_bytes));
        let more = bytes.saturating_sub(self.held);
        self.held -= bytes - more;
        if self.reservation.as_mut().is_some_and(|reservation| !reservation.grow(more)) {
            return Err(self.refuse(texts_out_of_budget(bytes)));
        }
        Ok(())
    }

    /// Why there was none, if there was none.
    pub(crate) fn take_refusal(&mut self) -> Option<Error> {
        self.refusal.take()
    }

    #[cold]
    fn refuse(&mut self, error: Error) -> RunError {
        let text = error.text().to_owned();
        self.refusal.get_or_insert(error);
        RunError { is_input_fault: false, text }
    }
}

/// The refusal of texts that take `bytes` bytes.
#[cold]
pub(crate) fn texts_out_of_budget(bytes: usize) -> Error {
    let text = format!("the {bytes} bytes of texts would exceed the server's byte budget (limits.byte_budget)");
    Error::new(Kind::OutOfBudget, text)
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
    /// when it would have ended anyway. Outputs that are texts take `room`.
    ///
    /// **Errors:** also if it was stopped, or there is no room.
    fn run_until(
        &self,
        inputs: &[TensorView<'_>],
        outputs: &[usize],
        stop: &Stop,
        room: &mut TextRoom,
    ) -> Result<Vec<OutputTensor>, RunError> {
        let _ = (stop, room);
        self.run(inputs, outputs)
    }
}
