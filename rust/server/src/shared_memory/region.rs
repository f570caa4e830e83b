//! One region: a part of an open file, and reading and writing in it.

use std::fs::{File, OpenOptions};
use std::io::{Error as IoError, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use mlserve_core::error::{Error, Result};

use super::RESERVED_PREFIX;

/// Bytes of a file's name on Linux.
const MAX_KEY_BYTES: usize = 255;

/// A part of a shared memory object. The file stays open as long as anybody uses it.
#[derive(Debug)]
pub(crate) struct Region {
    /// As the client gave it.
    pub(crate) key: Box<str>,
    /// Where in the object it begins.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) byte_size: u64,
    file: File,
}

impl Region {
    /// Opens the object `key` of `folder`.
    ///
    /// **Errors:** a key that is not the name of one file; nothing that can be opened; no regular file; too small.
    pub(super) fn open(folder: &Path, key: &str, offset: u64, byte_size: u64) -> Result<Self> {
        let name = file_name(key)?;
        if byte_size == 0 {
            return Err(Error::invalid(
                "failed to register shared memory region: byte_size is 0; at least 1 is needed",
            ));
        }
        let end = offset.checked_add(byte_size).ok_or_else(|| too_small(offset, byte_size))?;
        // Links are not followed, and nothing that could be a pipe may hold up the loop. One text for all reasons: it
        // does not tell what other services keep there.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(folder.join(name));
        let file = opened.map_err(|_| cannot_open())?;
        let metadata = file.metadata().map_err(|_| cannot_open())?;
        if !metadata.is_file() {
            return Err(cannot_open());
        }
        if end > metadata.len() {
            return Err(too_small(offset, byte_size));
        }
        Ok(Self { key: key.into(), offset, byte_size, file })
    }

    /// `byte_size` bytes from `offset` on.
    ///
    /// **Errors:** they are not inside the region.
    pub(super) fn window(self: Arc<Self>, offset: u64, byte_size: u64) -> Result<Window> {
        if offset >= self.byte_size {
            return Err(Error::invalid(format!(
                "Invalid offset for shared memory region: {offset}; the region has {} bytes",
                self.byte_size
            )));
        }
        let end = offset.checked_add(byte_size).filter(|&end| end <= self.byte_size);
        let len = end.and_then(|_| usize::try_from(byte_size).ok()).ok_or_else(|| {
            Error::invalid(format!(
                "Invalid offset + byte size for shared memory region: {offset} + {byte_size}; the region has {} bytes",
                self.byte_size
            ))
        })?;
        // Does not overflow: both lie inside the object, whose size was checked.
        Ok(Window { start: self.offset + offset, len, region: self })
    }
}

/// The part of a region that one tensor takes.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    region: Arc<Region>,
    /// In the file.
    start: u64,
    len: usize,
}

impl Window {
    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The bytes, copied, so that what is checked is what runs.
    ///
    /// **Errors:** the object has become smaller since it was registered.
    pub(super) fn read(&self) -> Result<Vec<u8>, Fault> {
        let mut bytes = vec![0; self.len];
        self.region.file.read_exact_at(&mut bytes, self.start)?;
        Ok(bytes)
    }

    /// Writes `bytes` at the beginning; there are at most [`Self::len`].
    ///
    /// **Errors:** the object has become smaller since it was registered, or has no memory.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), Fault> {
        // A write behind the end would make the object larger again, and somebody has just made it smaller.
        if self.region.file.metadata()?.len() < self.start + bytes.len() as u64 {
            return Err(Fault::Shrunk);
        }
        Ok(self.region.file.write_all_at(bytes, self.start)?)
    }
}

/// Why a window could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The object is smaller than it was.
    Shrunk,
    /// The system has no memory for the object, or refuses it.
    Refused,
}

impl Fault {
    /// For the caller: no names.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Fault::Shrunk => "the shared memory object has become smaller than its region",
            Fault::Refused => "the system refuses it, as it does when no memory is left for shared memory",
        }
    }
}

impl From<IoError> for Fault {
    fn from(error: IoError) -> Self {
        if error.kind() == ErrorKind::UnexpectedEof { Fault::Shrunk } else { Fault::Refused }
    }
}

/// The file that `key` names: one path component, with or without the slashes that `shm_open` allows before it.
fn file_name(key: &str) -> Result<&str> {
    let name = key.trim_start_matches('/');
    let is_component = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
    if !is_component || name.len() > MAX_KEY_BYTES || name.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "cannot register shared memory region: invalid shm key; it must be one name of 1 to {MAX_KEY_BYTES} bytes, \
             without '/' inside, '..' or control characters"
        )));
    }
    if name.starts_with(RESERVED_PREFIX) {
        return Err(Error::invalid(format!(
            "cannot register shared memory region: the key contains the reserved prefix '{RESERVED_PREFIX}'"
        )));
    }
    Ok(name)
}

#[cold]
fn cannot_open() -> Error {
    Error::invalid(
        "Unable to open shared memory region: there is no shared memory object of this key that the server may read and \
         write",
    )
}

#[cold]
fn too_small(offset: u64, byte_size: u64) -> Error {
    Error::invalid(format!(
        "failed to register shared memory region: invalid args: offset {offset} + byte_size {byte_size} is more than the \
         shared memory object has"
    ))
}
