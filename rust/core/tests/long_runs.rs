//! Runs that take longer than their callers wait.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use mlserve_core::config::ModelSettings;
use mlserve_core::error::Kind;
use support::{Bench, Caller, Got, eventually};

fn pooled() -> Bench {
    Bench::pooled(ModelSettings { instances: 1, ..ModelSettings::default() })
}

fn send_until(bench: &mut Bench, value: f32, deadline: Duration) -> Caller {
    let mut request = Bench::request(&[&[value]]);
    request.deadline = Some(bench.clock.now() + deadline);
    bench.send_request(request)
}

/// Moves the clock and lets the loop look.
fn pass(bench: &mut Bench, time: Duration) {
    bench.clock.advance(time);
    bench.pipeline.expire();
}

#[test]
fn a_caller_is_answered_at_its_deadline_though_its_run_goes_on() {
    let mut bench = pooled();
    bench.backend.hold(true);
    let first = send_until(&mut bench, 1.0, Duration::from_secs(1));
    let second = send_until(&mut bench, 2.0, Duration::from_secs(3));
    bench.flush();
    eventually(|| bench.backend.runs() == [2]);
    let next = bench.pipeline.next_expiry().expect("somebody waits");
    assert!(next <= bench.clock.now() + Duration::from_secs(1));
    pass(&mut bench, Duration::from_millis(1_001));
    let Got::Refused(kind, text) = first.only() else { panic!("it runs") };
    assert_eq!((kind, text.as_str()), (Kind::DeadlineExceeded, "the deadline passed while the request was running"));
    assert!(!second.is_answered(), "its time is not over");
    bench.backend.hold(false);
    bench.receive_until(|| second.is_answered());
    assert_eq!(second.only().values(), [4.0], "its own rows, though the first is not there any more");
    assert_eq!(bench.backend.stopped.load(Ordering::SeqCst), 0);
}

#[test]
fn a_run_is_stopped_when_the_last_of_its_callers_has_been_answered() {
    let mut bench = pooled();
    bench.backend.hold(true);
    let first = send_until(&mut bench, 1.0, Duration::from_secs(1));
    let second = send_until(&mut bench, 2.0, Duration::from_secs(3));
    bench.flush();
    eventually(|| bench.backend.runs() == [2]);
    pass(&mut bench, Duration::from_secs(2));
    assert!(first.is_answered());
    pass(&mut bench, Duration::from_secs(2));
    assert_eq!(second.only().kind(), Kind::DeadlineExceeded);
    eventually(|| bench.backend.stopped.load(Ordering::SeqCst) == 1);
    bench.backend.hold(false);
    let next = bench.send(&[&[3.0]]);
    bench.flush();
    bench.receive_until(|| next.is_answered());
    assert_eq!(next.only().values(), [6.0], "the next run is not stopped for this one");
    assert_eq!(bench.version.pool.abandoned(), 0);
}

#[test]
fn a_run_whose_callers_have_gone_is_stopped() {
    let mut bench = pooled();
    let left = bench.keep_busy();
    left.gone.store(true, Ordering::SeqCst);
    assert!(bench.pipeline.next_expiry().is_some_and(|next| next <= bench.clock.now() + Duration::from_millis(250)));
    pass(&mut bench, Duration::from_millis(251));
    assert_eq!(left.only().kind(), Kind::Cancelled);
    eventually(|| bench.backend.stopped.load(Ordering::SeqCst) == 1);
    bench.backend.hold(false);
}

#[test]
fn nothing_is_looked_at_once_nobody_waits() {
    let mut bench = pooled();
    let caller = bench.send(&[&[1.0]]);
    bench.flush();
    bench.receive_until(|| caller.is_answered());
    pass(&mut bench, Duration::from_secs(1));
    assert_eq!(bench.pipeline.next_expiry(), None);
}

#[test]
fn every_run_is_stopped_at_the_end() {
    let mut bench = pooled();
    let caller = bench.keep_busy();
    bench.version.pool.stop_runs();
    bench.receive_until(|| caller.is_answered());
    assert_eq!(caller.only().kind(), Kind::Draining);
    bench.backend.hold(false);
}

#[test]
fn a_run_that_takes_too_long_on_a_loop_is_made_again_on_an_instance() {
    let mut bench = Bench::with(ModelSettings::default());
    bench.backend.hold(true);
    let caller = bench.send(&[&[1.0]]);
    let (shared, backend) = (bench.shared.clone(), bench.backend.clone());
    let watcher = std::thread::spawn(move || {
        let signs = &shared.watch.loops[0];
        eventually(|| backend.runs() == [1]);
        signs.stop_inline(signs.inline_run().expect("it runs on the loop"));
    });
    bench.flush();
    watcher.join().expect("no panic");
    assert_eq!(bench.backend.stopped.load(Ordering::SeqCst), 1);
    bench.backend.hold(false);
    bench.receive_until(|| caller.is_answered());
    assert_eq!(caller.only().values(), [2.0]);
    let next = bench.send(&[&[2.0]]);
    bench.flush();
    assert!(!next.is_answered(), "its version's runs stay away from loops");
    bench.receive_until(|| next.is_answered());
    bench.clock.advance(Duration::from_secs(61));
    // The time that it took is remembered; runs that take little let it forget.
    for _ in 0..200 {
        let again = bench.send(&[&[2.0]]);
        bench.flush();
        bench.receive_until(|| again.is_answered());
    }
    let later = bench.send(&[&[3.0]]);
    bench.flush();
    assert_eq!(later.only().values(), [6.0], "not for ever");
}

#[test]
fn a_version_that_was_slow_once_is_tried_again() {
    let mut bench = pooled();
    bench.runs_take(Duration::from_secs(20));
    for _ in 0..20 {
        let slow = bench.send(&[&[1.0]]);
        bench.flush();
        bench.receive_until(|| slow.is_answered());
    }
    bench.runs_take(Duration::from_millis(1));
    let mut answered = 0;
    for _ in 0..400 {
        let caller = send_until(&mut bench, 1.0, Duration::from_secs(1));
        bench.flush();
        bench.receive_until(|| caller.is_answered());
        answered += usize::from(!caller.only().is_refused());
    }
    assert!(answered > 300, "{answered} of 400");
}

#[test]
fn a_caller_is_answered_at_its_deadline_while_the_other_half_of_its_failed_batch_runs() {
    let mut bench = pooled();
    let busy = bench.keep_busy();
    let bad = bench.send(&[&[support::POISON]]);
    let hasty = send_until(&mut bench, 1.0, Duration::from_secs(1));
    bench.flush();
    // The batch fails, and the run of its first half is held.
    *bench.backend.holds_from.lock().unwrap() = Some(3);
    bench.backend.hold(false);
    bench.receive_until(|| busy.is_answered());
    eventually(|| bench.backend.runs() == [1, 2, 1]);
    pass(&mut bench, Duration::from_millis(1_001));
    assert_eq!(hasty.only().kind(), Kind::DeadlineExceeded);
    *bench.backend.holds_from.lock().unwrap() = None;
    bench.receive_until(|| bad.is_answered());
    assert_eq!(bad.only().kind(), Kind::InvalidArgument);
    assert_eq!(bench.backend.runs(), [1, 2, 1], "what was answered does not run");
}
