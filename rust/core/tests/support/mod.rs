//! A scripted backend, callers that keep their answers, and a loop that a test drives by hand.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "shared by test files, each of which uses a part of it"
)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use mlserve_core::backend::{Backend, OutputTensor, RunError, TensorView, TextRoom};
use mlserve_core::budget::Budget;
use mlserve_core::clock::{Clock, ManualClock};
use mlserve_core::config::{LimitSettings, ModelSettings};
use mlserve_core::error::{Error, Kind};
use mlserve_core::lane::Occupancy;
use mlserve_core::model::{Batching, ModelSpec, TensorSpec};
use mlserve_core::park::Demand;
use mlserve_core::pipeline::{Pipeline, Refused, Shared};
use mlserve_core::plan::{Endpoint, Plan, Slot};
use mlserve_core::request::{Answer, BatchPlace, Input, Protocol, Reply, Request};
use mlserve_core::stop::Stop;
use mlserve_core::tensor::DataType;
use mlserve_core::trace::{Trace, TraceSink, Tracer};
use mlserve_core::turn::Decision;
use mlserve_core::version::{Delivery, Mailbox, NewVersion, Version};
use mlserve_core::watch::Watch;

/// What the scripted backend answers to a row that holds this value: it fails.
pub const POISON: f32 = -666.0;

/// Doubles every value. Records the rows of each run, can be held, and fails where a row holds [`POISON`].
#[derive(Debug, Default)]
pub struct Doubler {
    pub runs: Mutex<Vec<usize>>,
    pub held: Mutex<bool>,
    /// The run from whose number on runs are held as well.
    pub holds_from: Mutex<Option<usize>>,
    pub panics: AtomicBool,
    /// How many runs were stopped before their end.
    pub stopped: AtomicUsize,
    /// What a run takes on the manual clock.
    pub takes: Mutex<Option<(ManualClock, Duration)>>,
}

impl Doubler {
    pub fn hold(&self, held: bool) {
        *self.held.lock().unwrap() = held;
    }

    pub fn runs(&self) -> Vec<usize> {
        self.runs.lock().unwrap().clone()
    }
}

impl Backend for Doubler {
    fn run(&self, inputs: &[TensorView<'_>], outputs: &[usize]) -> Result<Vec<OutputTensor>, RunError> {
        self.run_until(inputs, outputs, &Stop::default(), &mut TextRoom::unbounded())
    }

    fn run_until(
        &self,
        inputs: &[TensorView<'_>],
        outputs: &[usize],
        stop: &Stop,
        _room: &mut TextRoom,
    ) -> Result<Vec<OutputTensor>, RunError> {
        let input = inputs[0];
        let number = {
            let mut runs = self.runs.lock().unwrap();
            runs.push(input.shape[0] as usize);
            runs.len()
        };
        while *self.held.lock().unwrap() || self.holds_from.lock().unwrap().is_some_and(|from| number >= from) {
            if stop.is_asked() {
                self.stopped.fetch_add(1, Ordering::SeqCst);
                return Err(RunError { is_input_fault: false, text: "stopped".to_owned() });
            }
            std::thread::yield_now();
        }
        if let Some((clock, takes)) = &*self.takes.lock().unwrap() {
            clock.advance(*takes);
        }
        assert!(!self.panics.load(Ordering::SeqCst), "the script says so");
        let values: Vec<f32> = input.data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        if values.contains(&POISON) {
            return Err(RunError { is_input_fault: true, text: "a row is poisoned".to_owned() });
        }
        let data: Vec<u8> = values.iter().flat_map(|value| (value * 2.0).to_le_bytes()).collect();
        let output = OutputTensor { datatype: DataType::Fp32, shape: input.shape.into(), data: data.into() };
        Ok(outputs.iter().map(|_| output.clone()).collect())
    }
}

/// What a caller got.
#[derive(Debug, Clone)]
pub enum Got {
    Values(Vec<f32>, BatchPlace),
    Refused(Kind, String),
}

impl Got {
    pub fn values(&self) -> Vec<f32> {
        match self {
            Got::Values(values, _) => values.clone(),
            Got::Refused(kind, text) => panic!("refused: {kind:?} {text}"),
        }
    }

    pub fn is_refused(&self) -> bool {
        matches!(self, Got::Refused(..))
    }

    pub fn kind(&self) -> Kind {
        match self {
            Got::Refused(kind, _) => *kind,
            Got::Values(..) => panic!("answered"),
        }
    }
}

/// One caller: what it got, and whether it has gone.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    pub got: Arc<Mutex<Vec<Got>>>,
    pub gone: Arc<AtomicBool>,
}

impl Caller {
    pub fn only(&self) -> Got {
        let got = self.got.lock().unwrap();
        assert_eq!(got.len(), 1, "answered once: {got:?}");
        got[0].clone()
    }

    pub fn is_answered(&self) -> bool {
        !self.got.lock().unwrap().is_empty()
    }
}

impl Reply for Caller {
    fn is_gone(&mut self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    fn send(self: Box<Self>, outcome: Result<Answer<'_>, Error>) {
        let got = match outcome {
            Ok(answer) => {
                let data = &answer.outputs[0].data;
                let values = data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
                Got::Values(values, answer.place)
            }
            Err(error) => Got::Refused(error.kind(), error.text().to_owned()),
        };
        self.got.lock().unwrap().push(got);
    }
}

#[derive(Debug, Default)]
pub struct Deliveries {
    pub waiting: Mutex<Vec<Delivery>>,
    pub messages: AtomicUsize,
}

impl Mailbox for Deliveries {
    fn deliver(&self, delivery: Delivery) {
        self.messages.fetch_add(1, Ordering::SeqCst);
        self.waiting.lock().unwrap().push(delivery);
    }

    fn plan_changed(&self) {}
}

/// Which models somebody waits for.
#[derive(Debug, Default)]
pub struct Asked(pub Mutex<Vec<String>>);

impl Demand for Asked {
    fn wanted(&self, model: &str, version: Option<u64>) {
        let number = version.map_or_else(String::new, |version| format!("/{version}"));
        self.0.lock().unwrap().push(format!("{model}{number}"));
    }
}

/// Keeps traces.
#[derive(Debug, Default)]
pub struct Traces(pub Mutex<Vec<Trace>>);

impl TraceSink for Traces {
    fn record(&self, trace: Trace) {
        self.0.lock().unwrap().push(trace);
    }
}

/// One event loop with one model `m`, input `x` and output `y` of shape [-1, width], on a clock that stands still.
pub struct Bench {
    pub clock: ManualClock,
    pub backend: Arc<Doubler>,
    pub mailbox: Arc<Deliveries>,
    pub pipeline: Pipeline,
    pub version: Arc<Version>,
    pub shared: Arc<Shared>,
    pub demand: Arc<Asked>,
    pub traces: Arc<Traces>,
}

impl Bench {
    pub fn new(settings: ModelSettings, limits: LimitSettings, batching: Batching) -> Self {
        let clock = ManualClock::new();
        let backend = Arc::new(Doubler::default());
        let mailbox = Arc::new(Deliveries::default());
        let traces = Arc::new(Traces::default());
        let warmup = vec![(1, 4, Duration::from_micros(2)), (64, 4, Duration::from_micros(4))];
        let new = new_version(backend.clone(), settings, batching, warmup);
        let mailboxes: Arc<[Arc<dyn Mailbox>]> = Arc::new([mailbox.clone() as Arc<dyn Mailbox>]);
        let version = Version::new(new, mailboxes, Clock::Manual(clock.clone()));
        let slot = Slot::serving(version.clone());
        let plan = Plan::new(1, [("m".to_owned(), Endpoint::new([(1, slot)].into()))]);
        let demand = Arc::new(Asked::default());
        let shared = Arc::new(Shared {
            plan: Arc::new(ArcSwap::from_pointee(plan)),
            clock: Clock::Manual(clock.clone()),
            requests: Budget::new(limits.requests_in_flight),
            limits,
            occupancy: Occupancy::new(1),
            refused: Box::new([Refused::default()]),
            demand: demand.clone(),
            tracer: Arc::new(Tracer::new(Some(traces.clone()), Clock::Manual(clock.clone()))),
            watch: Watch::new(1, clock.now()),
        });
        let pipeline = Pipeline::new(0, shared.clone());
        Self { clock, backend, mailbox, pipeline, version, shared, demand, traces }
    }

    /// Another version like the bench's own, with these times.
    pub fn new_version(&self, warmup: Vec<(usize, usize, Duration)>) -> NewVersion {
        new_version(self.backend.clone(), self.version.settings.clone(), self.version.spec.batching.clone(), warmup)
    }

    /// A second loop in front of the same version and mailbox.
    pub fn on(first: &Bench) -> Self {
        let pipeline = Pipeline::new(0, first.shared.clone());
        Self {
            clock: first.clock.clone(),
            backend: first.backend.clone(),
            mailbox: first.mailbox.clone(),
            pipeline,
            version: first.version.clone(),
            shared: first.shared.clone(),
            demand: first.demand.clone(),
            traces: first.traces.clone(),
        }
    }

    /// Rows share runs; everything else by default.
    pub fn with(settings: ModelSettings) -> Self {
        Self::new(settings, LimitSettings::default(), Batching::Rows)
    }

    /// A model whose runs go to the pool.
    pub fn pooled(settings: ModelSettings) -> Self {
        Self::with(ModelSettings { inline: false, ..settings })
    }

    pub fn request(rows: &[&[f32]]) -> Request {
        let width = rows.first().map_or(1, |row| row.len());
        let data: Vec<u8> = rows.iter().flat_map(|row| row.iter().flat_map(|value| value.to_le_bytes())).collect();
        let input = Input {
            name: "x".into(),
            datatype: DataType::Fp32,
            shape: [rows.len() as i64, width as i64].as_slice().into(),
            data: Bytes::from(data).into(),
        };
        Request {
            protocol: Protocol::Grpc,
            model_name: "m".into(),
            inputs: [input].into_iter().collect(),
            ..Request::default()
        }
    }

    /// Puts the model's one version into this slot, and tells the loop.
    pub fn set_slot(&mut self, slot: Slot) {
        let number = self.shared.plan.load().number + 1;
        self.shared.plan.store(Arc::new(Plan::new(number, [("m".to_owned(), Endpoint::new([(1, slot)].into()))])));
        self.pipeline.plan_changed();
    }

    /// Submits rows and returns their caller.
    pub fn send(&mut self, rows: &[&[f32]]) -> Caller {
        self.send_request(Self::request(rows))
    }

    /// What each run takes from now on.
    pub fn runs_take(&self, takes: Duration) {
        *self.backend.takes.lock().unwrap() = Some((self.clock.clone(), takes));
    }

    /// Submits one row that asks for `priority`, and ends the turn.
    pub fn send_with_priority(&mut self, value: f32, priority: u64) -> Caller {
        let mut request = Self::request(&[&[value]]);
        request.priority = priority;
        let caller = self.send_request(request);
        self.flush();
        caller
    }

    /// Sends a row whose run does not end before `backend.hold(false)`, so that everything after it waits.
    pub fn keep_busy(&mut self) -> Caller {
        self.backend.hold(true);
        let runs = self.backend.runs().len();
        let busy = self.send(&[&[0.0]]);
        self.flush();
        eventually(|| self.backend.runs().len() == runs + 1);
        busy
    }

    pub fn send_request(&mut self, request: Request) -> Caller {
        let caller = Caller::default();
        self.pipeline.submit(request, Box::new(caller.clone()));
        caller
    }

    /// Ends the turn.
    pub fn flush(&mut self) {
        while self.pipeline.look() == Decision::LookAgain {}
        self.pipeline.flush();
    }

    /// Brings home what instances have finished so far.
    pub fn receive(&mut self) {
        let deliveries = std::mem::take(&mut *self.mailbox.waiting.lock().unwrap());
        for delivery in deliveries {
            self.pipeline.receive(delivery);
        }
    }

    /// Brings home what instances have finished until `done`, for at most ten real seconds.
    pub fn receive_until(&mut self, mut done: impl FnMut() -> bool) {
        eventually(|| {
            self.receive();
            done()
        });
    }
}

/// Input `x` and output `y` of shape [-1, width].
fn new_version(
    backend: Arc<Doubler>,
    settings: ModelSettings,
    batching: Batching,
    warmup: Vec<(usize, usize, Duration)>,
) -> NewVersion {
    let tensor = |name: &str| TensorSpec {
        name: name.to_owned(),
        datatype: DataType::Fp32,
        shape: [-1, -1].as_slice().into(),
        labels: None,
    };
    let spec = ModelSpec {
        name: "m".into(),
        version: 1,
        platform: "scripted",
        inputs: vec![tensor("x")],
        outputs: vec![tensor("y")],
        batching,
        time_follows_values: None,
    };
    let instances = settings.instances.max(1);
    NewVersion {
        spec,
        settings,
        backend,
        instances,
        warmup,
        model_bytes: 0,
        load_duration: Duration::ZERO,
        earlier: None,
    }
}

/// Waits for what another thread does.
#[allow(clippy::disallowed_methods, reason = "bounds the test, not the code")]
pub fn eventually(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(120), "it never came true");
        std::thread::yield_now();
    }
}
