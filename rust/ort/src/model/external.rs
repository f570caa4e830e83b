//! Data files beside a model: only where links may lead, however the way there is written.
//!
//! A model file is foreign input. Its `location` could name any file of the machine, through `..`, an absolute path, a
//! link, or ONNX Runtime's own marker for an address in memory. ONNX Runtime refuses most of these, links of all kinds
//! among them, but follows hard links. Here a link may lead to the model's own directory, to the one that the model file
//! itself lies in, and to the roots that the caller allows; a file with several names must belong to the model's owner.

use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::tensor::Tensor;
use crate::error::LoadError;
use crate::fingerprint::Fingerprint;

/// First byte of ONNX Runtime's markers for data in memory (`*/_ORT_MEM_ADDR_/*`); no location on disk needs it.
const MEMORY_MARKER: char = '*';

/// The directory of a model and the data files in it that were checked already.
pub(crate) struct DataFiles {
    directory: PathBuf,
    /// Where the model file itself lies, if its name is a link.
    target: PathBuf,
    /// Where files may lie: these two, and what the caller allows.
    roots: Vec<PathBuf>,
    /// The user whom the model file belongs to.
    owner: Option<u32>,
    files: Vec<DataFile>,
    /// The files as they were when they were first looked at.
    fingerprint: Fingerprint,
}

/// A data file.
#[derive(Clone, Debug)]
pub(crate) struct DataFile {
    /// How tensors name it.
    pub(crate) location: String,
    /// Where links lead.
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

impl DataFiles {
    /// Those of `model`, which may be links into `roots`.
    ///
    /// **Errors:** the model has no directory that exists.
    pub(crate) fn beside(model: &Path, roots: &[PathBuf]) -> Result<Self, LoadError> {
        let parent = model.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = parent
            .canonicalize()
            .map_err(|error| LoadError::broken(format!("the directory {}: {error}", parent.display())))?;
        let target = model.canonicalize().ok().and_then(|target| Some(target.parent()?.to_owned()));
        let target = target.unwrap_or_else(|| directory.clone());
        let roots = [&directory, &target].into_iter().chain(roots).cloned().collect();
        let owner = model.metadata().ok().map(|metadata| metadata.uid());
        Ok(Self { directory, target, roots, owner, files: Vec::new(), fingerprint: Fingerprint::default() })
    }

    /// The files, and their state before anything of them was believed.
    pub(crate) fn into_parts(self) -> (Vec<DataFile>, Fingerprint) {
        (self.files, self.fingerprint)
    }

    /// Checks that an external tensor of `bytes` bytes lies in a file beneath the directory.
    pub(crate) fn check(&mut self, tensor: &Tensor, bytes: u64) -> Result<(), LoadError> {
        let entry = |key: &str| tensor.external.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
        let broken = |text: String| LoadError::broken(format!("tensor '{}': {text}", tensor.name));
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(text) => text.parse::<u64>().map(Some).map_err(|_| broken(format!("its external {key} is '{text}'"))),
        };
        let location = entry("location").unwrap_or_default();
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?.unwrap_or(bytes));
        if length != bytes {
            return Err(broken(format!("its external data has {length} bytes, its shape says {bytes}")));
        }
        let size = self.size_of(location).map_err(broken)?;
        if offset.checked_add(length).is_none_or(|end| end > size) {
            let end = "ends after the end of";
            return Err(broken(format!(
                "its external data ({length} bytes at {offset}) {end} '{location}' ({size} bytes)"
            )));
        }
        Ok(())
    }

    /// Size of the data file at `location`.
    ///
    /// **Errors:** it is not beneath the directory, or no file of its own.
    fn size_of(&mut self, location: &str) -> Result<u64, String> {
        if let Some(file) = self.files.iter().find(|file| file.location == location) {
            return Ok(file.bytes);
        }
        let is_plain = |component| matches!(component, Component::Normal(_) | Component::CurDir);
        if location.is_empty() || location.contains('\0') || location.starts_with(MEMORY_MARKER) {
            return Err(format!("its external location {location:?} names no file"));
        }
        if !Path::new(location).components().all(is_plain) {
            return Err(format!("its external location {location:?} leaves the model's directory"));
        }
        let path = self.place_of(location);
        let target = path.canonicalize().map_err(|error| format!("its data file {location:?}: {error}"))?;
        if !self.roots.iter().any(|root| target.starts_with(root)) {
            return Err(format!(
                "its external location {location:?} is a link that leaves the model's directory, the repository, and what \
                 server.trusted_roots names"
            ));
        }
        self.fingerprint.add(&path);
        let metadata = target.metadata().map_err(|error| format!("its data file {location:?}: {error}"))?;
        if !metadata.is_file() {
            return Err(format!("its data file {location:?} is not a file"));
        }
        if metadata.nlink() > 1 && self.owner.is_some_and(|owner| owner != metadata.uid()) {
            let hint = "another name of it may lie outside; copy it instead";
            return Err(format!("its data file {location:?} is a hard link to a file of another user: {hint}"));
        }
        let bytes = metadata.len();
        self.files.push(DataFile { location: location.to_owned(), path: target, bytes });
        Ok(bytes)
    }

    /// Beside the model's name, or beside the file that the name is a link to.
    fn place_of(&self, location: &str) -> PathBuf {
        let own = self.directory.join(location);
        let target = self.target.join(location);
        if own.symlink_metadata().is_err() && target.exists() { target } else { own }
    }
}
