//! A socket whose first bytes have been read already, and which notes when its peer hardly reads. Hot path.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::body::Pace;

/// What is known of a socket without asking it; shared with whoever watches over its connection.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    reads: Cell<u64>,
    lag: Cell<Option<Lag>>,
    is_asked_to_leave: Cell<bool>,
    /// Of the connection's task.
    waker: RefCell<Option<Waker>>,
}

/// What waits for a slow reader: since when, when some of it was taken last, and how much since it began.
#[derive(Clone, Copy, Debug)]
struct Lag {
    since: Instant,
    progress_at: Instant,
    written: usize,
}

impl Meter {
    /// Reads that brought something; a changed number tells that the peer lives.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.get()
    }

    /// Notes that a read brought something.
    pub(crate) fn note_read(&self) {
        self.reads.set(self.reads.get().wrapping_add(1));
    }

    /// Carries out `connection`, the whole of a connection's task, so that it can be asked to leave.
    pub(crate) async fn accompany<T>(&self, connection: impl Future<Output = T>) -> T {
        let mut connection = pin!(connection);
        poll_fn(|cx| {
            if self.waker.borrow().is_none() {
                self.waker.replace(Some(cx.waker().clone()));
            }
            connection.as_mut().poll(cx)
        })
        .await
    }

    /// Asks the connection to end if nothing is in flight on it: others need its place.
    pub(crate) fn ask_to_leave(&self) {
        self.is_asked_to_leave.set(true);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Whether it was asked since this was asked last.
    pub(crate) fn was_asked_to_leave(&self) -> bool {
        self.is_asked_to_leave.replace(false)
    }

    /// Returns when it is asked.
    pub(crate) async fn asked_to_leave(&self) {
        // The task is woken whenever that happens.
        poll_fn(|_| if self.was_asked_to_leave() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Returns once a write has made no progress for `limit`, or less than `least_rate` bytes per second since then.
    pub(crate) async fn too_slow(&self, limit: Duration, least_rate: u64) {
        loop {
            let now = Instant::now();
            let look_at = match self.lag.get() {
                Some(Lag { since, progress_at, written }) => {
                    let pace = Pace::since(since, limit, least_rate);
                    let too_slow_at = pace.too_slow_at(written).min(progress_at + limit);
                    if too_slow_at <= now {
                        return;
                    }
                    too_slow_at
                }
                None => now + limit / 2,
            };
            // Writing tells nobody when it stalls: asking now and then costs the hot path nothing.
            tokio::time::sleep_until(look_at.max(now + Duration::from_millis(1))).await;
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
    /// A socket of which `head` has been read already, and what notes about it.
    pub(crate) fn new(head: Bytes, socket: S, meter: Rc<Meter>) -> Self {
        Self { head, socket, meter }
    }

    /// What is known of it, also after it has been given away.
    pub(crate) fn meter(&self) -> &Rc<Meter> {
        &self.meter
    }

    fn note_write(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match (&written, self.meter.lag.get()) {
            (Poll::Pending, None) => {
                let now = Instant::now();
                self.meter.lag.set(Some(Lag { since: now, progress_at: now, written: 0 }));
            }
            (&Poll::Ready(Ok(count)), Some(lag)) => {
                let written = lag.written + count;
                self.meter.lag.set(Some(Lag { progress_at: Instant::now(), written, ..lag }));
            }
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
            self.meter.note_read();
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
        // Asked for once all is written: nothing waits any more.
        self.meter.lag.set(None);
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);
    const RATE: u64 = 1_000;

    /// Writes to a reader that takes `step` bytes a second; how long until that is too slow, if it is before all is written.
    async fn end_of(step: usize, len: usize) -> Option<Duration> {
        let (near, mut far) = tokio::io::duplex(64);
        let mut socket = Watched::new(Bytes::new(), near, Rc::default());
        let meter = Rc::clone(socket.meter());
        let reading = async move {
            let mut taken = vec![0; step];
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if step > 0 && far.read_exact(&mut taken).await.is_err() {
                    break;
                }
            }
        };
        let begun = Instant::now();
        let writing = async {
            socket.write_all(&vec![0; len]).await.expect("open");
            socket.flush().await.expect("open");
        };
        tokio::select! {
            () = reading => None,
            () = writing => None,
            () = meter.too_slow(LIMIT, RATE) => Some(begun.elapsed()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stops_and_one_that_trickles_are_too_slow() {
        let stopped = end_of(0, 10_000).await.expect("it takes nothing");
        assert!(stopped >= LIMIT && stopped < 2 * LIMIT, "{stopped:?}");
        let trickling = end_of(100, 100_000).await.expect("it takes a tenth of what it should");
        assert!(trickling > LIMIT && trickling < 2 * LIMIT, "{trickling:?}");
        assert_eq!(end_of(1_100, 100_000).await, None, "it takes a little more than it should");
    }
}
