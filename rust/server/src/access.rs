//! One line per request, if asked for: formatted and written by a thread of its own, never by a loop.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use mlserve_core::request::{Protocol, Text};

/// Lines that may wait for the writer. At 100,000 requests a second this bridges a tenth of a second of a slow disk.
const WAITING_LINES: usize = 8_192;

/// What is known about one answered request.
#[derive(Clone, Debug)]
pub struct AccessLine {
    /// gRPC or HTTP.
    pub protocol: Protocol,
    /// The RPC or route.
    pub route: &'static str,
    /// The endpoint asked for; empty where none is.
    pub model: Text,
    /// The version that answered; 0 where none did.
    pub version: u64,
    /// The caller's `x-request-id`, or the request's own id.
    pub request_id: Text,
    /// The caller's `traceparent`.
    pub traceparent: Text,
    /// The sequence that the request belongs to; empty if there is none.
    pub sequence_id: Text,
    /// A code of the error table, or `ok`.
    pub code: &'static str,
    /// From arrival to the answer being handed to the socket.
    pub duration: Duration,
    /// Of the request's body.
    pub bytes_in: usize,
    /// Of the answer's body.
    pub bytes_out: usize,
}

/// Takes lines; never waits. Lines that the writer cannot keep up with are dropped and counted.
#[derive(Clone, Debug)]
pub struct AccessLog {
    lines: SyncSender<AccessLine>,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// Starts the writer, which writes JSON lines to `output` until every clone is gone.
    ///
    /// **Errors:** its thread could not be started.
    pub(crate) fn start(output: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (lines, receiver) = sync_channel(WAITING_LINES);
        let dropped = Arc::default();
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write_lines(&receiver, output))?;
        Ok(Self { lines, dropped })
    }

    /// Gives a line to the writer.
    pub fn record(&self, line: AccessLine) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.lines.try_send(line) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn write_lines(lines: &Receiver<AccessLine>, output: impl Write) {
    let mut output = std::io::BufWriter::new(output);
    while let Ok(first) = lines.recv() {
        // Whatever else waits goes out with it; then the buffer is flushed, so that no line lingers.
        for line in std::iter::once(first).chain(lines.try_iter()) {
            if write_line(&mut output, &line).is_err() {
                return;
            }
        }
        if output.flush().is_err() {
            return;
        }
    }
}

fn write_line(output: &mut impl Write, line: &AccessLine) -> std::io::Result<()> {
    let text = serde_json::json!({
        "timestamp": crate::telemetry::timestamp(),
        "event": "access",
        "protocol": line.protocol.name(),
        "route": line.route,
        "model": &*line.model,
        "version": line.version,
        "request_id": &*line.request_id,
        "traceparent": &*line.traceparent,
        "sequence_id": &*line.sequence_id,
        "code": line.code,
        "duration_s": line.duration.as_secs_f64(),
        "bytes_in": line.bytes_in,
        "bytes_out": line.bytes_out,
    });
    writeln!(output, "{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that never takes anything.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            // Returns when the test drops its end.
            let _ = self.0.recv();
            Err(std::io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            self.write(&[]).map(drop)
        }
    }

    fn line() -> AccessLine {
        AccessLine {
            protocol: Protocol::Grpc,
            route: "ModelInfer",
            model: "m\nforged".into(),
            version: 1,
            request_id: Text::default(),
            traceparent: Text::default(),
            sequence_id: Text::default(),
            code: "ok",
            duration: Duration::from_micros(20),
            bytes_in: 40,
            bytes_out: 12,
        }
    }

    #[test]
    fn a_stuck_disk_drops_lines_and_does_not_hold_up_the_caller() {
        let (release, stuck) = std::sync::mpsc::channel();
        let log = AccessLog::start(Stuck(stuck)).expect("starts");
        (0..WAITING_LINES * 2 + 100).for_each(|_| log.record(line()));
        assert!(log.dropped() >= 1);
        drop(release);
    }

    #[test]
    fn values_cannot_forge_lines() {
        let mut written = Vec::new();
        write_line(&mut written, &line()).expect("a vector takes everything");
        let text = String::from_utf8(written).expect("UTF-8");
        assert_eq!(text.lines().count(), 1);
        let parsed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(parsed["model"], "m\nforged");
    }
}
