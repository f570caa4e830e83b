//! How much of a model's load is the proof that its rows are independent.
//!
//! `proof ROUNDS FILE…` loads each file with `batching` off and auto, alternating, and prints one line of tab-separated
//! values for each load: the round; `off` or `auto`; `rows`, `unsafe` or `fixed`; milliseconds of the check, the session,
//! the first run, the analysis, the trials and the warm-up; the path. `benchmarks/figures/proof.py` makes a table of it.

use std::path::Path;
use std::sync::Arc;

use mlserve_core::config::BatchingChoice;
use mlserve_core::model::Batching;
use mlserve_ort::{LoadOptions, LoadedModel, Runtime, RuntimeOptions, load, release_memory};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rounds, files @ ..] = &arguments[..] else { panic!("proof ROUNDS FILE…") };
    let rounds: usize = rounds.parse().expect("a number of rounds");
    let library = std::env::var_os("MLSERVE_ORT_LIB").expect("MLSERVE_ORT_LIB names libonnxruntime.so");
    let runtime = Runtime::load(Path::new(&library), RuntimeOptions::default()).expect("the library loads");
    for round in 0..rounds {
        for path in files {
            let choices = [("off", BatchingChoice::Off), ("auto", BatchingChoice::Auto)];
            for at in [round % 2, 1 - round % 2] {
                let (name, choice) = choices[at];
                println!("{round}\t{name}\t{}\t{path}", line(&runtime, path, choice));
            }
        }
    }
}

fn line(runtime: &Arc<Runtime>, path: &str, batching: BatchingChoice) -> String {
    let options = LoadOptions { threads: Some(1), batching, ..LoadOptions::default() };
    let model = load(runtime, Path::new(path), &options).expect("the model loads");
    let LoadedModel { times, batching, .. } = &model;
    let word = match batching {
        Batching::Unsafe { .. } => "unsafe",
        Batching::Fixed { .. } => "fixed",
        _ => "rows",
    };
    let steps = [times.check, times.session, times.first, times.analysis, times.trials, times.warmup];
    let steps = steps.map(|time| format!("{:.3}", time.as_secs_f64() * 1e3)).join("\t");
    drop(model);
    release_memory();
    format!("{word}\t{steps}")
}
