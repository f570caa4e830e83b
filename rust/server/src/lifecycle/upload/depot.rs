//! The folder that holds the files of all loads of one process. Whoever dies cannot delete its own, so the next server
//! does: a lock, which the system takes back from the dead, tells a folder in use from one that was left behind.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use tempfile::TempDir;

/// How the folders' names begin.
const PREFIX: &str = "mlserve-uploads-";

/// The file in it that is locked as long as its process lives.
const LOCK: &str = "in-use.lock";

/// Nobody but the server's user reads what callers sent.
const OWNER_ONLY: u32 = 0o700;

/// A folder in the system's place for temporary files; it goes with this.
#[derive(Debug)]
pub(super) struct Depot {
    // Deleted before the lock is given up.
    folder: TempDir,
    _lock: File,
}

impl Depot {
    /// A new one below `parent`.
    ///
    /// **Errors:** no folder can be made there.
    pub(super) fn make(parent: &Path) -> io::Result<Self> {
        loop {
            let permissions = Permissions::from_mode(OWNER_ONLY);
            let folder = tempfile::Builder::new().prefix(PREFIX).permissions(permissions).tempdir_in(parent)?;
            let lock = File::create_new(folder.path().join(LOCK))?;
            match lock.try_lock() {
                // A server that starts just now took it for one that was left behind.
                Err(TryLockError::WouldBlock) => {}
                Ok(()) if lock.metadata()?.nlink() == 0 => {}
                // Where there are no locks nobody deletes what is not locked.
                Ok(()) | Err(TryLockError::Error(_)) => return Ok(Self { folder, _lock: lock }),
            }
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Deletes the folders below `parent` that this user's servers left behind. What is not surely one of them is left alone.
pub(super) fn clear(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for folder in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let Some(_lock) = left_behind(&folder) else { continue };
        let shown = folder.display();
        match std::fs::remove_dir_all(&folder) {
            Ok(()) => tracing::info!(folder = %shown, "deleted the uploads of a server that has died"),
            Err(error) => tracing::warn!(folder = %shown, %error, "the uploads of a server that has died stay"),
        }
    }
}

/// The lock of a folder whose process is dead.
fn left_behind(folder: &Path) -> Option<File> {
    let is_named_so = folder.file_name()?.to_str()?.starts_with(PREFIX);
    let metadata = is_named_so.then(|| folder.symlink_metadata().ok())??;
    let is_own = metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o777 == OWNER_ONLY;
    if !metadata.is_dir() || !is_own {
        return None;
    }
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let lock = OpenOptions::new().read(true).write(true).custom_flags(flags).open(folder.join(LOCK)).ok()?;
    lock.try_lock().ok()?;
    Some(lock)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    /// A folder as a process leaves it that is killed.
    fn killed(parent: &Path, name: &str) -> PathBuf {
        let folder = parent.join(name);
        std::fs::create_dir_all(folder.join("upload/m/1")).expect("writable");
        std::fs::write(folder.join("upload/m/1/model.onnx"), "x").expect("writable");
        std::fs::write(folder.join(LOCK), "").expect("writable");
        std::fs::set_permissions(&folder, Permissions::from_mode(OWNER_ONLY)).expect("ours");
        folder
    }

    #[test]
    fn what_the_dead_left_is_deleted_and_what_the_living_use_is_not() {
        let parent = tempfile::tempdir().expect("a folder");
        let used = Depot::make(parent.path()).expect("writable");
        let left = killed(parent.path(), "mlserve-uploads-left");
        clear(parent.path());
        assert!(!left.exists());
        assert!(used.path().join(LOCK).exists());
        let path = used.path().to_owned();
        drop(used);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_surely_a_servers_is_left_alone() {
        let parent = tempfile::tempdir().expect("a folder");
        let other_name = killed(parent.path(), "uploads-of-mine");
        let open_to_all = killed(parent.path(), "mlserve-uploads-open");
        std::fs::set_permissions(&open_to_all, Permissions::from_mode(0o755)).expect("ours");
        let without_lock = killed(parent.path(), "mlserve-uploads-no-lock");
        std::fs::remove_file(without_lock.join(LOCK)).expect("there");
        let linked_lock = killed(parent.path(), "mlserve-uploads-linked");
        std::fs::remove_file(linked_lock.join(LOCK)).expect("there");
        symlink(other_name.join(LOCK), linked_lock.join(LOCK)).expect("writable");
        let link = parent.path().join("mlserve-uploads-link");
        symlink(&other_name, &link).expect("writable");
        clear(parent.path());
        for kept in [other_name, open_to_all, without_lock, linked_lock, link] {
            assert!(kept.join("upload/m/1/model.onnx").exists(), "{}", kept.display());
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        assert!(Depot::make(Path::new("/no/such/folder")).is_err());
        clear(Path::new("/no/such/folder"));
    }
}
