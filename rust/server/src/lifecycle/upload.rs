//! Model files that come with a load request instead of lying in the repository. They are bounded, and go with the model.

use std::io;
use std::path::{Component, Path};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use mlserve_core::error::{Error, Kind, Result, quoted};
use parking_lot::Mutex;
use tempfile::TempDir;

use self::depot::Depot;
use super::repository::Source;

mod depot;

/// Files that one load may bring: a model, its external data, labels.
const MAX_FILES: usize = 1_000;

/// Models whose files came with a load, at once.
const MAX_UPLOADS: usize = 256;

/// Of so many parts of the disk one stays free, whatever the quota says.
const DISK_PARTS_KEPT: u64 = 20;

/// What the files of all loads may take, and take.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    most_bytes: u64,
    taken: Mutex<Taken>,
    /// Where the files are; it goes with the last of them.
    depot: Mutex<Weak<Depot>>,
}

#[derive(Debug, Default)]
struct Taken {
    uploads: usize,
    bytes: u64,
}

/// A part of the [`Quota`], given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    quota: Arc<Quota>,
    bytes: u64,
}

/// The files of one load, on disk; they go with this.
#[derive(Debug)]
pub(crate) struct Upload {
    _folder: TempDir,
    _depot: Arc<Depot>,
    _share: Share,
}

impl Quota {
    /// `most_bytes`: `limits.upload_bytes`.
    pub(crate) fn new(most_bytes: u64) -> Self {
        Self { most_bytes, taken: Mutex::default(), depot: Mutex::default() }
    }

    /// Takes the share of `files`, from before they wait until they are deleted.
    ///
    /// **Errors:** too many files; the quota is spent.
    pub(crate) fn take(self: &Arc<Self>, files: &[(String, Bytes)]) -> Result<Share> {
        if files.len() > MAX_FILES {
            let text = format!("the load brings {} files; at most {MAX_FILES} are allowed", files.len());
            return Err(Error::too_large(text));
        }
        let bytes: u64 = files.iter().map(|(_, content)| content.len() as u64).sum();
        let most = self.most_bytes;
        if bytes > most {
            let text = format!("the load brings {bytes} bytes; at most {most} are allowed (limits.upload_bytes)");
            return Err(Error::too_large(text));
        }
        let mut taken = self.taken.lock();
        if taken.bytes + bytes > most || taken.uploads >= MAX_UPLOADS {
            return Err(Error::new(
                Kind::OutOfBudget,
                format!(
                    "the files of {} loads are kept, {} bytes; with these {bytes} they would exceed {most} \
                     (limits.upload_bytes) or {MAX_UPLOADS} loads; unload a model whose files came with its load",
                    taken.uploads, taken.bytes
                ),
            ));
        }
        taken.bytes += bytes;
        taken.uploads += 1;
        Ok(Share { quota: Arc::clone(self), bytes })
    }
}

impl Quota {
    fn depot(&self) -> io::Result<Arc<Depot>> {
        let mut present = self.depot.lock();
        if let Some(depot) = present.upgrade() {
            return Ok(depot);
        }
        let depot = Arc::new(Depot::make(&std::env::temp_dir())?);
        *present = Arc::downgrade(&depot);
        Ok(depot)
    }

    /// Deletes all files at once, whoever still reads them: the process ends.
    pub(super) fn discard(&self) {
        if let Some(depot) = self.depot.lock().upgrade() {
            drop(std::fs::remove_dir_all(depot.path()));
        }
    }
}

/// Deletes the files that servers of this user left behind when they died.
pub(super) fn clear_left_behind() {
    depot::clear(&std::env::temp_dir());
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.quota.taken.lock();
        taken.bytes -= self.bytes;
        taken.uploads -= 1;
    }
}

/// Puts `files` into a folder that goes when nobody needs it any more, as the source of model `name`.
///
/// **Errors:** a path that leads elsewhere; the disk is full, or would nearly be.
pub(super) fn store(name: &str, files: &[(String, Bytes)], share: Share) -> Result<(Source, Arc<Upload>)> {
    let paths = files.iter().map(|(path, _)| checked(path)).collect::<Result<Vec<_>>>()?;
    let failed = |error: io::Error| {
        let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let kind = if is_full { Kind::OutOfBudget } else { Kind::Internal };
        Error::new(kind, format!("the files of the load could not be stored: {error}"))
    };
    let depot = share.quota.depot().map_err(failed)?;
    let folder = tempfile::Builder::new().prefix("load-").tempdir_in(depot.path()).map_err(failed)?;
    check_disk(folder.path(), share.bytes)?;
    let root = folder.path().join(name);
    std::fs::create_dir(&root).map_err(failed)?;
    for (path, (_, content)) in paths.into_iter().zip(files) {
        let target = root.join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        std::fs::write(target, content).map_err(failed)?;
    }
    let source = Source { name: name.to_owned(), named: root.clone(), path: root, trusted: Arc::new([]), fault: None };
    Ok((source, Arc::new(Upload { _folder: folder, _depot: depot, _share: share })))
}

/// Refuses what would fill the disk: others write to it too.
fn check_disk(folder: &Path, bytes: u64) -> Result<()> {
    // A file system that does not tell has to say so itself, when it is full.
    let Ok(disk) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let kept = disk.f_blocks / DISK_PARTS_KEPT;
    let free = disk.f_bavail.saturating_sub(kept).saturating_mul(disk.f_frsize);
    if bytes <= free {
        return Ok(());
    }
    let text = format!("the files of the load have {bytes} bytes; the disk has room for {free} of them");
    Err(Error::new(Kind::OutOfBudget, text))
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

    fn files(path: &str, bytes: usize) -> Vec<(String, Bytes)> {
        vec![(path.to_owned(), Bytes::from(vec![b'x'; bytes]))]
    }

    #[test]
    fn files_are_stored_below_the_models_folder_and_go_with_the_last_who_needs_them() {
        let quota = Arc::new(Quota::new(10));
        let sent = files("1/model.onnx", 10);
        let share = quota.take(&sent).expect("fits");
        let (source, upload) = store("m", &sent, share).expect("stored");
        assert_eq!(std::fs::read(source.path.join("1/model.onnx")).expect("there"), b"xxxxxxxxxx");
        assert_eq!(quota.take(&files("x", 1)).expect_err("spent").kind(), Kind::OutOfBudget);
        drop(upload);
        assert!(!source.path.exists());
        assert!(quota.take(&files("x", 1)).is_ok());
    }

    #[test]
    fn uploads_are_bounded_in_number_and_bytes() {
        let quota = Arc::new(Quota::new(1 << 20));
        assert_eq!(quota.take(&files("x", 2 << 20)).expect_err("can never fit").kind(), Kind::TooLarge);
        let many = vec![("x".to_owned(), Bytes::new()); MAX_FILES + 1];
        assert_eq!(quota.take(&many).expect_err("many").kind(), Kind::TooLarge);
        let kept: Vec<_> = (0..MAX_UPLOADS).map(|_| quota.take(&files("x", 1)).expect("fits")).collect();
        assert!(quota.take(&files("x", 1)).is_err());
        drop(kept);
        assert!(quota.take(&files("x", 1)).is_ok());
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        let quota = Arc::new(Quota::new(10));
        for path in ["../x", "/etc/passwd", "1/../../x", "", "1/\nx", "."] {
            let share = quota.take(&files(path, 0)).expect("fits");
            let error = store("m", &files(path, 0), share).expect_err(path);
            assert!(error.text().contains("below the model's folder"), "{path:?}: {error}");
        }
    }

    #[test]
    fn a_disk_without_room_refuses() {
        let error = check_disk(&std::env::temp_dir(), u64::MAX).expect_err("no disk is so large");
        assert_eq!(error.kind(), Kind::OutOfBudget);
    }
}
