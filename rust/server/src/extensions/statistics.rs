//! The statistics extension: what has been counted, per model and version.
//!
//! Names are Triton's. Here `queue` begins with a request's arrival, `compute_input` is the copying of a batch's inputs
//! together (gather), `compute_output` the cutting apart of its outputs (scatter).

use std::collections::{BTreeMap, HashMap};

use mlserve_core::error::{Error, Result, quoted};
use mlserve_core::plan::Endpoint;
use mlserve_core::stats::batches::BatchTotal;
use mlserve_core::stats::{HistogramTotal, Totals};
use mlserve_core::version::Version;

use crate::grpc::model_version;
use crate::process::Process;
use crate::proto::{
    InferBatchStatistics, InferStatistics, MemoryUsage, ModelStatistics, ModelStatisticsRequest,
    ModelStatisticsResponse, StatisticDuration,
};

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
