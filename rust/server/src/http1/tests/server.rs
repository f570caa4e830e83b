//! A real event loop on a thread of its own, models that answer what they are asked, and a client that counts bytes.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use mlserve_core::backend::{Backend, OutputTensor, RunError, TensorView};
use mlserve_core::budget::Budget;
use mlserve_core::clock::Clock;
use mlserve_core::config::{ModelSettings, Settings};
use mlserve_core::lane::Occupancy;
use mlserve_core::model::{Batching, ModelSpec, TensorSpec};
use mlserve_core::pipeline::{Refused, Shared};
use mlserve_core::plan::{Endpoint, Plan, Slot};
use mlserve_core::tensor::DataType;
use mlserve_core::version::{Mailbox, NewVersion, Version};

use crate::access::AccessLog;
use crate::event_loop::{self, LoopHandle, LoopMailbox, LoopSeed};
use crate::lifecycle::Models;
use crate::listen::Socket;
use crate::model_config::Configs;
use crate::process::Process;
use crate::status::{Phase, Status};
use crate::trace::Tracing;

/// Answers its inputs; can be held.
#[derive(Debug, Default)]
pub(super) struct Echo {
    is_held: Mutex<bool>,
    released: Condvar,
    runs: Mutex<usize>,
}

impl Echo {
    pub(super) fn hold(&self, is_held: bool) {
        *self.is_held.lock().unwrap() = is_held;
        self.released.notify_all();
    }

    pub(super) fn runs(&self) -> usize {
        *self.runs.lock().unwrap()
    }
}

impl Backend for Echo {
    fn run(&self, inputs: &[TensorView<'_>], outputs: &[usize]) -> Result<Vec<OutputTensor>, RunError> {
        *self.runs.lock().unwrap() += 1;
        drop(self.released.wait_while(self.is_held.lock().unwrap(), |is_held| *is_held).unwrap());
        let output = |&index: &usize| {
            let input = inputs[index];
            OutputTensor { datatype: input.datatype, shape: input.shape.into(), data: input.data.to_vec().into() }
        };
        Ok(outputs.iter().map(output).collect())
    }
}

/// What the access log writes to.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A server of one loop, with a model of each kind.
pub(super) struct TestServer {
    pub(super) process: Arc<Process>,
    pub(super) echo: Arc<Echo>,
    log: Log,
    handle: LoopHandle,
    thread: Option<JoinHandle<()>>,
}

impl TestServer {
    pub(super) fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::default();
        settings.limits.byte_budget = 1 << 30;
        change(&mut settings);
        let plan = Arc::new(ArcSwap::from_pointee(Plan::default()));
        let tracer = Tracing::start(None, Clock::Monotonic).expect("nothing to start");
        let shared = Arc::new(Shared {
            plan: Arc::clone(&plan),
            clock: Clock::Monotonic,
            limits: settings.limits.clone(),
            requests: Budget::new(settings.limits.requests_in_flight),
            occupancy: Occupancy::new(1),
            refused: Box::new([Refused::default()]),
            demand: Arc::new(()),
            tracer: Arc::clone(&tracer.tracer),
            watch: mlserve_core::watch::Watch::new(1, Clock::Monotonic.now()),
        });
        let (no_models, _) = Models::new(&settings, Arc::clone(&plan), Arc::default());
        let process = Arc::new(Process {
            status: Status::new(&settings.server, Vec::new()),
            bytes: Budget::new(settings.limits.byte_budget),
            origins: crate::origin::Origins::new(&settings.server),
            shares: crate::share::Shares::new(&settings.limits),
            shared_memory: crate::shared_memory::Regions::new(settings.server.allow_client_shm),
            clock: Clock::Monotonic,
            access_log: None,
            panics: crate::panics::Panics::default(),
            tracer,
            openapi: crate::http::openapi::Document::default(),
            statistics: crate::extensions::statistics::Statistics::default(),
            shared: Arc::clone(&shared),
            plan,
            models: no_models,
            configs: Configs::default(),
            settings,
        });
        let log = Log::default();
        let wants_log = process.settings.log.access_log;
        let access_log = wants_log.then(|| AccessLog::to(log.clone()).expect("a thread"));
        let mailbox = Arc::new(LoopMailbox::default());
        let echo = Arc::new(Echo::default());
        process.plan.store(Arc::new(models(&echo, &mailbox)));
        process.status.advance(Phase::Serving);
        let (handle, arrivals) = LoopHandle::new(Arc::clone(&mailbox));
        let pulse = Arc::clone(handle.pulse());
        let seed = LoopSeed { home: 0, process: Arc::clone(&process), shared, mailbox, pulse, access_log };
        let thread = std::thread::spawn(move || event_loop::run(&seed, arrivals));
        Self { process, echo, log, handle, thread: Some(thread) }
    }

    pub(super) fn connect(&self) -> Client {
        let (client, server) = UnixStream::pair().expect("a pair");
        server.set_nonblocking(true).expect("a socket");
        client.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        self.handle.connect(Socket::Unix(server));
        Client { socket: client, buffer: Vec::new() }
    }

    /// The first `count` lines of the access log, once they are there.
    pub(super) fn access_lines(&self, count: usize) -> Vec<serde_json::Value> {
        loop {
            let text = String::from_utf8(self.log.0.lock().unwrap().clone()).expect("UTF-8");
            let lines: Vec<&str> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
            if lines.len() >= count {
                return lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            }
            std::thread::yield_now();
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.handle.connections()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.echo.hold(false);
        self.handle.end();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the loop did not panic");
        }
    }
}

fn models(echo: &Arc<Echo>, mailbox: &Arc<LoopMailbox>) -> Plan {
    let mailboxes: Arc<[Arc<dyn Mailbox>]> = Arc::new([Arc::clone(mailbox) as Arc<dyn Mailbox>]);
    let model = |name: &str, datatype: DataType, shape: &[i64], batching: Batching| {
        let tensor = |name: &str| TensorSpec { name: name.to_owned(), datatype, shape: shape.into(), labels: None };
        let spec = ModelSpec {
            name: name.into(),
            version: 1,
            platform: "test",
            inputs: vec![tensor("x")],
            outputs: vec![tensor("y")],
            batching,
            time_follows_values: None,
        };
        let backend = Arc::clone(echo) as Arc<dyn Backend>;
        let settings = ModelSettings { max_batch_rows: 32, ..ModelSettings::default() };
        let new = NewVersion {
            spec,
            settings,
            backend,
            instances: 1,
            warmup: Vec::new(),
            model_bytes: 0,
            load_duration: Duration::ZERO,
            earlier: None,
        };
        let version = Version::new(new, Arc::clone(&mailboxes), Clock::Monotonic);
        let slot = Slot::serving(version);
        (name.to_owned(), Endpoint::new(BTreeMap::from([(1, slot)])))
    };
    let whole = || Batching::Fixed { reason: "test".to_owned() };
    let mut models: Vec<_> = DataType::ALL
        .into_iter()
        .map(|datatype| model(&datatype.name().to_lowercase(), datatype, &[-1], Batching::Rows))
        .collect();
    models.push(model("tiny", DataType::Fp32, &[-1, 8], Batching::Rows));
    models.push(model("image", DataType::Uint8, &[-1, 3], whole()));
    models.push(model("document", DataType::Bytes, &[1], whole()));
    Plan::new(1, models)
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HashMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }
}

/// One connection.
pub(super) struct Client {
    socket: UnixStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the server reads");
    }

    /// Sends nothing more, and waits for answers.
    pub(super) fn close_side(&self) {
        self.socket.shutdown(std::net::Shutdown::Write).expect("a socket");
    }

    /// Reads the head of an answer.
    pub(super) fn receive_head(&mut self) -> String {
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.read_more(), "closed after {:?}", String::from_utf8_lossy(&self.buffer));
        };
        String::from_utf8(self.buffer.drain(..head_end).collect()).expect("ASCII")
    }

    /// Reads one answer.
    pub(super) fn receive(&mut self) -> Answer {
        let head = self.receive_head();
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status line");
        let headers: HashMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length: usize = headers.get("content-length").map_or(0, |length| length.parse().expect("a length"));
        while self.buffer.len() < length {
            assert!(self.read_more(), "closed within the body");
        }
        Answer { status, headers, body: self.buffer.drain(..length).collect() }
    }

    fn read_more(&mut self) -> bool {
        let mut chunk = [0; 16 << 10];
        let count = self.socket.read(&mut chunk).unwrap_or(0);
        self.buffer.extend_from_slice(&chunk[..count]);
        count > 0
    }

    /// Reads to the end of the connection and returns what still came.
    pub(super) fn drain(&mut self) -> Vec<u8> {
        while self.read_more() {}
        std::mem::take(&mut self.buffer)
    }

    pub(super) fn call(&mut self, method: &str, path: &str, fields: &str, body: &[u8]) -> Answer {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
        self.send(&[head.as_bytes(), body].concat());
        self.receive()
    }

    pub(super) fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
        self.receive()
    }

    pub(super) fn infer(&mut self, model: &str, fields: &str, body: &[u8]) -> Answer {
        self.call("POST", &format!("/v2/models/{model}/infer"), fields, body)
    }
}
