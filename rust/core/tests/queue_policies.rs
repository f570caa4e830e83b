//! What the levels of a queue do with requests that wait too long, or that are too many, on a clock that stands still.

mod support;

use std::time::Duration;

use mlserve_core::config::{ModelSettings, QueuePolicySettings, TimeoutAction};
use mlserve_core::error::Kind;
use support::{Bench, Caller, Got};

const MS: Duration = Duration::from_millis(1);

/// Runs go to one instance, one row each, so that their order shows.
fn one_by_one() -> ModelSettings {
    ModelSettings { max_batch_rows: 1, instances: 1, ..ModelSettings::default() }
}

fn delaying(timeout_us: u64) -> QueuePolicySettings {
    QueuePolicySettings {
        timeout_us: Some(timeout_us),
        timeout_action: Some(TimeoutAction::Delay),
        ..QueuePolicySettings::default()
    }
}

/// Lets the instance go on, and tells the values in the order in which they ran.
fn order(bench: &mut Bench, callers: &[(f32, Caller)]) -> Vec<f32> {
    bench.backend.hold(false);
    bench.receive_until(|| callers.iter().all(|(_, caller)| caller.is_answered()));
    let ran = |caller: &Caller| match caller.only() {
        Got::Values(_, place) => place.batch,
        Got::Refused(kind, text) => panic!("refused: {kind:?} {text}"),
    };
    let mut order: Vec<(u64, f32)> = callers.iter().map(|(value, caller)| (ran(caller), *value)).collect();
    order.sort_by_key(|(batch, _)| *batch);
    order.into_iter().map(|(_, value)| value).collect()
}

#[test]
fn a_delayed_request_is_answered_after_the_others_of_its_level() {
    let settings = ModelSettings { queue_timeout_us: 5_000, timeout_action: TimeoutAction::Delay, ..one_by_one() };
    let mut bench = Bench::pooled(settings);
    bench.keep_busy();
    let mut callers = Vec::new();
    for value in [1.0, 2.0] {
        callers.push((value, bench.send_with_priority(value, 0)));
    }
    bench.clock.advance(6 * MS);
    bench.pipeline.expire();
    assert!(callers.iter().all(|(_, caller)| !caller.is_answered()), "late is no reason to refuse");
    for value in [3.0, 4.0] {
        callers.push((value, bench.send_with_priority(value, 0)));
    }
    assert_eq!(order(&mut bench, &callers), [3.0, 4.0, 1.0, 2.0]);
}

#[test]
fn a_delayed_request_goes_before_the_levels_below_its_own() {
    let settings = ModelSettings { priority_levels: 2, queue_policies: [(1, delaying(5_000))].into(), ..one_by_one() };
    let mut bench = Bench::pooled(settings);
    bench.keep_busy();
    let mut callers = vec![(1.0, bench.send_with_priority(1.0, 1))];
    bench.clock.advance(6 * MS);
    callers.push((2.0, bench.send_with_priority(2.0, 2)));
    callers.push((3.0, bench.send_with_priority(3.0, 1)));
    assert_eq!(order(&mut bench, &callers), [3.0, 1.0, 2.0]);
}

#[test]
fn a_request_that_shortens_its_wait_is_passed_by_those_before_and_after_it() {
    let settings = ModelSettings { queue_timeout_us: 50_000, timeout_action: TimeoutAction::Delay, ..one_by_one() };
    let mut bench = Bench::pooled(settings);
    bench.keep_busy();
    let mut callers = vec![(1.0, bench.send_with_priority(1.0, 0))];
    let mut impatient = Bench::request(&[&[2.0]]);
    impatient.queue_timeout = Some(2 * MS);
    callers.push((2.0, bench.send_request(impatient)));
    callers.push((3.0, bench.send_with_priority(3.0, 0)));
    bench.clock.advance(3 * MS);
    assert_eq!(order(&mut bench, &callers), [1.0, 3.0, 2.0]);
}

#[test]
fn a_deadline_refuses_even_where_the_policy_delays() {
    let settings = ModelSettings { queue_timeout_us: 1_000, timeout_action: TimeoutAction::Delay, ..one_by_one() };
    let mut bench = Bench::pooled(settings);
    let busy = bench.keep_busy();
    let mut request = Bench::request(&[&[1.0]]);
    request.deadline = Some(bench.clock.now() + 5 * MS);
    let caller = bench.send_request(request);
    bench.flush();
    bench.clock.advance(6 * MS);
    bench.pipeline.expire();
    assert_eq!(caller.only().kind(), Kind::DeadlineExceeded);
    bench.backend.hold(false);
    bench.receive_until(|| busy.is_answered());
    assert_eq!(bench.backend.runs(), [1]);
}

#[test]
fn levels_refuse_after_their_own_time() {
    let level = QueuePolicySettings { timeout_us: Some(2_000), ..QueuePolicySettings::default() };
    let settings = ModelSettings {
        priority_levels: 2,
        queue_timeout_us: 10_000,
        queue_policies: [(2, level)].into(),
        ..one_by_one()
    };
    let mut bench = Bench::pooled(settings);
    bench.keep_busy();
    let (high, low) = (bench.send_with_priority(1.0, 1), bench.send_with_priority(2.0, 2));
    bench.clock.advance(3 * MS);
    bench.pipeline.expire();
    assert_eq!(low.only().kind(), Kind::QueueTimeout);
    assert!(!high.is_answered());
    bench.clock.advance(8 * MS);
    bench.pipeline.expire();
    assert_eq!(high.only().kind(), Kind::QueueTimeout);
    bench.backend.hold(false);
}

#[test]
fn a_timeout_that_may_not_be_overridden_is_ignored() {
    let mut bench = Bench::pooled(ModelSettings { allow_timeout_override: false, ..one_by_one() });
    let busy = bench.keep_busy();
    let mut request = Bench::request(&[&[1.0]]);
    request.queue_timeout = Some(MS);
    let caller = bench.send_request(request);
    bench.flush();
    bench.clock.advance(5 * MS);
    bench.pipeline.expire();
    assert!(!caller.is_answered());
    bench.backend.hold(false);
    bench.receive_until(|| busy.is_answered() && caller.is_answered());
    assert_eq!(caller.only().values(), [2.0]);
}

#[test]
fn a_full_level_refuses_its_own_requests_only() {
    let level = QueuePolicySettings { capacity: Some(1), ..QueuePolicySettings::default() };
    let settings = ModelSettings { priority_levels: 2, queue_policies: [(1, level)].into(), ..one_by_one() };
    let mut bench = Bench::pooled(settings);
    bench.keep_busy();
    let kept = [(1.0, bench.send_with_priority(1.0, 1)), (2.0, bench.send_with_priority(2.0, 2))];
    let refused = bench.send_with_priority(3.0, 1);
    let Got::Refused(kind, text) = refused.only() else { panic!("answered") };
    assert_eq!((kind, text.as_str()), (Kind::QueueFull, "Exceeds maximum queue size: 1 requests wait already"));
    assert_eq!(order(&mut bench, &kept), [1.0, 2.0]);
}

#[test]
fn delayed_requests_count_against_the_capacity_of_their_level() {
    let level = QueuePolicySettings { capacity: Some(1), ..delaying(1_000) };
    let settings = ModelSettings { priority_levels: 1, queue_policies: [(1, level)].into(), ..one_by_one() };
    let mut bench = Bench::pooled(settings);
    bench.keep_busy();
    let delayed = bench.send_with_priority(1.0, 1);
    bench.clock.advance(2 * MS);
    assert_eq!(bench.send_with_priority(2.0, 1).only().kind(), Kind::QueueFull);
    assert_eq!(order(&mut bench, &[(1.0, delayed)]), [1.0]);
}

#[test]
fn policies_leave_cheap_models_on_the_loop() {
    let settings = ModelSettings {
        queue_timeout_us: 1_000,
        timeout_action: TimeoutAction::Delay,
        priority_levels: 1,
        queue_policies: [(1, delaying(2_000))].into(),
        ..ModelSettings::default()
    };
    let mut bench = Bench::with(settings);
    let caller = bench.send(&[&[1.0]]);
    bench.clock.advance(3 * MS);
    bench.flush();
    assert_eq!(caller.only().values(), [2.0], "answered at the turn's end, late or not");
}
