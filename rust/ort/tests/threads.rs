//! Whose priority the runtime's threads have, and that they end. A process of its own: all of its threads are counted.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use mlserve_core::clock::Clock;
use mlserve_ort::{Execution, LoadOptions, SessionSettings};
use rustix::process::{getpriority_process, setpriority_process};
use support::models::{mlp, noise};
use support::{Owned, Scratch, options, run, runtime};

/// A priority that nothing else here has.
const LOW: i32 = 13;

/// Name and `nice` of each thread of this process.
fn threads() -> BTreeMap<u32, (String, i32)> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let numbers = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter_map(|number: u32| Some((number, name_and_nice(number)?))).collect()
}

/// `None` if it ended meanwhile.
fn name_and_nice(number: u32) -> Option<(String, i32)> {
    let text = std::fs::read_to_string(format!("/proc/self/task/{number}/stat")).ok()?;
    let (head, fields) = text.rsplit_once(") ")?;
    // The 19th field; the name is the second, the state after it the third.
    Some((head.split_once('(')?.1.to_owned(), fields.split(' ').nth(16)?.parse().ok()?))
}

fn pool() -> Vec<i32> {
    threads().into_values().filter(|(name, _)| name == "ort-pool").map(|(_, nice)| nice).collect()
}

/// Waits for what threads do in their own time: they name themselves, and the kernel forgets them after they are joined.
fn eventually(claim: impl Fn() -> bool) -> bool {
    let clock = Clock::Monotonic;
    let end = clock.now() + Duration::from_secs(20);
    loop {
        if claim() {
            return true;
        }
        if clock.now() > end {
            return false;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_model_loaded_at_low_priority_runs_at_ordinary_priority() {
    let runtime = runtime();
    let ordinary = getpriority_process(None).expect("has one");
    let loader = std::thread::spawn(move || {
        setpriority_process(None, LOW).expect("may be lowered");
        let scratch = Scratch::new();
        let path = mlp(64, 256, 3).write(scratch.path(), "model");
        let load = |session: SessionSettings, threads: usize| {
            let options = LoadOptions { threads: Some(threads), session, ..options() };
            mlserve_ort::load(&runtime, &path, &options).expect("loads")
        };
        let shared = load(SessionSettings::default(), 3);
        assert!(eventually(|| pool() == [ordinary; 2]), "the third thread is the caller's: {:?}", threads());
        let execution = Execution::Parallel;
        let parallel = load(SessionSettings { execution, inter_op_threads: Some(3), ..SessionSettings::default() }, 1);
        assert!(eventually(|| pool().len() > 2), "branches have threads too: {:?}", threads());
        (shared, parallel, threads())
    });
    let (shared, parallel, threads_then) = loader.join().expect("ends");
    let inherited: Vec<_> = threads_then.values().filter(|(_, nice)| *nice == LOW).collect();
    assert_eq!(inherited.len(), 1, "only the loading thread itself: {inherited:?}");

    let input = Owned::floats(&[8, 64], &noise(8 * 64));
    for model in [&shared, &parallel] {
        run(&*model.backend, std::slice::from_ref(&input), &[0]).expect("runs");
    }
    drop((shared, parallel));
    assert!(eventually(|| pool().is_empty()), "a session's threads end with it: {:?}", threads());
}
