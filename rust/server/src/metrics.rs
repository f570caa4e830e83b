//! Renders what the loops and instances have counted, as Prometheus text.
//!
//! Names are a closed list, [`FAMILIES`]; docs/reference/metrics.md is generated from it. Beside `mlserve_*` stand
//! Triton's `nv_inference_*`, so that its dashboards draw.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use mlserve_core::error::Kind;
use mlserve_core::plan::State;
use mlserve_core::request::Protocol;
use mlserve_core::stats::{HistogramTotal, Totals};
use mlserve_core::version::Version;

use crate::listen::Acceptor;
use crate::panics::Place;
use crate::process::Process;
use crate::resources;
use crate::text::{Family, Text};

/// What a family is, to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Cumulative buckets, sum and count.
    Histogram,
}

macro_rules! families {
    ($($constant:ident = $name:literal, $type:ident, $help:literal;)*) => {
        $(const $constant: Family = Family { name: $name, kind: Type::$type, help: $help };)*
        /// Every metric that /metrics can show.
        pub const FAMILIES: &[Family] = &[$($constant),*];
    };
}

families! {
    REQUESTS = "mlserve_requests_total", Counter, "Requests that ended, by model, version, protocol and code (ok, or a code of the error table).";
    REJECTED = "mlserve_rejected_total", Counter, "Requests refused without a run, by reason (a code of the error table).";
    REQUEST_DURATION = "mlserve_request_duration_seconds", Histogram, "From a request's arrival until its answer was handed to the socket.";
    QUEUE_DURATION = "mlserve_queue_duration_seconds", Histogram, "From a request's arrival until its run began.";
    COMPUTE_DURATION = "mlserve_compute_duration_seconds", Histogram, "The run that answered a request.";
    BATCH_ROWS = "mlserve_batch_rows", Histogram, "Rows of a run.";
    ROWS = "mlserve_rows_total", Counter, "Rows answered.";
    RUNS = "mlserve_runs_total", Counter, "Runs of the runtime.";
    RETRIED_RUNS = "mlserve_retried_runs_total", Counter, "Runs that repeated part of a failed batch.";
    ABANDONED_RUNS = "mlserve_abandoned_runs", Gauge, "Runs that were told to stop, because nobody waits for them any more, and are still in an operation that cannot be stopped.";
    IN_FLIGHT = "mlserve_inflight_requests", Gauge, "Requests accepted and not answered yet.";
    QUEUE_DEPTH = "mlserve_queue_depth", Gauge, "Requests that wait for an instance.";
    MODEL_STATE = "mlserve_model_state", Gauge, "1 for the state that a version is in.";
    MODEL_LOADS = "mlserve_model_loads_total", Counter, "Loads of a model's versions, by outcome (ok, failed). A load that failed leaves what was loaded before.";
    MODEL_EVICTIONS = "mlserve_model_evictions_total", Counter, "How often a model made room for others.";
    MODEL_BYTES = "mlserve_model_bytes", Gauge, "Bytes of a model's files that are loaded.";
    PLAN_NUMBER = "mlserve_plan_number", Gauge, "Number of the plan in force.";
    CONNECTIONS = "mlserve_connections", Gauge, "Open connections.";
    CONNECTIONS_ACCEPTED = "mlserve_connections_accepted_total", Counter, "Connections accepted.";
    CONNECTIONS_REFUSED = "mlserve_connections_refused_total", Counter, "Connections turned away at a limit.";
    CONNECTIONS_ASKED = "mlserve_connections_asked_to_leave_total", Counter, "Quiet connections that were to make room for others.";
    BYTES_HELD = "mlserve_budget_bytes", Gauge, "Bytes of the byte budget that the loops have drawn.";
    BYTES_LIMIT = "mlserve_budget_limit_bytes", Gauge, "The byte budget.";
    ACCESS_DROPPED = "mlserve_access_log_dropped_total", Counter, "Access log lines lost: the writer could not keep up, or the disk was full.";
    LOG_DROPPED = "mlserve_log_dropped_total", Counter, "Log lines lost: standard error did not take them in time.";
    TRACES_DROPPED = "mlserve_traces_dropped_total", Counter, "Traces lost: the writer could not keep up, or the disk was full.";
    PANICS = "mlserve_panics_total", Counter, "Panics, which are faults of the server, by what they ended (batch, request, connection, turn, loop, decoder, front, health, manager).";
    BUILD_INFO = "mlserve_build_info", Gauge, "1, with the version of mlserve.";
    RESIDENT = "process_resident_memory_bytes", Gauge, "Memory that the process holds.";
    PREPROCESS = "request_preprocess_seconds", Histogram, "KServe's name: copying the inputs of a request's batch together, per answered request.";
    PREDICT = "request_predict_seconds", Histogram, "KServe's name: the run that answered a request, without its time in the queue.";
    POSTPROCESS = "request_postprocess_seconds", Histogram, "KServe's name: cutting the outputs of a request's batch apart, per answered request.";
    NV_SUCCESS = "nv_inference_request_success", Counter, "Number of successful inference requests, all batch sizes";
    NV_FAILURE = "nv_inference_request_failure", Counter, "Number of failed inference requests, all batch sizes";
    NV_COUNT = "nv_inference_count", Counter, "Number of inferences performed (does not include cached requests)";
    NV_EXEC_COUNT = "nv_inference_exec_count", Counter, "Number of model executions performed (does not include cached requests)";
    NV_PENDING = "nv_inference_pending_request_count", Gauge, "Instantaneous number of pending requests awaiting execution per-model";
    NV_REQUEST_US = "nv_inference_request_duration_us", Counter, "Cumulative inference request duration in microseconds (includes cached requests)";
    NV_QUEUE_US = "nv_inference_queue_duration_us", Counter, "Cumulative inference queuing duration in microseconds (includes cached requests)";
    NV_COMPUTE_INPUT_US = "nv_inference_compute_input_duration_us", Counter, "Cumulative compute input duration in microseconds (does not include cached requests)";
    NV_COMPUTE_INFER_US = "nv_inference_compute_infer_duration_us", Counter, "Cumulative compute inference duration in microseconds (does not include cached requests)";
    NV_COMPUTE_OUTPUT_US = "nv_inference_compute_output_duration_us", Counter, "Cumulative inference compute output duration in microseconds (does not include cached requests)";
    NV_LOAD_DURATION = "nv_model_load_duration_secs", Gauge, "Model load time in seconds";
}

/// The states that `mlserve_model_state` shows.
const STATES: [&str; 7] = ["loading", "warming", "ready", "draining", "gone", "evicted", "failed"];

/// Triton's words for why a valid request failed; all are shown from the start.
const REASONS: [&str; 4] = ["REJECTED", "CANCELED", "BACKEND", "OTHER"];

/// Takes a histogram out of a version's totals.
type ReadHistogram = fn(&Totals) -> &HistogramTotal;

/// Takes a number out of a version and its totals.
type ReadNumber = fn(&Version, &Totals) -> u64;

/// All metrics of a server, as Prometheus text.
pub(crate) fn render(process: &Process, acceptor: &Acceptor) -> String {
    let mut text = Text::default();
    let plan = process.plan.load_full();
    let versions: Vec<(String, &Version)> = plan
        .endpoints()
        .flat_map(|(_, endpoint)| endpoint.versions.values().filter_map(|slot| slot.version.as_deref()))
        .map(|version| (format!("model=\"{}\",version=\"{}\"", version.spec.name, version.spec.version), version))
        .collect();
    let totals: Vec<(&str, &Version, Totals)> =
        versions.iter().map(|(labels, version)| (labels.as_str(), *version, version.stats.totals())).collect();
    render_requests(&mut text, process, &totals);
    render_durations(&mut text, &totals);
    render_runs(&mut text, &totals);
    render_states(&mut text, process);
    render_process(&mut text, process, acceptor, &totals);
    render_kserve(&mut text, &totals);
    render_triton(&mut text, &totals);
    text.finish()
}

fn render_requests(text: &mut Text, process: &Process, totals: &[(&str, &Version, Totals)]) {
    text.family(&REQUESTS);
    for (labels, _, totals) in totals {
        for protocol in Protocol::ALL {
            let count = totals.success[protocol as usize];
            text.sample(&REQUESTS, &format!("{labels},protocol=\"{}\",code=\"ok\"", protocol.name()), count);
            for kind in Kind::ALL {
                let count = totals.failure[protocol as usize][kind as usize];
                if count > 0 {
                    let (protocol, code) = (protocol.name(), kind.row().code);
                    text.sample(&REQUESTS, &format!("{labels},protocol=\"{protocol}\",code=\"{code}\""), count);
                }
            }
        }
    }
    let refused = |protocol: Protocol, kind: Kind| -> u64 {
        process.shared.refused.iter().map(|refused| refused.0[protocol as usize][kind as usize].get()).sum()
    };
    for (protocol, kind) in Protocol::ALL.into_iter().flat_map(|protocol| Kind::ALL.map(|kind| (protocol, kind))) {
        let count = refused(protocol, kind);
        if count > 0 {
            let labels =
                format!("model=\"\",version=\"\",protocol=\"{}\",code=\"{}\"", protocol.name(), kind.row().code);
            text.sample(&REQUESTS, &labels, count);
        }
    }
    text.family(&REJECTED);
    for kind in Kind::ALL.into_iter().filter(|&kind| kind != Kind::Internal) {
        let known: u64 = totals.iter().map(|(_, _, totals)| totals.failed(|failed| failed == kind)).sum();
        let unknown: u64 = Protocol::ALL.into_iter().map(|protocol| refused(protocol, kind)).sum();
        text.sample(&REJECTED, &format!("reason=\"{}\"", kind.row().code), known + unknown);
    }
}

fn render_durations(text: &mut Text, totals: &[(&str, &Version, Totals)]) {
    let families: [(&Family, ReadHistogram); 3] = [
        (&REQUEST_DURATION, |totals| &totals.request),
        (&QUEUE_DURATION, |totals| &totals.queue),
        (&COMPUTE_DURATION, |totals| &totals.compute),
    ];
    for (family, histogram) in families {
        text.family(family);
        for (labels, _, totals) in totals {
            text.histogram(family, labels, histogram(totals), 1e-9);
        }
    }
    text.family(&BATCH_ROWS);
    for (labels, _, totals) in totals {
        text.histogram(&BATCH_ROWS, labels, &totals.batch_rows, 1.0);
    }
}

fn render_runs(text: &mut Text, totals: &[(&str, &Version, Totals)]) {
    let families: [(&Family, ReadNumber); 6] = [
        (&ROWS, |_, totals| totals.rows),
        (&RUNS, |_, totals| totals.runs),
        (&RETRIED_RUNS, |_, totals| totals.retried_runs),
        (&ABANDONED_RUNS, |version, _| version.pool.abandoned() as u64),
        (&IN_FLIGHT, |_, totals| totals.in_flight()),
        (&QUEUE_DEPTH, |version, _| version.pool.waiting() as u64),
    ];
    for (family, value) in families {
        text.family(family);
        for (labels, version, totals) in totals {
            text.sample(family, labels, value(version, totals));
        }
    }
}

fn render_states(text: &mut Text, process: &Process) {
    let plan = process.plan.load_full();
    text.family(&MODEL_STATE);
    for (name, endpoint) in plan.endpoints() {
        for (number, slot) in &endpoint.versions {
            let mut labels = format!("model=\"{name}\",version=\"{number}\",state=\"");
            let begin = labels.len();
            for state in STATES {
                labels.truncate(begin);
                labels.push_str(state);
                labels.push('"');
                text.sample(&MODEL_STATE, &labels, u64::from(slot.state.name() == state));
            }
        }
    }
    debug_assert!(STATES.contains(&State::Ready.name()));
    render_loads(text, process);
    text.single(&PLAN_NUMBER, plan.number);
}

fn render_loads(text: &mut Text, process: &Process) {
    let counts = process.models.counts();
    text.family(&MODEL_LOADS);
    for (name, counts, _) in &counts {
        for (outcome, count) in [("ok", counts.ok), ("failed", counts.failed)] {
            text.sample(&MODEL_LOADS, &format!("model=\"{name}\",outcome=\"{outcome}\""), count);
        }
    }
    text.family(&MODEL_EVICTIONS);
    for (name, counts, _) in &counts {
        text.sample(&MODEL_EVICTIONS, &format!("model=\"{name}\""), counts.evicted);
    }
    text.family(&MODEL_BYTES);
    for (name, _, bytes) in &counts {
        text.sample(&MODEL_BYTES, &format!("model=\"{name}\""), *bytes);
    }
}

fn render_process(text: &mut Text, process: &Process, acceptor: &Acceptor, totals: &[(&str, &Version, Totals)]) {
    text.single(&CONNECTIONS, acceptor.connections() as u64);
    text.single(&CONNECTIONS_ACCEPTED, acceptor.accepted.get());
    text.single(&CONNECTIONS_REFUSED, acceptor.turned_away.get());
    text.single(&CONNECTIONS_ASKED, acceptor.asked_to_leave.get());
    text.single(&BYTES_HELD, process.bytes.drawn() as u64);
    text.single(&BYTES_LIMIT, process.bytes.limit() as u64);
    text.single(&ACCESS_DROPPED, process.access_log.as_ref().map_or(0, crate::access::AccessLog::lost));
    text.single(&LOG_DROPPED, crate::telemetry::lost());
    text.single(&TRACES_DROPPED, process.tracer.dropped());
    text.family(&PANICS);
    for place in Place::ALL {
        text.sample(&PANICS, &format!("place=\"{}\"", place.name()), process.panics.count(place));
    }
    text.sample(&PANICS, "place=\"batch\"", totals.iter().map(|(_, _, totals)| totals.panics).sum::<u64>());
    text.sample(&PANICS, "place=\"request\"", process.shared.watch.panics.load(Ordering::Relaxed));
    text.single(&RESIDENT, resources::resident_bytes() as u64);
    text.family(&BUILD_INFO);
    text.sample(&BUILD_INFO, &format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), 1);
}

/// The names of `KServe`, whose server knows models, not versions.
fn render_kserve(text: &mut Text, totals: &[(&str, &Version, Totals)]) {
    let families: [(&Family, ReadHistogram); 3] = [
        (&PREPROCESS, |totals| &totals.gather),
        (&PREDICT, |totals| &totals.compute),
        (&POSTPROCESS, |totals| &totals.scatter),
    ];
    for (family, histogram) in families {
        let mut models: BTreeMap<&str, HistogramTotal> = BTreeMap::new();
        for (_, version, totals) in totals {
            models.entry(&version.spec.name).or_default().merge(histogram(totals));
        }
        text.family(family);
        for (model, total) in models {
            text.histogram(family, &format!("model_name=\"{model}\""), &total, 1e-9);
        }
    }
}

fn render_triton(text: &mut Text, totals: &[(&str, &Version, Totals)]) {
    let families: [(&Family, ReadNumber); 9] = [
        (&NV_SUCCESS, |_, totals| totals.succeeded()),
        (&NV_COUNT, |_, totals| totals.rows),
        (&NV_EXEC_COUNT, |_, totals| totals.runs),
        (&NV_PENDING, |version, _| version.pool.waiting() as u64),
        (&NV_REQUEST_US, |_, totals| totals.request.sum / 1_000),
        (&NV_QUEUE_US, |_, totals| totals.queue.sum / 1_000),
        (&NV_COMPUTE_INPUT_US, |_, totals| totals.gather.sum / 1_000),
        (&NV_COMPUTE_INFER_US, |_, totals| totals.compute.sum / 1_000),
        (&NV_COMPUTE_OUTPUT_US, |_, totals| totals.scatter.sum / 1_000),
    ];
    for (family, value) in families {
        text.family(family);
        for (labels, version, totals) in totals {
            text.sample(family, labels, value(version, totals));
        }
    }
    text.family(&NV_FAILURE);
    for (labels, _, totals) in totals {
        // Triton does not count what it refuses as invalid; neither do we under its name.
        for reason in REASONS {
            let count = totals.failed_late(|kind| reason_of(kind) == reason);
            text.sample(&NV_FAILURE, &format!("{labels},reason=\"{reason}\""), count);
        }
    }
    text.family(&NV_LOAD_DURATION);
    for (labels, version, _) in totals {
        text.sample(&NV_LOAD_DURATION, labels, version.load_duration.as_secs_f64());
    }
}

/// Triton's word for why a valid request failed.
fn reason_of(kind: Kind) -> &'static str {
    match kind {
        Kind::QueueFull | Kind::QueueTimeout => "REJECTED",
        Kind::Cancelled => "CANCELED",
        // A valid request is only found invalid by the run itself.
        Kind::Internal | Kind::InvalidArgument => "BACKEND",
        Kind::NotFound
        | Kind::UnknownRoute
        | Kind::MethodNotAllowed
        | Kind::TooLarge
        | Kind::HeadersTooLarge
        | Kind::SlowClient
        | Kind::TooManyRequests
        | Kind::OutOfBudget
        | Kind::NotReady
        | Kind::ModelControl
        | Kind::Draining
        | Kind::DeadlineExceeded
        | Kind::NotAllowed
        | Kind::NotOffered => "OTHER",
    }
}

/// Everything counted, as JSON: what the Python layer reads.
pub(crate) fn snapshot(process: &Process) -> String {
    let plan = process.plan.load_full();
    let mut models = serde_json::Map::new();
    for (name, endpoint) in plan.endpoints() {
        let versions = endpoint.versions.iter().map(|(number, slot)| {
            let totals = slot.version.as_deref().map(|version| version.stats.totals()).unwrap_or_default();
            let reason = if let State::Failed(reason) = &slot.state { Some(reason) } else { None };
            let value = serde_json::json!({
                "state": slot.state.name(), "reason": reason,
                "submitted": totals.submitted, "succeeded": totals.succeeded(), "failed": totals.failed(|_| true),
                "rows": totals.rows, "runs": totals.runs, "retried_runs": totals.retried_runs,
                "request_ns": totals.request.sum, "queue_ns": totals.queue.sum, "compute_ns": totals.compute.sum,
            });
            (number.to_string(), value)
        });
        models.insert(name.to_owned(), versions.collect::<serde_json::Map<_, _>>().into());
    }
    serde_json::json!({ "plan": plan.number, "models": models }).to_string()
}

impl Type {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        }
    }
}
