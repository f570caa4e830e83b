//! Where lines go: the process's standard streams, or a file that may be moved away.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// A standard stream, past the locks and buffers of the standard library: whoever is stuck in them would hold up others
/// that print, and the end of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standard {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

impl Standard {
    /// The stream; if it was closed, one that takes everything: its number may soon be that of a connection.
    pub(crate) fn open(self) -> Box<dyn Write + Send> {
        let is_open = match self {
            Standard::Output => rustix::io::fcntl_getfd(io::stdout()).is_ok(),
            Standard::Error => rustix::io::fcntl_getfd(io::stderr()).is_ok(),
        };
        if is_open { Box::new(self) } else { Box::new(io::sink()) }
    }
}

impl Write for Standard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self {
            Standard::Output => rustix::io::write(io::stdout(), bytes),
            Standard::Error => rustix::io::write(io::stderr(), bytes),
        };
        Ok(written?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is appended to, and made again when somebody has moved or removed it, as logrotate does.
#[derive(Debug)]
pub(crate) struct WatchedFile {
    path: PathBuf,
    file: Option<File>,
}

impl WatchedFile {
    /// Opens or makes the file.
    ///
    /// **Errors:** it cannot be written.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let file = open(&path)?;
        Ok(Self { path, file: Some(file) })
    }

    /// The file that the path leads to now.
    fn present(&mut self) -> io::Result<&mut File> {
        let is_same = self.file.as_ref().is_some_and(|file| self.is_still(file));
        if !is_same {
            self.file = None;
        }
        match &mut self.file {
            Some(file) => Ok(file),
            none => Ok(none.insert(open(&self.path)?)),
        }
    }

    fn is_still(&self, file: &File) -> bool {
        let (Ok(open), Ok(found)) = (file.metadata(), std::fs::metadata(&self.path)) else { return false };
        (open.dev(), open.ino()) == (found.dev(), found.ino())
    }
}

impl Write for WatchedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.present()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Appends, so that a file that was cut to nothing (`copytruncate`) begins at its beginning.
fn open(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
