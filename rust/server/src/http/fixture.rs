//! For tests of the plain routes: models' tensors, requests read for them, and answers to write.

use std::sync::Arc;

use bytes::Bytes;
use mlserve_core::backend::{Backend, OutputTensor, RunError, TensorView};
use mlserve_core::budget::{Budget, LocalBudget};
use mlserve_core::clock::Clock;
use mlserve_core::config::{LimitSettings, ModelSettings};
use mlserve_core::error::Result;
use mlserve_core::model::{Batching, ModelSpec, TensorSpec};
use mlserve_core::plan::{Endpoint, Plan, Slot, State};
use mlserve_core::request::{Input, Text};
use mlserve_core::tensor::DataType;
use mlserve_core::version::{NewVersion, Version};

use super::draft::{Draft, DraftOutput};
use super::json::Cursor;
use super::values::Reader;
use super::wanted::OutputForm;

/// A tensor of a model.
pub(super) fn tensor(name: &str, datatype: DataType, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), datatype, shape: shape.into(), labels: None }
}

/// A model with rows.
pub(super) fn model(inputs: Vec<TensorSpec>) -> ModelSpec {
    ModelSpec {
        name: "tiny".into(),
        version: 3,
        platform: "onnxruntime_onnx",
        inputs,
        outputs: vec![tensor("y", DataType::Fp32, &[-1, 2])],
        batching: Batching::Rows,
        time_follows_values: None,
    }
}

/// A model without.
pub(super) fn fixed(inputs: Vec<TensorSpec>) -> ModelSpec {
    ModelSpec { batching: Batching::Fixed { reason: "its first dimension is fixed".to_owned() }, ..model(inputs) }
}

/// Reads `json` for the model of `spec`, within small limits.
pub(super) fn read<Found>(
    spec: &ModelSpec,
    json: &str,
    read: impl FnOnce(Cursor<'_>, &mut Reader<'_>) -> Result<Found>,
) -> Result<Found> {
    let limits = LimitSettings { max_string_bytes: 100, max_json_depth: 8, ..LimitSettings::default() };
    let mut reservation = LocalBudget::new(Budget::new(1 << 20), 1).reserve(0).expect("nothing always fits");
    let mut reader = Reader { spec, limits: &limits, reservation: &mut reservation };
    read(Cursor::new(json, limits.max_json_depth), &mut reader)
}

/// What an input holds: name, shape, bytes.
pub(super) fn held(inputs: &[Input]) -> Vec<(String, Vec<i64>, Vec<u8>)> {
    let held = |input: &Input| (input.name.to_string(), input.shape.to_vec(), input.data.to_contiguous().to_vec());
    inputs.iter().map(held).collect()
}

/// The bytes of floats.
pub(super) fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// An output of an answer.
pub(super) fn output(name: &'static str, datatype: DataType, shape: &[i64], data: Vec<u8>) -> DraftOutput<'static> {
    DraftOutput { name: name.into(), datatype, shape: shape.into(), data: Bytes::from(data), form: OutputForm::Json }
}

/// An answer.
pub(super) fn draft(outputs: impl IntoIterator<Item = DraftOutput<'static>>) -> Draft<'static> {
    Draft {
        model: "tiny".into(),
        version: 3,
        id: Text::default(),
        outputs: outputs.into_iter().collect(),
        place: None,
        reservation: None,
    }
}

/// A backend of a model that is described, not asked.
#[derive(Debug)]
struct Silent;

impl Backend for Silent {
    fn run(&self, _inputs: &[TensorView<'_>], _outputs: &[usize]) -> std::result::Result<Vec<OutputTensor>, RunError> {
        Err(RunError { is_input_fault: false, text: "nobody asks it".to_owned() })
    }
}

/// A plan in which the models of `specs` are ready, and one has failed.
pub(super) fn plan(specs: Vec<ModelSpec>) -> Arc<Plan> {
    let ready = specs.into_iter().map(|spec| {
        let (name, number) = (spec.name.to_string(), spec.version);
        let new = NewVersion {
            spec,
            settings: ModelSettings::default(),
            backend: Arc::new(Silent),
            instances: 1,
            warmup: Vec::new(),
            model_bytes: 0,
            load_duration: std::time::Duration::ZERO,
            earlier: None,
        };
        let version = Version::new(new, Arc::from([]), Clock::Monotonic);
        (name, Endpoint::new([(number, Slot::serving(version))].into()))
    });
    let failed = Slot::not_serving(State::Failed("cut off".to_owned()));
    Arc::new(Plan::new(1, ready.chain([("broken".to_owned(), Endpoint::new([(1, failed)].into()))])))
}
