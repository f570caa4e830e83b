//! Memory of dropped versions goes back to the system. A process of its own: nothing else may allocate meanwhile.

mod support;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mlserve_ort::{LoadOptions, SessionSettings, release_memory};
use support::models::{bomb, mlp, noise};
use support::{Owned, Scratch, load, options, resident_bytes, run, runtime};

/// The tests of this file take turns: each measures the whole process.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn swapping_a_model_twenty_times_gives_its_memory_back() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let scratch = Scratch::new();
    let path = mlp(1024, 12_000, 3).write(scratch.path(), "model");
    let options = LoadOptions { warmup_budget: Duration::from_millis(20), ..options() };
    let cycle = |_| {
        let model = mlserve_ort::load(&runtime(), &path, &options).expect("loads");
        let input = Owned::floats(&[8, 1024], &noise(8 * 1024));
        run(&*model.backend, &[input], &[0]).expect("runs");
        drop(model);
        release_memory();
        resident_bytes()
    };
    // The first swaps fill caches that stay; a leak of the weights would be 50 MB a swap.
    let settled = (0..5).map(cycle).fold(0, usize::max);
    let late = (5..20).map(cycle).skip(10).fold(usize::MAX, usize::min);
    assert!(late * 10 <= settled * 11, "after five swaps {settled} bytes, after twenty {late}");
}

#[test]
fn a_hundred_loads_of_a_small_model_leave_nothing_behind() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let scratch = Scratch::new();
    let path = mlp(64, 64, 3).write(scratch.path(), "model");
    // With a thread of its own, and every way that a load can end.
    let options = LoadOptions { threads: Some(2), warmup_budget: Duration::from_millis(1), ..options() };
    let broken = scratch.path().join("broken.onnx");
    std::fs::write(&broken, "no model").expect("writes");
    let refused = LoadOptions {
        session: SessionSettings { entries: vec![(String::new(), String::new())], ..SessionSettings::default() },
        ..options.clone()
    };
    let cycle = |_| {
        let model = mlserve_ort::load(&runtime(), &path, &options).expect("loads");
        run(&*model.backend, &[Owned::floats(&[8, 64], &noise(8 * 64))], &[0]).expect("runs");
        drop(model);
        mlserve_ort::load(&runtime(), &broken, &options).expect_err("broken");
        mlserve_ort::load(&runtime(), &path, &refused).expect_err("refused");
        release_memory();
        resident_bytes()
    };
    let settled = (0..20).map(cycle).fold(0, usize::max);
    let late = (0..100).map(cycle).skip(90).fold(usize::MAX, usize::min);
    // 2.5 kB for each load: less than the options of a session, let alone a session or a thread.
    assert!(late < settled + 250_000, "after twenty loads {settled} bytes, after a hundred more {late}");
}

#[test]
fn memory_of_one_large_answer_is_given_back() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let model = load(bomb());
    let before = resident_bytes();
    let answer = run(&*model.backend, &[Owned::int64s(&[1], &[50_000_000])], &[0]).expect("runs");
    assert!(resident_bytes() > before + 190_000_000);
    drop(answer);
    release_memory();
    let after = resident_bytes();
    assert!(after < before + 20_000_000, "before {before} bytes, after {after}");
}
