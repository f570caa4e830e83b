//! Puts a server together: binds, starts the loops and the front thread, loads the models.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use mlserve_core::budget::Budget;
use mlserve_core::clock::Clock;
use mlserve_core::config::Settings;
use mlserve_core::lane::Occupancy;
use mlserve_core::pipeline::{Refused, Shared};
use mlserve_core::plan::Plan;
use mlserve_core::request::{Reply, Request};
use mlserve_core::version::Mailbox;
use mlserve_ort::{Runtime, RuntimeOptions};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::access::AccessLog;
use crate::event_loop::{self, Arrival, LoopHandle, LoopMailbox, LoopSeed};
use crate::front::{self, Stop};
use crate::lifecycle::announce::announce;
use crate::lifecycle::manager::Manager;
use crate::lifecycle::{LoadReport, Models, Order, Startup};
use crate::listen::{self, Acceptor};
use crate::model_config::Configs;
use crate::process::Process;
use crate::shared_memory::Regions;
use crate::status::{Phase, Status};
use crate::trace::Tracing;
use crate::{housekeeping, resources, telemetry};

/// Most connections that are allowed if no number is set and the process may open enough files.
const MAX_CONNECTIONS: usize = 10_000;

/// How long the end waits for runs that are going on; then their memory comes back when they end.
const INSTANCES_END: Duration = Duration::from_secs(2);

/// Where a running server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// HTTP, h2c and gRPC.
    pub http: SocketAddr,
    /// The same protocols.
    pub grpc: SocketAddr,
    /// Metrics and health.
    pub metrics: SocketAddr,
    /// The Unix socket, if there is one.
    pub uds: Option<PathBuf>,
}

impl Addresses {
    /// As JSON, for the ready file and for Python.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "http": self.http.to_string(), "grpc": self.grpc.to_string(), "metrics": self.metrics.to_string(),
            "uds": self.uds.as_ref().map(|path| path.display().to_string()), "pid": std::process::id(),
        })
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    process: Arc<Process>,
    addresses: Addresses,
    loops: Vec<LoopHandle>,
    stop: watch::Sender<Stop>,
    startup: Arc<Mutex<Option<Startup>>>,
    settled: watch::Receiver<bool>,
    front: Mutex<Option<JoinHandle<()>>>,
}

/// The listeners of a server.
struct Listeners {
    http: std::net::TcpListener,
    grpc: std::net::TcpListener,
    metrics: std::net::TcpListener,
    uds: Option<std::os::unix::net::UnixListener>,
}

impl Server {
    /// Starts a server. It listens when this returns; models are loading.
    ///
    /// **Errors:** a text that says what could not be started, and why.
    pub fn start(mut settings: Settings) -> Result<Server, String> {
        telemetry::start(&settings.log);
        let clock = Clock::Monotonic;
        let begun = clock.now();
        resolve(&mut settings);
        let count = settings.server.event_loops;
        let mailboxes: Vec<Arc<LoopMailbox>> = (0..count).map(|_| Arc::default()).collect();
        let plan = Arc::new(ArcSwap::from_pointee(Plan::default()));
        let to_loops = mailboxes.iter().map(|mailbox| Arc::clone(mailbox) as Arc<dyn Mailbox>).collect();
        let (models, orders) = Models::new(&settings, Arc::clone(&plan), to_loops);
        announce(&models, &settings)?;
        let listeners = Listeners::bind(&settings)?;
        let addresses = listeners.addresses(&settings)?;
        let process = Arc::new(process(settings, clock, plan, models)?);
        let channels: Vec<_> = (0..count).map(|_| event_loop::channel()).collect();
        let loops: Vec<LoopHandle> = channels.iter().map(|(handle, _)| handle.clone()).collect();
        let threads = start_loops(&process, &mailboxes, channels)?;
        let (stop, stopped) = watch::channel(Stop::No);
        let (settle, settled) = watch::channel(false);
        let startup = Arc::default();
        let front = start_front(Arc::clone(&process), loops.clone(), listeners, stopped, threads)?;
        start_manager(Arc::clone(&process), orders, begun, Arc::clone(&startup), settle)?;
        Ok(Server { process, addresses, loops, stop, startup, settled, front: Mutex::new(Some(front)) })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What its threads share.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// Waits until every model is ready or has failed, and tells which did what.
    ///
    /// **Errors:** `None` if the server was told to stop meanwhile.
    pub fn wait_until_settled(&self) -> Option<Startup> {
        let mut settled = self.settled.clone();
        let mut stopped = self.stop.subscribe();
        let runtime = tokio::runtime::Builder::new_current_thread().build().ok()?;
        runtime.block_on(async {
            tokio::select! {
                biased;
                result = settled.wait_for(|settled| *settled) => { result.ok()?; }
                _ = stopped.wait_for(|stop| *stop > Stop::No) => return None,
            }
            self.startup.lock().clone()
        })
    }

    /// Sends a request of this process into the loop with the fewest connections.
    ///
    /// **Errors:** gives the reply back if the server has ended.
    pub fn submit(&self, request: Box<Request>, reply: Box<dyn Reply>) -> bool {
        let least = self.loops.iter().min_by_key(|handle| handle.connections());
        least.is_some_and(|handle| handle.submit(request, reply))
    }

    /// Asks it to stop; asking for more hastens it, asking for less changes nothing.
    pub fn stop(&self, stop: Stop) {
        self.stop.send_if_modified(|present| {
            let is_more = stop > *present;
            *present = stop.max(*present);
            is_more
        });
    }

    /// Waits until it is asked to stop at least so far.
    pub(crate) async fn wait_for_stop(&self, step: Stop) {
        drop(self.stop.subscribe().wait_for(|present| *present >= step).await);
    }

    /// How far it was asked to stop.
    pub fn stop_asked(&self) -> Stop {
        *self.stop.borrow()
    }

    /// Waits until it has ended. Later calls return at once.
    pub fn join(&self) {
        let front = self.front.lock().take();
        if front.is_some_and(|front| front.join().is_err()) {
            tracing::error!("the front thread panicked");
        }
        self.process.tracer.flush();
        if let Some(path) = &self.addresses.uds {
            drop(std::fs::remove_file(path));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop(Stop::Now);
        self.join();
    }
}

impl Listeners {
    fn bind(settings: &Settings) -> Result<Self, String> {
        let server = &settings.server;
        Ok(Self {
            http: listen::bind_tcp(&server.host, server.http_port)?,
            grpc: listen::bind_tcp(&server.host, server.grpc_port)?,
            metrics: listen::bind_tcp(&server.host, server.metrics_port)?,
            uds: server.uds.as_deref().map(listen::bind_unix).transpose()?,
        })
    }

    fn addresses(&self, settings: &Settings) -> Result<Addresses, String> {
        let address = |listener: &std::net::TcpListener| listener.local_addr().map_err(|error| error.to_string());
        Ok(Addresses {
            http: address(&self.http)?,
            grpc: address(&self.grpc)?,
            metrics: address(&self.metrics)?,
            uds: settings.server.uds.clone(),
        })
    }
}

/// Puts measured values in place of the zeros that ask for them.
fn resolve(settings: &mut Settings) {
    let memory = resources::memory_bytes();
    let or = |value: &mut usize, measured: usize| {
        if *value == 0 {
            *value = measured;
        }
    };
    or(&mut settings.server.event_loops, resources::cores());
    or(&mut settings.limits.byte_budget, (memory / 4).max(settings.limits.max_body_bytes));
    or(&mut settings.limits.arena_bytes, memory / 2);
    or(&mut settings.limits.max_connections, (resources::open_files() / 2).min(MAX_CONNECTIONS));
}

fn process(settings: Settings, clock: Clock, plan: Arc<ArcSwap<Plan>>, models: Models) -> Result<Process, String> {
    let loops = settings.server.event_loops;
    let access_log = settings.log.access_log.then(|| AccessLog::start(std::io::stdout())).transpose();
    let tracer = Tracing::start(settings.server.trace_file.as_deref(), clock.clone())?;
    let shared = Shared {
        plan: Arc::clone(&plan),
        clock: clock.clone(),
        limits: settings.limits.clone(),
        requests: Budget::shared_by(settings.limits.requests_in_flight, loops),
        occupancy: Occupancy::new(loops),
        refused: (0..loops).map(|_| Refused::default()).collect(),
        demand: Arc::new(models.clone()),
        tracer: Arc::clone(&tracer.tracer),
    };
    Ok(Process {
        status: Status::new(settings.server.strict_readiness),
        bytes: Budget::shared_by(settings.limits.byte_budget, loops),
        shared_memory: Regions::new(settings.server.allow_client_shm),
        access_log: access_log.map_err(|error| format!("the access log could not be started: {error}"))?,
        shared: Arc::new(shared),
        tracer,
        plan,
        models,
        clock,
        configs: Configs::default(),
        settings,
    })
}

fn start_loops(
    process: &Arc<Process>,
    mailboxes: &[Arc<LoopMailbox>],
    channels: Vec<(LoopHandle, mpsc::UnboundedReceiver<Arrival>)>,
) -> Result<Vec<JoinHandle<()>>, String> {
    let start = |(home, (_, arrivals)): (usize, (LoopHandle, mpsc::UnboundedReceiver<Arrival>))| {
        let seed = LoopSeed {
            home,
            process: Arc::clone(process),
            shared: Arc::clone(&process.shared),
            mailbox: Arc::clone(&mailboxes[home]),
            access_log: process.access_log.clone(),
        };
        std::thread::Builder::new().name(format!("loop-{home}")).spawn(move || {
            if let Err(error) = event_loop::run(seed, arrivals) {
                tracing::error!(%error, home, "an event loop could not be started");
            }
        })
    };
    let threads: Result<Vec<_>, _> = channels.into_iter().enumerate().map(start).collect();
    threads.map_err(|error| format!("an event loop could not be started: {error}"))
}

fn start_front(
    process: Arc<Process>,
    loops: Vec<LoopHandle>,
    listeners: Listeners,
    stop: watch::Receiver<Stop>,
    threads: Vec<JoinHandle<()>>,
) -> Result<JoinHandle<()>, String> {
    let failed = |error: std::io::Error| format!("the front thread could not be started: {error}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let run = move || {
        let limits = &process.settings.limits;
        let acceptor = Rc::new(Acceptor {
            loops,
            max_connections: limits.max_connections,
            max_per_address: limits.max_connections_per_address,
            addresses: Arc::default(),
            accepted: mlserve_core::stats::Counter::default(),
            turned_away: mlserve_core::stats::Counter::default(),
        });
        let loops = acceptor.loops.clone();
        LocalSet::new().block_on(&runtime, run_front(&process, acceptor, listeners, stop));
        loops.iter().for_each(LoopHandle::end);
        for thread in threads {
            drop(thread.join());
        }
        close_versions(&process);
    };
    std::thread::Builder::new().name("front".to_owned()).spawn(run).map_err(failed)
}

async fn run_front(process: &Arc<Process>, acceptor: Rc<Acceptor>, listeners: Listeners, stop: watch::Receiver<Stop>) {
    let mut accepting = Vec::new();
    for listener in [listeners.http, listeners.grpc] {
        let acceptor = Rc::clone(&acceptor);
        accepting.push(tokio::task::spawn_local(async move { acceptor.accept_tcp(listener).await }));
    }
    if let Some(listener) = listeners.uds {
        let acceptor = Rc::clone(&acceptor);
        accepting.push(tokio::task::spawn_local(async move { acceptor.accept_unix(listener).await }));
    }
    let metrics = front::serve_metrics(listeners.metrics, Arc::clone(process), Rc::clone(&acceptor));
    let metrics = tokio::task::spawn_local(metrics);
    let housekeeping = tokio::task::spawn_local(housekeeping::run(Arc::clone(process)));
    front::wait_for_the_end(process, stop, &acceptor, accepting).await;
    metrics.abort();
    housekeeping.abort();
}

/// Ends the instances of every version and gives their memory back, so that nothing outlives the server.
fn close_versions(process: &Process) {
    process.models.end();
    let versions = process.models.take_all();
    for version in &versions {
        version.close();
    }
    let deadline = process.clock.now() + INSTANCES_END;
    for version in versions {
        // Each instance holds its version; a run that is going on cannot be stopped, only awaited.
        while Arc::strong_count(&version) > 1 && process.clock.now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    mlserve_ort::release_memory();
}

fn start_manager(
    process: Arc<Process>,
    orders: Receiver<Order>,
    begun: Instant,
    startup: Arc<Mutex<Option<Startup>>>,
    settle: watch::Sender<bool>,
) -> Result<(), String> {
    let run = move || {
        let library = process.settings.server.ort_library.clone();
        let options = RuntimeOptions { arena_bytes: Some(process.settings.limits.arena_bytes) };
        let runtime = Runtime::load(library.as_deref().unwrap_or(Path::new("libonnxruntime.so")), options);
        let mut manager = Manager::new(Arc::clone(&process), runtime);
        let reports = manager.load_announced();
        let took = process.clock.now().saturating_duration_since(begun);
        // What loading and warm-up needed and serving does not.
        mlserve_ort::release_memory();
        process.status.advance(Phase::Serving);
        *startup.lock() = Some(Startup { begun, reports, took });
        settle.send_replace(true);
        if process.status.phase() < Phase::Closing {
            manager.run(&orders);
        }
        if process.status.phase() >= Phase::Closing {
            // Stopped meanwhile: what was loaded last came too late for the end to find it.
            close_versions(&process);
        }
    };
    let spawned = std::thread::Builder::new().name("manager".to_owned()).spawn(run);
    spawned.map(drop).map_err(|error| format!("the manager of models could not be started: {error}"))
}

/// Writes the addresses where whoever started the server waits for them, whole or not at all.
///
/// **Errors:** a text that names the file.
pub fn write_ready_file(path: &Path, addresses: &Addresses) -> Result<(), String> {
    let text = |error: std::io::Error| format!("{}: {error}", path.display());
    let partial = path.with_extension("partial");
    std::fs::write(&partial, format!("{}\n", addresses.to_json())).map_err(text)?;
    std::fs::rename(&partial, path).map_err(text)
}

/// Whether nothing can be served: there are models, and every one has failed.
pub fn has_failed(reports: &[LoadReport]) -> bool {
    !reports.is_empty() && reports.iter().all(|report| report.result.is_err())
}

/// How long until all settled, for people.
pub fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
