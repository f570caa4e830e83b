//! Fingerprints of files, by which changes on disk are seen without reading them.

use std::hash::Hasher;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rapidhash::fast::RapidHasher;

/// Folders below a version's that are looked into: external data may lie one or two deeper.
const MAX_DEPTH: usize = 4;
/// Files that are looked at; a version has a handful.
const MAX_FILES: usize = 10_000;

/// Stands for names, sizes, inodes and times of change of some files. Equal prints: nothing has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Print(u64);

impl Print {
    /// Of a file, or of everything in a folder. Links are followed; what cannot be read counts as absent.
    pub(crate) fn of(path: &Path) -> Self {
        Self::with_bytes(path).0
    }

    /// As [`Self::of`], with the bytes of all files.
    pub(crate) fn with_bytes(path: &Path) -> (Self, u64) {
        let mut walk = Walk { hasher: RapidHasher::default_const(), bytes: 0, files: 0 };
        walk.visit(path, 0);
        (Self(walk.hasher.finish()), walk.bytes)
    }

    /// Together with a text that counts like a file.
    pub(crate) fn with(self, text: &str) -> Self {
        if text.is_empty() {
            return self;
        }
        let mut hasher = RapidHasher::default_const();
        hasher.write_u64(self.0);
        hasher.write(text.as_bytes());
        Self(hasher.finish())
    }

    /// Of the files that lie directly in a folder, not those of its folders: a model's configuration and labels.
    pub(crate) fn of_files_in(folder: &Path) -> Self {
        let mut walk = Walk { hasher: RapidHasher::default_const(), bytes: 0, files: 0 };
        walk.visit(folder, MAX_DEPTH);
        Self(walk.hasher.finish())
    }
}

struct Walk {
    hasher: RapidHasher<'static>,
    bytes: u64,
    files: usize,
}

impl Walk {
    fn visit(&mut self, path: &Path, depth: usize) {
        let Ok(metadata) = std::fs::metadata(path) else { return };
        if !metadata.is_dir() {
            self.files += 1;
            self.bytes += metadata.len();
            self.hasher.write(path.as_os_str().as_bytes());
            for number in [metadata.len(), metadata.ino(), metadata.mtime() as u64, metadata.mtime_nsec() as u64] {
                self.hasher.write_u64(number);
            }
            return;
        }
        let Ok(read) = std::fs::read_dir(path) else { return };
        let mut entries: Vec<_> = read.filter_map(Result::ok).map(|entry| entry.path()).collect();
        entries.sort();
        for entry in entries {
            if self.files >= MAX_FILES {
                return;
            }
            if depth < MAX_DEPTH || !entry.is_dir() {
                self.visit(&entry, depth + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_differ_once_a_file_does() {
        let folder = tempfile::tempdir().expect("made");
        let file = folder.path().join("1/model.onnx");
        std::fs::create_dir(folder.path().join("1")).expect("made");
        std::fs::write(&file, b"one").expect("written");
        std::fs::write(folder.path().join("config.pbtxt"), b"").expect("written");
        let (all, own) = (Print::with_bytes(folder.path()), Print::of_files_in(folder.path()));
        assert_eq!(all.1, 3);
        assert_eq!(Print::with_bytes(folder.path()), all, "nothing has changed");
        std::fs::write(&file, b"two!").expect("written");
        assert_ne!(Print::of(folder.path()), all.0);
        assert_eq!(Print::of_files_in(folder.path()), own, "the version changed, the configuration did not");
        std::fs::write(folder.path().join("labels.txt"), b"a").expect("written");
        assert_ne!(Print::of_files_in(folder.path()), own);
    }
}
