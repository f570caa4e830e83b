//! Traffic that is spread over many small models: runs that are not worth an instance stay on the loop, a part per turn.

mod support;

use std::sync::Arc;
use std::time::Duration;

use mlserve_core::clock::Clock;
use mlserve_core::config::ModelSettings;
use mlserve_core::plan::{Endpoint, Plan, Slot};
use mlserve_core::turn::Decision;
use mlserve_core::version::{Mailbox, Version};
use support::{Bench, Caller};

const MODELS: usize = 40;

/// A bench with models `m0` to `m39`, each of which takes so long for a row.
fn bench(takes: Duration) -> Bench {
    let bench = Bench::with(ModelSettings::default());
    let mailboxes: Arc<[Arc<dyn Mailbox>]> = Arc::new([Arc::clone(&bench.mailbox) as Arc<dyn Mailbox>]);
    let endpoints = (0..MODELS).map(|number| {
        let new = bench.new_version(vec![(1, 4, takes)]);
        let version = Version::new(new, Arc::clone(&mailboxes), Clock::Manual(bench.clock.clone()));
        (format!("m{number}"), Endpoint::new([(1, Slot::serving(version))].into()))
    });
    bench.shared.plan.store(Arc::new(Plan::new(2, endpoints)));
    bench
}

fn send(bench: &mut Bench) -> Vec<Caller> {
    let send = |number: usize| {
        let mut request = Bench::request(&[&[number as f32]]);
        request.model_name = format!("m{number}").into();
        bench.send_request(request)
    };
    (0..MODELS).map(send).collect()
}

fn answered(callers: &[Caller]) -> usize {
    callers.iter().filter(|caller| caller.is_answered()).count()
}

#[test]
fn small_runs_go_on_in_the_next_turn() {
    let mut bench = bench(Duration::from_micros(10));
    let callers = send(&mut bench);
    let mut turns = Vec::new();
    loop {
        match bench.pipeline.look() {
            Decision::LookAgain => {}
            Decision::Flush => {
                bench.pipeline.flush();
                turns.push(answered(&callers));
            }
            Decision::Rest => break,
        }
    }
    assert!(turns.len() > 1 && turns[0] < MODELS, "one turn is bounded: {turns:?}");
    assert!(turns.windows(2).all(|pair| pair[0] < pair[1]), "every turn gets on: {turns:?}");
    assert_eq!(turns.last(), Some(&MODELS));
    assert_eq!(callers[7].only().values(), [14.0]);
    assert_eq!(bench.mailbox.messages.load(std::sync::atomic::Ordering::SeqCst), 0, "no instance was woken");
}

#[test]
fn runs_that_are_worth_an_instance_go_to_one() {
    let mut bench = bench(Duration::from_micros(60));
    let callers = send(&mut bench);
    bench.flush();
    bench.receive_until(|| answered(&callers) == MODELS);
    assert!(bench.mailbox.messages.load(std::sync::atomic::Ordering::SeqCst) > 0);
}
