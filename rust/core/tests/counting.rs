//! What is counted and traced of requests, on a clock that stands still.

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mlserve_core::config::ModelSettings;
use mlserve_core::error::Kind;
use mlserve_core::request::Protocol;
use mlserve_core::stats::batches::BatchTotal;
use mlserve_core::trace::{Sampler, Samplers};
use support::{Bench, POISON};

const MS: Duration = Duration::from_millis(1);

fn taking(settings: ModelSettings, takes: Duration) -> Bench {
    let bench = Bench::with(settings);
    bench.runs_take(takes);
    bench
}

#[test]
fn every_run_is_counted_under_its_size() {
    let mut bench = taking(ModelSettings { max_batch_rows: 4, ..ModelSettings::default() }, 2 * MS);
    bench.send(&[&[1.0], &[2.0], &[3.0], &[4.0], &[5.0]]);
    bench.flush();
    let totals = bench.version.stats.totals();
    let run = BatchTotal { runs: 1, gather_ns: 0, compute_ns: 2_000_000, scatter_ns: 0 };
    assert_eq!(totals.batches, [(1, run), (4, run)].into());
    assert_eq!((totals.rows, totals.runs, totals.succeeded()), (5, 2, 1));
}

#[test]
fn runs_that_fail_are_runs_all_the_same() {
    let mut bench = Bench::with(ModelSettings::default());
    bench.send(&[&[POISON]]);
    bench.send(&[&[1.0]]);
    bench.flush();
    let totals = bench.version.stats.totals();
    assert_eq!(totals.batches.values().map(|batch| batch.runs).sum::<u64>(), totals.runs);
    assert_eq!(totals.batches.keys().copied().collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn what_fails_in_the_queue_or_the_run_is_told_apart_from_what_was_never_valid() {
    let mut bench = taking(ModelSettings::default(), 3 * MS);
    let mut invalid = Bench::request(&[&[1.0]]);
    invalid.inputs[0].name = "z".into();
    bench.send_request(invalid);
    bench.send(&[&[POISON]]);
    bench.flush();
    let mut impatient = Bench::request(&[&[1.0]]);
    impatient.queue_timeout = Some(MS);
    bench.send_request(impatient);
    bench.clock.advance(2 * MS);
    bench.flush();
    let totals = bench.version.stats.totals();
    assert_eq!(totals.failed(|_| true), 3);
    assert_eq!(totals.failed_late(|kind| kind == Kind::InvalidArgument), 1);
    assert_eq!(totals.failed_late(|kind| kind == Kind::QueueTimeout), 1);
    assert_eq!(totals.failed_late_ns, 5_000_000, "3 ms in the run, 2 ms in the queue");
}

#[test]
fn the_last_answer_is_the_moment_of_an_answer_not_of_a_failure() {
    let mut bench = Bench::with(ModelSettings::default());
    assert_eq!(bench.version.stats.last_used(), None);
    bench.clock.advance(MS);
    bench.send(&[&[1.0]]);
    bench.flush();
    let answered = bench.clock.now();
    bench.clock.advance(MS);
    bench.send(&[&[POISON]]);
    bench.flush();
    assert_eq!(bench.version.stats.last_used(), Some(answered));
}

fn trace_all(bench: &Bench, sampler: Sampler) {
    bench.shared.tracer.set_samplers(Samplers { global: Arc::new(sampler), models: HashMap::new() });
}

#[test]
fn a_trace_tells_when_each_stage_began_and_ended() {
    let mut bench = taking(ModelSettings::default(), 2 * MS);
    trace_all(&bench, Sampler::new(true, 1, -1, 0));
    let mut request = Bench::request(&[&[1.0]]);
    request.id = "a".into();
    let sent = bench.clock.now();
    bench.send_request(request);
    bench.clock.advance(MS);
    bench.flush();
    let traces = bench.traces.0.lock().unwrap();
    let [trace] = &traces[..] else { panic!("one request, one trace") };
    assert_eq!((trace.id, &*trace.model, trace.version, trace.request_id.as_str()), (1, "m", 1, "a"));
    assert_eq!(trace.protocol, Protocol::Grpc);
    let timing = trace.timing.expect("it ran");
    assert_eq!((timing.queue, timing.compute), (MS, 2 * MS));
    assert_eq!((trace.moments.arrived, trace.moments.submitted), (sent, sent));
    assert_eq!((trace.moments.ended - sent, trace.moments.sent - sent), (3 * MS, 3 * MS));
}

#[test]
fn a_request_that_is_cut_is_one_trace() {
    let mut bench = taking(ModelSettings { max_batch_rows: 1, ..ModelSettings::default() }, MS);
    trace_all(&bench, Sampler::new(true, 1, -1, 0));
    let caller = bench.send(&[&[1.0], &[2.0], &[3.0]]);
    bench.flush();
    bench.receive_until(|| caller.is_answered());
    assert_eq!(bench.traces.0.lock().unwrap().len(), 1);
}

#[test]
fn a_request_that_fails_is_traced_without_a_run() {
    let mut bench = Bench::with(ModelSettings::default());
    trace_all(&bench, Sampler::new(true, 1, -1, 0));
    bench.send(&[&[POISON]]);
    bench.flush();
    let traces = bench.traces.0.lock().unwrap();
    assert_eq!(traces.iter().map(|trace| trace.timing.is_some()).collect::<Vec<_>>(), [false]);
}

#[test]
fn a_model_with_a_sampler_of_its_own_is_not_traced_by_the_global_one() {
    let mut bench = Bench::with(ModelSettings::default());
    let off = Arc::new(Sampler::new(false, 1, -1, 0));
    let samplers = Samplers { global: Arc::new(Sampler::new(true, 1, -1, 0)), models: [("m".into(), off)].into() };
    bench.shared.tracer.set_samplers(samplers);
    bench.send(&[&[1.0]]);
    bench.flush();
    assert!(bench.traces.0.lock().unwrap().is_empty());
}
