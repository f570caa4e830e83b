//! The model repository extension: what there is, loading and unloading.

use std::collections::BTreeSet;
use std::sync::Arc;

use mlserve_core::config::ModelControlMode;
use mlserve_core::error::{Error, Kind, Result, quoted};

use crate::lifecycle::catalog::Indexed;
use crate::lifecycle::repository::list;
use crate::lifecycle::{Overrides, public};
use crate::process::Process;
use crate::proto::model_repository_parameter::ParameterChoice;
use crate::proto::repository_index_response::ModelIndex;
use crate::proto::{
    ModelRepositoryParameter, RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest,
    RepositoryModelLoadResponse, RepositoryModelUnloadRequest, RepositoryModelUnloadResponse,
};

/// Before the path of a file that comes with a load, in the name of its parameter.
const FILE_PREFIX: &str = "file:";

/// Answers `RepositoryIndex`, on another thread: there may be thousands of models, and a disk may be slow.
///
/// **Errors:** a repository is named, which is not supported.
pub(crate) async fn index(process: &Arc<Process>, request: RepositoryIndexRequest) -> Result<RepositoryIndexResponse> {
    refuse_repository(&request.repository_name)?;
    let process = Arc::clone(process);
    let listing = tokio::task::spawn_blocking(move || indexed(&process, request.ready)).await;
    listing.map_err(|_| Error::internal("the repository could not be listed"))
}

fn indexed(process: &Process, only_ready: bool) -> RepositoryIndexResponse {
    let mut lines = process.models.index();
    if process.settings.server.model_control_mode == ModelControlMode::Explicit {
        lines.extend(never_loaded(process, &lines));
        lines.sort_by(|one, other| (&one.name, one.version).cmp(&(&other.name, other.version)));
    }
    let wanted = lines.into_iter().filter(|line| !only_ready || line.state == "READY");
    RepositoryIndexResponse { models: wanted.map(line).collect() }
}

/// Models of the repository that nobody has asked for yet.
fn never_loaded(process: &Process, known: &[Indexed]) -> Vec<Indexed> {
    let known: BTreeSet<&str> = known.iter().map(|line| &*line.name).collect();
    let listing = list(&process.settings).unwrap_or_default();
    let models = listing.models.into_iter().map(|(name, source)| match &source.fault {
        Some(fault) => Indexed::failed(name, &public(fault, &source)),
        None => Indexed { name, version: None, state: "", reason: String::new() },
    });
    let odd = listing.odd.into_iter().map(|(name, reason)| Indexed::failed(name, &reason));
    models.chain(odd).filter(|line| !known.contains(&*line.name)).collect()
}

fn line(line: Indexed) -> ModelIndex {
    let version = line.version.map(|version| version.to_string()).unwrap_or_default();
    ModelIndex { name: line.name, version, state: line.state.to_owned(), reason: line.reason }
}

/// Answers `RepositoryModelLoad` once the model serves or has failed.
///
/// **Errors:** not in explicit mode; no such model; it cannot be loaded.
pub(crate) async fn load(
    process: &Process,
    request: RepositoryModelLoadRequest,
) -> Result<RepositoryModelLoadResponse> {
    refuse_repository(&request.repository_name)?;
    let mut overrides = Overrides::default();
    for (key, ModelRepositoryParameter { parameter_choice }) in request.parameters {
        match (key.strip_prefix(FILE_PREFIX), key.as_str(), parameter_choice) {
            (Some(path), _, Some(ParameterChoice::BytesParam(content))) => {
                overrides.files.push((path.to_owned(), content.into()));
            }
            (None, "config", Some(ParameterChoice::StringParam(config))) => overrides.config = Some(config),
            (Some(_), ..) => return Err(wrong_kind(&key, "bytes_param")),
            (None, "config", _) => return Err(wrong_kind(&key, "string_param")),
            _ => return Err(unknown_parameter(&key, "'config' and 'file:PATH'")),
        }
    }
    if !overrides.files.is_empty() && overrides.config.is_none() {
        return Err(Error::invalid(format!(
            "failed to load '{}', parameter 'config' is required when files are given",
            quoted(&request.model_name)
        )));
    }
    process.models.load(&request.model_name, overrides).await?;
    Ok(RepositoryModelLoadResponse {})
}

/// Answers `RepositoryModelUnload` once new requests are refused and those in flight are answered.
///
/// **Errors:** not in explicit mode.
pub(crate) async fn unload(
    process: &Process,
    request: RepositoryModelUnloadRequest,
) -> Result<RepositoryModelUnloadResponse> {
    refuse_repository(&request.repository_name)?;
    for (key, ModelRepositoryParameter { parameter_choice }) in request.parameters {
        // No model depends on another here, so either value means the same.
        match (key.as_str(), parameter_choice) {
            ("unload_dependents", Some(ParameterChoice::BoolParam(_))) => {}
            ("unload_dependents", _) => return Err(wrong_kind(&key, "bool_param")),
            _ => return Err(unknown_parameter(&key, "'unload_dependents'")),
        }
    }
    process.models.unload(&request.model_name).await?;
    Ok(RepositoryModelUnloadResponse {})
}

fn refuse_repository(name: &str) -> Result<()> {
    if name.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::NotOffered, "'repository_name' specification is not supported"))
}

#[cold]
fn wrong_kind(key: &str, expected: &str) -> Error {
    Error::invalid(format!("invalid value type for '{}' parameter, expected {expected}.", quoted(key)))
}

#[cold]
fn unknown_parameter(key: &str, allowed: &str) -> Error {
    Error::invalid(format!("unknown parameter '{}' of a model repository request; allowed are {allowed}", quoted(key)))
}
