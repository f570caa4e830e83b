//! Writes traces as Triton does, on a thread of its own, so that `trace_summary.py` reads them.
//!
//! Requests do not wait for it: traces that it cannot keep up with, and those that a full disk does not take, are dropped
//! and counted. A file is a whole JSON array after each write, so that it can be read while the server runs. Whoever may
//! change the trace settings cannot fill the disk: files are bounded in number and size.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use mlserve_core::clock::{Clock, Epoch};
use mlserve_core::request::Protocol;
use mlserve_core::trace::{Trace, TraceSink};

use self::files::Files;

mod files;

/// Traces that may wait for the writer: some 300 bytes each, so less than a megabyte. Every request of a server with
/// 100,000 a second may be traced for some hundredths of a second of a slow disk.
const WAITING_TRACES: usize = 2_048;
/// Traces that are written at once.
const WRITTEN_AT_ONCE: usize = 256;
/// How long the end of the server waits for a slow disk.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it looks within that time for room to say so.
const FLUSH_TRIES: u32 = 1_000;
/// Files with a number that there are at most; then the oldest is overwritten. With [`PART_BYTES`] each they hold as much
/// as the one without.
const PARTS: u64 = 100;
/// Bytes after which a file with a number is full, however few traces it has.
const PART_BYTES: u64 = 10 << 20;
/// Bytes of the file without a number: some three million traces. What does not fit is dropped.
const WHOLE_BYTES: u64 = 1 << 30;
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
        let dropped = Arc::default();
        let mut files = Files::new(path, clock.epoch(), Arc::clone(&dropped));
        let run = move || files.follow(&receiver);
        std::thread::Builder::new().name("trace".to_owned()).spawn(run)?;
        Ok(Self { messages, dropped })
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
    use std::collections::HashMap;

    use mlserve_core::request::Request;
    use mlserve_core::trace::{Sampler, Samplers, Tracer};

    use super::*;
    use crate::grpc::fixture;

    fn record_three(writer: &TraceWriter) {
        record(writer, 3, 0);
    }

    fn record(writer: &TraceWriter, count: usize, log_frequency: u64) {
        let tracer = Tracer::new(Some(Arc::new(writer.clone())), Clock::Monotonic);
        let global = Arc::new(Sampler::new(true, 1, -1, log_frequency));
        tracer.set_samplers(Samplers { global, models: HashMap::new() });
        let version = fixture::version(1, Arc::new([]));
        let now = Clock::Monotonic.now();
        for _ in 0..count {
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
    fn a_full_disk_costs_the_traces_which_are_counted_and_nothing_else() {
        let writer = TraceWriter::start(Path::new("/dev/full"), &Clock::Monotonic).expect("it can be opened");
        record_three(&writer);
        writer.flush();
        record_three(&writer);
        writer.flush();
        assert_eq!(writer.dropped(), 6, "all of them");
    }

    #[test]
    fn a_file_for_each_trace_makes_a_hundred_files_at_most() {
        let folder = tempfile::tempdir().expect("made");
        let writer = TraceWriter::start(&folder.path().join("t.json"), &Clock::Monotonic).expect("starts");
        for _ in 0..5 {
            record(&writer, 100, 1);
            writer.flush();
        }
        let found = std::fs::read_dir(folder.path()).expect("read").count() as u64;
        assert_eq!((found, writer.dropped()), (PARTS + 1, 0));
        let last = std::fs::read_to_string(folder.path().join("t.json.99")).expect("there");
        let last: serde_json::Value = serde_json::from_str(&last).expect("a whole array");
        assert_eq!(last[0]["id"], 100);
    }
}
