//! Writes answers into HTTP/2 streams no faster than their readers make room. Hot path.
//!
//! What has room goes straight into the connection. The rest waits here, charged to the byte budget; after the write
//! timeout the stream is reset. What waits is the answer's own memory and pins nobody else's: rows of a shared batch were
//! copied when it was cut or when the message was encoded (docs/decisions/0005-large-rows-are-copied.md).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;
use mlserve_core::budget::Reservation;
use tokio::time::Instant;

use crate::body::Pace;
use crate::share;

/// Nobody reads the stream any more: it was reset, its connection ended, or its reader was too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// Bytes, and the budget they are charged to while they wait to be written.
struct Held<T> {
    bytes: T,
    _reservation: Reservation,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// `bytes`, which hold `reservation` until they are dropped.
fn held(bytes: Bytes, reservation: Option<Reservation>) -> Bytes {
    match reservation {
        Some(reservation) => Bytes::from_owner(Held { bytes, _reservation: reservation }),
        None => bytes,
    }
}

/// Adds what `more` holds to `held`.
pub(crate) fn charge(held: &mut Option<Reservation>, more: Option<Reservation>) {
    match (held, more) {
        (Some(held), Some(more)) => held.absorb(more),
        (held, more) => *held = held.take().or(more),
    }
}

/// Writes a whole message if the reader has room for it now; otherwise gives it back. `len`: bytes of all pieces.
pub(crate) fn write_now(
    stream: &mut SendStream<Bytes>,
    pieces: &mut impl Iterator<Item = Bytes>,
    len: usize,
    reservation: &mut Option<Reservation>,
) -> Result<bool, Gone> {
    stream.reserve_capacity(len);
    if stream.capacity() < len {
        return Ok(false);
    }
    let mut left = len;
    for piece in pieces {
        left -= piece.len();
        let charged = if left == 0 { reservation.take() } else { None };
        stream.send_data(held(piece, charged), false).map_err(|_| Gone)?;
    }
    Ok(true)
}

/// How slow a reader may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Time that an answer may take, and that it may wait without any progress.
    pub(crate) timeout: Duration,
    /// Bytes per second by which that time grows; 0: it takes what it takes, as long as there is progress.
    pub(crate) least_rate: u64,
}

/// Answers above this size count against their reader's share while they wait.
pub(crate) const COUNTED_BYTES: usize = 64 << 10;

/// A stream, and what waits to be written into it.
pub(crate) struct Writer {
    stream: SendStream<Bytes>,
    waiting: VecDeque<Waiting>,
    len: usize,
    patience: Patience,
    /// Since something waits, and how much of it has been written since.
    pace: Option<(Pace, usize)>,
    /// What waits counts against its reader's share.
    held: Option<share::Held>,
}

/// A piece of a message; the last of each carries what the message is charged to.
struct Waiting {
    bytes: Bytes,
    reservation: Option<Reservation>,
}

impl Writer {
    /// A writer into `stream`.
    pub(crate) fn new(stream: SendStream<Bytes>, patience: Patience) -> Self {
        Self { stream, waiting: VecDeque::new(), len: 0, patience, pace: None, held: None }
    }

    /// Counts what waits against the share of its reader, until it is written.
    pub(crate) fn hold(&mut self, held: share::Held) {
        self.held = Some(held);
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds a message behind what waits.
    pub(crate) fn push(&mut self, pieces: impl IntoIterator<Item = Bytes>, reservation: Option<Reservation>) {
        for bytes in pieces.into_iter().filter(|bytes| !bytes.is_empty()) {
            self.len += bytes.len();
            self.waiting.push_back(Waiting { bytes, reservation: None });
        }
        if let Some(last) = self.waiting.back_mut() {
            charge(&mut last.reservation, reservation);
        }
    }

    /// Writes as much as there is room for.
    fn write(&mut self) -> Result<(), Gone> {
        self.stream.reserve_capacity(self.len);
        let mut room = self.stream.capacity();
        while let Some(front) = self.waiting.front_mut() {
            let fits = room.min(front.bytes.len());
            if fits == 0 {
                return Ok(());
            }
            let part = front.bytes.split_to(fits);
            let charged = if front.bytes.is_empty() { front.reservation.take() } else { None };
            if front.bytes.is_empty() {
                self.waiting.pop_front();
            }
            room -= fits;
            self.len -= fits;
            if let Some((_, written)) = &mut self.pace {
                *written += fits;
            }
            self.stream.send_data(held(part, charged), false).map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Writes all that waits. Dropping the future loses nothing: calling again goes on.
    pub(crate) async fn flush(&mut self) -> Result<(), Gone> {
        loop {
            self.write()?;
            if self.is_empty() {
                (self.pace, self.held) = (None, None);
                return Ok(());
            }
            let wait_until = self.wait_until();
            match tokio::time::timeout_at(wait_until, poll_fn(|cx| self.stream.poll_capacity(cx))).await {
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(_)) | None) => return Err(Gone),
                Err(_) => {
                    self.stream.send_reset(Reason::CANCEL);
                    return Err(Gone);
                }
            }
        }
    }

    /// When to give up waiting for room.
    fn wait_until(&mut self) -> Instant {
        let Patience { timeout, least_rate } = self.patience;
        let (pace, written) = self.pace.get_or_insert_with(|| (Pace::with(timeout, least_rate), 0));
        (Instant::now() + timeout).min(pace.too_slow_at(*written))
    }

    /// Writes what waits; with nothing to write, ends only when the reader is gone.
    pub(crate) async fn attend(&mut self) -> Result<(), Gone> {
        if self.is_empty() {
            self.gone().await;
            return Err(Gone);
        }
        self.flush().await
    }

    /// Returns when the reader has reset the stream.
    pub(crate) async fn gone(&mut self) {
        // An error is a connection that has ended.
        let _ = poll_fn(|cx| self.stream.poll_reset(cx)).await;
    }

    /// Ends the stream with trailers. Everything must have been written.
    pub(crate) fn finish(mut self, trailers: HeaderMap) {
        // Fails only if the stream is gone, and then nobody wants them.
        let _ = self.stream.send_trailers(trailers);
    }

    /// Ends the stream without trailers. Everything must have been written.
    pub(crate) fn end(mut self) {
        let _ = self.stream.send_data(Bytes::new(), true);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{Request, Response};
    use mlserve_core::budget::{Budget, LocalBudget};

    use super::*;

    const ANSWER_BYTES: usize = 1 << 20;
    const TIMEOUT: Duration = Duration::from_secs(10);

    /// A stream whose reader has asked, and makes room for 64 KiB and no more.
    async fn stream_to_an_idle_reader() -> SendStream<Bytes> {
        let (near, far) = tokio::io::duplex(1 << 10);
        tokio::spawn(async move {
            let (mut sender, connection) = h2::client::handshake(far).await.expect("a connection");
            let (answer, _) = sender.send_request(Request::new(()), true).expect("a stream");
            let _unread = (tokio::spawn(answer), sender);
            drop(connection.await);
        });
        let mut connection = h2::server::handshake(near).await.expect("a connection");
        let (_, mut respond) = connection.accept().await.expect("a stream").expect("sound");
        let stream = respond.send_response(Response::new(()), false).expect("open");
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        stream
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_is_given_up_and_given_back() {
        let stream = stream_to_an_idle_reader().await;
        let budget = Budget::new(ANSWER_BYTES);
        let reservation = LocalBudget::new(Arc::clone(&budget), 1).reserve(ANSWER_BYTES).expect("it fits");
        let mut writer = Writer::new(stream, Patience { timeout: TIMEOUT, least_rate: 0 });
        writer.push([Bytes::from(vec![1; ANSWER_BYTES])], Some(reservation));
        let begun = Instant::now();
        assert_eq!(writer.flush().await, Err(Gone));
        assert!(begun.elapsed() >= TIMEOUT);
        drop(writer);
        assert_eq!(budget.drawn(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_stays_the_memory_it_was() {
        let stream = stream_to_an_idle_reader().await;
        let mut writer = Writer::new(stream, Patience { timeout: TIMEOUT, least_rate: 0 });
        let output = Bytes::from(vec![1; ANSWER_BYTES]);
        writer.push([output.clone()], None);
        let lag = tokio::time::timeout(TIMEOUT / 2, writer.flush()).await;
        assert!(lag.is_err(), "it waits for its reader");
        let waiting = &writer.waiting[0].bytes;
        assert!(waiting.len() < ANSWER_BYTES);
        assert_eq!(waiting.as_ptr_range().end, output.as_ptr_range().end);
    }
}
