//! Weights that lie in files beside the model, read for the session that is being made.
//!
//! Left alone, ONNX Runtime maps such files into memory for as long as the session lives: what is written to a file later
//! would be served, and a file that is cut short would end the process with a bus error at the next run. Given the
//! files' contents it copies the weights into the arena, where they count towards its limit like all others.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use crate::error::LoadError;
use crate::model::check::Findings;
use crate::model::external::DataFile;
use crate::runtime::Runtime;

/// The contents of data files.
#[derive(Debug, Default)]
pub(crate) struct Weights {
    locations: Vec<CString>,
    contents: Vec<Vec<u8>>,
}

impl Weights {
    /// Reads `files`; none of them if the runtime would not find one by its name.
    ///
    /// **Cost:** memory for all of them, until this is dropped.
    ///
    /// **Errors:** a file cannot be read, or together they exceed the limit of the arena.
    pub(crate) fn read(runtime: &Runtime, files: &[DataFile]) -> Result<Self, LoadError> {
        if !files.iter().all(is_findable) {
            return Ok(Self::default());
        }
        let total = files.iter().fold(0_u64, |total, file| total.saturating_add(file.bytes));
        if let Some(limit) = runtime.arena_bytes().filter(|&limit| total > limit as u64) {
            let text = format!("the weights beside the model have {total} bytes, the limit of all tensors is {limit}");
            return Err(LoadError::unsupported(text));
        }
        let mut weights = Self::default();
        for file in files {
            let told = |error: &dyn std::fmt::Display| format!("the data file {}: {error}", file.path.display());
            weights.contents.push(content(file).map_err(|error| LoadError::unreadable(told(&error)))?);
            let location = CString::new(file.location.as_str()).map_err(|error| LoadError::broken(told(&error)))?;
            weights.locations.push(location);
        }
        Ok(weights)
    }

    /// How tensors name each file, and what is in it.
    pub(crate) fn files(&mut self) -> impl ExactSizeIterator<Item = (&CStr, &mut [u8])> {
        let names = self.locations.iter().map(CString::as_c_str);
        names.zip(self.contents.iter_mut().map(Vec::as_mut_slice))
    }
}

/// Says which weights are left to ONNX Runtime, which maps their files for as long as the model is loaded.
pub(crate) fn warn_of_mapped(path: &Path, findings: &Findings) {
    let hidden = findings.data_files.iter().find(|file| !is_findable(file)).map(|file| &file.location);
    if let Some(weights) = findings.inner_external.as_ref().or(hidden) {
        let (path, advice) = (path.display(), "to change them replace the file, never write to it");
        tracing::warn!(%path, weights, advice, "weights stay in a file that is mapped while the model is loaded");
    }
}

/// Whether the runtime finds the file by the name that tensors give it: older ones compare it with the name in its
/// shortest form.
fn is_findable(file: &DataFile) -> bool {
    let is_normal = |component: &Component<'_>| matches!(component, Component::Normal(_));
    let components = Path::new(&file.location).components().take_while(is_normal);
    components.collect::<PathBuf>().as_os_str() == file.location.as_str()
}

fn content(file: &DataFile) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let bytes = usize::try_from(file.bytes).map_err(std::io::Error::other)?;
    content.try_reserve_exact(bytes).map_err(std::io::Error::other)?;
    File::open(&file.path)?.take(file.bytes).read_to_end(&mut content)?;
    if content.len() != bytes {
        return Err(std::io::Error::other("the file shrank while it was read"));
    }
    Ok(content)
}
