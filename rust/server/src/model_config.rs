//! Model configurations in Triton's words: `config.pbtxt` (or its JSON form) read and checked, and what is in force described.
//!
//! `read` makes the message, `rules` and `check` say what becomes of each field, the other files turn what is supported into
//! what the loader and callers need. Nothing here is on the way of a request.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use mlserve_core::config::VersionPolicy;
use mlserve_core::error::quoted;
use mlserve_core::model::TensorSpec;
use parking_lot::Mutex;
use prost_reflect::DynamicMessage;
use serde_json::{Map, Value};

use crate::proto::ModelConfig;
use crate::proto::model_version_policy::PolicyChoice;
use crate::trust::Roots;

mod check;
mod describe;
mod files;
mod read;
pub mod rules;
pub(crate) mod runtime;
mod settings;
mod tensors;
mod text;
mod warmup;

#[cfg(test)]
mod tests;

pub(crate) use describe::describe;
pub(crate) use files::Labels;
pub(crate) use runtime::{GraphLevel, SessionOptions};
pub(crate) use warmup::Warmup;

/// Where a configuration lies in a model's folder.
pub(crate) const FILE: &str = "config.pbtxt";
/// Triton's name of what runs ONNX models.
const BACKEND: &str = "onnxruntime";
/// The file in a version's folder unless the configuration names another.
const DEFAULT_FILE: &str = "model.onnx";

/// A model's configuration as it was asked for, checked.
#[derive(Clone, Debug)]
pub(crate) struct ConfigFile {
    /// What it is called in errors.
    label: String,
    proto: ModelConfig,
    warnings: Vec<String>,
    settings: Map<String, Value>,
    versions: Option<VersionPolicy>,
    runtime: SessionOptions,
}

impl ConfigFile {
    /// Reads `config.pbtxt` in `folder`, the folder of the model `name`; `None` if there is none.
    ///
    /// **Errors:** not the text form of a `ModelConfig`, with line and column; a field that cannot be served, by its name.
    pub(crate) fn read(folder: &Path, name: &str) -> Result<Option<Self>, String> {
        let label = format!("{FILE} of model '{}'", quoted(name));
        let named = |fault: String| format!("{label}: {fault}");
        let Some(text) = read::text_of(&folder.join(FILE)).map_err(named)? else { return Ok(None) };
        let config = text::from_text(&text).and_then(|message| Self::checked(&message, name)).map_err(named)?;
        Ok(Some(Self { label, ..config }))
    }

    /// Reads the JSON form, as loading by API brings it.
    ///
    /// **Errors:** as [`Self::read`].
    pub(crate) fn from_json(text: &str, name: &str) -> Result<Self, String> {
        let label = format!("config of model '{}'", quoted(name));
        let config = read::from_json(text).and_then(|message| Self::checked(&message, name));
        let config = config.map_err(|fault| format!("{label}: {fault}"))?;
        Ok(Self { label, ..config })
    }

    fn checked(message: &DynamicMessage, name: &str) -> Result<Self, String> {
        let findings = check::check(message);
        if !findings.refusals.is_empty() {
            return Err(findings.refusals.join("; "));
        }
        let proto: ModelConfig = message.transcode_to().map_err(|fault| fault.to_string())?;
        if !proto.name.is_empty() && proto.name != name {
            return Err(format!("name = \"{}\": the folder is '{}'; allowed is its name", quoted(&proto.name), name));
        }
        if proto.max_batch_size < 0 {
            return Err(format!("max_batch_size = {}: allowed: 0 and above", proto.max_batch_size));
        }
        if let Some(group) = proto.instance_group.iter().find(|group| group.count < 0) {
            return Err(format!("instance_group.count = {}: allowed: 0 and above", group.count));
        }
        if !proto.default_model_filename.is_empty() {
            let file = &proto.default_model_filename;
            files::check_name(file).map_err(|fault| format!("default_model_filename \"{}\" {fault}", quoted(file)))?;
        }
        Ok(Self {
            label: String::new(),
            settings: settings::settings_of(&proto)?,
            versions: version_policy(&proto)?,
            runtime: runtime::options_of(&proto)?,
            warnings: findings.warnings,
            proto,
        })
    }

    /// The settings of `[models.NAME]` that it sets.
    pub(crate) fn settings(&self) -> Map<String, Value> {
        self.settings.clone()
    }

    /// Which versions are to be served; `None`: it does not say.
    pub(crate) fn version_policy(&self) -> Option<VersionPolicy> {
        self.versions.clone()
    }

    /// The file in each version's folder.
    pub(crate) fn model_file_name(&self) -> &str {
        if self.proto.default_model_filename.is_empty() { DEFAULT_FILE } else { &self.proto.default_model_filename }
    }

    /// Why each request is to be run whole and by itself; `None` if it is not.
    pub(crate) fn whole_requests(&self) -> Option<String> {
        let is_whole = self.proto.max_batch_size == 0 && tensors::lists_all(&self.proto);
        is_whole.then(|| "max_batch_size is 0 in the model's configuration".to_owned())
    }

    /// Whether it asks for requests to share runs: `dynamic_batching`, and rows to share.
    pub(crate) fn batches(&self) -> bool {
        self.proto.max_batch_size > 1 && settings::dynamic_batching(&self.proto).is_some()
    }

    /// Holds its inputs and outputs against those of the graph.
    ///
    /// **Errors:** the first tensor that does not fit, with what the graph has.
    pub(crate) fn check_against(&self, inputs: &[TensorSpec], outputs: &[TensorSpec]) -> Result<(), String> {
        tensors::check(&self.proto, inputs, outputs).map_err(|fault| self.named(&fault))
    }

    /// The graph's `inputs` with the dimensions that it narrows: what requests must fit. After [`Self::check_against`].
    pub(crate) fn narrowed(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        tensors::narrowed(&self.proto, inputs)
    }

    /// The labels of outputs that have a file of them in `folder`, the model's, whose links may lead to `roots`.
    ///
    /// **Errors:** a file that cannot be read, leads outside, or is too large.
    pub(crate) fn labels(&self, folder: &Path, roots: &Roots) -> Result<Vec<Labels>, String> {
        files::labels(&self.proto, folder, roots).map_err(|fault| self.named(&fault))
    }

    /// The runs it asks for before the model with these `inputs` is ready; files of tensors lie in `folder/warmup`, whose
    /// links may lead to `roots`.
    ///
    /// **Errors:** a sample that does not fit the model, or whose file cannot be read.
    pub(crate) fn warmups(&self, folder: &Path, roots: &Roots, inputs: &[TensorSpec]) -> Result<Vec<Warmup>, String> {
        warmup::warmups(&self.proto, folder, roots, inputs).map_err(|fault| self.named(&fault))
    }

    /// How the runtime is to make and run the session.
    pub(crate) fn runtime_options(&self) -> &SessionOptions {
        &self.runtime
    }

    /// What it asks for without effect.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The message as it was read.
    pub(crate) fn proto(&self) -> &ModelConfig {
        &self.proto
    }

    fn named(&self, fault: &str) -> String {
        format!("{}: {fault}", self.label)
    }
}

fn version_policy(config: &ModelConfig) -> Result<Option<VersionPolicy>, String> {
    let Some(choice) = config.version_policy.as_ref().and_then(|policy| policy.policy_choice.as_ref()) else {
        return Ok(None);
    };
    Ok(Some(match choice {
        PolicyChoice::All(_) => VersionPolicy::All,
        PolicyChoice::Latest(latest) if latest.num_versions == 0 => {
            return Err("version_policy.latest.num_versions = 0: allowed: 1 and above".to_owned());
        }
        PolicyChoice::Latest(latest) => VersionPolicy::Latest(latest.num_versions as usize),
        PolicyChoice::Specific(specific) => {
            if specific.versions.is_empty() {
                return Err("version_policy.specific.versions is empty; allowed: at least one version".to_owned());
            }
            let number = |&version: &i64| {
                let number = u64::try_from(version).ok().filter(|&number| number > 0);
                number.ok_or_else(|| format!("version_policy.specific.versions: {version}; allowed: 1 and above"))
            };
            VersionPolicy::Specific(specific.versions.iter().map(number).collect::<Result<_, _>>()?)
        }
    }))
}

/// The configurations of loaded versions, by model and version.
#[derive(Debug, Default)]
pub(crate) struct Configs(Mutex<HashMap<(String, u64), Arc<ConfigFile>>>);

impl Configs {
    /// Remembers the configuration that a version was loaded with, or that it had none.
    pub(crate) fn set(&self, name: &str, version: u64, config: Option<Arc<ConfigFile>>) {
        let key = (name.to_owned(), version);
        match config {
            Some(config) => drop(self.0.lock().insert(key, config)),
            None => drop(self.0.lock().remove(&key)),
        }
    }

    /// The configuration that a version was loaded with; `None` if it had none.
    pub(crate) fn get(&self, name: &str, version: u64) -> Option<Arc<ConfigFile>> {
        self.0.lock().get(&(name.to_owned(), version)).cloned()
    }
}
