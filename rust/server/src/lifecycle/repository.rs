//! Finds models on disk: one .onnx file, a folder of them, or Triton's layout `name/version/model.onnx`.
//!
//! Names are checked, and links that lead outside the repository are refused; no model file is opened here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mlserve_core::config::{ModelSettings, Settings};
use mlserve_core::error::{Error, Kind, quoted};

use super::print::Print;

/// Longest name of a model.
const MAX_NAME: usize = 128;

/// The file of a version, unless the model's configuration names another.
const MODEL_FILE: &str = "model.onnx";

/// A model as it lies on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// What clients call it.
    pub(crate) name: String,
    /// One .onnx file, or the folder with its versions.
    pub(crate) path: PathBuf,
    /// What links must not lead out of.
    pub(crate) root: PathBuf,
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

/// The models that are there, and what stands in the way of others.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// By name.
    pub(crate) models: BTreeMap<String, Source>,
    /// One text for each entry that cannot be a model.
    pub(crate) problems: Vec<String>,
}

/// Everything below `server.models_path`, and the models that have a path of their own.
///
/// **Errors:** the repository itself cannot be read; a text that names the path.
pub(crate) fn list(settings: &Settings) -> Result<Listing, String> {
    let mut listing = match &settings.server.models_path {
        Some(path) => models_at(path)?,
        None => Listing::default(),
    };
    for (name, model) in &settings.models {
        check_name(name)?;
        let Some(path) = &model.path else { continue };
        match own_source(name, path) {
            Ok(source) => drop(listing.models.insert(name.clone(), source)),
            Err(problem) => listing.problems.push(problem),
        }
    }
    Ok(listing)
}

/// As [`list`], for a start that serves all there is: every problem is an error.
///
/// **Errors:** a text that names the path, and what is expected there.
pub(crate) fn list_all(settings: &Settings) -> Result<BTreeMap<String, Source>, String> {
    let Listing { models, problems } = list(settings)?;
    if let Some(problem) = problems.into_iter().next() {
        return Err(problem);
    }
    if let Some(name) = settings.models.keys().find(|name| !models.contains_key(*name)) {
        return Err(format!(
            "models.{name}: there is no model '{name}' below server.models_path; set models.{name}.path"
        ));
    }
    if models.is_empty() {
        return Err(match &settings.server.models_path {
            Some(path) => format!("{}: no models here; expected NAME/VERSION/model.onnx or NAME.onnx", path.display()),
            None => "nothing to serve: give a path to an .onnx file or to a directory of models".to_owned(),
        });
    }
    Ok(models)
}

/// The model of this name.
///
/// **Errors:** no name for a model; there is no such model.
pub(crate) fn source(settings: &Settings, name: &str) -> Result<Source, Error> {
    check_name(name).map_err(Error::invalid)?;
    let listing = list(settings).map_err(Error::internal)?;
    listing.models.get(name).cloned().ok_or_else(|| {
        // Begins with Triton's text; its scripts match on it.
        Error::new(
            Kind::NotFound,
            format!("failed to load '{name}', failed to poll from model repository: no such model"),
        )
    })
}

/// The versions of `source` that its settings want served, rising. `file`: the name of each version's file, if the
/// configuration gives one.
///
/// **Errors:** a text that names the path, and what is expected there.
pub(crate) fn versions(source: &Source, settings: &ModelSettings, file: Option<&str>) -> Result<Vec<Found>, String> {
    let path = &source.path;
    let metadata = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if metadata.is_file() {
        let version = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse().ok());
        let version = version.filter(|_| path.file_name().is_some_and(|file| file == MODEL_FILE)).unwrap_or(1);
        let (print, bytes) = (Print::of(path), metadata.len());
        return Ok(vec![Found { name: source.name.clone(), version, path: path.clone(), bytes, print }]);
    }
    let mut versions = BTreeMap::new();
    for folder in entries(path)? {
        let Some(version) = version_number(&folder) else { continue };
        versions.insert(version, folder);
    }
    let numbers: Vec<u64> = versions.keys().copied().collect();
    let chosen = settings.versions.choose(&numbers);
    if chosen.is_empty() {
        return Err(format!(
            "{}: none of the versions {numbers:?} is wanted by models.{}.versions = \"{}\"",
            path.display(),
            source.name,
            settings.versions
        ));
    }
    let found = chosen.into_iter().filter_map(|number| Some((number, versions.remove(&number)?)));
    found.map(|(version, folder)| version_at(source, version, &folder, file.unwrap_or(MODEL_FILE))).collect()
}

fn version_at(source: &Source, version: u64, folder: &Path, file: &str) -> Result<Found, String> {
    within(folder, &source.root)?;
    let path = folder.join(file);
    within(&path, &source.root)?;
    let (print, bytes) = Print::with_bytes(folder);
    Ok(Found { name: source.name.clone(), version, path, bytes, print })
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

/// A model with a path of its own.
fn own_source(name: &str, path: &Path) -> Result<Source, String> {
    check_local(path).map_err(|problem| format!("models.{name}.path = {problem}"))?;
    let metadata = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let root = if metadata.is_file() { path.parent().unwrap_or(path) } else { path };
    Ok(Source { name: name.to_owned(), path: path.to_owned(), root: root.to_owned() })
}

/// Refuses addresses of object stores and the like by name.
fn check_local(path: &Path) -> Result<(), String> {
    let text = path.to_string_lossy();
    let Some((scheme, _)) = text.split_once("://") else { return Ok(()) };
    Err(format!(
        "{text}: only local paths can be served; models at {scheme}:// have to be copied to this machine first"
    ))
}

fn models_at(path: &Path) -> Result<Listing, String> {
    check_local(path)?;
    let metadata = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let one = |name: String, root: &Path| {
        check_name(&name)?;
        let source = Source { name: name.clone(), path: path.to_owned(), root: root.to_owned() };
        Ok(Listing { models: [(name, source)].into(), problems: Vec::new() })
    };
    if metadata.is_file() {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        // `name/version/model.onnx` given whole: the folder has the name.
        let name = if name == "model" { folder_name(path).unwrap_or(name) } else { name };
        return one(name, path.parent().unwrap_or(path));
    }
    if has_versions(path) {
        let name =
            path.canonicalize().ok().and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
        return one(name.unwrap_or_else(|| "model".to_owned()), path);
    }
    let mut listing = Listing::default();
    for entry in entries(path)? {
        match model_at(&entry, path) {
            Ok(Some(source)) => drop(listing.models.insert(source.name.clone(), source)),
            Ok(None) => {}
            Err(problem) => listing.problems.push(problem),
        }
    }
    Ok(listing)
}

/// The model that an entry of a repository is; `None` for what is no model, such as a readme.
fn model_at(entry: &Path, root: &Path) -> Result<Option<Source>, String> {
    let file = entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if file.starts_with('.') {
        return Ok(None);
    }
    within(entry, root)?;
    refuse_odd_versions(entry)?;
    let name = if entry.is_dir() && (has_versions(entry) || entry.join("config.pbtxt").exists()) {
        file.as_str()
    } else if let Some(stem) = file.strip_suffix(".onnx").filter(|_| entry.is_file()) {
        stem
    } else {
        return Ok(None);
    };
    check_name(name)?;
    Ok(Some(Source { name: name.to_owned(), path: entry.to_owned(), root: root.to_owned() }))
}

/// Refuses a folder whose only models lie in folders that are no versions, which would otherwise just not be there.
fn refuse_odd_versions(folder: &Path) -> Result<(), String> {
    if !folder.is_dir() || has_versions(folder) {
        return Ok(());
    }
    let odd = entries(folder)?.into_iter().find(|entry| entry.join(MODEL_FILE).is_file());
    odd.map_or(Ok(()), |odd| {
        Err(format!("{} is no version: allowed are folders named 1, 2, 3, … without leading zeros", odd.display()))
    })
}

fn folder_name(file: &Path) -> Option<String> {
    let version = file.parent()?;
    version.file_name()?.to_str()?.parse::<u64>().ok()?;
    Some(version.parent()?.file_name()?.to_str()?.to_owned())
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
pub(crate) fn within(path: &Path, root: &Path) -> Result<(), String> {
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

    /// Every version that is wanted, or the first problem.
    fn find(settings: &Settings) -> Result<Vec<(String, u64)>, String> {
        let mut found = Vec::new();
        for (name, source) in list_all(settings)? {
            let wanted = versions(&source, &model_settings(settings, &name), None)?;
            found.extend(wanted.into_iter().map(|found| (found.name, found.version)));
        }
        Ok(found)
    }

    fn pairs(pairs: &[(&str, u64)]) -> Vec<(String, u64)> {
        pairs.iter().map(|&(name, version)| (name.to_owned(), version)).collect()
    }

    #[test]
    fn a_repository_serves_the_latest_version_of_each_model() {
        let folder = Folder::new("latest", &["a/1/model.onnx", "a/3/model.onnx", "a/02/model.onnx", "b.onnx"]);
        assert_eq!(find(&folder.settings()).expect("found"), pairs(&[("a", 3), ("b", 1)]));
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
            assert_eq!(found.iter().map(|found| found.1).collect::<Vec<_>>(), expected, "{policy}");
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
    fn links_inside_the_repository_are_followed() {
        // As Kubernetes mounts a volume: the entries are links into a hidden folder that is swapped whole.
        let folder = Folder::new("mounted", &["..data-1/a/1/model.onnx"]);
        std::os::unix::fs::symlink("..data-1", folder.0.join("..data")).expect("linked");
        std::os::unix::fs::symlink("..data/a", folder.0.join("a")).expect("linked");
        assert_eq!(find(&folder.settings()).expect("found"), pairs(&[("a", 1)]));
    }

    #[test]
    fn addresses_of_object_stores_are_refused_by_name() {
        for address in ["s3://bucket/models", "gs://bucket/models", "https://example.com/m.onnx"] {
            let mut settings = Settings::default();
            settings.server.models_path = Some(address.into());
            let error = list(&settings).expect_err(address);
            assert!(error.starts_with(&format!("{address}: only local paths")), "{error}");
        }
    }

    #[test]
    fn one_bad_entry_does_not_hide_the_others() {
        let folder = Folder::new("mixed", &["a/1/model.onnx", "-x/1/model.onnx"]);
        let listing = list(&folder.settings()).expect("listed");
        assert_eq!(listing.models.keys().collect::<Vec<_>>(), ["a"]);
        assert!(listing.problems[0].contains("'-x' is no name"), "{:?}", listing.problems);
        assert!(find(&folder.settings()).is_err(), "a start that serves all there is stops");
    }

    #[test]
    fn a_folder_that_is_no_version_is_named() {
        for odd in ["v1", "01", "0", "-1", "latest"] {
            let folder = Folder::new(&format!("odd-{odd}"), &[&format!("a/{odd}/model.onnx"), "b/1/model.onnx"]);
            let error = find(&folder.settings()).expect_err(odd);
            assert!(error.contains(&format!("/{odd} is no version: allowed are")), "{error}");
        }
        let folder = Folder::new("odd-beside", &["a/1/model.onnx", "a/old/model.onnx"]);
        assert_eq!(find(&folder.settings()).expect("found"), pairs(&[("a", 1)]), "beside versions it is left alone");
    }

    #[test]
    fn a_model_is_found_by_its_name() {
        let folder = Folder::new("named", &["a/1/model.onnx"]);
        assert_eq!(source(&folder.settings(), "a").expect("found").name, "a");
        assert_eq!(source(&folder.settings(), "b").expect_err("unknown").kind(), Kind::NotFound);
        assert_eq!(source(&folder.settings(), "../a").expect_err("no name").kind(), Kind::InvalidArgument);
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
