//! Lines on their way out of the process: a bounded queue and a thread of its own for each destination.
//!
//! A reader that stops reading, a full disk or a closed pipe costs lines, which are counted; it holds up nobody, neither
//! a loop nor the start nor the end. What is lost while a disk is full is lost; the lines after it are written.

use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

pub(crate) use self::stream::{Standard, WatchedFile};

mod stream;

/// Bytes that are written at once: large enough for speed, small enough that little is lost with one failed write.
const WRITTEN_AT_ONCE: usize = 64 << 10;
/// How often a stream that can take nothing now, but fails instead of blocking, is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(10);
/// How often [`Output::flush`] looks for room in a full queue.
const FLUSH_POLL: Duration = Duration::from_millis(1);

/// How long [`say`] waits for its reader.
const SAY_LIMIT: Duration = Duration::from_secs(1);

/// Prints what a command was asked for, and waits for whoever reads it. One who has read enough is no fault.
///
/// **Errors:** a text that says why it could not be written.
pub(crate) fn print(text: &str) -> Result<(), String> {
    match Standard::Output.write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("standard output: {error}")),
        _ => Ok(()),
    }
}

/// Says a last word on a stream, and waits for a moment only that it is heard.
pub(crate) fn say(stream: Standard, text: &str) {
    let append = |text: &Vec<u8>, buffer: &mut Vec<u8>| buffer.extend_from_slice(text);
    if let Ok(output) = Output::start("last-word", 1, append, stream.open()) {
        output.send(text.as_bytes().to_vec());
        output.flush(SAY_LIMIT);
    }
}

/// What the thread is sent.
#[derive(Debug)]
enum Message<T> {
    Item(T),
    /// To be answered when all before it is written or lost.
    Flush(SyncSender<()>),
}

/// The way to one destination. Its thread ends when every clone is gone.
#[derive(Debug)]
pub(crate) struct Output<T> {
    messages: SyncSender<Message<T>>,
    lost: Arc<AtomicU64>,
}

impl<T> Clone for Output<T> {
    fn clone(&self) -> Self {
        Self { messages: self.messages.clone(), lost: Arc::clone(&self.lost) }
    }
}

impl<T: Send + 'static> Output<T> {
    /// Starts the thread `name`, for which `waiting` items may wait; `format` appends an item's lines to a buffer.
    ///
    /// **Errors:** the thread could not be started.
    pub(crate) fn start(
        name: &str,
        waiting: usize,
        format: impl FnMut(&T, &mut Vec<u8>) + Send + 'static,
        stream: impl Write + Send + 'static,
    ) -> std::io::Result<Self> {
        let (messages, receiver) = sync_channel(waiting);
        let lost: Arc<AtomicU64> = Arc::default();
        let lines = Lines { stream, is_torn: false, lost: Arc::clone(&lost) };
        std::thread::Builder::new().name(name.to_owned()).spawn(move || follow(&receiver, format, lines))?;
        Ok(Self { messages, lost })
    }

    /// Gives an item to the thread, or loses it; never waits. Returns whether it was taken.
    pub(crate) fn send(&self, item: T) -> bool {
        self.messages.try_send(Message::Item(item)).is_ok() || self.lose()
    }

    /// Counts a line as lost that was not sent; `false`.
    pub(crate) fn lose(&self) -> bool {
        self.lost.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Lines that were lost: for want of room, or because the stream did not take them.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until what was sent so far is written or lost, but no longer than `limit`.
    pub(crate) fn flush(&self, limit: Duration) {
        let (done, wait) = sync_channel(1);
        let mut message = Message::Flush(done);
        for _ in 0..limit.div_duration_f64(FLUSH_POLL) as u64 {
            match self.messages.try_send(message) {
                Ok(()) => {
                    // Also when the time is over, there is nothing more to do.
                    let _ = wait.recv_timeout(limit);
                    return;
                }
                Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(refused)) => message = refused,
            }
            std::thread::sleep(FLUSH_POLL);
        }
    }
}

fn follow<T>(messages: &Receiver<Message<T>>, mut format: impl FnMut(&T, &mut Vec<u8>), mut lines: Lines<impl Write>) {
    let mut buffer = Vec::new();
    while let Ok(first) = messages.recv() {
        let mut waiting = Vec::new();
        // Whatever else waits goes out with it.
        for message in std::iter::once(first).chain(messages.try_iter()) {
            match message {
                Message::Item(item) => format(&item, &mut buffer),
                Message::Flush(done) => {
                    waiting.push(done);
                    break;
                }
            }
            if buffer.len() >= WRITTEN_AT_ONCE {
                break;
            }
        }
        lines.write(&buffer);
        buffer.clear();
        buffer.shrink_to(WRITTEN_AT_ONCE);
        for done in waiting {
            // Whoever asked may have stopped waiting.
            let _ = done.try_send(());
        }
    }
}

/// A stream of lines that goes on after it has failed.
struct Lines<W> {
    stream: W,
    /// The last write ended within a line.
    is_torn: bool,
    lost: Arc<AtomicU64>,
}

impl<W: Write> Lines<W> {
    /// Writes whole lines; counts those that did not arrive.
    fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        if self.is_torn {
            // What is left of a lost line must not begin the next one.
            if self.write_all(b"\n") == 0 {
                self.count_lost(lines);
                return;
            }
            self.is_torn = false;
        }
        let written = self.write_all(lines);
        if written < lines.len() {
            self.is_torn = written > 0 && lines[written - 1] != b'\n';
            // The end of a torn line counts for it.
            self.count_lost(&lines[written..]);
        }
    }

    fn count_lost(&self, lines: &[u8]) {
        let lost = lines.split(|&byte| byte == b'\n').count() - 1;
        self.lost.fetch_add(lost as u64, Ordering::Relaxed);
    }

    /// Writes as much as the stream takes, and tells how much that was.
    fn write_all(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.stream.write(&bytes[written..]) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A terminal or pipe that some other program made non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(TRY_AGAIN),
                Err(_) => break,
            }
        }
        written
    }
}

#[cfg(test)]
mod tests;
