//! Files and requests that ended the process inside ONNX Runtime: refused before they get there.

mod support;

use support::onnx::{Builder, FLOAT, INT64, floats, int, int64s};
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

/// Each aborted the process: `terminate called without an active exception`.
#[test]
fn recurrent_operations_take_no_tensor_without_elements() {
    for (operation, gates) in [("GRU", 3), ("LSTM", 4)] {
        refused(recurrent(operation, gates), &[&[0, 1, COLUMNS], &[1, 0, COLUMNS], &[0, 0, COLUMNS]], &[3, 1, COLUMNS]);
    }
}

/// Read behind the tensor: SIGSEGV.
#[test]
fn transposed_convolution_takes_no_tensor_without_elements() {
    refused(transposed_convolution(), &[&[1, 1, 0, 0], &[0, 1, 2, 2], &[1, 1, 0, 3]], &[1, 1, 2, 2]);
}

/// Divided by zero: SIGFPE.
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

fn shape_from(name: &str, bound: i64) -> Builder {
    Builder::new().input("x", FLOAT, &[-1, 2]).node("Shape", &["x"], &["y"], &[int(name, bound)]).output(
        "y",
        INT64,
        &[-2],
    )
}

/// The runtime kept 32 bits of such a number and read there: SIGSEGV while it loaded the model.
#[test]
fn bounds_of_a_shape_beyond_any_rank_are_refused() {
    for name in ["start", "end"] {
        for bound in [1 << 31, 1 << 32, 1 << 62, i64::MAX, i64::MIN] {
            let error = try_load(shape_from(name, bound)).expect_err("refused");
            assert!(error.text().contains(&format!("'{name}' is {bound}")), "{error}");
        }
        for bound in [-2, -1, 0, 1, 2] {
            try_load(shape_from(name, bound)).expect("loads");
        }
    }
}
