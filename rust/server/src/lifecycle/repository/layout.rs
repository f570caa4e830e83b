//! What the entries of a folder are: versions of one model, models, or neither.
//!
//! The rules, which docs/guides/operations.md tells: a version's folder is named by a number and holds a model file itself;
//! a model's folder has such versions, or a `config.pbtxt`. So a model may be called `2024`, and a folder is read as one
//! model only if nothing in it is a model of its own.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::check_name;
use crate::model_config;
use crate::trust::Roots;

/// The file of a version, unless the model's configuration names another.
pub(super) const MODEL_FILE: &str = "model.onnx";

/// What an entry of a repository is.
pub(super) enum Entry {
    /// A model of this name.
    Model(String),
    /// What was meant as a model of this name, and why it cannot be one.
    Broken(String, String),
    /// Nothing that could be a model, for this reason.
    Odd(String),
    /// A file of another kind, such as a readme.
    Other,
    /// What its name hides.
    Hidden,
}

/// The entry at `path`, whose name is `file`. Links must lead to `roots`.
pub(super) fn entry(path: &Path, file: &str, roots: &Roots) -> Entry {
    if file.starts_with('.') {
        return Entry::Hidden;
    }
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        Err(error) => return unreadable(path, file, &error),
    };
    let stem = file.strip_suffix(".onnx");
    let name = match (metadata.is_dir(), stem) {
        (true, _) => file,
        (false, Some(stem)) => stem,
        (false, None) => return Entry::Other,
    };
    let fault = roots.check(path).err().map(Fault::Model);
    let fault = fault.or_else(|| if metadata.is_dir() { fault_of(path) } else { None });
    match (check_name(name), fault) {
        (Err(reason), _) | (Ok(()), Some(Fault::NoModel(reason))) => Entry::Odd(reason),
        (Ok(()), None) => Entry::Model(name.to_owned()),
        (Ok(()), Some(Fault::Model(reason))) => Entry::Broken(name.to_owned(), reason),
    }
}

/// A link that leads nowhere, or what cannot be looked at.
fn unreadable(path: &Path, file: &str, error: &std::io::Error) -> Entry {
    let reason = format!("{}: {error}", path.display());
    let name = file.strip_suffix(".onnx").unwrap_or(file);
    match check_name(name) {
        Ok(()) => Entry::Broken(name.to_owned(), reason),
        Err(_) => Entry::Odd(reason),
    }
}

/// Why a folder is no model.
enum Fault {
    /// It was meant as one.
    Model(String),
    /// It has nothing of one.
    NoModel(String),
}

fn fault_of(folder: &Path) -> Option<Fault> {
    let entries = match entries(folder) {
        Ok(entries) => entries,
        Err(reason) => return Some(Fault::Model(reason)),
    };
    if is_model(folder, &entries) {
        return None;
    }
    let numbers: Vec<PathBuf> = numbered(&entries).map(|(_, folder)| folder).collect();
    if !numbers.is_empty() {
        return Some(Fault::Model(no_model(folder, &numbers, MODEL_FILE)));
    }
    if let Some(odd) = entries.iter().find(|entry| holds(entry, MODEL_FILE)) {
        let reason =
            format!("{} is no version: allowed are folders named 1, 2, 3, … without leading zeros", odd.display());
        return Some(Fault::Model(reason));
    }
    if holds(folder, MODEL_FILE) {
        let path = folder.display();
        return Some(Fault::Model(format!(
            "{path}: {MODEL_FILE} is not in a version's folder; expected {path}/1/{MODEL_FILE}"
        )));
    }
    Some(Fault::NoModel(format!("{}: no model here; expected NAME/VERSION/{MODEL_FILE}", folder.display())))
}

/// The text for `folder` none of whose versions `numbers` has a model.
pub(super) fn no_model(folder: &Path, numbers: &[PathBuf], file: &str) -> String {
    let names = numbers.iter().filter_map(|number| number.file_name()).map(|name| name.to_string_lossy());
    let names: Vec<_> = names.collect();
    format!("{}: no {file} in its versions' folders ({})", folder.display(), names.join(", "))
}

/// Whether a folder with these entries is one model, not a repository of them.
pub(super) fn is_one_model(folder: &Path, entries: &[PathBuf]) -> bool {
    let is_own = |entry: &Path| {
        let is_hidden = entry.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !is_hidden && self::entries(entry).is_ok_and(|entries| is_model(entry, &entries))
    };
    let mut numbers = numbered(entries).map(|(_, folder)| folder);
    if holds(folder, model_config::FILE) {
        return numbers.any(|number| !is_own(&number));
    }
    numbers.any(|number| holds(&number, MODEL_FILE)) && !entries.iter().any(|entry| is_own(entry))
}

/// Whether a folder with these entries is a model.
fn is_model(folder: &Path, entries: &[PathBuf]) -> bool {
    let has_version = || numbered(entries).any(|(_, folder)| may_hold(&folder, MODEL_FILE));
    holds(folder, model_config::FILE) || has_version()
}

/// The folders that are named as versions are, with their numbers.
pub(super) fn numbered(entries: &[PathBuf]) -> impl Iterator<Item = (u64, PathBuf)> {
    entries.iter().filter_map(|entry| Some((version_number(entry)?, entry.clone())))
}

/// The number of a version's folder: digits without a leading zero, above 0.
fn version_number(folder: &Path) -> Option<u64> {
    let name = folder.file_name()?.to_str()?;
    let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) && !name.starts_with('0');
    // One that cannot be looked at is one: what serves must not go for that.
    let is_folder = || folder.metadata().map_or_else(|error| !is_missing(&error), |metadata| metadata.is_dir());
    if is_number && is_folder() { name.parse().ok() } else { None }
}

/// Whether `file` is in `folder`, also as a link that leads nowhere.
fn holds(folder: &Path, file: &str) -> bool {
    folder.join(file).symlink_metadata().is_ok()
}

/// As [`holds`], or it cannot be told.
pub(super) fn may_hold(folder: &Path, file: &str) -> bool {
    folder.join(file).symlink_metadata().map_or_else(|error| !is_missing(&error), |_| true)
}

/// Whether an error says that nothing is there.
pub(super) fn is_missing(error: &std::io::Error) -> bool {
    [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind())
}

/// What is in a folder, in order.
///
/// **Errors:** it cannot be read; a text that names it.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error: std::io::Error| format!("{}: {error}", folder.display());
    let read = std::fs::read_dir(folder).map_err(unreadable)?;
    // Half a list would look as if the rest were gone.
    let mut entries: Vec<PathBuf> =
        read.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(unreadable)?;
    entries.sort();
    Ok(entries)
}
