//! Figures behind docs/decisions/0002-onnx-runtime-sessions.md: `cargo bench -p mlserve-ort -- [latency] [memory] [load]`.
//!
//! Checks answers first. Times are the smallest of several rounds on an otherwise idle core; memory is the resident set.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use mlserve_core::backend::{Backend, TensorView};
use mlserve_core::clock::Clock;
use mlserve_core::tensor::DataType;
use mlserve_ort::{LoadOptions, LoadedModel, release_memory};
use support::models::{mlp, noise};
use support::{Aligned, Owned, Scratch, resident_bytes};

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|argument| argument == name);
    println!("ONNX Runtime {}", support::runtime().version());
    if is_wanted("latency") {
        latency();
    }
    if is_wanted("load") {
        load_times();
    }
    if is_wanted("memory") {
        memory();
    }
}

fn load(inputs: i64, hidden: i64, options: &LoadOptions) -> LoadedModel {
    let scratch = Scratch::new();
    let path = mlp(inputs, hidden, 3).write(scratch.path(), "model");
    mlserve_ort::load(&support::runtime(), &path, options).expect("loads")
}

/// Smallest mean time of a run over several rounds.
fn time_of(backend: &dyn Backend, rows: usize, columns: usize) -> Duration {
    const ROUNDS: usize = 15;
    const RUNS: u32 = 20_000;
    let data = Aligned::new(&Owned::floats(&[], &noise(rows * columns)).data);
    let shape = [rows as i64, columns as i64];
    let view = TensorView { datatype: DataType::Fp32, shape: &shape, data: data.bytes() };
    let clock = Clock::Monotonic;
    let round = |_| {
        let start = clock.now();
        for _ in 0..RUNS {
            std::hint::black_box(backend.run(&[view], &[0]).expect("runs"));
        }
        (clock.now() - start) / RUNS
    };
    (0..ROUNDS).map(round).min().unwrap_or_default()
}

fn latency() {
    let options = LoadOptions { threads: Some(1), ..support::options() };
    let model = load(8, 16, &options);
    for rows in [1, 8, 64] {
        let elapsed = time_of(&*model.backend, rows, 8);
        println!("latency 8->16->3, {rows} rows: {:.2} us", elapsed.as_secs_f64() * 1e6);
    }
    let start = Clock::Monotonic.now();
    let runs = 200_000_u32;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let data = Aligned::new(&Owned::floats(&[], &noise(8)).data);
                let view = TensorView { datatype: DataType::Fp32, shape: &[1, 8], data: data.bytes() };
                for _ in 0..runs {
                    std::hint::black_box(model.backend.run(&[view], &[0]).expect("runs"));
                }
            });
        }
    });
    let elapsed = (Clock::Monotonic.now() - start) / runs;
    println!("latency 8->16->3, 1 row, two threads at once: {:.2} us per run of each", elapsed.as_secs_f64() * 1e6);
}

fn load_times() {
    for (name, inputs, hidden) in [("8->16->3", 8, 16), ("1024->4096->3", 1024, 4096)] {
        let model = load(inputs, hidden, &LoadOptions { cores: 2, ..LoadOptions::default() });
        println!("load {name}: {:?}", model.times);
        println!("load {name}: threads {}, warm-up {:?}", model.threads, model.warmup);
    }
}

fn resident_mb() -> f64 {
    resident_bytes() as f64 / 1e6
}

/// A model of 50 MB, loaded and dropped.
fn memory() {
    let scratch = Scratch::new();
    let path = mlp(1024, 12_000, 3).write(scratch.path(), "model");
    let options = LoadOptions { max_batch_rows: 8, threads: Some(1), ..support::options() };
    println!("memory before: {:.1} MB", resident_mb());
    for cycle in 0..20 {
        let model = mlserve_ort::load(&support::runtime(), &path, &options).expect("loads");
        let input = Owned::floats(&[8, 1024], &noise(8 * 1024));
        support::run(&*model.backend, &[input], &[0]).expect("runs");
        let loaded = resident_mb();
        drop(model);
        let dropped = resident_mb();
        release_memory();
        println!("memory cycle {cycle}: loaded {loaded:.1}, dropped {dropped:.1}, released {:.1} MB", resident_mb());
    }
}
