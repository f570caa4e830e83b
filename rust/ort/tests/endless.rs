//! Models whose runs do not end, always or for some values: they are loaded, and nobody waits for them.

mod support;

use std::time::Duration;

use mlserve_core::config::BatchingChoice;
use mlserve_core::model::Batching;
use mlserve_ort::{LoadOptions, LoadedModel};
use support::onnx::{BOOL, Builder, FLOAT, INT64, floats, graph, int, int64s, raw};
use support::{Owned, options, run};

/// Doubles `x` again and again while `going`, which is computed by what is there.
fn looped(before: Builder) -> Builder {
    let body = Builder::new()
        .input("i", INT64, &[])
        .input("was", BOOL, &[])
        .input("v", FLOAT, &[-1, 2])
        .node("Identity", &["was"], &["still"], &[])
        .node("Add", &["v", "v"], &["twice"], &[])
        .output("still", BOOL, &[])
        .output("twice", FLOAT, &[-1, 2]);
    before.node("Loop", &["", "going", "x"], &["y"], &[graph("body", body.graph)]).output("y", FLOAT, &[-1, 2])
}

fn always() -> Builder {
    looped(Builder::new().input("x", FLOAT, &[-1, 2]).initial(raw("going", BOOL, &[], &[1])))
}

/// Ends unless some value is larger than ordinary ones are.
fn for_large_values() -> Builder {
    looped(
        Builder::new()
            .input("x", FLOAT, &[-1, 2])
            .initial(floats("much", &[], &[1e3]))
            .node("ReduceMax", &["x"], &["most"], &[int("keepdims", 0)])
            .node("Greater", &["most", "much"], &["going"], &[]),
    )
}

/// Ends unless there are four rows.
fn for_many_rows() -> Builder {
    looped(
        Builder::new()
            .input("x", FLOAT, &[-1, 2])
            .initial(int64s("zero", &[], &[0]))
            .initial(int64s("four", &[], &[4]))
            .node("Shape", &["x"], &["sizes"], &[])
            .node("Gather", &["sizes", "zero"], &["rows"], &[])
            .node("GreaterOrEqual", &["rows", "four"], &["going"], &[]),
    )
}

fn load(builder: Builder, options: LoadOptions) -> LoadedModel {
    let options = LoadOptions { longest_run: Duration::from_millis(100), ..options };
    support::load_with(builder, &options).expect("the model loads")
}

#[test]
fn a_model_that_never_ends_loads_and_is_not_batched() {
    for batching in [BatchingChoice::Auto, BatchingChoice::Off, BatchingChoice::Trust] {
        let model = load(always(), LoadOptions { batching, ..options() });
        let reason = model.batching.reason().unwrap_or_default();
        assert!(!matches!(model.batching, Batching::Rows), "{batching:?}: {:?}", model.batching);
        assert!(
            batching == BatchingChoice::Off || reason.contains("did not end within 0.1 s"),
            "{batching:?}: {reason}"
        );
        assert_eq!(model.warmup, [], "{batching:?}");
    }
}

#[test]
fn a_model_that_does_not_end_for_some_values_loads_and_is_not_batched() {
    // What the graph shows needs no trial with such values; without it they are met.
    let model = load(for_large_values(), options());
    assert!(matches!(model.batching, Batching::Unsafe { .. }), "{:?}", model.batching);
    let model = load(for_large_values(), LoadOptions { reads_graph: false, ..options() });
    let Batching::Unsafe { reason } = &model.batching else { panic!("{:?}", model.batching) };
    let expected =
        "that rows are independent could not be proven: a trial run did not end within 0.1 s and was stopped";
    assert_eq!(reason, expected);
    let input = Owned::floats(&[1, 2], &[1.0, 2.0]);
    assert!(run(&*model.backend, &[input], &[0]).is_ok(), "other runs go on to their end");
}

#[test]
fn a_warm_up_that_does_not_end_is_the_last_one() {
    for batching in [BatchingChoice::Auto, BatchingChoice::Trust] {
        let model = load(for_many_rows(), LoadOptions { batching, ..options() });
        let rows: Vec<usize> = model.warmup.iter().map(|(rows, _)| *rows).collect();
        assert_eq!(rows, [1, 2], "{batching:?}");
    }
}
