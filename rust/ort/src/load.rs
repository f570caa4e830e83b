//! Loads one version of a model: reads and checks the file, makes a session, proves its batching, warms it up.
//!
//! Runs off the serving threads. Whatever is wrong is a [`LoadError`], and leaves nothing behind.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlserve_core::backend::Backend;
use mlserve_core::clock::Clock;
use mlserve_core::model::{Batching, TensorSpec};

use crate::api::Status;
use crate::backend::OrtBackend;
use crate::error::LoadError;
use crate::fingerprint::Fingerprint;
use crate::model::external::DataFile;
use crate::model::proto::Model;
use crate::model::spec::Port;
use crate::model::{check, file, spec};
use crate::options::SessionOptions;
use crate::runtime::Runtime;
use crate::session::Session;
use crate::settings::SessionSettings;
use crate::weights::{self, Weights};
use crate::{proof, warmup};

/// How a version is to be loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Most rows that will share a run; warm-up goes up to it.
    pub max_batch_rows: usize,
    /// Threads of one run; `None`: measured.
    pub threads: Option<usize>,
    /// Cores that the process may use.
    pub cores: usize,
    /// How many runs may happen at once; `None`: as many as `threads` leaves room for.
    pub instances: Option<usize>,
    /// About how long the proof of batching and the warm-up may take together; runs are never cut off.
    pub warmup_budget: Duration,
    /// Why requests are not to share runs, each being run whole as it comes; `None`: whether they may is found out.
    pub whole_requests: Option<String>,
    /// What is asked of the session.
    pub session: SessionSettings,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            max_batch_rows: 64,
            threads: None,
            cores: 1,
            instances: None,
            warmup_budget: Duration::from_secs(1),
            whole_requests: None,
            session: SessionSettings::default(),
        }
    }
}

/// What the file says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphFacts {
    /// Version of the file format.
    pub ir_version: i64,
    /// Domain (`ai.onnx` is written out) and version of each operator set.
    pub opsets: Vec<(String, i64)>,
    /// Name and version of the exporter.
    pub producer: String,
    /// How many nodes there are of each operation type, subgraphs and functions included.
    pub operations: BTreeMap<String, usize>,
}

/// How long the steps of a load took.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadTimes {
    /// Reading and checking the file without ONNX Runtime.
    pub check: Duration,
    /// Making the session (ONNX Runtime reads and optimises the model).
    pub session: Duration,
    /// Proving that rows are independent, or that they are not.
    pub proof: Duration,
    /// Choosing threads and measuring run times.
    pub warmup: Duration,
}

/// A version that can serve, and what was found out about it.
pub struct LoadedModel {
    /// Runs it. Dropping the last clone, and the last output, frees the weights; see [`crate::release_memory`].
    pub backend: Arc<dyn Backend>,
    /// In the graph's order; initialisers are not among them.
    pub inputs: Vec<TensorSpec>,
    /// In the graph's order.
    pub outputs: Vec<TensorSpec>,
    /// Whether rows may share a run, and why not.
    pub batching: Batching,
    /// Threads of one run.
    pub threads: usize,
    /// How many runs may happen at once.
    pub instances: usize,
    /// Rows and the smallest measured time of a run with so many.
    pub warmup: Vec<(usize, Duration)>,
    /// Bytes of the model file and the data files beside it.
    pub file_bytes: u64,
    /// The model file and the data files beside it as they were when they were read: what is served.
    pub files: Fingerprint,
    /// What the file says about itself.
    pub facts: GraphFacts,
    /// Where the time went.
    pub times: LoadTimes,
}

impl fmt::Debug for LoadedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedModel")
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .field("batching", &self.batching)
            .field("threads", &self.threads)
            .field("instances", &self.instances)
            .finish_non_exhaustive()
    }
}

/// What is being loaded: the parts that proof and warm-up work on.
pub(crate) struct Candidate<'a> {
    pub(crate) runtime: &'a Arc<Runtime>,
    pub(crate) path: &'a Path,
    pub(crate) options: &'a LoadOptions,
    pub(crate) model: &'a Model,
    pub(crate) data_files: &'a [DataFile],
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
}

impl Candidate<'_> {
    /// A session for runs of `threads` threads.
    pub(crate) fn session(&self, threads: usize) -> Result<Arc<Session>, LoadError> {
        let names = |ports: &'_ [Port]| ports.iter().map(|port| port.spec.name.clone()).collect::<Vec<_>>();
        let (inputs, outputs) = (names(&self.inputs), names(&self.outputs));
        let (inputs, outputs) = (inputs.iter().map(String::as_str), outputs.iter().map(String::as_str));
        let mut options = SessionOptions::of_model(self.runtime, threads, self.options.cores, &self.options.session)?;
        options.give(Weights::read(self.runtime, self.data_files)?)?;
        let session = Session::new(self.runtime, self.path, &options, inputs, outputs);
        let session = session.map(Arc::new).map_err(|status| self.refused(&status))?;
        if let Some((allocated, limit)) = self.runtime.excess() {
            let path = self.path.display();
            let hint = "raise the limit or load fewer models";
            let text = format!("{path}: with its weights tensors take {allocated} bytes, the limit is {limit}: {hint}");
            return Err(LoadError::unsupported(text));
        }
        Ok(session)
    }

    fn refused(&self, status: &Status) -> LoadError {
        /// `OrtErrorCode`: not implemented.
        const NOT_IMPLEMENTED: i32 = 9;
        let line = status.message.lines().next().unwrap_or_default();
        let (path, version) = (self.path.display(), self.runtime.version());
        let is_unsupported = status.code == NOT_IMPLEMENTED
            || ["is under development", "Unsupported"].iter().any(|words| line.contains(words));
        let keys: Vec<&str> = self.options.session.entries.iter().map(|(key, _)| key.as_str()).collect();
        // An entry's value is looked at when the session is made, and not every refusal names it.
        let with = if keys.is_empty() { String::new() } else { format!(" with session entries {}", keys.join(", ")) };
        let text = format!("{path}: ONNX Runtime {version} refuses the model{with}: {line}");
        if is_unsupported { LoadError::unsupported(text) } else { LoadError::broken(text) }
    }
}

/// Loads the model at `path`.
///
/// **Cost:** time and memory of an ONNX Runtime session (two while thread counts are compared), then about
/// `warmup_budget`.
///
/// **Errors:** the file is unreadable, damaged, leaves its directory, cannot be served, or was changed meanwhile; the
/// text says what to do.
pub fn load(runtime: &Arc<Runtime>, path: &Path, options: &LoadOptions) -> Result<LoadedModel, LoadError> {
    load_watched(runtime, path, options, &mut || ())
}

/// As [`load`]; calls `warming` once the session is made and its probes begin.
pub fn load_watched(
    runtime: &Arc<Runtime>,
    path: &Path,
    options: &LoadOptions,
    warming: &mut dyn FnMut(),
) -> Result<LoadedModel, LoadError> {
    let mut files = Fingerprint::of([path]);
    let loaded = read_and_load(runtime, path, options, &mut files, warming);
    // Also the cause of most failures of a file that is being replaced.
    unchanged(path, &files)?;
    loaded
}

/// **Errors:** one of the files is another than it was.
fn unchanged(path: &Path, files: &Fingerprint) -> Result<(), LoadError> {
    let Some(change) = files.change(&files.again()) else { return Ok(()) };
    let text = format!("{}: the model changed while it was loaded: {change}", path.display());
    Err(LoadError::changed(text))
}

/// Loads the model at `path`, of whose files `files` knows the state; adds those beside it.
fn read_and_load(
    runtime: &Arc<Runtime>,
    path: &Path,
    options: &LoadOptions,
    files: &mut Fingerprint,
    warming: &mut dyn FnMut(),
) -> Result<LoadedModel, LoadError> {
    let start = now();
    let (model, model_bytes) = file::read(path)?;
    let findings = check::check(&model, path)?;
    weights::warn_of_mapped(path, &findings);
    files.extend(findings.fingerprint);
    let data_files = &findings.data_files;
    let graph = model.graph.as_ref().ok_or_else(|| LoadError::broken("the model has no graph"))?;
    let (inputs, outputs) = (spec::inputs(graph)?, spec::outputs(graph)?);
    let mut candidate = Candidate { runtime, path, options, model: &model, data_files, inputs, outputs };
    let checked = now();
    let session = candidate.session(options.threads.unwrap_or(1).max(1))?;
    unchanged(path, files)?;
    let made = now();
    warming();
    let proven = proof::prove(&mut candidate, &session, options)?;
    let tried = now();
    let warm = warmup::warm_up(&candidate, session, &proven, options)?;
    let specs = |ports: Vec<Port>| ports.into_iter().map(|port| port.spec).collect();
    let times =
        LoadTimes { check: checked - start, session: made - checked, proof: tried - made, warmup: now() - tried };
    Ok(LoadedModel {
        inputs: specs(candidate.inputs),
        outputs: specs(candidate.outputs),
        backend: Arc::new(OrtBackend::new(warm.session)),
        batching: proven.batching,
        threads: warm.threads,
        instances: warm.instances,
        warmup: warm.times,
        file_bytes: data_files.iter().fold(model_bytes, |total, file| total + file.bytes),
        files: files.clone(),
        facts: facts(&model, findings.operations),
        times,
    })
}

fn facts(model: &Model, operations: BTreeMap<String, usize>) -> GraphFacts {
    let domain = |domain: &str| if domain.is_empty() { "ai.onnx".to_owned() } else { domain.to_owned() };
    GraphFacts {
        ir_version: model.ir_version,
        opsets: model.opset_import.iter().map(|opset| (domain(&opset.domain), opset.version)).collect(),
        producer: format!("{} {}", model.producer_name, model.producer_version).trim().to_owned(),
        operations,
    }
}

/// The present moment; loading measures real runs, so its time is real too.
pub(crate) fn now() -> Instant {
    Clock::Monotonic.now()
}
