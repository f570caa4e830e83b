//! Files that a configuration names, below the model's folder: labels and warm-up tensors. Bounded; links lead only where
//! those of a repository may.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path};
use std::sync::Arc;

use mlserve_core::error::quoted;

use crate::proto::ModelConfig;
use crate::trust::Roots;

/// Bytes of a file with labels: a million labels of 16 letters.
const MAX_LABEL_BYTES: usize = 16 << 20;

/// Labels of an output: its name, and a label for each index.
pub(crate) type Labels = (String, Arc<[Box<str>]>);

/// Reads the labels of every output that has a file of them.
pub(super) fn labels(config: &ModelConfig, folder: &Path, roots: &Roots) -> Result<Vec<Labels>, String> {
    let with_file = config.output.iter().filter(|output| !output.label_filename.is_empty());
    with_file
        .map(|output| {
            let named = |fault: String| format!("output '{}': label_filename {fault}", quoted(&output.name));
            let bytes = read(folder, &output.label_filename, roots, MAX_LABEL_BYTES).map_err(named)?;
            let text = String::from_utf8(bytes)
                .map_err(|_| named(format!("\"{}\": the file is not UTF-8", quoted(&output.label_filename))))?;
            Ok((output.name.clone(), text.lines().map(Box::from).collect()))
        })
        .collect()
}

/// The bytes of the file `name` in `folder`.
///
/// **Errors:** a name that leads elsewhere, by itself or by links; more than `limit` bytes; not readable.
pub(super) fn read(folder: &Path, name: &str, roots: &Roots, limit: usize) -> Result<Vec<u8>, String> {
    let fault = |what: &str| format!("\"{}\": {what}", quoted(name));
    check_name(name).map_err(fault)?;
    let missing = |error: std::io::Error| fault(&error.to_string());
    // Links inside the folder are followed: mounted volumes are made of them.
    let path = folder.join(name).canonicalize().map_err(missing)?;
    if !path.starts_with(folder.canonicalize().map_err(missing)?) && roots.check(&path).is_err() {
        return Err(fault("leads outside the repository; allowed is what server.trusted_roots names"));
    }
    if !path.is_file() {
        return Err(fault("is no file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(&path).map_err(missing)?;
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(missing)?;
    if bytes.len() > limit {
        return Err(fault(&format!("the file has more than {limit} bytes, which is the most that is read")));
    }
    Ok(bytes)
}

/// Refuses what is not a plain path below a folder.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if name.is_empty() || name.chars().any(char::is_control) || !Path::new(name).components().all(is_plain) {
        return Err("is no file's name; allowed is a path below the folder, without '..' and control characters");
    }
    Ok(())
}
