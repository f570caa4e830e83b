//! One event loop: a single-threaded runtime with its own connections and its own pipeline.
//!
//! Three tasks keep the pipeline going: one ends turns, one brings home what instances finished, one answers what waited
//! too long. Connections are tasks of the same runtime and reach the pipeline through [`LoopContext`].

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mlserve_core::budget::{LocalBudget, Reservation};
use mlserve_core::error::{Error, Kind};
use mlserve_core::pipeline::{Pipeline, Shared};
use mlserve_core::request::{Protocol, Reply, Request};
use mlserve_core::turn::Decision;
use mlserve_core::version::{Delivery, Mailbox};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

use crate::access::AccessLog;
use crate::connection;
use crate::listen::Socket;
use crate::process::Process;

/// Bytes that a loop draws from the process's budget at a time.
const BYTES_CHUNK: usize = 1 << 20;
/// How often a busy loop measures how busy it is.
const OCCUPANCY_EVERY: Duration = Duration::from_millis(10);

/// What a loop is sent.
pub(crate) enum Arrival {
    /// A connection, and what it counts as until it ends.
    Connection(Socket, ConnectionGuard),
    /// A request of the same process.
    Request(Box<Request>, Box<dyn Reply>),
    /// The end: connections that are left are cut.
    End,
}

/// The way to a loop from other threads.
#[derive(Clone, Debug)]
pub(crate) struct LoopHandle {
    arrivals: mpsc::UnboundedSender<Arrival>,
    connections: Arc<AtomicUsize>,
}

/// Counts a connection for as long as it lives.
#[derive(Debug)]
pub(crate) struct ConnectionGuard {
    connections: Arc<AtomicUsize>,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

impl LoopHandle {
    /// Connections that this loop has.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Gives the loop a connection.
    pub(crate) fn connect(&self, socket: Socket) {
        self.connections.fetch_add(1, Ordering::AcqRel);
        let guard = ConnectionGuard { connections: Arc::clone(&self.connections) };
        // A loop that has ended drops the connection, which closes it.
        drop(self.arrivals.send(Arrival::Connection(socket, guard)));
    }

    /// Ends the loop, and cuts the connections that it still has.
    pub(crate) fn end(&self) {
        drop(self.arrivals.send(Arrival::End));
    }

    /// Gives the loop a request of the same process; `false` if the loop has ended.
    pub(crate) fn submit(&self, request: Box<Request>, reply: Box<dyn Reply>) -> bool {
        self.arrivals.send(Arrival::Request(request, reply)).is_ok()
    }
}

/// A loop's mailbox: deliveries of instances, changes of the plan, and the wake-up.
#[derive(Debug, Default)]
pub(crate) struct LoopMailbox {
    deliveries: Mutex<Vec<Delivery>>,
    plan_changed: AtomicBool,
    arrived: Notify,
}

impl Mailbox for LoopMailbox {
    fn deliver(&self, delivery: Delivery) {
        self.deliveries.lock().push(delivery);
        self.arrived.notify_one();
    }

    fn plan_changed(&self) {
        self.plan_changed.store(true, Ordering::Release);
        self.arrived.notify_one();
    }
}

/// What a connection of this loop works with. Cloning is cheap; it never leaves its thread.
#[derive(Clone, Debug)]
pub(crate) struct LoopContext(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    process: Arc<Process>,
    access_log: Option<AccessLog>,
    bytes: Arc<LocalBudget>,
    pipeline: RefCell<Pipeline>,
    submitted: Notify,
    expiry_moved: Notify,
    expiry_awaited: Cell<Option<Instant>>,
}

impl LoopContext {
    /// What a loop's connections are given; without the loop's tasks nothing that is submitted runs.
    pub(crate) fn new(home: usize, process: Arc<Process>, shared: Arc<Shared>, access_log: Option<AccessLog>) -> Self {
        Self(Rc::new(Inner {
            bytes: LocalBudget::new(Arc::clone(&process.bytes), BYTES_CHUNK),
            pipeline: RefCell::new(Pipeline::new(home, shared)),
            submitted: Notify::new(),
            expiry_moved: Notify::new(),
            expiry_awaited: Cell::new(None),
            access_log,
            process,
        }))
    }

    /// What all threads share.
    pub(crate) fn process(&self) -> &Arc<Process> {
        &self.0.process
    }

    /// The access log, if there is one.
    pub(crate) fn access_log(&self) -> Option<&AccessLog> {
        self.0.access_log.as_ref()
    }

    /// The present moment.
    pub(crate) fn now(&self) -> Instant {
        self.0.process.clock.now()
    }

    /// Holds `bytes` of the process's budget.
    ///
    /// **Errors:** the budget is spent.
    pub(crate) fn reserve(&self, bytes: usize) -> Result<Reservation, Error> {
        self.0.bytes.reserve(bytes).ok_or_else(|| out_of_budget(bytes))
    }

    /// Sends a decoded request on its way; `reply` is answered in this or a later turn, on this loop.
    pub(crate) fn submit(&self, request: Request, reply: Box<dyn Reply>) {
        self.0.pipeline.borrow_mut().submit(request, reply);
        self.0.submitted.notify_one();
    }

    /// Counts a request that was refused before it could be submitted.
    pub(crate) fn count_refused(&self, protocol: Protocol, error: &Error) {
        self.0.pipeline.borrow().count_refused(protocol, error);
    }

    /// Ends turns: runs after the tasks that were ready, and again after each look at the sockets.
    async fn run_turns(&self) {
        let mut busy = Busy::new(self.now());
        loop {
            self.0.submitted.notified().await;
            loop {
                let decision = self.0.pipeline.borrow_mut().look();
                match decision {
                    // Yields to every ready task and to one look at the sockets.
                    Decision::LookAgain => tokio::task::yield_now().await,
                    // What was left for the next turn is seen by the next look.
                    Decision::Flush => self.0.pipeline.borrow_mut().flush(),
                    Decision::Rest => {
                        self.watch_expiry();
                        break;
                    }
                }
            }
            if let Some(thousandths) = busy.measure(self.now()) {
                self.0.pipeline.borrow().set_occupancy(thousandths);
            }
        }
    }

    /// Brings home what instances have finished, and follows changes of the plan.
    async fn run_mailbox(&self, mailbox: &LoopMailbox) {
        loop {
            mailbox.arrived.notified().await;
            if mailbox.plan_changed.swap(false, Ordering::Acquire) {
                self.0.pipeline.borrow_mut().plan_changed();
                self.0.submitted.notify_one();
            }
            let deliveries = std::mem::take(&mut *mailbox.deliveries.lock());
            for delivery in deliveries {
                self.0.pipeline.borrow_mut().receive(delivery);
            }
        }
    }

    /// Answers what waited in a queue until its time was over.
    async fn run_expiry(&self) {
        loop {
            let next = self.0.pipeline.borrow().next_expiry();
            self.0.expiry_awaited.set(next);
            let Some(next) = next else {
                self.0.expiry_moved.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => self.0.pipeline.borrow_mut().expire(),
                () = self.0.expiry_moved.notified() => {}
            }
        }
    }

    fn watch_expiry(&self) {
        let next = self.0.pipeline.borrow().next_expiry();
        let is_earlier = match (next, self.0.expiry_awaited.get()) {
            (Some(next), Some(awaited)) => next < awaited,
            (next, awaited) => next.is_some() && awaited.is_none(),
        };
        if is_earlier {
            self.0.expiry_moved.notify_one();
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

/// What a loop's thread is started with.
pub(crate) struct LoopSeed {
    pub(crate) home: usize,
    pub(crate) process: Arc<Process>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) mailbox: Arc<LoopMailbox>,
    pub(crate) access_log: Option<AccessLog>,
}

/// A way to a loop, and what its thread receives from it.
pub(crate) fn channel() -> (LoopHandle, mpsc::UnboundedReceiver<Arrival>) {
    let (arrivals, receiver) = mpsc::unbounded_channel();
    (LoopHandle { arrivals, connections: Arc::default() }, receiver)
}

/// Runs a loop on this thread until [`LoopHandle::end`].
pub(crate) fn run(seed: LoopSeed, mut arrivals: mpsc::UnboundedReceiver<Arrival>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_keep_alive(Duration::from_secs(10))
        .build()?;
    let LoopSeed { home, process, shared, mailbox, access_log } = seed;
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async move {
        let context = LoopContext::new(home, process, shared, access_log);
        let (turns, home, expiry) = (context.clone(), context.clone(), context.clone());
        tokio::task::spawn_local(async move { turns.run_turns().await });
        tokio::task::spawn_local(async move { home.run_mailbox(&mailbox).await });
        tokio::task::spawn_local(async move { expiry.run_expiry().await });
        while let Some(arrival) = arrivals.recv().await {
            match arrival {
                Arrival::Connection(socket, guard) => serve_connection(&context, socket, guard),
                Arrival::Request(request, reply) => context.submit(*request, reply),
                Arrival::End => break,
            }
        }
    });
    // What parses a large body off the loop must not hold up the end.
    runtime.shutdown_background();
    Ok(())
}

fn serve_connection(context: &LoopContext, socket: Socket, guard: ConnectionGuard) {
    let context = context.clone();
    tokio::task::spawn_local(async move {
        match socket.into_stream() {
            Ok(stream) => connection::serve(context, stream).await,
            Err(error) => tracing::debug!(%error, "a connection was lost before it was served"),
        }
        drop(guard);
    });
}

#[cold]
fn out_of_budget(bytes: usize) -> Error {
    Error::new(Kind::OutOfBudget, format!("{bytes} more bytes would exceed the server's byte budget"))
}
