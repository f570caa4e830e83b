//! Finds models on disk: one .onnx file, a folder of them, or Triton's layout `name/version/model.onnx`.
//!
//! Names are checked, and links that lead outside the repository are refused; nothing is opened here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mlserve_core::config::{ModelSettings, Settings, VersionPolicy};
use mlserve_core::error::quoted;

/// Longest name of a model.
const MAX_NAME: usize = 128;

/// A version that is to be loaded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The model's name.
    pub name: String,
    /// The version's number.
    pub version: u64,
    /// The .onnx file.
    pub path: PathBuf,
}

/// Everything that `settings` ask to serve, by name and version.
///
/// **Errors:** a text that names the path, and what is expected there.
pub(crate) fn find(settings: &Settings) -> Result<Vec<Found>, String> {
    let mut found = BTreeMap::new();
    if let Some(path) = &settings.server.models_path {
        for (name, path) in models_at(path)? {
            let policy = settings.models.get(&name).map(|model| model.versions.clone()).unwrap_or_default();
            found.insert(name.clone(), versions_at(&name, &path, &policy)?);
        }
    }
    for (name, model) in &settings.models {
        check_name(name)?;
        if let Some(path) = &model.path {
            found.insert(name.clone(), versions_at(name, path, &model.versions)?);
        } else if !found.contains_key(name) {
            return Err(format!(
                "models.{name}: there is no model '{name}' below server.models_path; set models.{name}.path"
            ));
        }
    }
    let found: Vec<Found> = found.into_values().flatten().collect();
    if found.is_empty() {
        return Err("nothing to serve: give a path to an .onnx file or to a directory of models".to_owned());
    }
    Ok(found)
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

fn models_at(path: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let text = path.to_string_lossy();
    if text.contains("://") {
        return Err(format!("{text}: only local paths can be served"));
    }
    let metadata = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if metadata.is_file() {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        // `name/version/model.onnx` given whole: the folder has the name.
        let name = if name == "model" { folder_name(path).unwrap_or(name) } else { name };
        check_name(&name)?;
        return Ok(vec![(name, path.to_owned())]);
    }
    if has_versions(path) {
        let name =
            path.canonicalize().ok().and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
        let name = name.unwrap_or_else(|| "model".to_owned());
        check_name(&name)?;
        return Ok(vec![(name, path.to_owned())]);
    }
    let mut models = Vec::new();
    for entry in entries(path)? {
        let name = entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with('.') {
            continue;
        }
        within(&entry, path)?;
        if entry.is_dir() && has_versions(&entry) {
            check_name(&name)?;
            models.push((name, entry));
        } else if let Some(stem) = name.strip_suffix(".onnx") {
            check_name(stem)?;
            models.push((stem.to_owned(), entry));
        }
    }
    if models.is_empty() {
        return Err(format!("{}: no models here; expected NAME/VERSION/model.onnx or NAME.onnx", path.display()));
    }
    Ok(models)
}

fn folder_name(file: &Path) -> Option<String> {
    let version = file.parent()?;
    version.file_name()?.to_str()?.parse::<u64>().ok()?;
    Some(version.parent()?.file_name()?.to_str()?.to_owned())
}

fn versions_at(name: &str, path: &Path, policy: &VersionPolicy) -> Result<Vec<Found>, String> {
    let text = path.to_string_lossy();
    if text.contains("://") {
        return Err(format!("models.{name}.path = {text}: only local paths can be served"));
    }
    let metadata = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if metadata.is_file() {
        let version = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse().ok());
        let version = version.filter(|_| path.file_name().is_some_and(|file| file == "model.onnx")).unwrap_or(1);
        return Ok(vec![Found { name: name.to_owned(), version, path: path.to_owned() }]);
    }
    let mut versions = BTreeMap::new();
    for folder in entries(path)? {
        let Some(version) = version_number(&folder) else { continue };
        within(&folder, path)?;
        let file = folder.join("model.onnx");
        within(&file, path)?;
        versions.insert(version, Found { name: name.to_owned(), version, path: file });
    }
    let numbers: Vec<u64> = versions.keys().copied().collect();
    let chosen = policy.choose(&numbers);
    if chosen.is_empty() {
        return Err(format!(
            "{}: none of the versions {numbers:?} is wanted by models.{name}.versions = \"{policy}\"",
            path.display()
        ));
    }
    Ok(chosen.into_iter().filter_map(|number| versions.remove(&number)).collect())
}

fn has_versions(folder: &Path) -> bool {
    entries(folder).is_ok_and(|entries| entries.iter().any(|entry| version_number(entry).is_some()))
}

/// The number of a version's folder: digits without a leading zero, above 0.
fn version_number(folder: &Path) -> Option<u64> {
    let name = folder.file_name()?.to_str()?;
    let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) && !name.starts_with('0');
    if is_number && folder.is_dir() { name.parse().ok() } else { None }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let read = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut entries: Vec<PathBuf> = read.filter_map(Result::ok).map(|entry| entry.path()).collect();
    entries.sort();
    Ok(entries)
}

/// Refuses a link that leads outside `root`. A path that does not exist is left to whoever opens it.
fn within(path: &Path, root: &Path) -> Result<(), String> {
    let (Ok(real), Ok(root)) = (path.canonicalize(), root.canonicalize()) else { return Ok(()) };
    if real.starts_with(&root) {
        return Ok(());
    }
    Err(format!("{}: leads outside the repository {}", path.display(), root.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, files: &[&str]) -> Self {
            let root = std::env::temp_dir().join(format!("mlserve-repository-{}-{name}", std::process::id()));
            for file in files {
                let path = root.join(file);
                std::fs::create_dir_all(path.parent().expect("has a parent")).expect("made");
                std::fs::write(path, b"x").expect("written");
            }
            Self(root)
        }

        fn settings(&self) -> Settings {
            let mut settings = Settings::default();
            settings.server.models_path = Some(self.0.clone());
            settings
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).expect("removed");
        }
    }

    fn numbers(found: &[Found]) -> Vec<(&str, u64)> {
        found.iter().map(|found| (found.name.as_str(), found.version)).collect()
    }

    #[test]
    fn a_repository_serves_the_latest_version_of_each_model() {
        let folder = Folder::new("latest", &["a/1/model.onnx", "a/3/model.onnx", "a/02/model.onnx", "b.onnx"]);
        assert_eq!(numbers(&find(&folder.settings()).expect("found")), [("a", 3), ("b", 1)]);
    }

    #[test]
    fn a_policy_chooses_versions() {
        let folder = Folder::new("policy", &["a/1/model.onnx", "a/2/model.onnx", "a/3/model.onnx"]);
        let mut settings = folder.settings();
        settings.server.models_path = None;
        for (policy, expected) in [("all", vec![1, 2, 3]), ("latest:2", vec![2, 3]), ("1,3", vec![1, 3])] {
            let versions = policy.parse().expect("a policy");
            let model = ModelSettings { path: Some(folder.0.join("a")), versions, ..ModelSettings::default() };
            settings.models.insert("a".to_owned(), model);
            let found = find(&settings).expect("found");
            assert_eq!(found.iter().map(|found| found.version).collect::<Vec<_>>(), expected, "{policy}");
        }
    }

    #[test]
    fn a_link_that_leads_outside_is_refused() {
        let outside = Folder::new("outside", &["secret/model.onnx"]);
        let folder = Folder::new("inside", &["a/1/model.onnx"]);
        std::os::unix::fs::symlink(outside.0.join("secret"), folder.0.join("a/2")).expect("linked");
        let error = find(&folder.settings()).expect_err("leads outside");
        assert!(error.contains("leads outside"), "{error}");
    }

    #[test]
    fn names_are_checked() {
        for bad in ["", ".hidden", "-x", "a b", "a/b", "..", "a\n", &"a".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "A-1_x.y", &"a".repeat(128)] {
            assert_eq!(check_name(good), Ok(()));
        }
    }

    #[test]
    fn an_empty_folder_says_what_is_expected() {
        let folder = Folder::new("empty", &["readme.txt"]);
        assert!(find(&folder.settings()).expect_err("empty").contains("NAME/VERSION/model.onnx"));
    }
}
