//! Where links in a repository may lead: to what its operator named, and to what he trusts besides.
//!
//! A path that the operator names is trusted to where it leads. What lies below it was put there by others: a link there
//! may lead to what is named, to the cache that a folder of Hugging Face's is a view of, and to `server.trusted_roots`.

use std::path::{Path, PathBuf};

use mlserve_core::config::ServerSettings;

/// Folders that links may lead to, as they are now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roots(Vec<PathBuf>);

impl Roots {
    /// Those of the file or folder that the operator named, and those of `trusted` that exist.
    pub(crate) fn of(named: &Path, trusted: &[PathBuf]) -> Self {
        let mut roots = Self::default();
        if named.is_dir() {
            roots.add(named);
        } else {
            // What belongs to a model lies beside the name, or beside the file that the name stands for.
            roots.add(parent(named));
            if let Ok(target) = named.canonicalize() {
                roots.add(parent(&target));
            }
        }
        for folder in trusted {
            roots.add(folder);
        }
        roots
    }

    /// The folders, without links in their paths.
    pub(crate) fn paths(&self) -> &[PathBuf] {
        &self.0
    }

    /// Refuses a link that leads elsewhere. A path that does not exist is left to whoever opens it.
    pub(crate) fn check(&self, path: &Path) -> Result<(), String> {
        let Ok(target) = path.canonicalize() else { return Ok(()) };
        if self.0.iter().any(|root| target.starts_with(root)) {
            return Ok(());
        }
        Err(format!(
            "{}: a link that leads outside the repository; allowed is what server.trusted_roots names",
            path.display()
        ))
    }

    fn add(&mut self, folder: &Path) {
        let Ok(folder) = folder.canonicalize() else { return };
        self.0.extend(blobs(&folder));
        self.0.push(folder);
    }
}

/// The folders of `server.trusted_roots`.
pub(crate) fn trusted_roots(settings: &ServerSettings) -> impl Iterator<Item = PathBuf> {
    settings.trusted_roots.split(',').map(str::trim).filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// Where Hugging Face's cache keeps the contents of `models--NAME/snapshots/REVISION`, whose files are links.
fn blobs(folder: &Path) -> Option<PathBuf> {
    let is_model =
        |folder: &&Path| folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"models--"));
    let snapshots = folder.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == "snapshots"))?;
    snapshots.parent().filter(is_model).map(|model| model.join("blobs"))
}

fn parent(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn file(path: PathBuf) -> PathBuf {
        fs::create_dir_all(path.parent().expect("below a folder")).expect("made");
        fs::write(&path, b"x").expect("written");
        path
    }

    #[test]
    fn links_lead_to_what_is_named_or_trusted_and_nowhere_else() {
        let folder = tempfile::tempdir().expect("made");
        let at = |path: &str| folder.path().join(path);
        for path in ["repository/a/own", "claim/b/weights", "secret/key", "claim-2/x"] {
            file(at(path));
        }
        let roots = Roots::of(&at("repository"), &[at("claim"), at("missing")]);
        let link = at("repository/a/link");
        for (target, is_allowed) in
            [("repository/a/own", true), ("claim/b/weights", true), ("secret/key", false), ("claim-2/x", false)]
        {
            symlink(at(target), &link).expect("linked");
            assert_eq!(roots.check(&link).is_ok(), is_allowed, "{target}");
            fs::remove_file(&link).expect("removed");
        }
    }

    #[test]
    fn a_named_file_is_trusted_with_the_folder_that_it_leads_to() {
        let folder = tempfile::tempdir().expect("made");
        let target = file(folder.path().join("store/v3/model.onnx"));
        let beside = file(folder.path().join("store/v3/model.onnx.data"));
        let other = file(folder.path().join("store/v2/model.onnx"));
        let named = folder.path().join("named/current.onnx");
        fs::create_dir(folder.path().join("named")).expect("made");
        symlink(&target, &named).expect("linked");
        let roots = Roots::of(&named, &[]);
        assert_eq!([&named, &beside, &other].map(|path| roots.check(path).is_ok()), [true, true, false]);
    }

    #[test]
    fn a_folder_of_the_hub_cache_includes_its_blobs() {
        let folder = tempfile::tempdir().expect("made");
        let hub = folder.path().join("hub");
        let blob = file(hub.join("models--org--bert/blobs/0a1b"));
        let other = file(hub.join("models--org--other/blobs/0a1b"));
        file(hub.join("models--org--bert/snapshots/f00d/onnx/config.json"));
        let roots = Roots::of(&hub.join("models--org--bert/snapshots/f00d/onnx"), &[]);
        assert_eq!([&blob, &other].map(|path| roots.check(path).is_ok()), [true, false]);
        let snapshots = hub.join("data/snapshots/1");
        file(snapshots.join("x"));
        file(hub.join("data/blobs/x"));
        assert!(Roots::of(&snapshots, &[]).check(&hub.join("data/blobs/x")).is_err(), "no cache of models");
    }
}
