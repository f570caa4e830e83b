//! One line per request, if asked for: formatted and written by a thread of its own, never by a loop.
//!
//! It has a stream of its own: the file that the settings name, or standard output, where nothing else is written then.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use mlserve_core::request::{Protocol, Text};

use crate::output::{Output, Standard, WatchedFile};
use crate::telemetry::Peer;

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
    /// Who asked; a proxy's address, if there is one.
    pub(crate) client: Peer,
    /// The HTTP status, or the number of the gRPC status.
    pub status: u16,
    /// A code of the error table, or `ok`.
    pub code: &'static str,
    /// From arrival to the answer being handed to the socket.
    pub duration: Duration,
    /// Of the request's body.
    pub bytes_in: usize,
    /// Of the answer's body.
    pub bytes_out: usize,
}

/// How long the end of the server waits for a slow disk.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Takes lines; never waits. Lines that the writer cannot keep up with, and those that a full disk does not take, are
/// counted.
#[derive(Clone, Debug)]
pub struct AccessLog(Output<AccessLine>);

impl AccessLog {
    /// Starts the writer, which appends JSON lines to `file`, or writes them to standard output, until every clone is
    /// gone.
    ///
    /// **Errors:** a text that says why the file cannot be written.
    pub(crate) fn start(file: Option<&Path>) -> Result<Self, String> {
        let output: Box<dyn Write + Send> = match file {
            None => Standard::Output.open(),
            Some(path) => Box::new(WatchedFile::open(path.to_owned()).map_err(|error| {
                format!("log.access_log_file = {}: {error}; allowed is a file that can be written", path.display())
            })?),
        };
        Self::to(output).map_err(|error| format!("the access log could not be started: {error}"))
    }

    /// As [`Self::start`], to any stream.
    ///
    /// **Errors:** the thread could not be started.
    pub(crate) fn to(output: impl Write + Send + 'static) -> std::io::Result<Self> {
        Output::start("access-log", WAITING_LINES, write_line, output).map(Self)
    }

    /// Gives a line to the writer.
    pub fn record(&self, line: AccessLine) {
        self.0.send(line);
    }

    /// Lines that were lost.
    pub(crate) fn lost(&self) -> u64 {
        self.0.lost()
    }

    /// Waits until what was recorded is written, for a moment at most.
    pub(crate) fn flush(&self) {
        self.0.flush(FLUSH_LIMIT);
    }
}

fn write_line(line: &AccessLine, buffer: &mut Vec<u8>) {
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
        "client": line.client.to_string(),
        "status": line.status,
        "code": line.code,
        "duration_s": line.duration.as_secs_f64(),
        "bytes_in": line.bytes_in,
        "bytes_out": line.bytes_out,
    });
    // Writing to a vector cannot fail.
    let _ = writeln!(buffer, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> AccessLine {
        AccessLine {
            protocol: Protocol::Grpc,
            route: "ModelInfer",
            model: "m\nforged".into(),
            version: 1,
            request_id: Text::default(),
            traceparent: Text::default(),
            sequence_id: Text::default(),
            client: Peer::Unix,
            status: 0,
            code: "ok",
            duration: Duration::from_micros(20),
            bytes_in: 40,
            bytes_out: 12,
        }
    }

    #[test]
    fn values_cannot_forge_lines() {
        let mut written = Vec::new();
        write_line(&line(), &mut written);
        let text = String::from_utf8(written).expect("UTF-8");
        assert_eq!(text.lines().count(), 1);
        let parsed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(parsed["model"], "m\nforged");
    }
}
