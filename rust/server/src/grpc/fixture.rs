//! For tests: a budget, and a version of a model that doubles its rows.

use std::sync::Arc;

use bytes::Bytes;
use mlserve_core::backend::{Backend, OutputTensor, RunError, TensorView};
use mlserve_core::budget::{Budget, LocalBudget, Reservation};
use mlserve_core::clock::Clock;
use mlserve_core::config::ModelSettings;
use mlserve_core::model::{Batching, ModelSpec, TensorSpec};
use mlserve_core::tensor::DataType;
use mlserve_core::version::{Mailbox, NewVersion, Version};

/// A reservation of nothing, in a budget of `limit` bytes.
pub(crate) fn reservation(limit: usize) -> Reservation {
    LocalBudget::new(Budget::new(limit), 1).reserve(0).expect("nothing always fits")
}

/// Answers every FP32 row with twice its values; the value 666 makes a run fail.
#[derive(Debug)]
pub(crate) struct Doubler;

impl Backend for Doubler {
    fn run(&self, inputs: &[TensorView<'_>], outputs: &[usize]) -> Result<Vec<OutputTensor>, RunError> {
        let [input] = inputs else { panic!("one input") };
        let values = || input.data.chunks_exact(4).map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]]));
        if values().any(|value| value == 666.0) {
            return Err(RunError { is_input_fault: false, text: "the model failed".to_owned() });
        }
        let doubled: Vec<u8> = values().flat_map(|value| (2.0 * value).to_le_bytes()).collect();
        let output = OutputTensor {
            datatype: DataType::Fp32,
            shape: input.shape.iter().copied().collect(),
            data: Bytes::from(doubled),
        };
        Ok(outputs.iter().map(|_| output.clone()).collect())
    }
}

/// Version 7 of the model `double`: `x` and `y` are FP32 [-1, width].
pub(crate) fn version(width: i64, mailboxes: Arc<[Arc<dyn Mailbox>]>) -> Arc<Version> {
    let tensor = |name: &str| TensorSpec {
        name: name.to_owned(),
        datatype: DataType::Fp32,
        shape: [-1, width].into_iter().collect(),
    };
    let new = NewVersion {
        spec: ModelSpec {
            name: Arc::from("double"),
            version: 7,
            platform: "test",
            inputs: vec![tensor("x")],
            outputs: vec![tensor("y"), tensor("z")],
            batching: Batching::Rows,
        },
        settings: ModelSettings::default(),
        backend: Arc::new(Doubler),
        instances: 1,
        warmup: Vec::new(),
    };
    Version::new(new, mailboxes, Clock::Monotonic)
}
