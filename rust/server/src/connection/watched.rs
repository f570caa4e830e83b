//! A socket whose first bytes have been read already, which notes when its peer hardly reads, and which lets the other
//! connections of its loop have their turn. Hot path.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::body::Pace;

/// What a connection may read and write before others of its loop have their turn: about a tenth of a millisecond. The
/// kernel takes and gives megabytes at once, as long as the peer keeps up.
const TURN_BYTES: usize = 256 << 10;

/// The same where the bytes cost more than others: hyper looks at each digit of a chunk's size by itself, 35 ns each. More
/// than a full window of small requests takes, which are to go on together.
const TURN: Duration = Duration::from_micros(500);

/// Reads below this are not timed, and what costs much is read in such portions.
const LEAST_PORTION: usize = 4 << 10;

/// What is known of a socket without asking it; shared with whoever watches over its connection.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    reads: Cell<u64>,
    polls: Cell<u64>,
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
            self.polls.set(self.polls.get().wrapping_add(1));
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
    /// Bytes read and written since others had their turn.
    moved: usize,
    /// Bytes to read at once, at most.
    portion: usize,
    last_read: Option<LargeRead>,
}

/// A read whose bytes may be costly.
#[derive(Clone, Copy, Debug)]
struct LargeRead {
    bytes: usize,
    ended_at: Instant,
    /// The connection's task was polled so often before.
    poll: u64,
}

impl<S> Watched<S> {
    /// A socket of which `head` has been read already, and what notes about it.
    pub(crate) fn new(head: Bytes, socket: S, meter: Rc<Meter>) -> Self {
        Self { head, socket, meter, moved: 0, portion: TURN_BYTES, last_read: None }
    }

    /// What is known of it, also after it has been given away.
    pub(crate) fn meter(&self) -> &Rc<Meter> {
        &self.meter
    }

    /// Gives the others a turn, now and then.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.moved < TURN_BYTES {
            return Poll::Ready(());
        }
        self.moved = 0;
        give_turn(cx);
        Poll::Pending
    }

    /// Whether what the last read brought has taken a turn; less or more is read from now on.
    fn was_costly(&mut self, read: LargeRead) -> bool {
        // Between two polls others have had their turn, and the time is not the bytes'.
        let is_costly = read.poll == self.meter.polls.get() && read.ended_at.elapsed() > TURN;
        let portion = if is_costly { read.bytes / 2 } else { self.portion * 2 };
        self.portion = portion.clamp(LEAST_PORTION, TURN_BYTES);
        is_costly
    }

    fn note_read(&mut self, bytes: usize) {
        self.meter.note_read();
        self.moved += bytes;
        if bytes >= LEAST_PORTION {
            self.last_read = Some(LargeRead { bytes, ended_at: Instant::now(), poll: self.meter.polls.get() });
        }
    }

    fn note_write(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
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
        if let Poll::Ready(Ok(count)) = written {
            self.moved += count;
            // What was read is done with, and may have been run meanwhile.
            self.last_read = None;
        }
        written
    }
}

/// Lets the task be polled again after those that are ready and a look at the sockets. If it woke itself, only each 61st
/// task would be followed by one, however long each takes.
fn give_turn(cx: &mut Context<'_>) {
    // Pending the first time; it wakes the task.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

/// How many slices from the first on may go out at once.
fn in_one_turn(slices: &[IoSlice<'_>]) -> usize {
    let mut bytes = 0;
    let fits = |slice: &&IoSlice<'_>| {
        bytes += slice.len();
        bytes <= TURN_BYTES
    };
    slices.iter().take_while(fits).count()
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.head.is_empty() {
            let taken = self.head.len().min(buffer.remaining());
            buffer.put_slice(&self.head[..taken]);
            self.head.advance(taken);
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        if this.last_read.take().is_some_and(|read| this.was_costly(read)) {
            this.moved = TURN_BYTES;
        }
        ready!(this.poll_turn(cx));
        let before = buffer.filled().len();
        if buffer.remaining() <= this.portion {
            ready!(Pin::new(&mut this.socket).poll_read(cx, buffer))?;
        } else {
            let mut portion = ReadBuf::new(buffer.initialize_unfilled_to(this.portion));
            ready!(Pin::new(&mut this.socket).poll_read(cx, &mut portion))?;
            let count = portion.filled().len();
            buffer.advance(count);
        }
        this.note_read(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(cx));
        let bytes = &bytes[..bytes.len().min(TURN_BYTES)];
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.note_write(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(cx));
        let slices = match slices.iter().find(|slice| !slice.is_empty()) {
            Some(first) if first.len() > TURN_BYTES => return self.poll_write(cx, first),
            _ => &slices[..in_one_turn(slices)],
        };
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
mod tests;
