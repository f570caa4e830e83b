//! Loads the models, one after the other, and puts each into the plan as its state changes.
//!
//! Runs on a thread of its own. One at a time, because warm-up measures run times and two at once would spoil both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlserve_core::model::ModelSpec;
use mlserve_core::plan::{Endpoint, Plan, Slot, State};
use mlserve_core::tensor::DataType;
use mlserve_core::version::{Mailbox, NewVersion, Version};
use mlserve_ort::{LoadError, LoadOptions, LoadedModel, Runtime};

use crate::process::Process;
use crate::repository::{Found, model_settings};
use crate::resources;
use crate::status::Phase;

/// What ONNX models are to callers.
const PLATFORM: &str = "onnxruntime_onnx";

/// What became of one version at start-up.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// What was to be loaded.
    pub found: Found,
    /// How its requests are batched, or why it failed. Not the version itself: its memory must not hang on a report.
    pub result: Result<String, String>,
    /// How long it took.
    pub took: Duration,
}

/// The versions of each model, by number.
type Slots = BTreeMap<String, BTreeMap<u64, Slot>>;

/// Puts `found` into the plan as loading: from the first connection on, callers are told to come back.
pub(crate) fn announce(process: &Process, found: &[Found]) {
    publish(process, &loading(found));
}

fn loading(found: &[Found]) -> Slots {
    let mut slots = Slots::new();
    for each in found {
        slots.entry(each.name.clone()).or_default().insert(each.version, not_ready(State::Loading));
    }
    slots
}

/// Loads `found`, and publishes each as it becomes ready or fails.
pub(crate) fn load_all(
    process: &Process,
    runtime: &Result<Arc<Runtime>, LoadError>,
    mailboxes: &Arc<[Arc<dyn Mailbox>]>,
    found: &[Found],
) -> Vec<LoadReport> {
    let mut slots = loading(found);
    let mut reports = Vec::with_capacity(found.len());
    for each in found {
        if process.status.phase() >= Phase::Closing {
            break;
        }
        let begun = process.clock.now();
        let result = load(process, runtime, mailboxes, each, &mut || {
            slots.entry(each.name.clone()).or_default().insert(each.version, not_ready(State::Warming));
            publish(process, &slots);
        });
        let took = process.clock.now().saturating_duration_since(begun);
        let slot = match &result {
            Ok(version) => Slot { state: State::Ready, version: Some(Arc::clone(version)) },
            Err(reason) => not_ready(State::Failed(reason.clone())),
        };
        let result = result.map(|version| batching(&version));
        report(each, &result, took);
        slots.entry(each.name.clone()).or_default().insert(each.version, slot);
        publish(process, &slots);
        reports.push(LoadReport { found: each.clone(), result, took });
    }
    reports
}

fn not_ready(state: State) -> Slot {
    Slot { state, version: None }
}

fn publish(process: &Process, slots: &Slots) {
    let number = process.plan.load().number + 1;
    let endpoints = slots.iter().map(|(name, versions)| (name.clone(), Endpoint::new(versions.clone())));
    process.plan.store(Arc::new(Plan::new(number, endpoints)));
}

fn load(
    process: &Process,
    runtime: &Result<Arc<Runtime>, LoadError>,
    mailboxes: &Arc<[Arc<dyn Mailbox>]>,
    found: &Found,
    warming: &mut dyn FnMut(),
) -> Result<Arc<Version>, String> {
    let begun = process.clock.now();
    let runtime = runtime.as_ref().map_err(|error| error.text().to_owned())?;
    let settings = model_settings(&process.settings, &found.name);
    let positive = |number: usize| (number > 0).then_some(number);
    let options = LoadOptions {
        max_batch_rows: settings.max_batch_rows,
        threads: positive(settings.threads),
        cores: resources::cores(),
        instances: positive(settings.instances),
        ..LoadOptions::default()
    };
    let loaded =
        mlserve_ort::load_watched(runtime, &found.path, &options, warming).map_err(|error| error.text().to_owned())?;
    let row_bytes = row_bytes(&loaded);
    let warmup = loaded.warmup.iter().map(|&(rows, took)| (rows, row_bytes, took)).collect();
    let spec = ModelSpec {
        name: found.name.as_str().into(),
        version: found.version,
        platform: PLATFORM,
        inputs: loaded.inputs,
        outputs: loaded.outputs,
        batching: loaded.batching,
    };
    let new = NewVersion {
        spec,
        settings,
        backend: loaded.backend,
        instances: loaded.instances,
        warmup,
        model_bytes: std::fs::metadata(&found.path).map_or(0, |file| file.len()),
        load_duration: process.clock.now().saturating_duration_since(begun),
        earlier: None,
    };
    Ok(Version::new(new, Arc::clone(mailboxes), process.clock.clone()))
}

/// Bytes of one row of the shapes that warm-up ran with: unknown dimensions count as one.
fn row_bytes(loaded: &LoadedModel) -> usize {
    let elements = |shape: &[i64]| shape.iter().skip(1).map(|&dimension| dimension.max(1) as usize).product::<usize>();
    let bytes = |datatype: DataType| datatype.size().unwrap_or(8);
    loaded.inputs.iter().map(|input| elements(&input.shape) * bytes(input.datatype)).sum()
}

fn batching(version: &Version) -> String {
    version.spec.batching.reason().map_or_else(
        || format!("batches of up to {} rows", version.max_rows()),
        |reason| format!("one request per run: {reason}"),
    )
}

fn report(found: &Found, result: &Result<String, String>, took: Duration) {
    let load_ms = took.as_millis() as u64;
    match result {
        Ok(batching) => {
            tracing::info!(model = found.name, version = found.version, load_ms, batching, "model is ready");
        }
        Err(reason) => {
            tracing::error!(model = found.name, version = found.version, load_ms, reason, "model failed to load");
        }
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
