//! Finds models on disk: one .onnx file, a folder of them, or Triton's layout `name/version/model.onnx`.
//!
//! Names are checked, and links that lead where nobody allowed are refused; no model file is opened here. What lies in a
//! repository and cannot be served never hides what can: it is listed with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlserve_core::config::{ModelSettings, Settings};
use mlserve_core::error::{Error, Kind, quoted};

use self::layout::{Entry, MODEL_FILE};
use super::print::Print;
use crate::model_config;
use crate::trust::{self, Roots};

mod layout;

/// Longest name of a model.
const MAX_NAME: usize = 128;

/// Reasons, or names, that a text repeats.
const REASONS_TOLD: usize = 3;

/// A model as it lies on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// What clients call it.
    pub(crate) name: String,
    /// One .onnx file, or the folder with its versions.
    pub(crate) path: PathBuf,
    /// The path that the operator gave: the repository, or the model's own.
    pub(crate) named: PathBuf,
    /// Other folders that links may lead to.
    pub(crate) trusted: Arc<[PathBuf]>,
    /// Why it cannot be served, if that shows before a file is opened.
    pub(crate) fault: Option<String>,
}

/// A version on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The model's name.
    pub name: String,
    /// The version's number.
    pub version: u64,
    /// The .onnx file.
    pub path: PathBuf,
    /// Bytes of the file, or of everything in the version's folder.
    pub bytes: u64,
    /// Changes when the files do.
    pub(crate) print: Print,
}

/// The versions of a model that are to be served.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    /// Rising.
    pub(crate) found: Vec<Found>,
    /// Folders that are named like versions and hold no model.
    pub(crate) left_out: Vec<PathBuf>,
}

/// The models that are there, and what else is.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// By name; also those that cannot be served and could have that name.
    pub(crate) models: BTreeMap<String, Source>,
    /// Why each entry is no model, by its name on disk.
    pub(crate) odd: BTreeMap<String, String>,
    /// Files of other kinds, which nobody takes for models.
    pub(crate) left_alone: BTreeSet<String>,
}

impl Source {
    /// The folders that its links may lead to, as they are now.
    pub(crate) fn roots(&self) -> Roots {
        Roots::of(&self.named, &self.trusted)
    }

    /// The folder that callers need not know of.
    pub(crate) fn folder(&self) -> &Path {
        if self.named.is_file() { self.named.parent().unwrap_or(&self.named) } else { &self.named }
    }
}

impl Listing {
    /// Tells of the files that are left alone and were not before.
    pub(crate) fn tell_of_others(&self, before: &BTreeSet<String>) {
        let new: Vec<_> = self.left_alone.difference(before).collect();
        if !new.is_empty() {
            let examples = new.iter().take(REASONS_TOLD).map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
            let count = new.len();
            tracing::warn!(count, examples, "files in the repository are no models, and are left alone");
        }
    }

    fn add(&mut self, source: Source, file: &str) {
        if self.models.contains_key(&source.name) {
            self.odd.insert(file.to_owned(), format!("there is another entry for the model '{}'", source.name));
        } else {
            self.models.insert(source.name.clone(), source);
        }
    }
}

/// Everything below `server.models_path`, and the models that have a path of their own.
///
/// **Errors:** the repository itself cannot be read; a path that can never be one; the text names it.
pub(crate) fn list(settings: &Settings) -> Result<Listing, String> {
    let trusted: Arc<[PathBuf]> = trust::trusted_roots(&settings.server).collect();
    let mut listing = match &settings.server.models_path {
        Some(path) => models_at(path, &trusted)?,
        None => Listing::default(),
    };
    for (name, model) in &settings.models {
        check_name(name)?;
        let Some(path) = &model.path else { continue };
        check_local(path).map_err(|problem| format!("models.{name}.path = {problem}"))?;
        let fault = std::fs::metadata(path).err().map(|error| format!("{}: {error}", path.display()));
        let source = named_source(name, path, &trusted);
        listing.models.insert(name.clone(), Source { fault, ..source });
    }
    Ok(listing)
}

/// As [`list`], for a start that serves all there is.
///
/// **Errors:** nothing is there, or not what the settings speak of; a text that names the path, and what is expected.
pub(crate) fn list_all(settings: &Settings) -> Result<Listing, String> {
    let listing = list(settings)?;
    if let Some(name) = settings.models.keys().find(|name| !listing.models.contains_key(*name)) {
        return Err(format!(
            "models.{name}: there is no model '{name}' below server.models_path; set models.{name}.path"
        ));
    }
    if listing.models.is_empty() {
        let Some(path) = &settings.server.models_path else {
            return Err("nothing to serve: give a path to an .onnx file or to a directory of models".to_owned());
        };
        let text = format!("{}: no models here; expected NAME/VERSION/model.onnx or NAME.onnx", path.display());
        let reasons = listing.odd.iter().take(REASONS_TOLD).map(|(name, reason)| format!("{}: {reason}", quoted(name)));
        let text = std::iter::once(text).chain(reasons).collect::<Vec<_>>().join("; ");
        return Err(text);
    }
    Ok(listing)
}

/// The model of this name.
///
/// **Errors:** no name for a model; there is no such model.
pub(crate) fn source(settings: &Settings, name: &str) -> Result<Source, Error> {
    check_name(name).map_err(Error::invalid)?;
    // Begins with Triton's text; its scripts match on it.
    let text = |reason: &str| format!("failed to load '{name}', failed to poll from model repository: {reason}");
    let mut listing = list(settings).map_err(|problem| {
        let path = settings.server.models_path.as_deref().unwrap_or(Path::new("")).display().to_string();
        tracing::warn!(problem, "the repository cannot be read");
        // Where it lies is not for callers.
        Error::internal(text(problem.strip_prefix(&path).unwrap_or(&problem).trim_start_matches(": ")))
    })?;
    listing.models.remove(name).ok_or_else(|| {
        let reason = listing.odd.get(name).map_or("no such model", String::as_str);
        Error::new(Kind::NotFound, text(reason))
    })
}

/// The versions of `source` that its settings want served. `file`: the name of each version's file, if the
/// configuration gives one.
///
/// **Errors:** a text that names the path, and what is expected there.
pub(crate) fn versions(source: &Source, settings: &ModelSettings, file: Option<&str>) -> Result<Versions, String> {
    if let Some(fault) = &source.fault {
        return Err(fault.clone());
    }
    let path = &source.path;
    let metadata = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if metadata.is_file() {
        return Ok(Versions { found: vec![one_file(source, metadata.len())], left_out: Vec::new() });
    }
    // A configuration that is not read yet may name another file.
    let is_configured = path.join(model_config::FILE).exists();
    let wanted = file.or((!is_configured).then_some(MODEL_FILE));
    let (mut versions, left_out): (Vec<_>, Vec<_>) = layout::numbered(&layout::entries(path)?)
        .partition(|(_, folder)| wanted.is_none_or(|file| layout::may_hold(folder, file)));
    versions.sort();
    let left_out: Vec<PathBuf> = left_out.into_iter().map(|(_, folder)| folder).collect();
    let numbers: Vec<u64> = versions.iter().map(|&(number, _)| number).collect();
    if numbers.is_empty() && !left_out.is_empty() {
        return Err(layout::no_model(path, &left_out, wanted.unwrap_or(MODEL_FILE)));
    }
    let chosen = settings.versions.choose(&numbers);
    if chosen.is_empty() {
        return Err(format!(
            "{}: none of the versions {numbers:?} is wanted by models.{}.versions = \"{}\"",
            path.display(),
            source.name,
            settings.versions
        ));
    }
    versions.retain(|(number, _)| chosen.contains(number));
    let roots = source.roots();
    let file = wanted.unwrap_or(MODEL_FILE);
    let found = versions.iter().map(|(version, folder)| version_at(source, &roots, *version, folder, file));
    Ok(Versions { found: found.collect::<Result<_, _>>()?, left_out })
}

/// The one version of a model that is a file.
fn one_file(source: &Source, bytes: u64) -> Found {
    let path = &source.path;
    let version = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse().ok());
    let version = version.filter(|_| path.file_name().is_some_and(|file| file == MODEL_FILE)).unwrap_or(1);
    Found { name: source.name.clone(), version, path: path.clone(), bytes, print: Print::of(path) }
}

fn version_at(source: &Source, roots: &Roots, version: u64, folder: &Path, file: &str) -> Result<Found, String> {
    roots.check(folder)?;
    let path = folder.join(file);
    roots.check(&path)?;
    let (print, bytes) = Print::with_bytes(folder);
    Ok(Found { name: source.name.clone(), version, path, bytes, print })
}

/// Whether nothing is at `path`. What cannot be looked at may be there.
pub(crate) fn is_gone(path: &Path) -> bool {
    path.metadata().is_err_and(|error| layout::is_missing(&error))
}

/// The settings of one model, or the defaults.
pub(crate) fn model_settings(settings: &Settings, name: &str) -> ModelSettings {
    settings.models.get(name).cloned().unwrap_or_default()
}

/// Checks a name: letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at most 128.
///
/// **Errors:** a text with the name and what is allowed.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if starts_well && name.len() <= MAX_NAME && name.bytes().all(is_allowed) {
        return Ok(());
    }
    Err(format!(
        "'{}' is no name for a model: allowed are letters, digits, '.', '_' and '-', beginning with a letter or a digit, \
         at most {MAX_NAME}",
        quoted(name)
    ))
}

/// A model that the operator named by its path.
fn named_source(name: &str, path: &Path, trusted: &Arc<[PathBuf]>) -> Source {
    let (path, trusted) = (path.to_owned(), Arc::clone(trusted));
    Source { name: name.to_owned(), named: path.clone(), path, trusted, fault: None }
}

/// Refuses addresses of object stores and the like by name.
fn check_local(path: &Path) -> Result<(), String> {
    let text = path.to_string_lossy();
    let Some((scheme, _)) = text.split_once("://") else { return Ok(()) };
    Err(format!(
        "{text}: only local paths can be served; models at {scheme}:// have to be copied to this machine first"
    ))
}

fn models_at(path: &Path, trusted: &Arc<[PathBuf]>) -> Result<Listing, String> {
    check_local(path)?;
    let metadata = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let one = |name: String| {
        check_name(&name)?;
        Ok(Listing { models: [(name.clone(), named_source(&name, path, trusted))].into(), ..Listing::default() })
    };
    if metadata.is_file() {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        // `name/version/model.onnx` given whole: the folder has the name.
        return one(if name == "model" { folder_name(path).unwrap_or(name) } else { name });
    }
    let entries = layout::entries(path)?;
    if layout::is_one_model(path, &entries) {
        let name =
            path.canonicalize().ok().and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
        return one(name.unwrap_or_else(|| "model".to_owned()));
    }
    let roots = Roots::of(path, trusted);
    let mut listing = Listing::default();
    for entry in entries {
        let file = entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let (name, fault) = match layout::entry(&entry, &file, &roots) {
            Entry::Model(name) => (name, None),
            Entry::Broken(name, fault) => (name, Some(fault)),
            Entry::Odd(reason) => {
                listing.odd.insert(file, reason.replace(&format!("{}/", path.display()), ""));
                continue;
            }
            Entry::Other => {
                listing.left_alone.insert(file);
                continue;
            }
            Entry::Hidden => continue,
        };
        let source = named_source(&name, path, trusted);
        listing.add(Source { path: entry, fault, ..source }, &file);
    }
    if listing.models.values().any(|source| source.path.is_file()) {
        // They may hold the weights of the models beside them.
        listing.left_alone.clear();
    }
    Ok(listing)
}

/// The model's name in `name/version/model.onnx`.
fn folder_name(file: &Path) -> Option<String> {
    let version = file.parent()?;
    version.file_name()?.to_str()?.parse::<u64>().ok()?;
    Some(version.parent()?.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests;
