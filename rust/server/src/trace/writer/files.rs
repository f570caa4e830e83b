//! The files that traces are written to: one, or numbered ones that begin anew after so many traces.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;

use mlserve_core::clock::Epoch;
use mlserve_core::trace::{Sampler, Trace};

use super::{END, Message, PART_BYTES, PARTS, WHOLE_BYTES, WRITTEN_AT_ONCE, text};

/// The files that are written to.
pub(super) struct Files {
    path: PathBuf,
    epoch: Epoch,
    dropped: Arc<AtomicU64>,
    /// The file itself, for traces that are not told to begin new ones.
    whole: Option<TraceFile>,
    /// By sampler: its present file, `PATH.0` for example.
    parts: HashMap<usize, Part>,
    /// Counts on; a file's number is what is left of it after [`PARTS`].
    next_part: u64,
}

/// The present file of a sampler that begins a new one now and then.
struct Part {
    /// Held, so that no other sampler gets its address.
    sampler: Arc<Sampler>,
    file: TraceFile,
    traces: u64,
}

impl Files {
    /// No file is open yet. `dropped` counts the traces that could not be written.
    pub(super) fn new(path: &Path, epoch: Epoch, dropped: Arc<AtomicU64>) -> Self {
        Self { path: path.to_owned(), epoch, dropped, whole: None, parts: HashMap::new(), next_part: 0 }
    }

    /// Writes what comes until every sender is gone.
    pub(super) fn follow(&mut self, messages: &Receiver<Message>) {
        while let Ok(first) = messages.recv() {
            let mut waiting = Vec::new();
            for message in std::iter::once(first).chain(messages.try_iter().take(WRITTEN_AT_ONCE)) {
                match message {
                    Message::Trace(trace) => self.add(&trace),
                    Message::Flush(done) => waiting.push(done),
                }
            }
            self.whole.iter_mut().chain(self.parts.values_mut().map(|part| &mut part.file)).for_each(TraceFile::write);
            for done in waiting {
                // Whoever asked may have stopped waiting.
                let _ = done.try_send(());
            }
        }
    }

    fn add(&mut self, trace: &Trace) {
        let text = text(trace, &self.epoch);
        let frequency = trace.sampler.log_frequency;
        if frequency == 0 {
            let dropped = &self.dropped;
            let whole = || TraceFile::new(self.path.clone(), WHOLE_BYTES, Arc::clone(dropped));
            self.whole.get_or_insert_with(whole).add(&text);
            return;
        }
        let key = Arc::as_ptr(&trace.sampler) as usize;
        if !self.parts.contains_key(&key) {
            // Nobody but this map holds the samplers of settings that were replaced.
            self.parts.retain(|_, part| {
                part.file.write();
                Arc::strong_count(&part.sampler) > 1
            });
            let file = self.next_file();
            self.parts.insert(key, Part { sampler: Arc::clone(&trace.sampler), file, traces: 0 });
        }
        if let Some(part) = self.parts.get_mut(&key) {
            part.file.add(&text);
            part.traces += 1;
            if part.traces >= frequency || part.file.is_full() {
                part.file.write();
                self.parts.remove(&key);
            }
        }
    }

    /// The next numbered file that no sampler writes to.
    fn next_file(&mut self) -> TraceFile {
        // As many as there are samplers, and one more, where that is more.
        let parts = PARTS.max(self.parts.len() as u64 + 1);
        loop {
            let path = PathBuf::from(format!("{}.{}", self.path.display(), self.next_part % parts));
            self.next_part += 1;
            if self.parts.values().all(|part| part.file.path != path) {
                return TraceFile::new(path, PART_BYTES, Arc::clone(&self.dropped));
            }
        }
    }
}

/// One file of traces.
struct TraceFile {
    path: PathBuf,
    file: Option<File>,
    /// Bytes of the file before its end.
    len: u64,
    /// Bytes that it may have.
    limit: u64,
    /// What is to be written next, and how many traces that is.
    pending: String,
    pending_traces: u64,
    dropped: Arc<AtomicU64>,
    has_failed: bool,
}

impl TraceFile {
    fn new(path: PathBuf, limit: u64, dropped: Arc<AtomicU64>) -> Self {
        let pending = String::new();
        Self { path, file: None, len: 0, limit, pending, pending_traces: 0, dropped, has_failed: false }
    }

    fn is_full(&self) -> bool {
        self.len + self.pending.len() as u64 >= self.limit
    }

    fn add(&mut self, text: &str) {
        if !self.pending.is_empty() {
            self.pending.push_str(",\n");
        }
        self.pending.push_str(text);
        self.pending_traces += 1;
    }

    /// Writes what is pending. A disk that takes nothing, or a file that is full, costs these traces, and one line of the
    /// log.
    fn write(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        let traces = std::mem::take(&mut self.pending_traces);
        match self.try_write(&pending) {
            Ok(()) => self.has_failed = false,
            Err(error) => {
                self.dropped.fetch_add(traces, Ordering::Relaxed);
                if !self.has_failed {
                    tracing::error!(path = %self.path.display(), %error, "traces cannot be written; they are counted");
                }
                self.has_failed = true;
            }
        }
    }

    fn try_write(&mut self, text: &str) -> std::io::Result<()> {
        let begin = if self.len == 0 { "[\n" } else { ",\n" };
        let added = (begin.len() + text.len()) as u64;
        if self.len + added > self.limit.max(added) {
            return Err(std::io::Error::other(format!("the file has the {} bytes that it may have", self.limit)));
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::create(&self.path)?),
        };
        // Over the end of the last write, or over what is left of one that failed.
        file.seek(SeekFrom::Start(self.len))?;
        let written = file.write_all(format!("{begin}{text}{END}").as_bytes());
        if written.is_ok() {
            self.len += added;
        }
        if self.has_failed || written.is_err() {
            // What was written before stays a whole array, and nothing is left behind its end.
            let end = if self.len == 0 { "[\n]\n" } else { END };
            file.seek(SeekFrom::Start(self.len))?;
            file.write_all(end.as_bytes())?;
            file.set_len(self.len + end.len() as u64)?;
        }
        written
    }
}
