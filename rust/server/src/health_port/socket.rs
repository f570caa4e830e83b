//! A connection's socket, and what is known of how its peer behaves.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What a peer did last, and what it still has to take.
#[derive(Debug)]
pub(super) struct Activity {
    /// When bytes last came or went.
    moved: Cell<Instant>,
    state: Cell<State>,
    taken: Notify,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The peer's, to ask.
    Idle,
    /// Ours, to answer.
    Answering,
    /// The peer's, to take an answer that has been there since then.
    Answered(Instant),
}

impl Activity {
    pub(super) fn new(now: Instant) -> Self {
        Self { moved: Cell::new(now), state: Cell::new(State::Idle), taken: Notify::new() }
    }

    /// Waits until the peer has taken the answer before.
    pub(super) async fn taken(&self) {
        while self.state.get() != State::Idle {
            self.taken.notified().await;
        }
    }

    /// A request is being answered.
    pub(super) fn begin(&self) {
        self.state.set(State::Answering);
    }

    /// The answer waits to be taken.
    pub(super) fn answered(&self, now: Instant) {
        self.state.set(State::Answered(now));
    }

    /// The least of all is the first to be cut for a newcomer: who waits for us comes last, then who moved last.
    pub(super) fn standing(&self) -> (bool, Instant) {
        (self.state.get() == State::Answering, self.moved.get())
    }

    /// Whether an answer has waited for longer than `limit`.
    pub(super) fn is_overdue(&self, now: Instant, limit: Duration) -> bool {
        matches!(self.state.get(), State::Answered(since) if now.saturating_duration_since(since) > limit)
    }

    fn flushed(&self) {
        if matches!(self.state.get(), State::Answered(_)) {
            self.state.set(State::Idle);
            self.taken.notify_one();
        }
    }
}

/// A socket that notes what happens on it.
#[derive(Debug)]
pub(super) struct Observed {
    stream: TcpStream,
    activity: Rc<Activity>,
}

impl Observed {
    pub(super) fn new(stream: TcpStream, activity: Rc<Activity>) -> Self {
        Self { stream, activity }
    }

    fn note<T>(&self, moved: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if moved.is_ready() {
            self.activity.moved.set(Instant::now());
        }
        moved
    }
}

impl AsyncRead for Observed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.note(read)
    }
}

impl AsyncWrite for Observed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Reached only when nothing is buffered above any more: the answer has been taken.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.activity.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
