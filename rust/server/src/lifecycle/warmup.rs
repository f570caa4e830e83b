//! Runs before a version is ready, beyond those that the runtime's backend makes by itself: the samples of the model's
//! configuration, else the shapes that its predecessor saw.

use std::time::Duration;

use bytes::Bytes;
use mlserve_core::backend::{ALIGNMENT, Backend, RunError, TensorView, TextRoom};
use mlserve_core::clock::Clock;
use mlserve_core::failpoint;
use mlserve_core::model::ModelSpec;
use mlserve_core::tensor::{DataType, Shape, byte_count, element_count};
use mlserve_ort::{Endless, Limiter};

use crate::model_config::Warmup;

/// Bytes of one input that is made up: larger ones would take longer to make than the warm-up is worth.
const MAX_BYTES: usize = 64 << 20;
/// Runs per shape that was seen: the first allocates, the others tell how long such a run takes.
const RUNS: usize = 3;

/// Rows, bytes per row and time of a run, for the estimates that a version starts with.
pub(super) type Measured = (usize, usize, Duration);

/// A version that is about to serve.
pub(super) struct Trial<'a> {
    /// What runs it.
    pub(super) backend: &'a dyn Backend,
    /// What it takes and gives.
    pub(super) spec: &'a ModelSpec,
    /// Where time comes from.
    pub(super) clock: &'a Clock,
    /// Ends runs that take too long.
    pub(super) limiter: Limiter,
}

impl Trial<'_> {
    /// Runs each sample as often as it says.
    ///
    /// **Errors:** a sample that the model refuses, by its name.
    pub(super) fn run_samples(&self, samples: &[Warmup]) -> Result<(), String> {
        for sample in samples {
            let tensors: Vec<Tensor<'_>> =
                sample.inputs.iter().map(|(datatype, shape, data)| Tensor::new(*datatype, shape, data)).collect();
            for _ in 0..sample.count.max(1) {
                self.run(&tensors).map_err(|error| format!("model_warmup '{}': {error}", sample.name))?;
            }
        }
        Ok(())
    }

    /// Runs zeros of the shapes that were seen; what the model refuses of them is left out.
    pub(super) fn run_seen(&self, seen: &[Vec<Shape>]) -> Vec<Measured> {
        seen.iter().filter_map(|shapes| self.run_shapes(shapes)).collect()
    }

    fn run_shapes(&self, shapes: &[Shape]) -> Option<Measured> {
        let specs = &self.spec.inputs;
        let fits =
            shapes.len() == specs.len() && shapes.iter().zip(specs).all(|(shape, spec)| fits(shape, &spec.shape));
        if !fits {
            return None;
        }
        let data: Vec<Bytes> =
            shapes.iter().zip(specs).map(|(shape, spec)| zeros(spec.datatype, shape)).collect::<Option<_>>()?;
        let tensors = shapes.iter().zip(specs).zip(&data);
        let tensors: Vec<Tensor<'_>> =
            tensors.map(|((shape, spec), data)| Tensor::new(spec.datatype, shape, data)).collect();
        let rows = if self.spec.batching.has_rows() { shapes.first()?.first().copied().unwrap_or(1).max(1) } else { 1 };
        let mut least = Duration::MAX;
        for _ in 0..RUNS {
            let begun = self.clock.now();
            self.run(&tensors).ok()?;
            least = least.min(self.clock.now().saturating_duration_since(begun));
        }
        let bytes: usize = data.iter().map(Bytes::len).sum();
        Some((rows as usize, bytes / rows as usize, least))
    }

    fn run(&self, tensors: &[Tensor<'_>]) -> Result<(), RunError> {
        failpoint!("warm_up", error => return Err(RunError { is_input_fault: false, text: error.text().to_owned() }));
        let views: Vec<TensorView<'_>> = tensors.iter().map(Tensor::view).collect();
        let outputs: Vec<usize> = (0..self.spec.outputs.len()).collect();
        let run = self
            .limiter
            .run(|stop| self.backend.run_until(&views, &outputs, stop, &mut TextRoom::unbounded()).map(drop));
        run.unwrap_or_else(|Endless(after)| {
            let text = format!("the run did not end within {} s and was stopped", after.as_secs_f64());
            Err(RunError { is_input_fault: true, text })
        })
    }
}

fn fits(shape: &[i64], expected: &[i64]) -> bool {
    shape.len() == expected.len() && shape.iter().zip(expected).all(|(&got, &wanted)| wanted < 0 || got == wanted)
}

/// Zeros, or empty strings: four zero bytes each.
fn zeros(datatype: DataType, shape: &[i64]) -> Option<Bytes> {
    let bytes = match datatype {
        DataType::Bytes => element_count(shape)?.checked_mul(4)?,
        _ => byte_count(datatype, shape)?,
    };
    (bytes <= MAX_BYTES).then(|| vec![0; bytes].into())
}

/// A tensor, aligned as backends want it.
struct Tensor<'a> {
    datatype: DataType,
    shape: &'a [i64],
    buffer: Vec<u8>,
    start: usize,
    len: usize,
}

impl<'a> Tensor<'a> {
    fn new(datatype: DataType, shape: &'a [i64], data: &[u8]) -> Self {
        let mut buffer = vec![0; data.len() + ALIGNMENT];
        let start = buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        buffer[start..start + data.len()].copy_from_slice(data);
        Self { datatype, shape, buffer, start, len: data.len() }
    }

    fn view(&self) -> TensorView<'_> {
        TensorView { datatype: self.datatype, shape: self.shape, data: &self.buffer[self.start..self.start + self.len] }
    }
}
