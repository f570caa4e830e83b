//! Reads a model's structure from its file without holding the file in memory: skipped weights cost a seek.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use bytes::Buf;
use prost::Message;

use super::proto::Model;
use crate::error::LoadError;

/// Largest model file: protobuf's own bound, which ONNX Runtime cannot pass either.
const MAX_FILE_BYTES: u64 = 2 << 30;

/// Bytes read at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// Reads the structure of the model at `path`; also returns the file's size.
///
/// **Errors:** not a readable file, empty, too large, or no ONNX model.
pub(crate) fn read(path: &Path) -> Result<(Model, u64), LoadError> {
    let unreadable = |error: &std::io::Error| LoadError::unreadable(format!("{}: {error}", path.display()));
    let unfit = |reason: &str| LoadError::broken(format!("{}: {reason}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(&error))?;
    if !metadata.is_file() {
        return Err(unfit("is not a file"));
    }
    let file_bytes = metadata.len();
    if file_bytes == 0 {
        return Err(unfit("the file is empty"));
    }
    if file_bytes > MAX_FILE_BYTES {
        let text =
            format!("has {file_bytes} bytes; a model file may have {MAX_FILE_BYTES}: store weights as external data");
        return Err(unfit(&text));
    }
    let mut buf = FileBuf::new(File::open(path).map_err(|error| unreadable(&error))?, file_bytes as usize);
    let model = Model::decode(&mut buf);
    if let Some(error) = buf.error {
        return Err(unreadable(&error));
    }
    let model = model.map_err(|error| {
        let hint = "it is cut off, damaged, or in another format";
        LoadError::broken(format!("{} is no ONNX model: {hint} ({error})", path.display()))
    })?;
    Ok((model, file_bytes))
}

/// A file as a [`Buf`]. An input error is kept, and zeros follow it: no message survives them, as no field has number 0.
struct FileBuf {
    file: File,
    buffer: Vec<u8>,
    /// First byte of the buffer that is not consumed yet.
    start: usize,
    /// Bytes not consumed yet, in the buffer and after it.
    remaining: usize,
    error: Option<std::io::Error>,
}

impl FileBuf {
    fn new(file: File, len: usize) -> Self {
        let mut buf = Self { file, buffer: Vec::new(), start: 0, remaining: len, error: None };
        buf.fill();
        buf
    }

    /// Reads the next piece.
    fn fill(&mut self) {
        let want = self.remaining.min(BUFFER_BYTES);
        self.buffer.resize(want, 0);
        self.start = 0;
        if self.error.is_none()
            && let Err(error) = self.file.read_exact(&mut self.buffer)
        {
            let is_shrunk = error.kind() == ErrorKind::UnexpectedEof;
            self.error =
                Some(if is_shrunk { std::io::Error::other("the file shrank while it was read") } else { error });
        }
        if self.error.is_some() {
            self.buffer.fill(0);
        }
    }
}

impl Buf for FileBuf {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        let end = self.buffer.len().min(self.start.saturating_add(self.remaining));
        self.buffer.get(self.start..end).unwrap_or_default()
    }

    fn advance(&mut self, count: usize) {
        let count = count.min(self.remaining);
        let buffered = self.buffer.len() - self.start;
        self.remaining -= count;
        self.start += count.min(buffered);
        if self.start < self.buffer.len() || self.remaining == 0 {
            return;
        }
        let beyond = (count - count.min(buffered)) as i64;
        if beyond > 0
            && let Err(error) = self.file.seek(SeekFrom::Current(beyond))
        {
            self.error = Some(error);
        }
        self.fill();
    }
}
