//! Versions that come and go: loading on demand, and unloading while requests are on their way.

mod support;

use std::sync::Arc;
use std::time::Duration;

use mlserve_core::config::ModelSettings;
use mlserve_core::error::Kind;
use mlserve_core::plan::{Slot, State};
use support::Bench;

fn evicted() -> Bench {
    let mut bench = Bench::with(ModelSettings::default());
    bench.set_slot(Slot::not_serving(State::Evicted));
    bench
}

#[test]
fn requests_for_an_evicted_version_wait_until_it_is_loaded() {
    let mut bench = evicted();
    let (first, second) = (bench.send(&[&[1.0]]), bench.send(&[&[2.0]]));
    bench.flush();
    assert!(!first.is_answered() && !second.is_answered());
    assert_eq!(*bench.demand.0.lock().unwrap(), ["m"], "asked for once");
    bench.set_slot(Slot { on_demand: true, ..Slot::not_serving(State::Loading) });
    bench.flush();
    assert!(!first.is_answered(), "it is on its way");
    bench.set_slot(Slot::serving(Arc::clone(&bench.version)));
    bench.flush();
    assert_eq!((first.only().values(), second.only().values()), (vec![2.0], vec![4.0]));
    assert_eq!(bench.backend.runs(), [2], "they share a run");
}

#[test]
fn requests_for_a_version_that_fails_to_load_are_refused() {
    let mut bench = evicted();
    let caller = bench.send(&[&[1.0]]);
    bench.set_slot(Slot::not_serving(State::Failed("broken".to_owned())));
    assert_eq!(caller.only().kind(), Kind::NotReady);
}

#[test]
fn a_request_waits_no_longer_than_its_deadline() {
    let mut bench = evicted();
    let mut request = Bench::request(&[&[1.0]]);
    request.deadline = Some(bench.clock.now() + Duration::from_millis(5));
    let hasty = bench.send_request(request);
    let patient = bench.send(&[&[2.0]]);
    let next = bench.pipeline.next_expiry().expect("somebody waits");
    assert_eq!(next, bench.clock.now() + Duration::from_millis(5));
    bench.clock.advance(Duration::from_millis(5));
    bench.pipeline.expire();
    assert_eq!(hasty.only().kind(), Kind::DeadlineExceeded);
    assert!(!patient.is_answered());
    assert!(bench.pipeline.next_expiry().is_some(), "the other one has a deadline too");
    bench.set_slot(Slot::serving(Arc::clone(&bench.version)));
    bench.flush();
    assert_eq!(patient.only().values(), [4.0]);
}

#[test]
fn a_caller_that_is_gone_is_not_run_after_the_load() {
    let mut bench = evicted();
    let caller = bench.send(&[&[1.0]]);
    caller.gone.store(true, std::sync::atomic::Ordering::SeqCst);
    bench.set_slot(Slot::serving(Arc::clone(&bench.version)));
    bench.flush();
    assert_eq!(caller.only().kind(), Kind::Cancelled);
    assert!(bench.backend.runs().is_empty());
}

#[test]
fn a_version_that_loads_for_the_first_time_is_not_waited_for() {
    let mut bench = Bench::with(ModelSettings::default());
    bench.set_slot(Slot::not_serving(State::Loading));
    assert_eq!(bench.send(&[&[1.0]]).only().kind(), Kind::NotReady);
    assert!(bench.demand.0.lock().unwrap().is_empty());
}

#[test]
fn what_chose_a_version_before_it_was_closed_is_still_answered() {
    let mut bench = Bench::pooled(ModelSettings { instances: 1, ..ModelSettings::default() });
    let before = bench.send(&[&[1.0]]);
    bench.set_slot(Slot::not_serving(State::Draining));
    bench.version.pool.close();
    bench.flush();
    bench.receive_until(|| before.is_answered());
    assert_eq!(before.only().values(), [2.0]);
    assert_eq!(bench.send(&[&[1.0]]).only().kind(), Kind::NotReady, "new ones are refused");
}

#[test]
fn nothing_keeps_a_version_alive_once_its_queue_has_been_served() {
    let mut bench = Bench::pooled(ModelSettings { instances: 1, max_batch_rows: 1, ..ModelSettings::default() });
    bench.backend.hold(true);
    let callers = [bench.send(&[&[1.0]]), bench.send(&[&[2.0]])];
    bench.flush();
    support::eventually(|| bench.version.pool.waiting() == 1);
    bench.set_slot(Slot::not_serving(State::Draining));
    bench.version.pool.close();
    bench.backend.hold(false);
    bench.receive_until(|| callers.iter().all(support::Caller::is_answered));
    support::eventually(|| {
        bench.receive();
        Arc::strong_count(&bench.version) == 1
    });
}

#[test]
fn nothing_keeps_a_version_alive_once_it_is_out_of_the_plan_and_idle() {
    let mut bench = Bench::pooled(ModelSettings { instances: 1, ..ModelSettings::default() });
    let caller = bench.send(&[&[1.0]]);
    bench.flush();
    bench.receive_until(|| caller.is_answered());
    bench.set_slot(Slot::not_serving(State::Gone));
    bench.version.pool.close();
    support::eventually(|| Arc::strong_count(&bench.version) == 1);
}
