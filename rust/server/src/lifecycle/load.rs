//! Loads one version: its files become a session, which is warmed up and taken into service.
//!
//! Every load runs on a thread of its own: at a low priority where the server serves already, so that loading takes only
//! what serving leaves over.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlserve_core::config::{BatchingChoice, ModelSettings};
use mlserve_core::failpoint;
use mlserve_core::model::{Batching, ModelSpec};
use mlserve_core::stats::Stats;
use mlserve_core::tensor::{DataType, Shape};
use mlserve_core::version::{NewVersion, Version};
use mlserve_ort::{Execution, Limiter, LoadError, LoadOptions, LoadedModel, Optimization, SessionSettings};

use super::manager::Manager;
use super::repository::Found;
use super::warmup::Trial;
use crate::model_config::{ConfigFile, GraphLevel, SessionOptions, Warmup};
use crate::resources;
use crate::trust::Roots;

/// The reason of a load that ended by a fault of the server's own.
pub(super) const PANICKED: &str = "loading it panicked";

/// How long a run before the model serves may take, unless requests may take less: others wait for the load.
const LONGEST_RUN: Duration = Duration::from_secs(60);

/// What ONNX models are to callers.
const PLATFORM: &str = "onnxruntime_onnx";

/// What became of one version when it was loaded.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// What was to be loaded.
    pub found: Found,
    /// How its requests are batched, or why it failed. Not the version itself: its memory must not hang on a report.
    pub result: Result<String, String>,
    /// How long it took.
    pub took: Duration,
}

/// Why a version was not loaded.
#[derive(Debug)]
pub(super) struct Failure {
    /// For whoever runs the server.
    pub(super) text: String,
    /// Whether the same files may be loaded later.
    pub(super) may_pass: bool,
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self { text, may_pass: false }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self { text: error.text().to_owned(), may_pass: error.may_pass() }
    }
}

/// One version to be loaded.
pub(super) struct Job<'a> {
    /// Its files.
    pub(super) found: &'a Found,
    /// The model's folder, for what its configuration names.
    pub(super) folder: &'a Path,
    /// Where links below it may lead.
    pub(super) roots: Roots,
    /// The model's configuration.
    pub(super) config: Option<&'a ConfigFile>,
    /// How it is to be run.
    pub(super) settings: &'a ModelSettings,
    /// What was counted for the version that it replaces.
    pub(super) earlier: Option<&'a Arc<Stats>>,
    /// The shapes that earlier versions saw.
    pub(super) seen: &'a [Vec<Shape>],
    /// Whether callers are being served meanwhile, who come first.
    pub(super) in_background: bool,
}

impl Job<'_> {
    /// Loads it on a thread of its own; calls `warming` there once its session is made.
    ///
    /// **Errors:** a text for whoever runs the server: what is wrong, and with which file.
    pub(super) fn run(&self, manager: &Manager, warming: &mut (dyn FnMut() + Send)) -> Result<Arc<Version>, Failure> {
        // Made before any thread's priority is lowered, so that the runtime's own threads have the normal one.
        let runtime = manager.runtime.as_ref().map_err(|error| error.text().to_owned())?;
        std::thread::scope(|scope| {
            let loading = std::thread::Builder::new().name("load".to_owned()).spawn_scoped(scope, || {
                if self.in_background {
                    resources::lower_priority();
                }
                self.load(manager, runtime, warming)
            });
            let loading = loading.map_err(|error| format!("no thread could be started for loading: {error}"))?;
            loading.join().unwrap_or_else(|payload| {
                manager.note_panic(&*payload);
                Err(PANICKED.to_owned().into())
            })
        })
    }

    fn load(
        &self,
        manager: &Manager,
        runtime: &Arc<mlserve_ort::Runtime>,
        warming: &mut dyn FnMut(),
    ) -> Result<Arc<Version>, Failure> {
        failpoint!("load", error => return Err(error.text().to_owned().into()));
        let begun = manager.clock().now();
        let longest_run = LONGEST_RUN.min(Duration::from_millis(manager.settings().limits.max_deadline_ms));
        let mut loaded = mlserve_ort::load_watched(runtime, &self.found.path, &self.options(longest_run), warming)?;
        let samples = self.configure(&mut loaded)?;
        within_reach(&loaded, manager.settings().limits.max_tensors)?;
        self.tell_of_batching(&loaded.batching);
        let row_bytes = row_bytes(&loaded);
        let spec = ModelSpec {
            name: self.found.name.as_str().into(),
            version: self.found.version,
            platform: PLATFORM,
            inputs: loaded.inputs,
            outputs: loaded.outputs,
            batching: loaded.batching,
            time_follows_values: loaded.time_follows_values,
        };
        let limiter = Limiter::new(longest_run);
        let trial = Trial { backend: &*loaded.backend, spec: &spec, clock: manager.clock(), limiter };
        trial.run_samples(&samples)?;
        let warmup = loaded.warmup.iter().map(|&(rows, took)| (rows, row_bytes, took));
        let warmup = warmup.chain(trial.run_seen(self.seen)).collect();
        let new = NewVersion {
            spec,
            settings: self.settings.clone(),
            backend: loaded.backend,
            instances: loaded.instances,
            warmup,
            model_bytes: loaded.file_bytes,
            load_duration: manager.clock().now().saturating_duration_since(begun),
            earlier: self.earlier.map(Arc::clone),
        };
        Ok(Version::new(new, manager.mailboxes(), manager.clock().clone()))
    }

    /// Says where the model is not batched as its configuration expects, and where it is on the user's word alone.
    fn tell_of_batching(&self, batching: &Batching) {
        let (model, version) = (&self.found.name, self.found.version);
        match (batching, self.settings.batching) {
            (Batching::Trusted { reason }, _) => {
                tracing::warn!(
                    model,
                    version,
                    reason,
                    "requests share runs because its settings say batching = \"trust\""
                );
            }
            (Batching::Unsafe { reason }, BatchingChoice::Auto) if self.config.is_some_and(ConfigFile::batches) => {
                let advice =
                    format!("if you know that its rows are independent, set models.{model}.batching = \"trust\"");
                tracing::warn!(model, version, reason, advice, "dynamic_batching has no effect: one request per run");
            }
            (Batching::Unsafe { reason } | Batching::Fixed { reason }, BatchingChoice::Off) => {
                tracing::info!(model, version, reason, "batching = \"off\": one request per run");
            }
            (Batching::Fixed { reason }, BatchingChoice::Auto | BatchingChoice::Trust)
                if self.settings.batching == BatchingChoice::Trust || self.config.is_some_and(ConfigFile::batches) =>
            {
                tracing::warn!(model, version, reason, "requests cannot share runs: one request per run");
            }
            _ => {}
        }
    }

    fn options(&self, longest_run: Duration) -> LoadOptions {
        let positive = |number: usize| (number > 0).then_some(number);
        let runtime = self.config.map(|config| config.runtime_options().clone()).unwrap_or_default();
        LoadOptions {
            longest_run,
            max_batch_rows: self.settings.max_batch_rows,
            threads: positive(self.settings.threads).or(runtime.intra_op_threads),
            cores: resources::cores(),
            instances: positive(self.settings.instances),
            whole_requests: self.config.and_then(ConfigFile::whole_requests),
            batching: self.settings.batching,
            session: session_settings(runtime),
            data_roots: self.roots.paths().to_vec(),
            ..LoadOptions::default()
        }
    }

    /// Holds the model against its configuration, and gives it what that adds. Returns the runs that it asks for.
    fn configure(&self, loaded: &mut LoadedModel) -> Result<Vec<Warmup>, String> {
        let Some(config) = self.config else { return Ok(Vec::new()) };
        config.check_against(&loaded.inputs, &loaded.outputs)?;
        loaded.inputs = config.narrowed(&loaded.inputs);
        for (output, labels) in config.labels(self.folder, &self.roots)? {
            if let Some(spec) = loaded.outputs.iter_mut().find(|spec| spec.name == output) {
                spec.labels = Some(labels);
            }
        }
        config.warmups(self.folder, &self.roots, &loaded.inputs)
    }
}

/// **Errors:** the model has more inputs than a request may have tensors, so that nobody could ask it.
fn within_reach(loaded: &LoadedModel, most: usize) -> Result<(), String> {
    let count = loaded.inputs.len();
    if count <= most {
        return Ok(());
    }
    Err(format!(
        "the model has {count} inputs, and a request may have {most}: set limits.max_tensors = {count} or more"
    ))
}

fn session_settings(asked: SessionOptions) -> SessionSettings {
    SessionSettings {
        optimization: match asked.graph_level {
            GraphLevel::Off => Optimization::Disabled,
            GraphLevel::Basic => Optimization::Basic,
            GraphLevel::Extended => Optimization::Extended,
            GraphLevel::All => Optimization::All,
        },
        execution: if asked.is_parallel { Execution::Parallel } else { Execution::Sequential },
        inter_op_threads: asked.inter_op_threads,
        entries: asked.session_entries,
    }
}

/// Bytes of one row of the shapes that warm-up ran with: unknown dimensions count as one.
fn row_bytes(loaded: &LoadedModel) -> usize {
    let elements = |shape: &[i64]| shape.iter().skip(1).map(|&dimension| dimension.max(1) as usize).product::<usize>();
    let bytes = |datatype: DataType| datatype.size().unwrap_or(8);
    loaded.inputs.iter().map(|input| elements(&input.shape) * bytes(input.datatype)).sum()
}

pub(super) fn batching(version: &Version) -> String {
    let rows = version.max_rows();
    match &version.spec.batching {
        Batching::Rows => format!("batches of up to {rows} rows"),
        Batching::Trusted { reason } => format!("batches of up to {rows} rows on your word, although {reason}"),
        Batching::Unsafe { reason } | Batching::Fixed { reason } => format!("one request per run: {reason}"),
    }
}

/// What [`crate::server::Server::start`] measures start-up with.
#[derive(Clone, Debug)]
pub struct Startup {
    /// When the command began.
    pub begun: Instant,
    /// What became of each version, once all have settled.
    pub reports: Vec<LoadReport>,
    /// From the beginning until all had settled.
    pub took: Duration,
}
