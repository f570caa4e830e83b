//! The parts of a server, as they are put together: listeners, what threads share, and the threads.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use arc_swap::ArcSwap;
use mlserve_core::budget::Budget;
use mlserve_core::clock::Clock;
use mlserve_core::config::Settings;
use mlserve_core::lane::Occupancy;
use mlserve_core::pipeline::{Refused, Shared};
use mlserve_core::plan::Plan;
use mlserve_core::watch::Watch;
use mlserve_ort::{Runtime, RuntimeOptions};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::{LocalSet, spawn_local};

use super::{Addresses, end};
use crate::access::AccessLog;
use crate::event_loop::{self, Arrival, LoopHandle, LoopSeed};
use crate::front::{self, Stop};
use crate::health_port::HealthPort;
use crate::lifecycle::manager::Manager;
use crate::lifecycle::orders::Inbox;
use crate::lifecycle::{Models, Startup};
use crate::listen::{self, Acceptor};
use crate::model_config::Configs;
use crate::origin::Origins;
use crate::panics::{self, Panics, Place};
use crate::process::Process;
use crate::share::Shares;
use crate::shared_memory::Regions;
use crate::status::{Phase, Status};
use crate::trace::Tracing;
use crate::{housekeeping, resources};

/// Most connections that are allowed if no number is set and the process may open enough files.
const MAX_CONNECTIONS: usize = 10_000;

/// The listeners of a server.
pub(super) struct Listeners {
    http: TcpListener,
    grpc: TcpListener,
    metrics: TcpListener,
    uds: Option<UnixListener>,
}

impl Listeners {
    pub(super) fn bind(settings: &Settings) -> Result<Self, String> {
        let server = &settings.server;
        Ok(Self {
            http: listen::bind_tcp(&server.host, server.http_port)?,
            grpc: listen::bind_tcp(&server.host, server.grpc_port)?,
            metrics: listen::bind_tcp(&server.host, server.metrics_port)?,
            uds: server.uds.as_deref().map(listen::bind_unix).transpose()?,
        })
    }

    pub(super) fn addresses(&self, settings: &Settings) -> Result<Addresses, String> {
        let address = |listener: &TcpListener| listener.local_addr().map_err(|error| error.to_string());
        Ok(Addresses {
            http: address(&self.http)?,
            grpc: address(&self.grpc)?,
            metrics: address(&self.metrics)?,
            uds: settings.server.uds.clone(),
        })
    }
}

/// Puts measured values in place of the zeros that ask for them.
pub(super) fn resolve(settings: &mut Settings) {
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
    let half = (settings.limits.max_connections / 2).max(1);
    or(&mut settings.limits.max_connections_per_address, half);
}

/// What the threads share. `loops`: the way to each.
pub(super) fn process(
    settings: Settings,
    clock: Clock,
    plan: Arc<ArcSwap<Plan>>,
    models: Models,
    loops: &[LoopHandle],
) -> Result<Process, String> {
    let count = loops.len();
    let log = &settings.log;
    let access_log = log.access_log.then(|| AccessLog::start(log.access_log_file.as_deref())).transpose()?;
    let tracer = Tracing::start(settings.server.trace_file.as_deref(), clock.clone())?;
    let shared = Shared {
        plan: Arc::clone(&plan),
        clock: clock.clone(),
        limits: settings.limits.clone(),
        requests: Budget::shared_by(settings.limits.requests_in_flight, count),
        occupancy: Occupancy::new(count),
        refused: (0..count).map(|_| Refused::default()).collect(),
        demand: Arc::new(models.clone()),
        tracer: Arc::clone(&tracer.tracer),
        watch: Watch::new(count, clock.now()),
    };
    let pulses = loops.iter().map(|handle| Arc::clone(handle.pulse())).collect();
    Ok(Process {
        status: Status::new(&settings.server, pulses),
        origins: Origins::new(&settings.server),
        bytes: Budget::shared_by(settings.limits.byte_budget, count),
        shares: Shares::new(&settings.limits),
        shared_memory: Regions::new(settings.server.allow_client_shm),
        access_log,
        panics: Panics::default(),
        shared: Arc::new(shared),
        tracer,
        openapi: crate::http::openapi::Document::default(),
        statistics: crate::extensions::statistics::Statistics::default(),
        plan,
        models,
        clock,
        configs: Configs::default(),
        settings,
    })
}

/// Starts a thread for each loop.
pub(super) fn loops(
    process: &Arc<Process>,
    loops: &[LoopHandle],
    arrivals: Vec<mpsc::UnboundedReceiver<Arrival>>,
) -> Result<Vec<JoinHandle<()>>, String> {
    let start = |(home, (handle, arrivals)): (usize, (&LoopHandle, mpsc::UnboundedReceiver<Arrival>))| {
        let seed = LoopSeed {
            home,
            process: Arc::clone(process),
            shared: Arc::clone(&process.shared),
            mailbox: Arc::clone(handle.mailbox()),
            pulse: Arc::clone(handle.pulse()),
            access_log: process.access_log.clone(),
        };
        std::thread::Builder::new().name(format!("loop-{home}")).spawn(move || event_loop::run(&seed, arrivals))
    };
    let threads: Result<Vec<_>, _> = loops.iter().zip(arrivals).enumerate().map(start).collect();
    threads.map_err(|error| format!("an event loop could not be started: {error}"))
}

/// Starts the front thread and the health thread. The front thread tells at its end how much could not be ended.
pub(super) fn front(
    process: Arc<Process>,
    loops: Vec<LoopHandle>,
    listeners: Listeners,
    stop: watch::Receiver<Stop>,
    threads: Vec<JoinHandle<()>>,
) -> Result<JoinHandle<usize>, String> {
    let failed = |error: std::io::Error| format!("the front thread could not be started: {error}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let acceptor = Arc::new(Acceptor::new(loops, &process.settings.limits));
    let Listeners { http, grpc, metrics, uds } = listeners;
    let health = HealthPort::start(metrics, Arc::clone(&process), Arc::clone(&acceptor));
    let health = health.map_err(|error| format!("the health thread could not be started: {error}"))?;
    let run = move || {
        mlserve_ort::take_short_slices();
        let led = catch_unwind(AssertUnwindSafe(|| {
            LocalSet::new().block_on(&runtime, run_front(&process, Arc::clone(&acceptor), vec![http, grpc], uds, stop));
        }));
        if let Err(payload) = led {
            // Nobody leads any more: the end, rather than a server that cannot be stopped.
            process.panics.note(Place::Front, &panics::text(&*payload));
            process.status.advance(Phase::Closing);
        }
        // What gives memory back may wait for a lock that a run holds.
        runtime.shutdown_background();
        let left = end::end(&process, &acceptor.loops, threads);
        health.end();
        left
    };
    std::thread::Builder::new().name("front".to_owned()).spawn(run).map_err(failed)
}

async fn run_front(
    process: &Arc<Process>,
    acceptor: Arc<Acceptor>,
    tcp: Vec<TcpListener>,
    unix: Option<UnixListener>,
    stop: watch::Receiver<Stop>,
) {
    let mut accepting = Vec::new();
    for listener in tcp {
        let (process, acceptor) = (Arc::clone(process), Arc::clone(&acceptor));
        accepting.push(spawn_local(async move { acceptor.accept_tcp(&process, listener).await }));
    }
    if let Some(listener) = unix {
        let (process, acceptor) = (Arc::clone(process), Arc::clone(&acceptor));
        accepting.push(spawn_local(async move { acceptor.accept_unix(&process, listener).await }));
    }
    let housekeeping = spawn_local(housekeeping::run(Arc::clone(process), Arc::clone(&acceptor)));
    front::wait_for_the_end(process, stop, &acceptor, accepting).await;
    housekeeping.abort();
}

/// Starts the thread that loads what was announced, and carries out orders afterwards.
pub(super) fn manager(
    process: Arc<Process>,
    orders: Inbox,
    begun: Instant,
    startup: Arc<Mutex<Option<Startup>>>,
    settle: watch::Sender<bool>,
) -> Result<JoinHandle<()>, String> {
    let run = move || {
        let library = process.settings.server.ort_library.clone();
        let options = RuntimeOptions { arena_bytes: Some(process.settings.limits.arena_bytes) };
        let runtime = Runtime::load(library.as_deref().unwrap_or(Path::new("libonnxruntime.so")), options);
        let mut manager = Manager::new(Arc::clone(&process), runtime);
        let reports = catch_unwind(AssertUnwindSafe(|| manager.load_announced())).unwrap_or_else(|payload| {
            process.panics.note(Place::Manager, &panics::text(&*payload));
            Vec::new()
        });
        let took = process.clock.now().saturating_duration_since(begun);
        // What loading and warm-up needed and serving does not.
        mlserve_ort::release_memory();
        process.status.advance(Phase::Serving);
        *startup.lock() = Some(Startup { begun, reports, took });
        settle.send_replace(true);
        if process.status.phase() < Phase::Closing {
            manager.clear_left_behind();
            // An order that panics fails, the next ones are carried out.
            process.panics.until_done(Place::Manager, || manager.run(&orders));
        }
        if process.status.phase() >= Phase::Closing {
            // Stopped meanwhile: what was loaded last came too late for the end to find it.
            end::close_versions(&process, process.clock.now() + end::GRACE);
        }
    };
    let spawned = std::thread::Builder::new().name("manager".to_owned()).spawn(run);
    spawned.map_err(|error| format!("the manager of models could not be started: {error}"))
}
