//! The memory limit holds whatever is loaded. A process of its own, because the limit is the process's.

mod support;

use mlserve_ort::{LoadErrorKind, Runtime, RuntimeOptions};
use support::models::{bomb, collected, mlp};
use support::{Owned, Scratch, library, load, options, run};

/// Less than the weights of the larger model.
const LIMIT: usize = 20 << 20;

#[test]
fn weights_count_and_never_switch_the_limit_off() {
    let runtime = Runtime::load(&library(), RuntimeOptions { arena_bytes: Some(LIMIT) }).expect("loads");
    let bomb = load(bomb());
    let ask = |count: i64| run(&*bomb.backend, &[Owned::int64s(&[1], &[count])], &[0]);
    assert!(ask(1 << 29).expect_err("too much").is_input_fault);

    let scratch = Scratch::new();
    let path = mlp(1024, 12_000, 3).write(scratch.path(), "large");
    let error = mlserve_ort::load(&runtime, &path, &options()).expect_err("too large");
    assert_eq!(error.kind(), LoadErrorKind::ModelUnsupported);
    assert!(error.text().contains("the limit is 20971520"), "{error}");

    assert!(ask(1 << 29).expect_err("too much").is_input_fault);
    // What fits alone, but not beside what others hold, is not the caller's fault.
    let eight_megabytes = 2 << 20;
    let held: Vec<_> = (0..2).map(|_| ask(eight_megabytes).expect("fits")).collect();
    let error = ask(eight_megabytes).expect_err("full");
    assert!(!error.is_input_fault, "{error}");
    drop(held);
    assert!(ask(eight_megabytes).is_ok());
    small_tensors_count();
}

/// Thousands of small tensors count like a large one, and no longer when they are gone.
fn small_tensors_count() {
    let model = load(collected());
    let ask = |turns: i64| run(&*model.backend, &[Owned::int64s(&[1], &[turns])], &[0]);
    for _ in 0..20 {
        let error = ask(6_000).expect_err("24 MB of blocks");
        assert!(error.text.contains("limits.arena_bytes"), "{error}");
    }
    assert_eq!(ask(1_000).expect("4 MB twice").len(), 1);
}
