//! Puts a server together: binds, starts the loops and the front thread, loads the models.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use mlserve_core::clock::Clock;
use mlserve_core::config::Settings;
use mlserve_core::plan::Plan;
use mlserve_core::request::{Reply, Request};
use mlserve_core::version::Mailbox;
use parking_lot::Mutex;
use tokio::sync::watch;

use self::start::Listeners;
use crate::event_loop::{LoopHandle, LoopMailbox};
use crate::front::Stop;
use crate::lifecycle::announce::announce;
use crate::lifecycle::{LoadReport, Models, Startup};
use crate::process::Process;
use crate::telemetry;
use crate::watcher::Watcher;

mod end;
mod start;

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
    front: Mutex<Option<JoinHandle<usize>>>,
    manager: Mutex<Option<JoinHandle<()>>>,
    left_behind: AtomicUsize,
    _watcher: Watcher,
}

impl Server {
    /// Starts a server. It listens when this returns; models are loading.
    ///
    /// **Errors:** a text that says what could not be started, and why.
    pub fn start(mut settings: Settings) -> Result<Server, String> {
        telemetry::start(&settings.log);
        let clock = Clock::Monotonic;
        let begun = clock.now();
        start::resolve(&mut settings);
        let count = settings.server.event_loops;
        let mailboxes: Vec<Arc<LoopMailbox>> = (0..count).map(|_| Arc::default()).collect();
        let plan = Arc::new(ArcSwap::from_pointee(Plan::default()));
        let to_loops = mailboxes.iter().map(|mailbox| Arc::clone(mailbox) as Arc<dyn Mailbox>).collect();
        let (models, orders) = Models::new(&settings, Arc::clone(&plan), to_loops);
        announce(&models, &settings)?;
        let listeners = Listeners::bind(&settings)?;
        let addresses = listeners.addresses(&settings)?;
        let (loops, arrivals): (Vec<_>, Vec<_>) = mailboxes.into_iter().map(LoopHandle::new).unzip();
        let process = Arc::new(start::process(settings, clock, plan, models, &loops)?);
        let watcher = Watcher::start(Arc::clone(&process.shared));
        let watcher = watcher.map_err(|error| format!("the thread that watches could not be started: {error}"))?;
        let threads = start::loops(&process, &loops, arrivals)?;
        let (stop, stopped) = watch::channel(Stop::No);
        let (settle, settled) = watch::channel(false);
        let startup = Arc::default();
        let front = start::front(Arc::clone(&process), loops.clone(), listeners, stopped, threads)?;
        let manager = start::manager(Arc::clone(&process), orders, begun, Arc::clone(&startup), settle)?;
        let (front, manager) = (Mutex::new(Some(front)), Mutex::new(Some(manager)));
        let left_behind = AtomicUsize::new(0);
        Ok(Server { process, addresses, loops, stop, startup, settled, front, manager, left_behind, _watcher: watcher })
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

    /// Sends a request of this process into the loop with the fewest connections. `false` if the server has ended: then the
    /// reply is dropped.
    pub fn submit(&self, request: Box<Request>, reply: Box<dyn Reply>) -> bool {
        let least = LoopHandle::least_loaded(&self.loops);
        least.is_some_and(|handle| handle.submit(request, reply))
    }

    /// Threads and versions that could not be ended, after [`Server::join`]: something runs in them that cannot be stopped.
    pub fn left_behind(&self) -> usize {
        self.left_behind.load(Ordering::Relaxed)
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

    /// Waits until it has ended, which it does some seconds after the drain timeout at the latest, whatever still runs.
    /// Later calls return at once.
    pub fn join(&self) {
        let Some(front) = self.front.lock().take() else { return };
        // A panic of the front thread is the end of it, too; nobody knows what it left.
        let left = front.join().unwrap_or(1);
        let deadline = self.process.clock.now() + end::GRACE;
        let manager = self.manager.lock().take().into_iter().collect();
        let loading = end::wait(&self.process, deadline, manager, JoinHandle::is_finished);
        if loading > 0 {
            tracing::error!("the server ends while a model is still being loaded");
        }
        self.process.models.discard_uploads();
        self.left_behind.store(left + loading, Ordering::Relaxed);
        self.process.tracer.flush();
        if let Some(log) = &self.process.access_log {
            log.flush();
        }
        telemetry::flush();
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

/// Writes the addresses where whoever started the server waits for them, whole or not at all.
///
/// **Errors:** a text that names the file.
pub fn write_ready_file(path: &Path, addresses: &Addresses) -> Result<(), String> {
    let text = |error: std::io::Error| format!("{}: {error}", path.display());
    let partial = path.with_extension("partial");
    std::fs::write(&partial, format!("{}\n", addresses.to_json())).map_err(text)?;
    std::fs::rename(&partial, path).map_err(text)
}

/// Removes what an earlier server has written there.
///
/// **Errors:** a text that names the file.
pub fn forget_ready_file(path: &Path) -> Result<(), String> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!("{}: {error}", path.display())),
        _ => Ok(()),
    }
}

/// Whether nothing can be served: there are models, and every one has failed.
pub fn has_failed(reports: &[LoadReport]) -> bool {
    !reports.is_empty() && reports.iter().all(|report| report.result.is_err())
}

/// How long until all settled, for people.
pub fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
