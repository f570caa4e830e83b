//! For tests: a budget, a version of a model that doubles its rows, and an event loop that serves it.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use bytes::Bytes;
use mlserve_core::backend::{Backend, OutputTensor, RunError, TensorView};
use mlserve_core::budget::{Budget, LocalBudget, Reservation};
use mlserve_core::clock::Clock;
use mlserve_core::config::{ModelSettings, Settings};
use mlserve_core::lane::Occupancy;
use mlserve_core::model::{Batching, ModelSpec, TensorSpec};
use mlserve_core::pipeline::{Refused, Shared};
use mlserve_core::plan::{Endpoint, Plan, Slot, State};
use mlserve_core::tensor::DataType;
use mlserve_core::version::{Mailbox, NewVersion, Version};
use mlserve_core::watch::Watch;
use tokio::net::UnixStream;

use crate::event_loop::{self, LoopHandle, LoopMailbox, LoopSeed};
use crate::lifecycle::Models;
use crate::listen::Socket;
use crate::model_config::Configs;
use crate::process::Process;
use crate::status::{Phase, Status};
use crate::trace::Tracing;

/// A reservation of nothing, in a budget of `limit` bytes.
pub(crate) fn reservation(limit: usize) -> Reservation {
    LocalBudget::new(Budget::new(limit), 1).reserve(0).expect("nothing always fits")
}

/// Answers every FP32 row with twice its values; the value 666 makes a run fail.
#[derive(Debug)]
pub(crate) struct Doubler;

impl Backend for Doubler {
    fn run(&self, inputs: &[TensorView<'_>], outputs: &[usize]) -> Result<Vec<OutputTensor>, RunError> {
        let [input] = inputs else { panic!("one input") };
        let values =
            || input.data.chunks_exact(4).map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]]));
        if values().any(|value| value.to_bits() == 666_f32.to_bits()) {
            return Err(RunError { is_input_fault: false, text: "the model failed".to_owned() });
        }
        let doubled: Vec<u8> = values().flat_map(|value| (2.0 * value).to_le_bytes()).collect();
        let output = OutputTensor {
            datatype: DataType::Fp32,
            shape: input.shape.iter().copied().collect(),
            data: Bytes::from(doubled),
        };
        Ok(outputs.iter().map(|_| output.clone()).collect())
    }
}

/// Version 7 of the model `double`: `x` and `y` are FP32 [-1, width].
pub(crate) fn version(width: i64, mailboxes: Arc<[Arc<dyn Mailbox>]>) -> Arc<Version> {
    let tensor = |name: &str| TensorSpec {
        name: name.to_owned(),
        datatype: DataType::Fp32,
        shape: [-1, width].into_iter().collect(),
        labels: None,
    };
    let new = NewVersion {
        spec: ModelSpec {
            name: Arc::from("double"),
            version: 7,
            platform: "test",
            inputs: vec![tensor("x")],
            outputs: vec![tensor("y"), tensor("z")],
            batching: Batching::Rows,
            time_follows_values: None,
        },
        settings: ModelSettings::default(),
        backend: Arc::new(Doubler),
        instances: 1,
        warmup: Vec::new(),
        model_bytes: 0,
        load_duration: std::time::Duration::ZERO,
        earlier: None,
    };
    Version::new(new, mailboxes, Clock::Monotonic)
}

/// An event loop with the model `double`, and a client's end of a connection to it.
pub(crate) struct Served {
    pub(crate) process: Arc<Process>,
    handle: LoopHandle,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Starts a loop; the model's rows are `width` values wide.
    pub(crate) fn start(mut settings: Settings, width: i64) -> Self {
        if settings.limits.byte_budget == 0 {
            // What the start of a real server measures.
            settings.limits.byte_budget = 1 << 30;
        }
        let clock = Clock::Monotonic;
        let mailbox: Arc<LoopMailbox> = Arc::default();
        let mailboxes: Arc<[Arc<dyn Mailbox>]> = Arc::from([Arc::clone(&mailbox) as Arc<dyn Mailbox>]);
        let slot = Slot::serving(version(width, Arc::clone(&mailboxes)));
        let failed = Slot::not_serving(State::Failed("broken".to_owned()));
        let endpoints = [
            ("double".to_owned(), Endpoint::new([(7, slot)].into())),
            ("broken".to_owned(), Endpoint::new([(1, failed)].into())),
        ];
        let plan = Arc::new(ArcSwap::from_pointee(Plan::new(1, endpoints)));
        let limits = settings.limits.clone();
        let (models, _) = Models::new(&settings, Arc::clone(&plan), mailboxes);
        let tracer = Tracing::start(settings.server.trace_file.as_deref(), clock.clone()).expect("a file");
        let shared = Shared {
            plan: Arc::clone(&plan),
            clock: clock.clone(),
            requests: Budget::new(limits.requests_in_flight),
            limits,
            occupancy: Occupancy::new(1),
            refused: [Refused::default()].into(),
            demand: Arc::new(()),
            tracer: Arc::clone(&tracer.tracer),
            watch: Watch::new(1, clock.now()),
        };
        let process = Arc::new(Process {
            status: Status::new(&settings.server, Vec::new()),
            bytes: Budget::new(settings.limits.byte_budget),
            origins: crate::origin::Origins::new(&settings.server),
            shares: crate::share::Shares::new(&settings.limits),
            shared_memory: crate::shared_memory::Regions::new(settings.server.allow_client_shm),
            access_log: None,
            panics: crate::panics::Panics::default(),
            tracer,
            openapi: crate::http::openapi::Document::default(),
            statistics: crate::extensions::statistics::Statistics::default(),
            shared: Arc::new(shared),
            plan,
            models,
            clock,
            configs: Configs::default(),
            settings,
        });
        process.status.advance(Phase::Serving);
        let (handle, arrivals) = LoopHandle::new(Arc::clone(&mailbox));
        let seed = LoopSeed {
            home: 0,
            process: Arc::clone(&process),
            shared: Arc::clone(&process.shared),
            mailbox,
            pulse: Arc::clone(handle.pulse()),
            access_log: None,
        };
        let thread = std::thread::spawn(move || event_loop::run(&seed, arrivals));
        Self { process, handle, thread: Some(thread) }
    }

    /// The way to the loop.
    pub(crate) fn handle(&self) -> &LoopHandle {
        &self.handle
    }

    /// A client's end of a new connection.
    pub(crate) fn connect(&self) -> UnixStream {
        let (ours, theirs) = StdUnixStream::pair().expect("a socket pair");
        for socket in [&ours, &theirs] {
            socket.set_nonblocking(true).expect("non-blocking");
        }
        self.handle.connect(Socket::Unix(theirs));
        UnixStream::from_std(ours).expect("a runtime")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.handle.end();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the loop panicked");
        }
    }
}
