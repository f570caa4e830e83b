//! A socket whose first bytes have been read already, and which notes when its peer stops reading. Hot path.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What is known of a socket without asking it; shared with whoever watches over its connection.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    reads: Cell<u64>,
    stalled_since: Cell<Option<Instant>>,
}

impl Meter {
    /// Reads that brought something; a changed number tells that the peer lives.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.get()
    }

    /// Returns once a write has made no progress for `limit`.
    pub(crate) async fn stalled(&self, limit: Duration) {
        loop {
            let wait = match self.stalled_since.get() {
                Some(since) if since.elapsed() >= limit => return,
                Some(since) => limit.saturating_sub(since.elapsed()),
                None => limit / 2,
            };
            // Writing tells nobody when it stalls: asking now and then costs the hot path nothing.
            tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
        }
    }
}

/// A socket with bytes put back in front of it.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    head: Bytes,
    socket: S,
    meter: Rc<Meter>,
}

impl<S> Watched<S> {
    /// A socket of which `head` has been read already.
    pub(crate) fn new(head: Bytes, socket: S) -> Self {
        Self { head, socket, meter: Rc::default() }
    }

    /// What is known of it, also after it has been given away.
    pub(crate) fn meter(&self) -> &Rc<Meter> {
        &self.meter
    }

    fn note_write<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match (&written, self.meter.stalled_since.get()) {
            (Poll::Pending, None) => self.meter.stalled_since.set(Some(Instant::now())),
            (Poll::Ready(_), Some(_)) => self.meter.stalled_since.set(None),
            _ => {}
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.head.is_empty() {
            let taken = self.head.len().min(buffer.remaining());
            buffer.put_slice(&self.head[..taken]);
            self.head.advance(taken);
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if read.is_ready() {
            self.meter.reads.set(self.meter.reads.get().wrapping_add(1));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.note_write(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.note_write(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
