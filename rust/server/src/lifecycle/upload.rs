//! Model files that come with a load request instead of lying in the repository.

use std::path::{Component, Path};
use std::sync::Arc;

use bytes::Bytes;
use mlserve_core::error::{Error, Result, quoted};
use tempfile::TempDir;

use super::repository::Source;

/// Files that one load may bring: a model, its external data, labels.
const MAX_FILES: usize = 1_000;

/// Puts `files` into a folder that goes when nobody needs it any more, as the source of model `name`.
///
/// **Errors:** a path that leads elsewhere; the disk is full.
pub(super) fn store(name: &str, files: &[(String, Bytes)]) -> Result<(Source, Arc<TempDir>)> {
    if files.len() > MAX_FILES {
        return Err(Error::too_large(format!(
            "the load brings {} files; at most {MAX_FILES} are allowed",
            files.len()
        )));
    }
    let failed = |error: std::io::Error| Error::internal(format!("the files of the load could not be stored: {error}"));
    let folder = tempfile::Builder::new().prefix("mlserve-upload-").tempdir().map_err(failed)?;
    let root = folder.path().join(name);
    std::fs::create_dir(&root).map_err(failed)?;
    for (path, content) in files {
        let target = root.join(checked(path)?);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        std::fs::write(target, content).map_err(failed)?;
    }
    let source = Source { name: name.to_owned(), path: root.clone(), root };
    Ok((source, Arc::new(folder)))
}

/// A path below the model's folder: plain names with slashes between them.
fn checked(path: &str) -> Result<&Path> {
    let is_plain = |component: Component<'_>| matches!(component, Component::Normal(_));
    let has_controls = path.chars().any(char::is_control);
    let parsed = Path::new(path);
    if path.is_empty() || path.len() > 1_024 || has_controls || !parsed.components().all(is_plain) {
        return Err(Error::invalid(format!(
            "'file:{}' is no place for a file: allowed is a path below the model's folder, '1/model.onnx' for example",
            quoted(path)
        )));
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_stored_below_the_models_folder() {
        let files = [("1/model.onnx".to_owned(), Bytes::from_static(b"x"))];
        let (source, folder) = store("m", &files).expect("stored");
        assert_eq!(std::fs::read(source.path.join("1/model.onnx")).expect("there"), b"x");
        drop(folder);
        assert!(!source.path.exists(), "it goes with the last who needs it");
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in ["../x", "/etc/passwd", "1/../../x", "", "1/\nx", "."] {
            let error = store("m", &[(path.to_owned(), Bytes::new())]).expect_err(path);
            assert!(error.text().contains("below the model's folder"), "{path:?}: {error}");
        }
    }
}
