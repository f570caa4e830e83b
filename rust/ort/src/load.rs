//! Loads one version of a model: reads and checks the file, makes a session, proves its batching, warms it up.
//!
//! Runs off the serving threads. Whatever is wrong is a [`LoadError`], and leaves nothing behind.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlserve_core::backend::Backend;
use mlserve_core::clock::Clock;
use mlserve_core::config::BatchingChoice;
use mlserve_core::model::{Batching, TensorSpec};

use crate::backend::OrtBackend;
use crate::candidate::Candidate;
use crate::error::LoadError;
use crate::fingerprint::Fingerprint;
use crate::model::proto::Model;
use crate::model::{check, driven, file};
use crate::runtime::Runtime;
use crate::settings::SessionSettings;
use crate::{proof, warmup, weights};

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
    /// About how long the proof of batching and the warm-up may take together.
    pub warmup_budget: Duration,
    /// How long one run of the proof or the warm-up may take. The first that takes longer is stopped and is the last.
    pub longest_run: Duration,
    /// Why requests are not to share runs, each being run whole as it comes; `None`: whether they may is found out.
    pub whole_requests: Option<String>,
    /// Whether requests are to share runs if their rows are not shown to be independent, or never.
    pub batching: BatchingChoice,
    /// What is asked of the session.
    pub session: SessionSettings,
    /// Whether the graph is read for the proof of batching. Never false but in tests of the runs that come after.
    #[doc(hidden)]
    pub reads_graph: bool,
    /// Folders, without links in their paths, that data files may lie in through links, besides the model's own.
    pub data_roots: Vec<PathBuf>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            max_batch_rows: 64,
            threads: None,
            cores: 1,
            instances: None,
            warmup_budget: Duration::from_secs(1),
            longest_run: Duration::from_secs(60),
            whole_requests: None,
            batching: BatchingChoice::Auto,
            session: SessionSettings::default(),
            reads_graph: true,
            data_roots: Vec::new(),
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
    /// The first run: finding sizes and values that the model takes.
    pub first: Duration,
    /// Following rows through the graph, and collecting the values that it knows.
    pub analysis: Duration,
    /// Runs of rows alone and beside others.
    pub trials: Duration,
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
    /// The operation by which the time or the size of a run follows the values of a request, if there is one.
    pub time_follows_values: Option<String>,
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
    let findings = check::check(&model, path, &options.data_roots)?;
    weights::warn_of_mapped(path, &findings);
    files.extend(findings.fingerprint);
    let data_files = &findings.data_files;
    let mut candidate = Candidate::new(runtime, path, options, &model, data_files)?;
    let checked = now();
    let session = candidate.session(options.threads.unwrap_or(1).max(1))?;
    unchanged(path, files)?;
    let made = now();
    warming();
    let proven = proof::prove(&mut candidate, &session, options)?;
    if let Some(after) = candidate.limiter.stopped() {
        let (path, reason) = (path.display(), proven.batching.reason());
        tracing::warn!(%path, ?after, reason, "a trial run did not end and was stopped");
    }
    let tried = now();
    let warm = warmup::warm_up(&candidate, session, &proven, options)?;
    let times = LoadTimes {
        check: checked - start,
        session: made - checked,
        first: proven.first,
        analysis: proven.analysis,
        trials: proven.trials,
        warmup: now() - tried,
    };
    let (inputs, outputs) = candidate.into_specs();
    Ok(LoadedModel {
        inputs,
        outputs,
        backend: Arc::new(OrtBackend::new(warm.session)),
        batching: proven.batching,
        time_follows_values: driven::time_follows_values(&model),
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
