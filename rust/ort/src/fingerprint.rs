//! Tells whether files are still what they were: by device, inode, size and times, without reading them.
//!
//! A model is read twice, by our checks and by ONNX Runtime, and its weights may lie in files beside it. Whatever is
//! replaced or written meanwhile must not be served: half of it would be old, or none of it checked.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Most that a file's time can be ahead of the ticking clock, which moves every 1 to 10 ms. What is further ahead was
/// stamped by another machine's clock, and waiting would not help.
const MAX_AHEAD_NS: i64 = 20_000_000;

/// How long to wait between two looks at that clock.
const LOOK: Duration = Duration::from_micros(500);

/// Looks before giving up: as long as any tick.
const MAX_LOOKS: usize = 40;

/// The state of a set of files at one moment. Equal fingerprints: the same files, unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    files: Vec<(PathBuf, State)>,
}

/// What is told of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is none, or it cannot be looked at.
    Missing,
    /// It is there; links are followed.
    Present {
        device: u64,
        inode: u64,
        size: u64,
        modified: Stamp,
        /// Also moves when the file is renamed or its times are set back.
        changed: Stamp,
    },
}

/// Seconds and nanoseconds of the file system's clock.
type Stamp = (i64, i64);

impl Fingerprint {
    /// The present state of the files at `paths`; one that is missing is a state too.
    ///
    /// **Cost:** one system call for each; waits up to a tick of the file system's clock (a few milliseconds) for a file
    /// that was written within the present tick, as a second write in it would leave the same times.
    pub fn of<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Self {
        let mut fingerprint = Self::default();
        paths.into_iter().for_each(|path| fingerprint.add(path.as_ref()));
        fingerprint
    }

    /// The present state of the same files.
    pub fn again(&self) -> Self {
        Self::of(self.paths())
    }

    /// The files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// Which file is another in `later`, and how, for people; `None` if nothing differs.
    pub fn change(&self, later: &Self) -> Option<String> {
        let mut pairs = self.files.iter().zip(&later.files);
        let changed = pairs.find(|(before, after)| before != after);
        let text = changed.map(|((path, before), (_, after))| format!("{} {}", path.display(), after.since(before)));
        text.or_else(|| (self != later).then(|| "it has other files".to_owned()))
    }

    /// Adds the files of `other`.
    pub(crate) fn extend(&mut self, other: Self) {
        self.files.extend(other.files);
    }

    /// Adds the present state of one more file.
    pub(crate) fn add(&mut self, path: &Path) {
        self.files.push((path.to_owned(), State::of(path)));
    }
}

impl State {
    fn of(path: &Path) -> Self {
        // Whoever writes without a pause must not keep us here; the changes will be seen anyway.
        for _ in 0..MAX_LOOKS {
            match path.metadata() {
                Ok(metadata) if is_of_this_tick(&metadata) => std::thread::sleep(LOOK),
                Ok(metadata) => return Self::from(&metadata),
                Err(_) => return Self::Missing,
            }
        }
        path.metadata().map_or(Self::Missing, |metadata| Self::from(&metadata))
    }

    fn since(&self, before: &Self) -> &'static str {
        match (before, self) {
            (_, Self::Missing) => "is gone",
            (Self::Missing, _) => "is new",
            (Self::Present { device, inode, .. }, Self::Present { device: other_device, inode: other_inode, .. }) => {
                if (device, inode) == (other_device, other_inode) { "was changed" } else { "was replaced" }
            }
        }
    }
}

impl From<&Metadata> for State {
    fn from(metadata: &Metadata) -> Self {
        Self::Present {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Whether a write could still leave the times that the file has.
fn is_of_this_tick(metadata: &Metadata) -> bool {
    // The clock that Linux stamps files with.
    let now = clock_gettime(ClockId::RealtimeCoarse);
    let seconds = metadata.ctime().saturating_sub(now.tv_sec);
    let ahead_ns = seconds.saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec() - now.tv_nsec);
    (0..MAX_AHEAD_NS).contains(&ahead_ns)
}
