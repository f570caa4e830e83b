//! One HTTP/2 connection: its limits, its streams, its age. Hot path.
//!
//! Streams are accepted and small requests submitted inside the connection's own task; nothing is spawned for them. What
//! has to happen by the clock (keep-alive, idleness, age, the server's drain) is told to the task by a second one that
//! mostly sleeps, so that waking up for a request costs no look at a timer.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection};
use h2::{Ping, PingPong, Reason, RecvStream};
use mlserve_core::config::LimitSettings;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::Instant;

use self::toll::{Toll, Tolled};
use self::writer::Patience;
use crate::connection::{HTTP2_PREFACE, Meter, Watched};
use crate::event_loop::LoopContext;
use crate::grpc::{self, Reflection, ReplySettings};
use crate::panics::{self, Place};
use crate::status::Phase;

mod authority;
pub(crate) mod rest;
pub(crate) mod toll;
pub(crate) mod writer;

/// Window of one stream: a request that fits arrives without waiting for a round trip.
const STREAM_WINDOW: u32 = 1 << 20;
/// Window of all streams of a connection: what one peer can have on the way before anyone has looked at it.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// How far above the limit a header is still read: h2 answers what it does not read with a bare 431, which a gRPC client
/// cannot make sense of. Ours, below, says what was wrong.
const HEADER_MARGIN: usize = 2;
/// Bytes of one stream's answer that the connection takes before it has written them.
const SEND_BUFFER: usize = 1 << 20;
/// Streams reset by the peer before they were accepted, and at once (CVE-2023-44487): h2's own bound, stated.
const MAX_PENDING_RESETS: usize = 20;
/// Streams that this side had to reset for the peer's faults (CVE-2025-8671): h2's own bound, stated.
const MAX_LOCAL_RESETS: usize = 1_024;
/// Streams that are accepted before the first of them is served. Each look for another one writes what has been answered
/// meanwhile: answers that are given at once would go out one by one. Above this many there is little left to save.
const BURST: usize = 16;
/// What is read of a request that is refused before its end, and how long that may take.
const DRAINED_BYTES: usize = 64 << 10;
const DRAINING_TIME: Duration = Duration::from_millis(500);
/// A connection this quiet is asked whether anybody is there.
const KEEPALIVE_AFTER: Duration = Duration::from_mins(1);
/// How long the answer to that may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// After a GOAWAY for age or idleness: how long the streams of the connection may still take.
const CLOSING_GRACE: Duration = Duration::from_mins(1);
/// After a GOAWAY for a flood: how long its peer has to read it.
const CALM_GRACE: Duration = Duration::from_secs(1);
/// How often the clock is looked at; limits are seconds and more.
const TICK: Duration = Duration::from_secs(5);

/// What all streams of a connection share.
pub(crate) struct Connected {
    /// The loop that the connection lives on.
    pub(crate) context: LoopContext,
    /// How gRPC calls are answered.
    pub(crate) reply: ReplySettings,
    /// Services for reflection, once they have been asked for.
    pub(crate) reflection: Reflection,
    /// What the peer's frames are paid from.
    pub(crate) toll: Rc<Toll>,
}

/// Serves a connection, whose preface has been recognised, to its end.
pub(crate) async fn serve<S>(context: LoopContext, socket: Watched<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let settings = &context.process().settings;
    let limits = &settings.limits;
    let meter = Rc::clone(socket.meter());
    let socket = Tolled::new(socket, HTTP2_PREFACE.len());
    let toll = Rc::clone(socket.toll());
    let handshake = builder(limits).handshake(socket);
    let header_timeout = Duration::from_millis(limits.header_timeout_ms);
    let Ok(Ok(mut connection)) = tokio::time::timeout(header_timeout, handshake).await else { return };
    let reply = ReplySettings {
        patience: Patience {
            timeout: Duration::from_millis(limits.write_timeout_ms),
            least_rate: limits.min_read_rate,
        },
        reports_batches: settings.server.report_batches,
    };
    let bell = Rc::new(Bell::default());
    let care = Care::new(&mut connection, limits, meter);
    let phases = context.process().status.subscribe();
    let _ringer = Ringer(spawn_local(ring(phases, Rc::clone(&bell), care.tick)));
    let connected = Rc::new(Connected { context, reply, reflection: Reflection::default(), toll });
    let mut driver = Driver { connection, bell, care, connected };
    poll_fn(|cx| driver.poll(cx)).await;
}

fn builder(limits: &LimitSettings) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(u32::try_from(limits.max_header_bytes * HEADER_MARGIN).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(Some(MAX_LOCAL_RESETS));
    builder
}

/// What the connection's task is to look at besides its streams.
#[derive(Default)]
struct Bell {
    rung: Cell<Option<Ring>>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ring {
    /// Time has passed.
    Tick,
    /// The server closes.
    Closing,
}

impl Bell {
    fn ring(&self, ring: Ring) {
        self.rung.set(Some(ring));
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    fn listen(&self, waker: &Waker) {
        let mut present = self.waker.borrow_mut();
        match &mut *present {
            Some(present) => present.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}

/// The task that rings; ends with its connection.
struct Ringer(JoinHandle<()>);

impl Drop for Ringer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn ring(mut phases: watch::Receiver<Phase>, bell: Rc<Bell>, tick: Duration) {
    let mut is_closing = false;
    loop {
        tokio::select! {
            _ = phases.wait_for(|phase| *phase >= Phase::Closing), if !is_closing => {
                is_closing = true;
                bell.ring(Ring::Closing);
            }
            () = tokio::time::sleep(tick) => bell.ring(if is_closing { Ring::Closing } else { Ring::Tick }),
        }
    }
}

/// The connection's task.
struct Driver<S> {
    connection: Connection<Tolled<Watched<S>>, Bytes>,
    bell: Rc<Bell>,
    care: Care,
    connected: Rc<Connected>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.bell.listen(cx.waker());
        if let Some(ring) = self.bell.rung.take()
            && self.care.look(&mut self.connection, ring).is_break()
        {
            return Poll::Ready(());
        }
        if self.care.meter.was_asked_to_leave() && !self.connection.has_streams() {
            self.connection.abrupt_shutdown(Reason::NO_ERROR);
        }
        loop {
            let mut burst = SmallVec::<[_; BURST]>::new();
            let last = loop {
                match self.connection.poll_accept(cx) {
                    Poll::Ready(Some(Ok(stream))) => burst.push(stream),
                    Poll::Ready(_) => break Some(Poll::Ready(())),
                    Poll::Pending => break Some(Poll::Pending),
                }
                if burst.len() == BURST {
                    break None;
                }
            };
            self.care.accepted += burst.len() as u64;
            self.connected.toll.took_up(burst.len());
            for (request, respond) in burst {
                // An answer given here wakes this task, which then writes it with the others of its burst. A panic ends
                // its stream alone: what it was given is dropped, which resets the stream.
                let accepting = AssertUnwindSafe(|| grpc::accept(&self.connected, request, respond));
                if let Err(payload) = catch_unwind(accepting) {
                    self.connected.context.process().panics.note(Place::Decoder, &panics::text(&*payload));
                }
            }
            match last {
                Some(Poll::Pending) if self.connected.toll.is_spent() && self.care.calm(&mut self.connection) => {}
                Some(last) => return last,
                None => {}
            }
        }
    }
}

/// Reads a request's body to its end for nobody; gives up on what is long or slow.
pub(crate) async fn drained(mut body: RecvStream) {
    let mut left = DRAINED_BYTES;
    let reading = async {
        while let Some(Ok(piece)) = body.data().await {
            let _ = body.flow_control().release_capacity(piece.len());
            left = left.saturating_sub(piece.len());
            if left == 0 {
                return;
            }
        }
        // So are its trailers.
        let _ = body.trailers().await;
    };
    // An error of either kind means that nothing more is to come.
    let _ = tokio::time::timeout(DRAINING_TIME, reading).await;
}

/// Decides by the clock about a connection.
///
/// Open ⇒ (Open | Going away): it is too old, too idle, or the server closes.
/// Any ⇒ Calmed: its frames have become a flood; what is in flight is lost.
/// Going away, Calmed ⇒ gone: its streams have ended, or the grace is over.
/// Any ⇒ gone: nobody answers a PING.
struct Care {
    meter: Rc<Meter>,
    pings: Option<PingPong>,
    tick: Duration,
    idle_timeout: Duration,
    /// When it is too old.
    old_at: Option<Instant>,
    accepted: u64,
    seen: Seen,
    going_away: GoingAway,
}

/// What was so at the last look.
struct Seen {
    reads: u64,
    read_at: Instant,
    accepted: u64,
    busy_at: Instant,
    pinged_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GoingAway {
    No,
    /// Cut off when the grace is over.
    Since(Instant),
    /// The whole server closes: it cuts off by itself.
    WithServer,
    /// Cut off soon, and nothing is read any more.
    Calmed(Instant),
}

impl Care {
    fn new<S>(connection: &mut Connection<S, Bytes>, limits: &LimitSettings, meter: Rc<Meter>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let now = Instant::now();
        let idle_timeout = Duration::from_millis(limits.idle_timeout_ms);
        let age = match limits.max_connection_age_s {
            0 => None,
            seconds => Some(jittered(Duration::from_secs(seconds))),
        };
        let shortest = age.unwrap_or(idle_timeout).min(idle_timeout);
        Self {
            pings: connection.ping_pong(),
            tick: (shortest / 4).clamp(Duration::from_millis(10), TICK),
            idle_timeout,
            old_at: age.and_then(|age| now.checked_add(age)),
            accepted: 0,
            seen: Seen { reads: meter.reads(), read_at: now, accepted: 0, busy_at: now, pinged_at: None },
            going_away: GoingAway::No,
            meter,
        }
    }

    /// Ends the connection for a flood; `false` if that has begun already.
    fn calm<S>(&mut self, connection: &mut Connection<S, Bytes>) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if matches!(self.going_away, GoingAway::Calmed(_)) {
            return false;
        }
        tracing::debug!("a connection is closed: it sends many frames and few requests");
        self.going_away = GoingAway::Calmed(Instant::now());
        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        true
    }

    fn look<S>(&mut self, connection: &mut Connection<S, Bytes>, ring: Ring) -> ControlFlow<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let now = Instant::now();
        if connection.has_streams() || self.seen.accepted != self.accepted {
            (self.seen.accepted, self.seen.busy_at) = (self.accepted, now);
        }
        let is_idle = now.duration_since(self.seen.busy_at) >= self.idle_timeout;
        let is_old = self.old_at.is_some_and(|old_at| now >= old_at);
        match self.going_away {
            GoingAway::No if ring == Ring::Closing || is_old || is_idle => connection.graceful_shutdown(),
            _ => {}
        }
        self.going_away = match self.going_away {
            GoingAway::Since(since) if now.duration_since(since) >= CLOSING_GRACE => return ControlFlow::Break(()),
            GoingAway::Calmed(since) if now.duration_since(since) >= CALM_GRACE => return ControlFlow::Break(()),
            GoingAway::No | GoingAway::Since(_) if ring == Ring::Closing => GoingAway::WithServer,
            GoingAway::No if is_old || is_idle => GoingAway::Since(now),
            same => same,
        };
        self.keep_alive(now)
    }

    /// Asks a quiet peer whether it lives; breaks if it does not answer. What it sends is an answer, too.
    fn keep_alive(&mut self, now: Instant) -> ControlFlow<()> {
        let Some(pings) = &mut self.pings else { return ControlFlow::Continue(()) };
        let is_answered = pings.poll_pong(&mut Context::from_waker(Waker::noop())).is_ready();
        if self.meter.reads() != self.seen.reads || is_answered {
            (self.seen.reads, self.seen.read_at, self.seen.pinged_at) = (self.meter.reads(), now, None);
        }
        match self.seen.pinged_at {
            Some(pinged_at) if now.duration_since(pinged_at) >= KEEPALIVE_TIMEOUT => return ControlFlow::Break(()),
            None if now.duration_since(self.seen.read_at) >= KEEPALIVE_AFTER => {
                // Fails if the last PING is still unanswered: then that one counts.
                let _ = pings.send_ping(Ping::opaque());
                self.seen.pinged_at = Some(now);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Ten per cent more or less, so that connections of the same age do not all come back at once.
fn jittered(age: Duration) -> Duration {
    let thousandths = RandomState::new().hash_one(0_u8) % 201;
    age.mul_f64(0.9 + thousandths as f64 / 1_000.0)
}

#[cfg(test)]
mod tests;
