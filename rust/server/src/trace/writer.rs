//! Writes traces as Triton does, on a thread of its own, so that `trace_summary.py` reads them.
//!
//! Requests do not wait for it: traces that it cannot keep up with are dropped and counted. A file is a whole JSON array
//! after each write, so that it can be read while the server runs.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use mlserve_core::clock::{Clock, Epoch};
use mlserve_core::request::Protocol;
use mlserve_core::trace::{Sampler, Trace, TraceSink};

/// Traces that may wait for the writer: some 300 bytes each, so less than a megabyte. Every request of a server with
/// 100,000 a second may be traced for some hundredths of a second of a slow disk.
const WAITING_TRACES: usize = 2_048;
/// Traces that are written at once.
const WRITTEN_AT_ONCE: usize = 256;
/// How long the end of the server waits for a slow disk.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it looks within that time for room to say so.
const FLUSH_TRIES: u32 = 1_000;
/// What stands after the last trace of a file.
const END: &str = "\n]\n";

/// What the thread is sent.
#[derive(Debug)]
enum Message {
    Trace(Box<Trace>),
    /// To be answered when all before it is written.
    Flush(SyncSender<()>),
}

/// The way to the thread that writes.
#[derive(Clone, Debug)]
pub(super) struct TraceWriter {
    messages: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl TraceWriter {
    /// Starts the thread; it ends when every clone is gone. A file that is there is replaced by the first trace.
    ///
    /// **Errors:** the file cannot be written; the thread could not be started.
    pub(super) fn start(path: &Path, clock: &Clock) -> std::io::Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        let found = file.metadata()?;
        if found.is_file() && found.len() == 0 {
            // Whole from the start.
            file.write_all(b"[\n]\n")?;
        }
        let (messages, receiver) = sync_channel(WAITING_TRACES);
        let mut files =
            Files { path: path.to_owned(), epoch: clock.epoch(), whole: None, parts: HashMap::new(), next_part: 0 };
        let run = move || files.follow(&receiver);
        std::thread::Builder::new().name("trace".to_owned()).spawn(run)?;
        Ok(Self { messages, dropped: Arc::default() })
    }

    /// Traces that were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until what was given so far is written, for a moment at most.
    pub(super) fn flush(&self) {
        let (done, wait) = sync_channel(1);
        let mut message = Message::Flush(done);
        for _ in 0..FLUSH_TRIES {
            match self.messages.try_send(message) {
                Ok(()) => {
                    // Also when the time is over, or the thread has ended, there is nothing more to do.
                    let _ = wait.recv_timeout(FLUSH_TIMEOUT);
                    return;
                }
                Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(refused)) => message = refused,
            }
            std::thread::sleep(FLUSH_TIMEOUT / FLUSH_TRIES);
        }
    }
}

impl TraceSink for TraceWriter {
    fn record(&self, trace: Trace) {
        if self.messages.try_send(Message::Trace(Box::new(trace))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The files that are written to.
struct Files {
    path: PathBuf,
    epoch: Epoch,
    /// The file itself, for traces that are not told to begin new ones.
    whole: Option<TraceFile>,
    /// By sampler: its present file, `PATH.0` for example.
    parts: HashMap<usize, Part>,
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
    fn follow(&mut self, messages: &Receiver<Message>) {
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
            self.whole.get_or_insert_with(|| TraceFile::new(self.path.clone())).add(&text);
            return;
        }
        let key = Arc::as_ptr(&trace.sampler) as usize;
        if !self.parts.contains_key(&key) {
            // Nobody but this map holds the samplers of settings that were replaced.
            self.parts.retain(|_, part| {
                part.file.write();
                Arc::strong_count(&part.sampler) > 1
            });
            let file = TraceFile::new(PathBuf::from(format!("{}.{}", self.path.display(), self.next_part)));
            self.next_part += 1;
            self.parts.insert(key, Part { sampler: Arc::clone(&trace.sampler), file, traces: 0 });
        }
        if let Some(part) = self.parts.get_mut(&key) {
            part.file.add(&text);
            part.traces += 1;
            if part.traces >= frequency {
                part.file.write();
                self.parts.remove(&key);
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
    /// What is to be written next.
    pending: String,
    has_failed: bool,
}

impl TraceFile {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None, len: 0, pending: String::new(), has_failed: false }
    }

    fn add(&mut self, text: &str) {
        if !self.pending.is_empty() {
            self.pending.push_str(",\n");
        }
        self.pending.push_str(text);
    }

    /// Writes what is pending. A disk that takes nothing costs these traces, and one line of the log.
    fn write(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        match self.try_write(&pending) {
            Ok(()) => self.has_failed = false,
            Err(error) if !self.has_failed => {
                tracing::error!(path = %self.path.display(), %error, "traces cannot be written");
                self.has_failed = true;
            }
            Err(_) => {}
        }
    }

    fn try_write(&mut self, text: &str) -> std::io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::create(&self.path)?),
        };
        let begin = if self.len == 0 { "[\n" } else { ",\n" };
        // Over the end of the last write, or over what is left of one that failed.
        file.seek(SeekFrom::Start(self.len))?;
        file.write_all(format!("{begin}{text}{END}").as_bytes())?;
        self.len += (begin.len() + text.len()) as u64;
        Ok(())
    }
}

/// A trace as two members of the array: who, and when what.
fn text(trace: &Trace, epoch: &Epoch) -> String {
    let mut head = serde_json::json!({
        "id": trace.id, "model_name": &*trace.model, "model_version": trace.version,
    });
    if !trace.request_id.is_empty() {
        head["request_id"] = trace.request_id.as_str().into();
    }
    let mut text = format!("{head},\n{{\"id\":{},\"timestamps\":[", trace.id);
    for (index, (name, moment)) in timestamps(trace).into_iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}{{\"name\":\"{name}\",\"ns\":{}}}", epoch.unix_time(moment).as_nanos());
    }
    text.push_str("]}");
    text
}

/// Triton's names for what happened when, in that order.
fn timestamps(trace: &Trace) -> Vec<(&'static str, Instant)> {
    let moments = trace.moments;
    let front: Option<[&str; 4]> = match trace.protocol {
        Protocol::Grpc => Some(["GRPC_WAITREAD_START", "GRPC_WAITREAD_END", "GRPC_SEND_START", "GRPC_SEND_END"]),
        Protocol::Http => Some(["HTTP_RECV_START", "HTTP_RECV_END", "HTTP_SEND_START", "HTTP_SEND_END"]),
        Protocol::InProcess => None,
    };
    let mut named = Vec::with_capacity(11);
    if let Some([read_start, read_end, ..]) = front {
        named.extend([(read_start, moments.arrived), (read_end, moments.submitted)]);
    }
    named.extend([("REQUEST_START", moments.submitted), ("QUEUE_START", moments.queued)]);
    if let Some(timing) = trace.timing {
        let compute = moments.arrived + timing.queue;
        let input_end = compute + timing.gather;
        let output_start = input_end + timing.compute;
        named.extend([
            ("COMPUTE_START", compute),
            ("COMPUTE_INPUT_END", input_end),
            ("COMPUTE_OUTPUT_START", output_start),
            ("COMPUTE_END", output_start + timing.scatter),
        ]);
    }
    named.push(("REQUEST_END", moments.ended));
    if let Some([.., send_start, send_end]) = front {
        named.extend([(send_start, moments.ended), (send_end, moments.sent)]);
    }
    named
}

#[cfg(test)]
mod tests {
    use mlserve_core::request::Request;
    use mlserve_core::trace::{Samplers, Tracer};

    use super::*;
    use crate::grpc::fixture;

    fn record_three(writer: &TraceWriter) {
        let tracer = Tracer::new(Some(Arc::new(writer.clone())), Clock::Monotonic);
        tracer.set_samplers(Samplers { global: Arc::new(Sampler::new(true, 1, -1, 0)), models: HashMap::new() });
        let version = fixture::version(1, Arc::new([]));
        let now = Clock::Monotonic.now();
        for _ in 0..3 {
            let trace = tracer.sample(&version, &Request::default(), now, now).expect("all are traced");
            trace.ended(None, now).sent(now);
        }
    }

    #[test]
    fn a_stuck_disk_drops_traces_and_does_not_hold_up_the_caller() {
        let (messages, receiver) = sync_channel(1);
        let writer = TraceWriter { messages, dropped: Arc::default() };
        record_three(&writer);
        assert_eq!(writer.dropped(), 2);
        drop(receiver);
    }

    #[test]
    fn a_full_disk_costs_the_traces_and_nothing_else() {
        let writer = TraceWriter::start(Path::new("/dev/full"), &Clock::Monotonic).expect("it can be opened");
        record_three(&writer);
        writer.flush();
        record_three(&writer);
        writer.flush();
        assert_eq!(writer.dropped(), 0);
    }
}
