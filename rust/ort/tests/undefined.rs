//! Files and requests that ONNX does not define: refused before they get to the runtime.

mod support;

use support::onnx::{BOOL, Builder, FLOAT, INT64, floats, graph, int, int64s, raw};
use support::{Owned, load, run, try_load};

const HIDDEN: i64 = 2;
const COLUMNS: i64 = 4;

fn recurrent(operation: &str, gates: i64) -> Builder {
    let (weights, again) = (gates * HIDDEN * COLUMNS, gates * HIDDEN * HIDDEN);
    Builder::new()
        .input("x", FLOAT, &[-1, -2, COLUMNS])
        .initial(floats("w", &[1, gates * HIDDEN, COLUMNS], &vec![0.5; weights as usize]))
        .initial(floats("r", &[1, gates * HIDDEN, HIDDEN], &vec![0.5; again as usize]))
        .node(operation, &["x", "w", "r"], &["y"], &[int("hidden_size", HIDDEN)])
        .output("y", FLOAT, &[-3, 1, -4, HIDDEN])
}

fn transposed_convolution() -> Builder {
    Builder::new()
        .input("x", FLOAT, &[-1, 1, -2, -3])
        .initial(floats("w", &[1, 1, 2, 2], &[1.0; 4]))
        .node("ConvTranspose", &["x", "w"], &["y"], &[])
        .output("y", FLOAT, &[-4, 1, -5, -6])
}

fn refused(builder: Builder, shapes: &[&[i64]], sound: &[i64]) {
    let model = load(builder);
    for shape in shapes {
        let error = run(&*model.backend, &[Owned::floats(shape, &[])], &[0]).expect_err("refused");
        assert!(error.is_input_fault, "{error}");
        assert!(error.text.contains("takes no tensor without elements"), "{error}");
    }
    let count = sound.iter().product::<i64>() as usize;
    run(&*model.backend, &[Owned::floats(sound, &vec![1.0; count])], &[0]).expect("others run");
}

#[test]
fn recurrent_operations_take_no_tensor_without_elements() {
    for (operation, gates) in [("GRU", 3), ("LSTM", 4)] {
        refused(recurrent(operation, gates), &[&[0, 1, COLUMNS], &[1, 0, COLUMNS], &[0, 0, COLUMNS]], &[3, 1, COLUMNS]);
    }
}

#[test]
fn transposed_convolution_takes_no_tensor_without_elements() {
    refused(transposed_convolution(), &[&[1, 1, 0, 0], &[0, 1, 2, 2], &[1, 1, 0, 3]], &[1, 1, 2, 2]);
}

#[test]
fn a_transform_takes_no_window_without_elements() {
    let builder = Builder::new()
        .input("x", FLOAT, &[-1, -2, 1])
        .input("window", FLOAT, &[-3])
        .initial(int64s("step", &[], &[4]))
        .node("STFT", &["x", "step", "window"], &["y"], &[])
        .output("y", FLOAT, &[-1, -4, -5, 2]);
    let model = load(builder);
    let asked = |length: i64| {
        let window = Owned::floats(&[length], &vec![1.0; length as usize]);
        run(&*model.backend, &[Owned::floats(&[1, 16, 1], &[1.0; 16]), window], &[0])
    };
    assert!(asked(0).expect_err("refused").is_input_fault);
    asked(8).expect("others run");
}

/// Other models do: what has no elements is answered with none.
#[test]
fn other_operations_take_tensors_without_elements() {
    let builder = Builder::new().input("x", FLOAT, &[-1, 2]).node("Relu", &["x"], &["y"], &[]);
    let model = load(builder.output("y", FLOAT, &[-1, 2]));
    let outputs = run(&*model.backend, &[Owned::floats(&[0, 2], &[])], &[0]).expect("runs");
    assert_eq!(outputs[0].shape.as_slice(), [0, 2]);
}

#[test]
fn a_loop_takes_no_count_without_elements() {
    let body = Builder::new()
        .input("i", INT64, &[])
        .input("going", BOOL, &[])
        .input("v", FLOAT, &[1])
        .node("Identity", &["going"], &["as_before"], &[])
        .node("Add", &["v", "v"], &["twice"], &[])
        .output("as_before", BOOL, &[])
        .output("twice", FLOAT, &[1]);
    let builder = Builder::new()
        .input("count", INT64, &[-1])
        .initial(raw("yes", BOOL, &[], &[1]))
        .initial(floats("start", &[1], &[1.0]))
        .node("Squeeze", &["count"], &["turns"], &[])
        .node("Loop", &["turns", "yes", "start"], &["y"], &[graph("body", body.graph)])
        .output("y", FLOAT, &[1]);
    let model = load(builder);
    let error = run(&*model.backend, &[Owned::int64s(&[0], &[])], &[0]).expect_err("refused");
    assert!(error.is_input_fault, "{error}");
    run(&*model.backend, &[Owned::int64s(&[1], &[3])], &[0]).expect("others run");
}

#[test]
fn inputs_without_a_name_are_refused_where_all_are_needed() {
    let columns = [("Max", 2), ("Min", 2), ("Sum", 2), ("Mean", 2), ("Concat", 2)];
    for (operation, width) in columns {
        let attributes = if operation == "Concat" { vec![int("axis", 1)] } else { vec![] };
        let builder = Builder::new().input("x", FLOAT, &[-1, width]).node(operation, &["x", ""], &["y"], &attributes);
        let error = try_load(builder.output("y", FLOAT, &[-1, -2])).expect_err("refused");
        assert!(error.text().contains("has no name"), "{operation}: {error}");
    }
}

/// As far as there are dimensions, says ONNX: nothing is wrong with such bounds.
#[test]
fn bounds_of_a_shape_beyond_its_rank_are_no_fault() {
    let builder = Builder::new()
        .input("x", FLOAT, &[-1, 2])
        .node("Shape", &["x"], &["y"], &[int("start", 0), int("end", i64::MAX)])
        .output("y", INT64, &[2]);
    try_load(builder).expect("loads");
}
