//! One event loop: a single-threaded runtime with its own connections and its own pipeline.
//!
//! Three tasks keep the pipeline going: one ends turns, one brings home what instances finished, one answers what waited
//! too long. Connections are tasks of the same runtime and reach the pipeline through [`LoopContext`]. All are watched: a
//! panic ends a connection, or what is in the turn, or at worst the loop, which is started again ([`life`]).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlserve_core::budget::{LocalBudget, Reservation};
use mlserve_core::error::{Error, Kind};
use mlserve_core::failpoint;
use mlserve_core::pipeline::{Pipeline, Shared};
use mlserve_core::request::{Protocol, Reply, Request};
use mlserve_core::turn::Decision;
use mlserve_core::watch::Arrivals;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};

use self::connections::Connections;
use self::handle::ConnectionGuard;
pub(crate) use self::handle::{Arrival, LoopHandle};
pub(crate) use self::life::{LoopSeed, run};
pub(crate) use self::mailbox::LoopMailbox;
use self::pulse::Pulse;
use crate::access::AccessLog;
use crate::connection::{self, Meter};
use crate::grpc::Watches;
use crate::listen::Socket;
use crate::panics::{Place, caught};
use crate::process::Process;
use crate::share::Share;
use crate::telemetry::Peer;

mod connections;
mod handle;
mod life;
mod mailbox;
pub(crate) mod pulse;

/// Bytes that a loop draws from the process's budget at a time.
const BYTES_CHUNK: usize = 1 << 20;
/// Connections that are taken at a time, when many come at once: each costs some tens of microseconds.
const NEWCOMERS: usize = 8;
/// How often a busy loop measures how busy it is.
const OCCUPANCY_EVERY: Duration = Duration::from_millis(10);

/// What a connection of this loop works with. Cloning is cheap; it never leaves its thread.
#[derive(Clone, Debug)]
pub(crate) struct LoopContext(Rc<OfConnection>);

/// What is of one connection, and the loop that it lives on. In one place: each request clones the way to it.
#[derive(Debug)]
struct OfConnection {
    inner: Rc<Inner>,
    share: Arc<Share>,
    client: Peer,
}

#[derive(Debug)]
struct Inner {
    home: usize,
    process: Arc<Process>,
    access_log: Option<AccessLog>,
    bytes: Arc<LocalBudget>,
    pipeline: RefCell<Pipeline>,
    arrivals: RefCell<Arrivals>,
    submitted: Notify,
    expiry_moved: Notify,
    expiry_awaited: Cell<Option<Instant>>,
    connections: Rc<Connections>,
    health_watches: Watches,
    #[cfg(test)]
    is_broken: Cell<bool>,
}

impl LoopContext {
    /// What a loop's connections are given; without the loop's tasks nothing that is submitted runs.
    pub(crate) fn new(home: usize, process: Arc<Process>, shared: Arc<Shared>, access_log: Option<AccessLog>) -> Self {
        let share = Arc::new(Share::new(&process.shares, None));
        let inner = Rc::new(Inner {
            bytes: LocalBudget::new(Arc::clone(&process.bytes), BYTES_CHUNK),
            pipeline: RefCell::new(Pipeline::new(home, shared)),
            arrivals: RefCell::default(),
            home,
            submitted: Notify::new(),
            expiry_moved: Notify::new(),
            expiry_awaited: Cell::new(None),
            connections: Connections::new(),
            health_watches: Watches::default(),
            #[cfg(test)]
            is_broken: Cell::default(),
            access_log,
            process,
        });
        Self(Rc::new(OfConnection { inner, share, client: Peer::default() }))
    }

    /// The same for a connection with `client`.
    fn of_connection(&self, client: Peer) -> Self {
        let share = Arc::new(Share::new(&self.process().shares, client.address()));
        Self(Rc::new(OfConnection { inner: Rc::clone(&self.0.inner), share, client }))
    }

    /// Who is at the other end of the connection.
    pub(crate) fn client(&self) -> Peer {
        self.0.client
    }

    /// What the connection may hold of the budget.
    pub(crate) fn share(&self) -> &Arc<Share> {
        &self.0.share
    }

    /// What all threads share.
    pub(crate) fn process(&self) -> &Arc<Process> {
        &self.0.inner.process
    }

    /// The access log, if there is one.
    pub(crate) fn access_log(&self) -> Option<&AccessLog> {
        self.0.inner.access_log.as_ref()
    }

    /// Who watches the server's health on this loop.
    pub(crate) fn health_watches(&self) -> &Watches {
        &self.0.inner.health_watches
    }

    /// The present moment.
    pub(crate) fn now(&self) -> Instant {
        self.0.inner.process.clock.now()
    }

    /// When a request came whose first bytes are being read: now, or when the process was paused, if it was in the
    /// sockets already. Deadlines that callers ask for count from here.
    pub(crate) fn arrival(&self) -> Instant {
        self.0.inner.arrivals.borrow_mut().arrival(&self.0.inner.process.shared.watch, self.0.inner.home, self.now())
    }

    /// Holds `bytes` of the process's budget.
    ///
    /// **Errors:** the budget is spent.
    pub(crate) fn reserve(&self, bytes: usize) -> Result<Reservation, Error> {
        self.0.inner.bytes.reserve(bytes).ok_or_else(|| out_of_budget(bytes))
    }

    /// Sends a decoded request on its way; `reply` is answered in this or a later turn, on this loop.
    pub(crate) fn submit(&self, request: Request, reply: Box<dyn Reply>) {
        self.0.inner.pipeline.borrow_mut().submit(request, reply);
        self.0.inner.submitted.notify_one();
    }

    /// Sends on a request of the same process, within the limits of those that come over a socket.
    fn submit_from_process(&self, mut request: Request, reply: Box<dyn Reply>) {
        match self.held_for(&request) {
            Ok(reservation) => {
                request.reservation = Some(reservation);
                self.submit(request, reply);
            }
            Err(error) => {
                self.count_refused(request.protocol, &error);
                reply.send(Err(error));
            }
        }
    }

    fn held_for(&self, request: &Request) -> Result<Reservation, Error> {
        let bytes = request.inputs.iter().map(|input| input.data.len()).fold(0, usize::saturating_add);
        let most = self.0.inner.process.settings.limits.max_body_bytes;
        if bytes > most {
            return Err(Error::too_large(format!(
                "the request has {bytes} bytes; at most {most} are allowed (limits.max_body_bytes)"
            )));
        }
        self.reserve(bytes)
    }

    /// Serves a stream of the connection in a task of its own; a panic ends this stream alone.
    pub(crate) fn serve_stream(self, serving: impl Future<Output = ()> + 'static) {
        // Outside the block, which would keep room for the stream itself beside its piece of the heap.
        let served = caught(serving);
        tokio::task::spawn_local(async move {
            if let Err(what) = served.await {
                self.process().panics.note(Place::Decoder, &what);
            }
        });
    }

    /// Counts a request that was refused before it could be submitted.
    pub(crate) fn count_refused(&self, protocol: Protocol, error: &Error) {
        self.0.inner.pipeline.borrow().count_refused(protocol, error);
    }

    /// Ends turns: runs after the tasks that were ready, and again after each look at the sockets.
    async fn run_turns(&self) {
        let mut busy = Busy::new(self.now());
        loop {
            self.0.inner.submitted.notified().await;
            failpoint!("turn");
            loop {
                let decision = self.0.inner.pipeline.borrow_mut().look();
                match decision {
                    // Yields to every ready task and to one look at the sockets.
                    Decision::LookAgain => tokio::task::yield_now().await,
                    // What was left for the next turn is seen by the next look.
                    Decision::Flush => self.0.inner.pipeline.borrow_mut().flush(),
                    Decision::Rest => {
                        self.watch_expiry();
                        break;
                    }
                }
            }
            if let Some(thousandths) = busy.measure(self.now()) {
                self.0.inner.pipeline.borrow().set_occupancy(thousandths);
            }
        }
    }

    /// Brings home what instances have finished, follows changes of the plan, and gives signs of life.
    async fn run_mailbox(&self, mailbox: &LoopMailbox, pulse: &Pulse) {
        loop {
            let mut mail = mailbox.receive().await;
            failpoint!("mailbox");
            pulse.answer(mail.ping);
            if mail.plan_changed {
                self.0.inner.pipeline.borrow_mut().plan_changed();
                self.0.inner.submitted.notify_one();
            }
            if mail.deliveries.is_empty() {
                // A loop that a ping wakes after a pause notes it, so that what comes later counts as new.
                self.arrival();
            }
            while let Some(delivery) = mail.deliveries.pop_front() {
                self.0.inner.pipeline.borrow_mut().receive(delivery);
            }
        }
    }

    /// Takes what other threads send, until the end.
    async fn run_arrivals(&self, arrivals: &mut mpsc::UnboundedReceiver<Arrival>) {
        let mut newcomers = 0;
        while let Some(arrival) = arrivals.recv().await {
            match arrival {
                Arrival::Connection(socket, guard) => {
                    serve_connection(self, socket, guard);
                    newcomers += 1;
                    if newcomers % NEWCOMERS == 0 {
                        // Those who are here already come first; a look at the sockets finds them.
                        tokio::task::yield_now().await;
                    }
                }
                Arrival::Request(request, reply) => self.submit_from_process(*request, reply),
                Arrival::MakeRoom(count) => self.0.inner.connections.make_room(count),
                Arrival::End => break,
                #[cfg(test)]
                Arrival::Fault => {
                    self.0.inner.is_broken.set(true);
                    break;
                }
            }
        }
    }

    /// Answers what waited in a queue until its time was over.
    async fn run_expiry(&self) {
        loop {
            let next = self.0.inner.pipeline.borrow().next_expiry();
            self.0.inner.expiry_awaited.set(next);
            let Some(next) = next else {
                self.0.inner.expiry_moved.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => self.0.inner.pipeline.borrow_mut().expire(),
                () = self.0.inner.expiry_moved.notified() => {}
            }
        }
    }

    /// Goes on after a panic: what was in the turn is answered as failed, what waits elsewhere waits on.
    fn recover(&self) {
        self.0.inner.pipeline.borrow_mut().recover();
        self.0.inner.submitted.notify_one();
        self.0.inner.expiry_moved.notify_one();
    }

    fn watch_expiry(&self) {
        let next = self.0.inner.pipeline.borrow().next_expiry();
        let is_earlier = match (next, self.0.inner.expiry_awaited.get()) {
            (Some(next), Some(awaited)) => next < awaited,
            (next, awaited) => next.is_some() && awaited.is_none(),
        };
        if is_earlier {
            self.0.inner.expiry_moved.notify_one();
        }
    }
}

/// How much of its time a loop works, from the runtime's own count.
struct Busy {
    since: Instant,
    worked: Duration,
}

impl Busy {
    fn new(now: Instant) -> Self {
        Self { since: now, worked: worked() }
    }

    /// Thousandths of the time since the last measurement, once enough has passed.
    fn measure(&mut self, now: Instant) -> Option<u32> {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < OCCUPANCY_EVERY {
            return None;
        }
        let total = worked();
        let share = total.saturating_sub(self.worked).as_secs_f64() / elapsed.as_secs_f64();
        *self = Self { since: now, worked: total };
        Some((share * 1_000.0).clamp(0.0, 1_000.0) as u32)
    }
}

fn worked() -> Duration {
    Handle::current().metrics().worker_total_busy_duration(0)
}

fn serve_connection(context: &LoopContext, socket: Socket, guard: ConnectionGuard) {
    let context = context.clone();
    tokio::task::spawn_local(async move {
        let process = Arc::clone(context.process());
        let meter = Rc::new(Meter::default());
        let _place = context.0.inner.connections.enter(Rc::clone(&meter));
        // Boxed: each layer around it would make room for it again.
        let served = Box::pin(async {
            failpoint!("connection");
            match socket.into_stream() {
                Ok(stream) => {
                    let context = context.of_connection(stream.peer());
                    connection::serve(context, stream, Rc::clone(&meter)).await;
                }
                Err(error) => tracing::debug!(%error, "a connection was lost before it was served"),
            }
        });
        if let Err(what) = caught(meter.accompany(served)).await {
            process.panics.note(Place::Connection, &what);
        }
        drop(guard);
    });
}

#[cold]
fn out_of_budget(bytes: usize) -> Error {
    Error::new(Kind::OutOfBudget, format!("{bytes} more bytes would exceed the server's byte budget"))
}

#[cfg(test)]
mod tests;
