//! `ModelConfig` of a loaded version: what is in force, in Triton's words, not merely what was asked for.

use mlserve_core::config::VersionPolicy;
use mlserve_core::model::TensorSpec;
use mlserve_core::version::Version;

use super::settings::batching_of;
use super::tensors::type_of;
use super::{BACKEND, ConfigFile, DEFAULT_FILE};
use crate::proto::model_config::SchedulingChoice;
use crate::proto::model_instance_group::Kind;
use crate::proto::model_optimization_policy::{Graph, PinnedMemoryBuffer};
use crate::proto::model_version_policy::{All, Latest, PolicyChoice, Specific};
use crate::proto::{
    ModelConfig, ModelInput, ModelInstanceGroup, ModelOptimizationPolicy, ModelOutput, ModelResponseCache,
    ModelTransactionPolicy, ModelVersionPolicy,
};

/// The configuration that `version` runs with. `file` adds what only a file can tell: labels, warm-up, parameters.
pub(crate) fn describe(version: &Version, file: Option<&ConfigFile>) -> ModelConfig {
    let spec = &version.spec;
    let has_rows = spec.batching.has_rows();
    let asked = file.map(ConfigFile::proto);
    let rows = i32::try_from(version.max_rows()).unwrap_or(i32::MAX);
    let shares_runs = spec.batching.is_allowed() && version.max_rows() > 1;
    ModelConfig {
        name: spec.name.to_string(),
        platform: spec.platform.to_owned(),
        backend: BACKEND.to_owned(),
        version_policy: Some(policy(&version.settings.versions)),
        // Clients may send several rows even where runs are not shared.
        max_batch_size: if has_rows { rows } else { 0 },
        input: spec.inputs.iter().map(|input| describe_input(input, has_rows, asked)).collect(),
        output: spec.outputs.iter().map(|output| describe_output(output, has_rows, asked)).collect(),
        optimization: Some(optimization(asked)),
        scheduling_choice: shares_runs.then(|| SchedulingChoice::DynamicBatching(batching_of(&version.settings))),
        instance_group: vec![ModelInstanceGroup {
            name: spec.name.to_string(),
            kind: Kind::Cpu.into(),
            count: i32::try_from(version.stats.instances.len()).unwrap_or(i32::MAX),
            ..ModelInstanceGroup::default()
        }],
        default_model_filename: file.map_or(DEFAULT_FILE, ConfigFile::model_file_name).to_owned(),
        parameters: asked.map(|asked| asked.parameters.clone()).unwrap_or_default(),
        model_warmup: asked.map(|asked| asked.model_warmup.clone()).unwrap_or_default(),
        model_transaction_policy: Some(ModelTransactionPolicy { decoupled: false }),
        response_cache: Some(ModelResponseCache { enable: false }),
        ..ModelConfig::default()
    }
}

fn policy(versions: &VersionPolicy) -> ModelVersionPolicy {
    let choice = match versions {
        VersionPolicy::Latest(count) => {
            PolicyChoice::Latest(Latest { num_versions: u32::try_from(*count).unwrap_or(u32::MAX) })
        }
        VersionPolicy::All => PolicyChoice::All(All {}),
        VersionPolicy::Specific(numbers) => {
            PolicyChoice::Specific(Specific { versions: numbers.iter().map(|&number| number as i64).collect() })
        }
    };
    ModelVersionPolicy { policy_choice: Some(choice) }
}

/// A shape without the dimension that counts rows.
fn dims(spec: &TensorSpec, has_rows: bool) -> Vec<i64> {
    spec.shape.iter().skip(usize::from(has_rows)).copied().collect()
}

fn describe_input(spec: &TensorSpec, has_rows: bool, asked: Option<&ModelConfig>) -> ModelInput {
    let listed = asked.and_then(|asked| asked.input.iter().find(|input| input.name == spec.name));
    ModelInput {
        name: spec.name.clone(),
        data_type: type_of(spec.datatype).into(),
        format: listed.map(|input| input.format).unwrap_or_default(),
        dims: dims(spec, has_rows),
        ..ModelInput::default()
    }
}

fn describe_output(spec: &TensorSpec, has_rows: bool, asked: Option<&ModelConfig>) -> ModelOutput {
    let listed = asked.and_then(|asked| asked.output.iter().find(|output| output.name == spec.name));
    ModelOutput {
        name: spec.name.clone(),
        data_type: type_of(spec.datatype).into(),
        dims: dims(spec, has_rows),
        label_filename: listed.map(|output| output.label_filename.clone()).unwrap_or_default(),
        ..ModelOutput::default()
    }
}

fn optimization(asked: Option<&ModelConfig>) -> ModelOptimizationPolicy {
    let graph = asked.and_then(|asked| asked.optimization.as_ref()?.graph);
    ModelOptimizationPolicy {
        graph: graph.map(|graph| Graph { level: graph.level }),
        input_pinned_memory: Some(PinnedMemoryBuffer { enable: false }),
        output_pinned_memory: Some(PinnedMemoryBuffer { enable: false }),
        ..ModelOptimizationPolicy::default()
    }
}
