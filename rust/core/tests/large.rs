//! Requests with more rows than one run takes, and sizes at the edges of what can be said.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mlserve_core::backend::{Backend, OutputTensor, RunError, TensorView};
use mlserve_core::budget::{Budget, LocalBudget};
use mlserve_core::config::{LimitSettings, ModelSettings};
use mlserve_core::error::Kind;
use mlserve_core::model::Batching;
use mlserve_core::plan::Slot;
use mlserve_core::version::{Mailbox, Version};
use proptest::prelude::*;
use support::{Bench, Caller, Got, POISON, eventually};

fn pooled(max_batch_rows: usize, instances: usize) -> Bench {
    Bench::pooled(ModelSettings { max_batch_rows, instances, ..ModelSettings::default() })
}

fn rows(count: usize) -> Vec<[f32; 1]> {
    (0..count).map(|row| [row as f32]).collect()
}

fn send(bench: &mut Bench, rows: &[[f32; 1]]) -> Caller {
    let caller = bench.send(&rows.iter().map(|row| &row[..]).collect::<Vec<_>>());
    bench.flush();
    caller
}

#[test]
fn a_request_of_thousands_of_runs_is_one_entry_of_the_queue() {
    let settings = ModelSettings { queue_capacity: 1, inline: false, instances: 2, ..ModelSettings::default() };
    let mut bench = Bench::with(settings);
    let all = rows(300_000);
    let caller = send(&mut bench, &all);
    bench.receive_until(|| caller.is_answered());
    assert_eq!(caller.only().values(), all.iter().map(|[value]| value * 2.0).collect::<Vec<_>>());
    assert_eq!(bench.backend.runs().len(), 300_000_usize.div_ceil(64));
    assert!(bench.mailbox.messages.load(Ordering::SeqCst) <= 2, "one message, not one for each part");
}

#[test]
fn a_large_request_is_nobody_elses_wait() {
    let mut bench = pooled(4, 1);
    let busy = bench.keep_busy();
    let large = send(&mut bench, &rows(40));
    let small = send(&mut bench, &[[7.0]]);
    bench.backend.hold(false);
    bench.receive_until(|| large.is_answered() && small.is_answered() && busy.is_answered());
    assert_eq!(small.only().values(), [14.0]);
    let runs = bench.backend.runs();
    let at = runs[1..].iter().position(|&rows| rows == 1);
    assert!(at.is_some_and(|at| at <= 2), "after the part that was next: {runs:?}");
}

#[test]
fn parts_of_one_request_run_at_once() {
    let mut bench = pooled(4, 3);
    bench.backend.hold(true);
    let large = send(&mut bench, &rows(40));
    eventually(|| bench.backend.runs().len() == 3);
    bench.backend.hold(false);
    bench.receive_until(|| large.is_answered());
    assert_eq!(large.only().values(), (0..40).map(|row| row as f32 * 2.0).collect::<Vec<_>>());
}

#[test]
fn the_rest_of_a_large_request_does_not_run_once_its_caller_is_gone() {
    let mut bench = pooled(4, 1);
    bench.backend.hold(true);
    let large = send(&mut bench, &rows(400));
    eventually(|| bench.backend.runs().len() == 1);
    large.gone.store(true, Ordering::SeqCst);
    bench.backend.hold(false);
    bench.receive_until(|| large.is_answered());
    assert_eq!(large.only().kind(), Kind::Cancelled);
    assert_eq!(bench.backend.runs().len(), 1);
}

#[test]
fn the_rest_of_a_large_request_does_not_run_after_its_deadline() {
    let mut bench = pooled(4, 1);
    bench.runs_take(Duration::from_millis(10));
    let all = rows(400);
    let mut request = Bench::request(&all.iter().map(|row| &row[..]).collect::<Vec<_>>());
    request.deadline = Some(bench.clock.now() + Duration::from_millis(55));
    let large = bench.send_request(request);
    bench.flush();
    bench.receive_until(|| large.is_answered());
    assert_eq!(large.only().kind(), Kind::DeadlineExceeded);
    assert!(bench.backend.runs().len() <= 6, "{:?}", bench.backend.runs());
}

#[test]
fn a_bad_row_ends_its_large_request_and_no_other() {
    let mut bench = pooled(4, 1);
    let busy = bench.keep_busy();
    let mut bad = rows(4_000);
    bad[5] = [POISON];
    let bad = send(&mut bench, &bad);
    let good = send(&mut bench, &rows(10));
    bench.backend.hold(false);
    bench.receive_until(|| bad.is_answered() && good.is_answered() && busy.is_answered());
    assert_eq!(bad.only().kind(), Kind::InvalidArgument);
    assert_eq!(good.only().values().len(), 10);
    assert!(bench.backend.runs().len() < 20, "what was left of it did not run");
}

#[test]
fn a_large_request_is_counted_and_traced_as_one() {
    let mut bench = pooled(4, 2);
    let caller = send(&mut bench, &rows(41));
    bench.receive_until(|| caller.is_answered());
    let totals = bench.version.stats.totals();
    assert_eq!((totals.submitted, totals.succeeded(), totals.rows, totals.runs), (1, 1, 41, 11));
}

#[test]
fn rows_without_bytes_are_bounded_by_some_runs() {
    let mut bench = pooled(64, 1);
    for (count, fits) in [(64, true), (1_024, true), (1_025, false), (100_000_000, false), (1 << 62, false)] {
        let mut request = Bench::request(&[&[1.0]]);
        request.inputs[0].shape = [count, 0].as_slice().into();
        request.inputs[0].data = Vec::new().into();
        let runs = bench.backend.runs().len();
        let caller = bench.send_request(request);
        bench.flush();
        bench.receive_until(|| caller.is_answered());
        if fits {
            assert_eq!(caller.only().values(), [0.0; 0]);
        } else {
            let Got::Refused(kind, text) = caller.only() else { panic!("{count} rows were run") };
            assert_eq!(kind, Kind::TooLarge);
            assert!(text.contains("models.m.max_batch_rows"), "{text}");
            assert_eq!(bench.backend.runs().len(), runs, "nothing was made of it");
        }
    }
}

#[test]
fn an_answer_that_grows_too_large_ends_after_its_first_part() {
    let limits = LimitSettings { max_response_bytes: 1_000, ..LimitSettings::default() };
    let settings = ModelSettings { inline: false, instances: 1, max_batch_rows: 4, ..ModelSettings::default() };
    let mut bench = Bench::new(settings, limits, Batching::Rows);
    let caller = send(&mut bench, &rows(400));
    bench.receive_until(|| caller.is_answered());
    let Got::Refused(kind, text) = caller.only() else { panic!("1,600 bytes were answered") };
    assert_eq!(kind, Kind::TooLarge);
    assert!(text.contains("1600 bytes") && text.contains("limits.max_response_bytes"), "{text}");
    assert!(bench.backend.runs().len() <= 2);
}

/// Answers a row that holds n with n zeros: an output that follows a value.
#[derive(Debug)]
struct Expander;

impl Backend for Expander {
    fn run(&self, inputs: &[TensorView<'_>], _outputs: &[usize]) -> Result<Vec<OutputTensor>, RunError> {
        let input = inputs[0];
        let count = input.data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four")) as usize).max();
        let count = count.unwrap_or(0);
        let rows = input.shape[0];
        let data = vec![0; 4 * count * rows as usize];
        let shape = [rows, count as i64].as_slice().into();
        Ok(vec![OutputTensor { datatype: input.datatype, shape, data: data.into() }])
    }
}

#[test]
fn one_huge_answer_does_not_shut_out_those_that_follow() {
    let mut bench = pooled(64, 1);
    let mailboxes: Arc<[Arc<dyn Mailbox>]> = Arc::new([bench.mailbox.clone() as Arc<dyn Mailbox>]);
    let mut new = bench.new_version(Vec::new());
    new.backend = Arc::new(Expander);
    let version = Version::new(new, mailboxes, mlserve_core::clock::Clock::Manual(bench.clock.clone()));
    bench.set_slot(Slot::serving(version));
    let budget = LocalBudget::new(Budget::new(16 << 20), 0);
    let mut ask = |rows: &[[f32; 1]]| {
        let mut request = Bench::request(&rows.iter().map(|row| &row[..]).collect::<Vec<_>>());
        request.reservation = budget.reserve(4 * rows.len());
        let caller = bench.send_request(request);
        bench.flush();
        bench.receive_until(|| caller.is_answered());
        caller.only()
    };
    assert_eq!(ask(&[[3_000_000.0]]).values().len(), 3_000_000);
    for _ in 0..50 {
        assert_eq!(ask(&[[2.0]; 50]).values(), [0.0; 100]);
    }
    let Got::Refused(kind, text) = ask(&[[5_000_000.0]]) else { panic!("20 MB in a budget of 16 MB") };
    assert_eq!(kind, Kind::OutOfBudget);
    assert!(text.contains("limits.byte_budget"), "{text}");
    assert_eq!(ask(&[[2.0]]).values(), [0.0; 2]);
}

/// Dimensions at which arithmetic breaks.
const EDGES: [i64; 11] = [0, 1, -1, 2, 3, i64::MIN, 1 << 31, (1 << 31) + 1, 1 << 32, 1 << 62, i64::MAX];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever shapes say, each request is answered exactly once, and the loop lives on.
    #[test]
    fn no_shape_breaks_anything(
        shapes in prop::collection::vec((prop::sample::select(EDGES.to_vec()), prop::sample::select(EDGES.to_vec())), 1..4),
        bytes in prop::sample::select(vec![0_usize, 4, 8, 12, 4_096]),
        batching in 0..3,
    ) {
        let reason = "test".to_owned();
        let batching = match batching {
            0 => Batching::Rows,
            1 => Batching::Unsafe { reason },
            _ => Batching::Fixed { reason },
        };
        let mut bench = Bench::new(ModelSettings::default(), LimitSettings::default(), batching);
        let callers: Vec<Caller> = shapes.iter().map(|&(first, second)| {
            let mut request = Bench::request(&[&[1.0]]);
            request.inputs[0].shape = [first, second].as_slice().into();
            request.inputs[0].data = vec![0; bytes].into();
            bench.send_request(request)
        }).collect();
        bench.flush();
        bench.receive_until(|| callers.iter().all(Caller::is_answered));
        for caller in &callers {
            caller.only();
        }
        let next = bench.send(&[&[21.0]]);
        bench.flush();
        bench.receive_until(|| next.is_answered());
        prop_assert_eq!(next.only().values(), [42.0]);
    }
}
