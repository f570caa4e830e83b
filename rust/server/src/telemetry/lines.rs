//! From whoever logs to the thread that writes to standard error.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use crate::output::Output;

/// Lines that may wait for standard error: the start of a server with a thousand models, all at once.
const WAITING_LINES: usize = 4_096;
/// Bytes of lines that may wait.
const WAITING_BYTES: usize = 4 << 20;

/// Takes lines; never waits.
#[derive(Clone, Debug)]
pub(super) struct LogLines {
    output: Output<Vec<u8>>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl LogLines {
    /// Starts the thread that writes to `stream`.
    ///
    /// **Errors:** it could not be started.
    pub(super) fn start(stream: impl Write + Send + 'static) -> std::io::Result<Self> {
        let waiting_bytes: Arc<AtomicUsize> = Arc::default();
        let waiting = Arc::clone(&waiting_bytes);
        let format = move |line: &Vec<u8>, buffer: &mut Vec<u8>| {
            waiting.fetch_sub(line.len(), Ordering::Relaxed);
            buffer.extend_from_slice(line);
        };
        Ok(Self { output: Output::start("log", WAITING_LINES, format, stream)?, waiting_bytes })
    }

    pub(super) fn flush(&self, limit: Duration) {
        self.output.flush(limit);
    }

    pub(super) fn lost(&self) -> u64 {
        self.output.lost()
    }
}

/// One line comes as one write.
impl Write for LogLines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let waiting = self.waiting_bytes.fetch_add(line.len(), Ordering::Relaxed);
        let is_taken = if waiting < WAITING_BYTES { self.output.send(line.to_vec()) } else { self.output.lose() };
        if !is_taken {
            self.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = LogLines;

    fn make_writer(&'a self) -> LogLines {
        self.clone()
    }
}
