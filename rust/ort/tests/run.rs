//! Runs through the backend: every type and shape, errors, and concurrency.

mod support;

use std::thread;

use bytes::Bytes;
use mlserve_core::backend::{TensorView, TextRoom};
use mlserve_core::stop::Stop;
use mlserve_core::tensor::DataType;
use support::models::{bomb, embedding, mlp, noise};
use support::onnx::{Builder, FLOAT, INT64, STRING};
use support::{Owned, as_floats, load, run};

#[test]
fn a_tiny_model_answers() {
    let model = load(mlp(8, 16, 3));
    let outputs = run(&*model.backend, &[Owned::floats(&[2, 8], &noise(16))], &[0]).expect("runs");
    assert_eq!(outputs[0].shape.as_slice(), [2, 3]);
    let probabilities = as_floats(&outputs[0]);
    assert!((probabilities.iter().sum::<f32>() - 2.0).abs() < 1e-5, "{probabilities:?}");
}

/// Every type goes through an Identity unchanged, whatever its rank and size.
#[test]
fn every_type_and_shape_is_carried_exactly() {
    let numbers = [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16];
    for element in numbers {
        for shape in [&[][..], &[1], &[3, 2], &[2, 0, 5], &[0]] {
            let symbols: Vec<i64> = (1..=shape.len() as i64).map(|number| -number).collect();
            let model = load(
                Builder::new()
                    .input("x", element, &symbols)
                    .node("Identity", &["x"], &["y"], &[])
                    .output("y", element, &symbols),
            );
            let datatype = model.inputs[0].datatype;
            let count = shape.iter().product::<i64>() as usize * datatype.size().expect("fixed");
            let byte = |index: usize| if datatype == DataType::Bool { (index % 2) as u8 } else { index as u8 };
            let input = Owned { datatype, shape: shape.to_vec(), data: (0..count).map(byte).collect() };
            let outputs = run(&*model.backend, std::slice::from_ref(&input), &[0]).expect("runs");
            assert_eq!(outputs[0].datatype, datatype);
            assert_eq!((outputs[0].shape.as_slice(), &outputs[0].data[..]), (shape, &input.data[..]), "{datatype}");
        }
    }
}

fn strings(symbols: &[i64]) -> mlserve_ort::LoadedModel {
    let builder = Builder::new().input("x", STRING, symbols).node("Identity", &["x"], &["y"], &[]);
    load(builder.output("y", STRING, symbols))
}

#[test]
fn strings_are_carried_exactly_with_nuls_and_invalid_utf8() {
    let model = strings(&[-1, 2]);
    let long = vec![7_u8; 100_000];
    let input = Owned::strings(&[2, 2], &[b"a\0b\0", b"", &[0xff, 0xfe, 0], &long]);
    let outputs = run(&*model.backend, std::slice::from_ref(&input), &[0]).expect("runs");
    assert_eq!((outputs[0].datatype, &outputs[0].data[..]), (DataType::Bytes, &input.data[..]));
    for shape in [&[0, 2][..], &[1, 0]] {
        let model = strings(&[-1, -2]);
        let outputs = run(&*model.backend, &[Owned::strings(shape, &[])], &[0]).expect("runs");
        assert_eq!((outputs[0].shape.as_slice(), outputs[0].data.len()), (shape, 0));
    }
    let outputs = run(&*strings(&[]).backend, &[Owned::strings(&[], &[b"scalar"])], &[0]).expect("runs");
    assert_eq!(&outputs[0].data[..], b"\x06\0\0\0scalar");
}

#[test]
fn strings_that_contradict_their_shape_are_the_callers_fault() {
    let model = strings(&[-1]);
    for (shape, data) in [(3, vec![0_u8; 8]), (1, vec![0; 8]), (1, vec![9, 0, 0, 0]), (1 << 40, vec![0; 8])] {
        let input = Owned { datatype: DataType::Bytes, shape: vec![shape], data };
        let error = run(&*model.backend, &[input], &[0]).expect_err("refused");
        assert!(error.is_input_fault, "{error}");
    }
}

#[test]
fn misaligned_bytes_are_copied_not_refused() {
    let model = load(mlp(8, 16, 3));
    let input = Owned::floats(&[1, 8], &noise(8));
    let expected = run(&*model.backend, std::slice::from_ref(&input), &[0]).expect("runs");
    let mut shifted = vec![0_u8; 1];
    shifted.extend_from_slice(&input.data);
    let aligned = support::Aligned::new(&shifted);
    let view = TensorView { datatype: DataType::Fp32, shape: &[1, 8], data: &aligned.bytes()[1..] };
    let outputs = model.backend.run(&[view], &[0]).expect("runs");
    assert_eq!(outputs[0].data, expected[0].data);
}

#[test]
fn outputs_come_in_the_order_asked_for() {
    let model = load(
        Builder::new()
            .input("x", FLOAT, &[-1, 2])
            .node("Neg", &["x"], &["n"], &[])
            .node("Abs", &["x"], &["a"], &[])
            .output("n", FLOAT, &[-1, 2])
            .output("a", FLOAT, &[-1, 2]),
    );
    let input = [Owned::floats(&[1, 2], &[1.0, -2.0])];
    let both = run(&*model.backend, &input, &[1, 0]).expect("runs");
    assert_eq!((as_floats(&both[0]), as_floats(&both[1])), (vec![1.0, 2.0], vec![-1.0, 2.0]));
    let one = run(&*model.backend, &input, &[0]).expect("runs");
    assert_eq!(one.len(), 1);
    assert!(run(&*model.backend, &input, &[2]).is_err());
    assert!(run(&*model.backend, &[], &[0]).expect_err("an input is missing").is_input_fault);
}

#[test]
fn outputs_outlive_the_backend_and_the_input() {
    let model = load(mlp(8, 16, 3));
    let input = [Owned::floats(&[1, 8], &noise(8))];
    let expected = as_floats(&run(&*model.backend, &input, &[0]).expect("runs")[0]);
    let kept: Bytes = run(&*model.backend, &input, &[0]).expect("runs").remove(0).data.slice(4..8);
    drop(model);
    mlserve_ort::release_memory();
    let value = thread::spawn(move || f32::from_le_bytes(kept[..].try_into().expect("four"))).join().expect("reads");
    assert_eq!(value.to_bits(), expected[1].to_bits());
}

/// An output that is an input or a constant must not be the caller's or the session's memory.
#[test]
fn outputs_that_are_inputs_or_constants_are_safe_to_keep() {
    let model = load(
        Builder::new()
            .input("x", FLOAT, &[2])
            .initial(support::onnx::floats("c", &[2], &[5.0, 6.0]))
            .node("Identity", &["c"], &["k"], &[])
            .node("Reshape", &["x", "s"], &["r"], &[])
            .initial(support::onnx::int64s("s", &[2], &[1, 2]))
            .output("x", FLOAT, &[2])
            .output("k", FLOAT, &[2])
            .output("c", FLOAT, &[2])
            .output("r", FLOAT, &[1, 2]),
    );
    let outputs = run(&*model.backend, &[Owned::floats(&[2], &[1.0, 2.0])], &[0, 1, 2, 3]).expect("runs");
    drop(model);
    mlserve_ort::release_memory();
    let values: Vec<_> = outputs.iter().map(as_floats).collect();
    assert_eq!(values, [[1.0, 2.0], [5.0, 6.0], [5.0, 6.0], [1.0, 2.0]]);
}

#[test]
fn values_that_the_model_refuses_are_the_callers_fault_and_the_next_run_is_fine() {
    let model = load(embedding());
    let good = Owned::int64s(&[1, 4], &[0, 1, 2, 9]);
    let expected = run(&*model.backend, std::slice::from_ref(&good), &[0]).expect("runs");
    for index in [10, -11, i64::MAX, i64::MIN] {
        let error = run(&*model.backend, &[Owned::int64s(&[1, 4], &[0, 1, 2, index])], &[0]).expect_err("refused");
        assert!(error.is_input_fault, "{error}");
        assert!(error.text.contains("Gather") && error.text.contains(&index.to_string()), "{error}");
        assert!(!error.text.contains("gather_0") && !error.text.contains('/'), "{error}");
        let again = run(&*model.backend, std::slice::from_ref(&good), &[0]).expect("runs");
        assert_eq!(again[0].data, expected[0].data);
    }
}

#[test]
fn shapes_that_the_model_refuses_are_the_callers_fault() {
    let reshape = || {
        Builder::new()
            .input("x", FLOAT, &[-1])
            .initial(support::onnx::int64s("s", &[2], &[2, 3]))
            .node("Reshape", &["x", "s"], &["y"], &[])
            .output("y", FLOAT, &[2, 3])
    };
    let model = load(reshape());
    let error = run(&*model.backend, &[Owned::floats(&[5], &noise(5))], &[0]).expect_err("refused");
    assert!(error.is_input_fault && !error.text.contains("::") && !error.text.contains(".h"), "{error}");
    let error = run(&*load(mlp(8, 16, 3)).backend, &[Owned::floats(&[1, 7], &noise(7))], &[0]).expect_err("refused");
    assert!(error.is_input_fault, "{error}");
    let wrong = Owned { datatype: DataType::Int32, ..Owned::floats(&[1, 8], &noise(8)) };
    let error = run(&*load(mlp(8, 16, 3)).backend, &[wrong], &[0]).expect_err("refused");
    assert!(error.is_input_fault, "{error}");
}

#[test]
fn a_bool_that_is_neither_0_nor_1_is_refused() {
    let builder = Builder::new().input("x", support::onnx::BOOL, &[-1]).node("Not", &["x"], &["y"], &[]);
    let model = load(builder.output("y", support::onnx::BOOL, &[-1]));
    let input = Owned { datatype: DataType::Bool, shape: vec![3], data: vec![0, 1, 2] };
    assert!(run(&*model.backend, &[input], &[0]).expect_err("refused").is_input_fault);
}

#[test]
fn eight_bytes_that_ask_for_gigabytes_are_refused_and_the_next_run_is_fine() {
    let model = load(bomb());
    for count in [1_i64 << 31, 1 << 40, i64::MAX, -1] {
        let error = run(&*model.backend, &[Owned::int64s(&[1], &[count])], &[0]).expect_err("refused");
        assert!(error.is_input_fault, "{count}: {error}");
    }
    let outputs = run(&*model.backend, &[Owned::int64s(&[1], &[3])], &[0]).expect("runs");
    assert_eq!(as_floats(&outputs[0]), [0.0; 3]);
}

#[test]
fn concurrent_runs_of_one_session_equal_serial_ones() {
    for threads in [1, 2] {
        let scratch = support::Scratch::new();
        let path = mlp(32, 256, 10).write(scratch.path(), "model");
        let options = mlserve_ort::LoadOptions { threads: Some(threads), ..support::options() };
        let model = mlserve_ort::load(&support::runtime(), &path, &options).expect("loads");
        let inputs: Vec<_> = (0..8_usize)
            .map(|index| {
                let rows = index % 4 + 1;
                let values: Vec<f32> = noise(rows * 32).iter().map(|value| value * (index + 1) as f32).collect();
                Owned::floats(&[rows as i64, 32], &values)
            })
            .collect();
        let serial: Vec<_> = inputs
            .iter()
            .map(|input| run(&*model.backend, std::slice::from_ref(input), &[0]).expect("runs").remove(0).data)
            .collect();
        thread::scope(|scope| {
            for worker in 0..8 {
                let (backend, inputs, serial) = (&model.backend, &inputs, &serial);
                scope.spawn(move || {
                    for round in 0..200 {
                        let index = (worker + round) % inputs.len();
                        let input = std::slice::from_ref(&inputs[index]);
                        let outputs = run(&**backend, input, &[0]).expect("runs");
                        assert_eq!(outputs[0].data, serial[index], "worker {worker}, round {round}");
                    }
                });
            }
        });
    }
}

#[test]
fn a_model_without_inputs_or_with_int64_inputs_runs() {
    let builder = Builder::new().initial(support::onnx::floats("c", &[1], &[2.0])).node("Neg", &["c"], &["y"], &[]);
    let outputs = run(&*load(builder.output("y", FLOAT, &[1])).backend, &[], &[0]).expect("runs");
    assert_eq!(as_floats(&outputs[0]), [-2.0]);
    let builder = Builder::new().input("x", INT64, &[-1]).node("Neg", &["x"], &["y"], &[]);
    let outputs = run(&*load(builder.output("y", INT64, &[-1])).backend, &[Owned::int64s(&[1], &[4])], &[0]);
    assert_eq!(outputs.expect("runs")[0].data[..], (-4_i64).to_le_bytes());
}

/// As many strings as lie on the stack and more, of all kinds of lengths.
#[test]
fn many_strings_are_carried_exactly() {
    let model = strings(&[-1]);
    for count in [1, 15, 16, 17, 1_000, 20_000] {
        let texts: Vec<Vec<u8>> = (0..count).map(|index| vec![index as u8; index * 7 % 41 * (index % 3)]).collect();
        let input = Owned::strings(&[count as i64], &texts.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let outputs = run(&*model.backend, std::slice::from_ref(&input), &[0]).expect("runs");
        assert!(outputs[0].data[..] == input.data[..], "{count} strings");
    }
}

#[test]
fn strings_without_room_are_not_copied() {
    let model = strings(&[-1]);
    let input = Owned::strings(&[3], &[b"one", b"", b"three"]);
    let view = TensorView { datatype: input.datatype, shape: &input.shape, data: &input.data };
    let ask = |most| model.backend.run_until(&[view], &[0], &Stop::default(), &mut TextRoom::new(most, 0, None));
    assert_eq!(ask(20).expect("has room")[0].data, input.data);
    let refused = ask(19).expect_err("has none");
    assert_eq!(refused.text, "the answer has 20 bytes; at most 19 are allowed (limits.max_response_bytes)");
}
