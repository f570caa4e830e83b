//! Says for each model file that is named on standard input whether it is batched, why not, and how long its load took.
//!
//! One line of tab-separated values each: `rows`, `unsafe`, `fixed` or `failed`; milliseconds of the check, the session
//! and the proof; the path; the reason. `benchmarks/batching.py` makes tables of it.

use std::io::{BufRead, stdin};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mlserve_core::model::Batching;
use mlserve_ort::{LoadOptions, Runtime, RuntimeOptions, load};

fn main() {
    let library = std::env::var_os("MLSERVE_ORT_LIB").expect("MLSERVE_ORT_LIB names libonnxruntime.so");
    let runtime = Runtime::load(Path::new(&library), RuntimeOptions::default()).expect("the library loads");
    for path in stdin().lock().lines() {
        let path = path.expect("standard input is text");
        println!("{}", line(&runtime, &path));
    }
}

fn line(runtime: &Arc<Runtime>, path: &str) -> String {
    let options = LoadOptions { threads: Some(1), warmup_budget: Duration::from_millis(200), ..LoadOptions::default() };
    let (word, reason, times) = match load(runtime, Path::new(path), &options) {
        Ok(model) => {
            let word = match &model.batching {
                Batching::Unsafe { .. } => "unsafe",
                Batching::Fixed { .. } => "fixed",
                _ => "rows",
            };
            (word, model.batching.reason().unwrap_or_default().to_owned(), model.times)
        }
        Err(error) => ("failed", error.text().to_owned(), mlserve_ort::LoadTimes::default()),
    };
    let milliseconds = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
    let times = [times.check, times.session, times.first + times.analysis + times.trials].map(milliseconds).join("\t");
    format!("{word}\t{times}\t{path}\t{}", reason.replace(['\t', '\n'], " "))
}
