//! The statistics extension: what has been counted, per model and version.
//!
//! Names are Triton's. Here `queue` begins with a request's arrival, `compute_input` is the copying of a batch's inputs
//! together (gather), `compute_output` the cutting apart of its outputs (scatter).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use mlserve_core::error::{Error, Result, quoted};
use mlserve_core::plan::{Endpoint, Plan};
use mlserve_core::stats::batches::BatchTotal;
use mlserve_core::stats::{HistogramTotal, Totals};
use mlserve_core::version::Version;
use parking_lot::Mutex;

use super::json::{Members, to_json};
use crate::grpc::model_version;
use crate::panics::Place;
use crate::process::Process;
use crate::proto::{
    InferBatchStatistics, InferStatistics, MemoryUsage, ModelStatistics, ModelStatisticsRequest,
    ModelStatisticsResponse, StatisticDuration,
};
use crate::renderer::Renderer;

/// How the statistics of all models are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As a `ModelStatisticsResponse`.
    Message,
    /// As the JSON of one.
    Json,
}

/// Tells the statistics of all models: one thread for each form makes them, one after the other, for all who ask at the
/// same time. It begins with the first who asks.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    message: Mutex<Option<Arc<Renderer>>>,
    json: Mutex<Option<Arc<Renderer>>>,
}

impl Statistics {
    /// The statistics of all models, counted after this was called.
    ///
    /// **Errors:** they could not be made.
    pub(crate) async fn of_all(process: &Arc<Process>, form: Form) -> Result<Bytes> {
        let renderer = process.statistics.renderer(process, form)?;
        renderer.text().await.ok_or_else(|| Error::internal("the statistics could not be made"))
    }

    fn renderer(&self, process: &Arc<Process>, form: Form) -> Result<Arc<Renderer>> {
        let mut present = match form {
            Form::Message => self.message.lock(),
            Form::Json => self.json.lock(),
        };
        if let Some(renderer) = &*present {
            return Ok(Arc::clone(renderer));
        }
        // The thread ends with the process, so it must not hold it.
        let (plan, owner) = (Arc::clone(&process.plan), Arc::downgrade(process));
        let failed = move |what: &str| {
            if let Some(process) = owner.upgrade() {
                process.panics.note(Place::Decoder, what);
            }
        };
        let started = Renderer::start("statistics", move || of_plan(&plan, form), failed);
        let renderer = started.map_err(|_| Error::internal("no thread could be started for the statistics"))?;
        Ok(Arc::clone(present.insert(Arc::new(renderer))))
    }
}

/// Written model by model: all of them at once as values would take many times the memory of the text.
fn of_plan(plan: &ArcSwap<Plan>, form: Form) -> Vec<u8> {
    let plan = plan.load_full();
    let endpoints: BTreeMap<_, _> = plan.endpoints().collect();
    let all = endpoints.values().flat_map(|endpoint| endpoint.ready()).map(|(_, version)| statistics(version));
    let mut text = Vec::new();
    match form {
        Form::Message => all.for_each(|each| prost::encoding::message::encode(1, &each, &mut text)),
        Form::Json => {
            text.extend_from_slice(br#"{"model_stats":["#);
            for (index, each) in all.enumerate() {
                let json = to_json(&each, "ModelStatistics", Members::All).expect("the protocol's own message");
                text.extend_from_slice(if index > 0 { b"," } else { b"" });
                text.extend_from_slice(json.to_string().as_bytes());
            }
            text.extend_from_slice(b"]}");
        }
    }
    text
}

/// Answers `ModelStatistics`; an empty name means all models.
///
/// **Errors:** an unknown or unloaded model or version.
pub(crate) fn model_statistics(process: &Process, request: &ModelStatisticsRequest) -> Result<ModelStatisticsResponse> {
    let number = model_version(&request.version)?;
    let plan = process.plan.load();
    if request.name.is_empty() {
        // Triton ignores a version without a name, too.
        let endpoints: BTreeMap<_, _> = plan.endpoints().collect();
        let versions = endpoints.values().flat_map(|endpoint| endpoint.ready());
        let model_stats = versions.map(|(_, version)| statistics(version)).collect();
        return Ok(ModelStatisticsResponse { model_stats });
    }
    let ready: Vec<_> = plan.endpoint(&request.name).into_iter().flat_map(Endpoint::ready).collect();
    if ready.is_empty() {
        return Err(unknown_model(&request.name));
    }
    let wanted = |&&(each, _): &&(u64, _)| number.is_none_or(|number| number == each);
    let model_stats: Vec<_> = ready.iter().filter(wanted).map(|(_, version)| statistics(version)).collect();
    if model_stats.is_empty() {
        return Err(unknown_version(&request.name));
    }
    Ok(ModelStatisticsResponse { model_stats })
}

fn statistics(version: &Version) -> ModelStatistics {
    let totals = version.stats.totals();
    let last_inference =
        totals.last_answer.map_or(0, |moment| version.stats.epoch.unix_time(moment).as_millis() as u64);
    let memory = MemoryUsage { r#type: "CPU".to_owned(), id: 0, byte_size: version.model_bytes };
    ModelStatistics {
        name: version.spec.name.to_string(),
        version: version.spec.version.to_string(),
        last_inference,
        inference_count: totals.rows,
        execution_count: totals.runs,
        inference_stats: Some(inference_statistics(&totals)),
        batch_stats: totals.batches.iter().map(|(&rows, batch)| batch_statistics(rows, batch)).collect(),
        memory_usage: vec![memory],
        // Only models with several responses to a request have any.
        response_stats: HashMap::new(),
    }
}

fn inference_statistics(totals: &Totals) -> InferStatistics {
    let sum = |total: &HistogramTotal| duration(total.count(), total.sum);
    InferStatistics {
        success: sum(&totals.request),
        fail: duration(totals.failed_late(|_| true), totals.failed_late_ns),
        queue: sum(&totals.queue),
        compute_input: sum(&totals.gather),
        compute_infer: sum(&totals.compute),
        compute_output: sum(&totals.scatter),
        cache_hit: duration(0, 0),
        cache_miss: duration(0, 0),
    }
}

fn batch_statistics(rows: u64, batch: &BatchTotal) -> InferBatchStatistics {
    InferBatchStatistics {
        batch_size: rows,
        compute_input: duration(batch.runs, batch.gather_ns),
        compute_infer: duration(batch.runs, batch.compute_ns),
        compute_output: duration(batch.runs, batch.scatter_ns),
    }
}

/// Present even when it is zero: `perf_analyzer` wants all of them.
#[expect(clippy::unnecessary_wraps, reason = "every use wants it wrapped")]
fn duration(count: u64, ns: u64) -> Option<StatisticDuration> {
    Some(StatisticDuration { count, ns })
}

// Triton's texts, which tools match on.

#[cold]
fn unknown_model(name: &str) -> Error {
    Error::invalid(format!("requested model '{}' is not available", quoted(name)))
}

#[cold]
fn unknown_version(name: &str) -> Error {
    Error::invalid(format!("requested model version is not available for model '{}'", quoted(name)))
}
