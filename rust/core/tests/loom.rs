//! Where threads meet: every interleaving of two loops and an instance, up to two preemptions. `make loom` runs it.
#![cfg(loom)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mlserve_core::config::ModelSettings;
use support::Bench;

/// Two loops hand over at the same time, the version is closed under way, and each caller is answered exactly once,
/// with its own rows or a refusal, whatever the order.
#[test]
fn whatever_the_order_each_handed_over_request_is_answered_once() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let settings = ModelSettings { inline: false, instances: 1, ..ModelSettings::default() };
        let mut bench = Bench::with(settings);
        let mut other = Bench::on(&bench);
        let first = bench.send(&[&[1.0]]);
        let second = other.send(&[&[2.0]]);
        let version = Arc::clone(&bench.version);
        let closer = loom::thread::spawn(move || {
            other.flush();
            version.pool.close();
            other
        });
        bench.flush();
        bench.version.pool.close();
        let mut other = closer.join().expect("no panic");
        while !(first.is_answered() && second.is_answered()) {
            bench.receive();
            other.receive();
            loom::thread::yield_now();
        }
        for (caller, value) in [(first, 2.0), (second, 4.0)] {
            let got = caller.only();
            assert!(got.is_refused() || got.values() == [value], "{got:?}");
        }
        assert!(bench.mailbox.messages.load(Ordering::SeqCst) <= 2);
    });
}

/// A loop looks after its callers while an instance begins and ends their run: each is answered once, whoever is first.
#[test]
fn a_caller_whose_deadline_passes_while_its_run_begins_or_ends_is_answered_once() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let settings = ModelSettings { inline: false, instances: 1, ..ModelSettings::default() };
        let mut bench = Bench::with(settings);
        let mut request = Bench::request(&[&[1.0]]);
        request.deadline = Some(bench.clock.now() + Duration::from_millis(1));
        let hasty = bench.send_request(request);
        let patient = bench.send(&[&[2.0]]);
        bench.flush();
        bench.clock.advance(Duration::from_millis(2));
        bench.pipeline.expire();
        bench.version.pool.close();
        while !(hasty.is_answered() && patient.is_answered()) {
            bench.receive();
            loom::thread::yield_now();
        }
        let got = hasty.only();
        assert!(got.is_refused() || got.values() == [2.0], "{got:?}");
        assert_eq!(patient.only().values(), [4.0]);
    });
}

/// Two instances finish parts of one request at the same time: it is answered once, in order.
#[test]
fn parts_that_end_at_the_same_time_become_one_answer() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let settings = ModelSettings { inline: false, instances: 2, max_batch_rows: 1, ..ModelSettings::default() };
        let mut bench = Bench::with(settings);
        let caller = bench.send(&[&[1.0], &[2.0]]);
        bench.flush();
        bench.version.pool.close();
        while !caller.is_answered() {
            bench.receive();
            loom::thread::yield_now();
        }
        assert_eq!(caller.only().values(), [2.0, 4.0]);
    });
}
