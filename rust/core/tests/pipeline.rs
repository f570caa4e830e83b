//! What happens to requests between the wire and the backend, on a clock that stands still.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use mlserve_core::config::{LimitSettings, ModelSettings};
use mlserve_core::error::Kind;
use mlserve_core::model::Batching;
use mlserve_core::stats::Counter;
use support::{Bench, Caller, Got, POISON, eventually};

fn defaults() -> ModelSettings {
    ModelSettings::default()
}

#[test]
fn requests_of_one_turn_share_a_run_and_each_gets_its_rows() {
    let mut bench = Bench::with(defaults());
    let callers: Vec<Caller> = (0..5).map(|n| bench.send(&[&[n as f32]])).collect();
    assert!(callers.iter().all(|caller| !caller.is_answered()), "nobody is answered before the turn ends");
    bench.flush();
    for (n, caller) in callers.iter().enumerate() {
        let Got::Values(values, place) = caller.only() else { panic!("answered") };
        assert_eq!(values, [n as f32 * 2.0]);
        assert_eq!((place.rows, place.offset), (5, n));
    }
    assert_eq!(bench.backend.runs(), [5]);
}

#[test]
fn rows_are_counted_not_requests() {
    let mut bench = Bench::with(ModelSettings { max_batch_rows: 4, ..defaults() });
    let callers: Vec<Caller> = (0..3).map(|n| bench.send(&[&[n as f32], &[n as f32], &[n as f32]])).collect();
    bench.flush();
    assert_eq!(bench.backend.runs(), [3, 3, 3]);
    assert!(callers.iter().enumerate().all(|(n, caller)| caller.only().values() == [n as f32 * 2.0; 3]));
}

#[test]
fn a_request_larger_than_a_run_is_cut_and_joined() {
    let mut bench = Bench::with(ModelSettings { max_batch_rows: 4, ..defaults() });
    let rows: Vec<[f32; 2]> = (0..10).map(|n| [n as f32, n as f32 + 0.5]).collect();
    let caller = bench.send(&rows.iter().map(|row| &row[..]).collect::<Vec<_>>());
    bench.flush();
    let expected: Vec<f32> = rows.iter().flatten().map(|value| value * 2.0).collect();
    assert_eq!(caller.only().values(), expected);
    assert_eq!(bench.backend.runs(), [4, 4, 2]);
}

#[test]
fn requests_of_different_shapes_do_not_share_a_run() {
    let mut bench = Bench::with(defaults());
    let narrow = bench.send(&[&[1.0]]);
    let wide = bench.send(&[&[2.0, 3.0]]);
    let narrow_too = bench.send(&[&[4.0]]);
    bench.flush();
    assert_eq!(narrow.only().values(), [2.0]);
    assert_eq!(wide.only().values(), [4.0, 6.0]);
    assert_eq!(narrow_too.only().values(), [8.0]);
    assert_eq!(bench.backend.runs(), [2, 1]);
}

#[test]
fn an_unsafe_model_runs_each_request_alone() {
    let unsafe_rows = Batching::Unsafe { reason: "it mixes rows".to_owned() };
    let mut bench = Bench::new(defaults(), LimitSettings::default(), unsafe_rows);
    let callers: Vec<Caller> = (0..3).map(|n| bench.send(&[&[n as f32], &[9.0]])).collect();
    bench.flush();
    assert_eq!(bench.backend.runs(), [2, 2, 2]);
    assert!(callers.iter().enumerate().all(|(n, caller)| caller.only().values() == [n as f32 * 2.0, 18.0]));
}

#[test]
fn a_bad_row_hurts_only_its_sender() {
    let mut bench = Bench::with(defaults());
    let callers: Vec<Caller> = (0..16).map(|n| bench.send(&[&[if n == 11 { POISON } else { n as f32 }]])).collect();
    bench.flush();
    for (n, caller) in callers.iter().enumerate() {
        match n {
            11 => assert_eq!(caller.only().kind(), Kind::InvalidArgument),
            n => assert_eq!(caller.only().values(), [n as f32 * 2.0]),
        }
    }
    assert!(bench.backend.runs().len() <= 1 + 2 * 4, "halves, not one by one: {:?}", bench.backend.runs());
}

#[test]
fn a_sender_of_bad_rows_cannot_multiply_runs_without_end() {
    let mut bench = Bench::with(defaults());
    let mut requests = 0;
    for _ in 0..200 {
        for _ in 0..32 {
            bench.send(&[&[POISON]]);
            requests += 1;
        }
        bench.flush();
    }
    let runs = bench.backend.runs().len();
    assert!(runs < requests + 1_000, "hardly more than not batching: {runs} runs for {requests} bad requests");
}

#[test]
fn a_flood_of_bad_rows_fails_nobody_else() {
    let mut bench = Bench::with(defaults());
    // Every run takes as long, whatever its rows: batching pays.
    *bench.backend.takes.lock().unwrap() = Some((bench.clock.clone(), Duration::from_micros(2)));
    for _ in 0..100 {
        let good: Vec<Caller> = (0..16)
            .map(|n| {
                bench.send(&[&[POISON]]);
                bench.send(&[&[n as f32]])
            })
            .collect();
        bench.flush();
        bench.receive_until(|| good.iter().all(Caller::is_answered));
        assert!(good.iter().enumerate().all(|(n, caller)| caller.only().values() == [n as f32 * 2.0]));
    }
    for _ in 0..20 {
        let callers: Vec<Caller> = (0..64).map(|n| bench.send(&[&[n as f32]])).collect();
        bench.flush();
        bench.receive_until(|| callers.iter().all(Caller::is_answered));
    }
    assert_eq!(bench.backend.runs().last(), Some(&64), "it batches again");
}

#[test]
fn a_backend_that_panics_costs_its_requests_only() {
    let mut bench = Bench::with(defaults());
    bench.backend.panics.store(true, Ordering::SeqCst);
    let caught = bench.send(&[&[1.0]]);
    bench.flush();
    assert_eq!(caught.only().kind(), Kind::Internal);
    bench.backend.panics.store(false, Ordering::SeqCst);
    let after = bench.send(&[&[1.0]]);
    bench.flush();
    assert_eq!(after.only().values(), [2.0]);
}

#[test]
fn cancelled_and_expired_requests_never_run() {
    let mut bench = Bench::with(defaults());
    let gone = bench.send(&[&[1.0]]);
    gone.gone.store(true, Ordering::SeqCst);
    let mut request = Bench::request(&[&[2.0]]);
    request.deadline = Some(bench.clock.now() + Duration::from_millis(5));
    let expired = bench.send_request(request);
    let mut request = Bench::request(&[&[3.0]]);
    request.queue_timeout = Some(Duration::from_millis(3));
    let impatient = bench.send_request(request);
    bench.clock.advance(Duration::from_millis(10));
    bench.flush();
    assert_eq!(gone.only().kind(), Kind::Cancelled);
    assert_eq!(expired.only().kind(), Kind::DeadlineExceeded);
    assert_eq!(impatient.only().kind(), Kind::QueueTimeout);
    assert_eq!(bench.backend.runs(), [0; 0]);
}

#[test]
fn a_deadline_that_a_run_cannot_meet_is_refused_before_the_run() {
    let mut bench = Bench::with(defaults());
    *bench.backend.takes.lock().unwrap() = Some((bench.clock.clone(), Duration::from_millis(8)));
    for _ in 0..50 {
        let caller = bench.send(&[&[1.0]]);
        bench.flush();
        bench.receive_until(|| caller.is_answered());
    }
    let runs = bench.backend.runs().len();
    let mut request = Bench::request(&[&[1.0]]);
    request.deadline = Some(bench.clock.now() + Duration::from_millis(4));
    let caller = bench.send_request(request);
    bench.flush();
    bench.receive_until(|| caller.is_answered());
    assert_eq!(caller.only().kind(), Kind::DeadlineExceeded);
    assert_eq!(bench.backend.runs().len(), runs);
}

#[test]
fn the_pool_answers_a_turn_with_one_message() {
    let mut bench = Bench::pooled(defaults());
    let callers: Vec<Caller> = (0..20).map(|n| bench.send(&[&[n as f32]])).collect();
    bench.flush();
    bench.receive_until(|| callers.iter().all(Caller::is_answered));
    assert!(callers.iter().enumerate().all(|(n, caller)| caller.only().values() == [n as f32 * 2.0]));
    assert_eq!(bench.mailbox.messages.load(Ordering::SeqCst), 1);
}

#[test]
fn a_batch_grows_while_the_instance_is_busy_and_only_then() {
    let mut bench = Bench::pooled(defaults());
    bench.backend.hold(true);
    let first = bench.send(&[&[0.0]]);
    bench.flush();
    eventually(|| bench.backend.runs().len() == 1);
    let waiting: Vec<Caller> = (1..8)
        .map(|n| {
            let caller = bench.send(&[&[n as f32]]);
            bench.flush();
            caller
        })
        .collect();
    bench.backend.hold(false);
    bench.receive_until(|| first.is_answered() && waiting.iter().all(Caller::is_answered));
    assert_eq!(bench.backend.runs(), [1, 7]);
}

#[test]
fn higher_priority_goes_first() {
    let mut bench = Bench::pooled(ModelSettings { priority_levels: 3, max_batch_rows: 1, ..defaults() });
    bench.backend.hold(true);
    let busy = bench.send(&[&[0.0]]);
    bench.flush();
    eventually(|| bench.backend.runs().len() == 1);
    let callers: Vec<(u64, Caller)> = [3, 2, 4, 1, 0]
        .map(|priority| {
            let mut request = Bench::request(&[&[priority as f32]]);
            request.priority = priority;
            (priority, bench.send_request(request))
        })
        .into();
    bench.flush();
    bench.backend.hold(false);
    bench.receive_until(|| busy.is_answered() && callers.iter().all(|(_, caller)| caller.is_answered()));
    let batch = |caller: &Caller| match caller.only() {
        Got::Values(_, place) => place.batch,
        Got::Refused(kind, _) => panic!("refused: {kind:?}"),
    };
    let mut order: Vec<(u64, u64)> = callers.iter().map(|(priority, caller)| (batch(caller), *priority)).collect();
    order.sort_unstable();
    // 0, and 4 which is no level, ask for the default level, the middle one, behind the earlier request of that level.
    assert_eq!(order.iter().map(|(_, priority)| *priority).collect::<Vec<_>>(), [1, 2, 4, 0, 3]);
}

#[test]
fn a_full_queue_sheds_the_lowest_priority() {
    let settings = ModelSettings { priority_levels: 2, queue_capacity: 2, max_batch_rows: 1, ..defaults() };
    let mut bench = Bench::pooled(settings);
    bench.backend.hold(true);
    let busy = bench.send(&[&[0.0]]);
    bench.flush();
    eventually(|| bench.backend.runs().len() == 1);
    let mut with_priority = |priority: u64| {
        let mut request = Bench::request(&[&[1.0]]);
        request.priority = priority;
        let caller = bench.send_request(request);
        bench.flush();
        caller
    };
    let (low, high, low_again, high_again) = (with_priority(2), with_priority(1), with_priority(2), with_priority(1));
    assert_eq!(low_again.only().kind(), Kind::QueueFull);
    assert_eq!(low.only().kind(), Kind::QueueFull);
    bench.backend.hold(false);
    bench.receive_until(|| busy.is_answered() && high.is_answered() && high_again.is_answered());
    assert_eq!(high.only().values(), [2.0]);
    assert_eq!(high_again.only().values(), [2.0]);
}

#[test]
fn waiting_requests_are_answered_when_their_time_is_over_though_the_instance_is_busy() {
    let mut bench = Bench::pooled(defaults());
    bench.backend.hold(true);
    let busy = bench.send(&[&[0.0]]);
    bench.flush();
    eventually(|| bench.backend.runs().len() == 1);
    let mut request = Bench::request(&[&[1.0]]);
    request.queue_timeout = Some(Duration::from_millis(50));
    let waiting = bench.send_request(request);
    bench.flush();
    assert!(bench.pipeline.next_expiry().is_some_and(|expiry| expiry <= bench.clock.now() + Duration::from_millis(50)));
    bench.clock.advance(Duration::from_millis(51));
    bench.pipeline.expire();
    assert_eq!(waiting.only().kind(), Kind::QueueTimeout);
    bench.backend.hold(false);
    bench.receive_until(|| busy.is_answered());
    assert_eq!(bench.backend.runs(), [1]);
}

#[test]
fn requests_in_flight_are_bounded_and_their_places_come_free() {
    let limits = LimitSettings { requests_in_flight: 3, ..LimitSettings::default() };
    let mut bench = Bench::new(defaults(), limits, Batching::Rows);
    let callers: Vec<Caller> = (0..5).map(|_| bench.send(&[&[1.0]])).collect();
    assert!(callers[3..].iter().all(|caller| caller.only().kind() == Kind::TooManyRequests));
    bench.flush();
    assert!(callers[..3].iter().all(|caller| caller.only().values() == [2.0]));
    assert!(!bench.send(&[&[1.0]]).is_answered(), "a place is free again");
}

#[test]
fn a_delay_lets_the_batch_grow_and_ends_with_the_delay() {
    let mut bench = Bench::with(ModelSettings { max_delay_us: 1_000, max_batch_rows: 3, ..defaults() });
    let callers: Vec<Caller> = (0..3)
        .map(|n| {
            let caller = bench.send(&[&[n as f32]]);
            bench.flush();
            caller
        })
        .collect();
    // Full before the delay is over: it runs though the clock stands still.
    bench.receive_until(|| callers.iter().all(Caller::is_answered));
    assert_eq!(bench.backend.runs(), [3]);
    let alone = bench.send(&[&[1.0]]);
    bench.clock.advance(Duration::from_micros(1_001));
    bench.flush();
    bench.receive_until(|| alone.is_answered());
    assert_eq!(bench.backend.runs(), [3, 1]);
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    let mut bench = Bench::with(defaults());
    let mut unknown = Bench::request(&[&[1.0]]);
    unknown.model_name = "nope".into();
    let mut version = Bench::request(&[&[1.0]]);
    version.model_version = Some(9);
    let mut input = Bench::request(&[&[1.0]]);
    input.inputs[0].name = "z".into();
    let mut shape = Bench::request(&[&[1.0]]);
    shape.inputs[0].shape = [1, -3].as_slice().into();
    let mut bytes = Bench::request(&[&[1.0]]);
    bytes.inputs[0].shape = [1, 2].as_slice().into();
    let mut overflow = Bench::request(&[&[1.0]]);
    overflow.inputs[0].shape = [1 << 32, 1 << 32].as_slice().into();
    let mut rank = Bench::request(&[&[1.0]]);
    rank.inputs[0].shape = vec![1; 17].into();
    let mut missing = Bench::request(&[&[1.0]]);
    missing.inputs.clear();
    let cases = [
        (unknown, Kind::NotFound, "Request for unknown model: 'nope' is not found"),
        (version, Kind::NotFound, "Request for unknown model: 'm' version 9 is not found"),
        (input, Kind::InvalidArgument, "unexpected inference input 'z' for model 'm'"),
        (
            shape,
            Kind::InvalidArgument,
            "[request id: <id_unknown>] unexpected shape for input 'x' for model 'm'. Expected [-1,-1], got [1,-3]",
        ),
        (
            bytes,
            Kind::InvalidArgument,
            "[request id: <id_unknown>] input byte size mismatch for input 'x' for model 'm'. Expected 8, got 4",
        ),
        (
            overflow,
            Kind::InvalidArgument,
            "[request id: <id_unknown>] shape [4294967296,4294967296] of input 'x' for model 'm' has more elements than fit",
        ),
        (rank, Kind::TooLarge, "input 'x' has 17 dimensions; at most 16 are allowed (limits.max_rank)"),
        (
            missing,
            Kind::InvalidArgument,
            "[request id: <id_unknown>] expected 1 inputs but got 0 inputs for model 'm'. Got input(s) [], but missing required input(s) ['x']. Please provide all required input(s).",
        ),
    ];
    for (request, kind, text) in cases {
        let Got::Refused(got, said) = bench.send_request(request).only() else { panic!("answered") };
        assert_eq!((got, said.as_str()), (kind, text));
    }
}

#[test]
fn every_request_is_counted_once() {
    let mut bench = Bench::with(ModelSettings { max_batch_rows: 2, ..defaults() });
    bench.send(&[&[1.0], &[2.0], &[3.0], &[4.0], &[5.0]]);
    bench.send(&[&[POISON]]);
    bench.flush();
    let slot = &bench.version.stats.loops[0];
    assert_eq!(slot.submitted.get(), 2);
    assert_eq!(slot.success.iter().map(Counter::get).sum::<u64>(), 1);
    assert_eq!(slot.rows.get(), 5);
    assert_eq!(slot.failure[0][Kind::InvalidArgument as usize].get(), 1);
}
