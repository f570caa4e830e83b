//! Rows that meet behind a dictionary: trial values that no dictionary knows are all alike, so only reading the graph
//! tells. Every way into a table of numbers is tried with every operation that mixes, and with innocent ones.

mod support;

use mlserve_core::model::Batching;
use mlserve_ort::LoadOptions;
use support::models::noise;
use support::onnx::{
    Attribute, Builder, FLOAT, Function, INT64, Opset, STRING, float, floats, graph, int, int64s, ints, raw, texts,
};
use support::{load, load_with, options};

/// What callers send, and how it becomes `e`, FLOAT [rows, 2].
const DICTIONARIES: [&str; 6] =
    ["words to a table", "numbers to a table", "one number", "a threshold", "words", "a switch for each word"];

fn looked_up(dictionary: &str) -> Builder {
    let ml = |builder: Builder| builder.domain("ai.onnx.ml", 3);
    let table = || floats("table", &[3, 2], &[0.0, 0.0, 1.0, 4.0, 9.0, 16.0]);
    let wide = |builder: Builder| {
        builder
            .node("Cast", &["is"], &["number"], &[int("to", 1)])
            .initial(int64s("column", &[1], &[1]))
            .initial(floats("pair", &[1, 2], &[3.0, 5.0]))
            .node("Unsqueeze", &["number", "column"], &["tall"], &[])
            .node("Mul", &["tall", "pair"], &["e"], &[])
    };
    let words = |values: Attribute, default: Attribute| {
        let keys = texts("keys_strings", &["red", "green"]);
        ml(Builder::new().input("k", STRING, &[-1])).node_of(
            "ai.onnx.ml",
            "LabelEncoder",
            &["k"],
            &["l"],
            &[keys, values, default],
        )
    };
    match dictionary {
        "words to a table" => words(ints("values_int64s", &[1, 2]), int("default_int64", 0)).initial(table()).node(
            "Gather",
            &["table", "l"],
            &["e"],
            &[],
        ),
        "numbers to a table" => {
            Builder::new().input("k", INT64, &[-1]).initial(table()).node("Gather", &["table", "k"], &["e"], &[])
        }
        "one number" => wide(Builder::new().input("k", INT64, &[-1]).initial(int64s("secret", &[], &[7_919])).node(
            "Equal",
            &["k", "secret"],
            &["is"],
            &[],
        )),
        "a threshold" => wide(Builder::new().input("k", FLOAT, &[-1]).initial(floats("limit", &[], &[3e7])).node(
            "Greater",
            &["k", "limit"],
            &["is"],
            &[],
        )),
        "a switch for each word" => ml(Builder::new().input("k", STRING, &[-1])).node_of(
            "ai.onnx.ml",
            "OneHotEncoder",
            &["k"],
            &["e"],
            &[texts("cats_strings", &["red", "green"]), int("zeros", 1)],
        ),
        _ => {
            wide(words(ints("values_int64s", &[1, 2]), int("default_int64", 0)).node("Identity", &["l"], &["is"], &[]))
        }
    }
}

/// `e` becomes `y`, of the same shape, by an operation that lets rows influence each other.
const MIXERS: [&str; 16] = [
    "ReduceMean",
    "Softmax",
    "CumSum",
    "TopK",
    "Gather",
    "MatMul",
    "DynamicQuantizeLinear",
    "Reshape",
    "Transpose",
    "LpNormalization",
    "Flatten",
    "BatchNormalization",
    "If",
    "Loop",
    "Function",
    "LSTM",
];

fn mixed(builder: Builder, mixer: &str) -> Builder {
    let less = |builder: Builder, what: &str| builder.node("Sub", &["e", what], &["y"], &[]);
    let builder = builder.output("y", FLOAT, &[-1, 2]);
    match mixer {
        "ReduceMean" => less(builder.node("ReduceMean", &["e"], &["m"], &[ints("axes", &[0])]), "m"),
        "Softmax" => builder.node("Softmax", &["e"], &["y"], &[int("axis", 0)]),
        "CumSum" => builder.initial(int64s("zero", &[], &[0])).node("CumSum", &["e", "zero"], &["y"], &[]),
        "TopK" => less(
            builder.initial(int64s("k1", &[1], &[1])).node("TopK", &["e", "k1"], &["m", "i"], &[int("axis", 0)]),
            "m",
        ),
        "Gather" => builder.input("starts", INT64, &[-1]).node("Gather", &["e", "starts"], &["y"], &[]),
        "MatMul" => builder.node("Transpose", &["e"], &["t"], &[]).node("MatMul", &["t", "e"], &["square"], &[]).node(
            "MatMul",
            &["e", "square"],
            &["y"],
            &[],
        ),
        "DynamicQuantizeLinear" => builder.node("DynamicQuantizeLinear", &["e"], &["q", "s", "z"], &[]).node(
            "DequantizeLinear",
            &["q", "s", "z"],
            &["y"],
            &[],
        ),
        "Reshape" => builder
            .initial(int64s("flat", &[2], &[1, -1]))
            .initial(int64s("back", &[2], &[-1, 2]))
            .node("Reshape", &["e", "flat"], &["f"], &[])
            .node("Softmax", &["f"], &["s"], &[])
            .node("Reshape", &["s", "back"], &["y"], &[]),
        "Transpose" => less(
            builder
                .node("Transpose", &["e"], &["t"], &[])
                .node("ReduceMax", &["t"], &["tm"], &[ints("axes", &[1])])
                .node("Transpose", &["tm"], &["m"], &[]),
            "m",
        ),
        "LpNormalization" => builder.node("LpNormalization", &["e"], &["y"], &[int("axis", 0)]),
        "Flatten" => less(
            builder.node("Flatten", &["e"], &["f"], &[int("axis", 0)]).node(
                "ReduceMax",
                &["f"],
                &["m"],
                &[ints("axes", &[1])],
            ),
            "m",
        ),
        _ => mixed_inside(builder, mixer),
    }
}

fn mixed_inside(builder: Builder, mixer: &str) -> Builder {
    let twice = || Builder::new().node("Add", &["e", "e"], &["a"], &[]).output("a", FLOAT, &[-1, 2]).graph;
    let same = || Builder::new().node("Identity", &["e"], &["b"], &[]).output("b", FLOAT, &[-1, 2]).graph;
    match mixer {
        "BatchNormalization" => {
            builder.initial(floats("one", &[2], &[1.0, 1.0])).initial(floats("none", &[2], &[0.0, 0.0])).node(
                "BatchNormalization",
                &["e", "one", "none", "none", "one"],
                &["y", "mean", "variance"],
                &[int("training_mode", 1), float("epsilon", 1e-3)],
            )
        }
        "If" => builder
            .initial(floats("limit", &[], &[0.5]))
            .node("ReduceMax", &["e"], &["m"], &[int("keepdims", 0)])
            .node("Greater", &["m", "limit"], &["is_large"], &[])
            .node("If", &["is_large"], &["y"], &[graph("then_branch", twice()), graph("else_branch", same())]),
        "Loop" => {
            let body = Builder::new()
                .input("round", INT64, &[])
                .input("going", support::onnx::BOOL, &[])
                .input("v", FLOAT, &[-1, 2])
                .node("ReduceMean", &["v"], &["m"], &[ints("axes", &[0])])
                .node("Sub", &["v", "m"], &["next"], &[])
                .node("Identity", &["going"], &["still"], &[])
                .output("still", support::onnx::BOOL, &[])
                .output("next", FLOAT, &[-1, 2]);
            builder.initial(int64s("three", &[], &[3])).initial(raw("yes", support::onnx::BOOL, &[], &[1])).node(
                "Loop",
                &["three", "yes", "e"],
                &["y"],
                &[graph("body", body.graph)],
            )
        }
        "Function" => {
            let body = Builder::new().node("ReduceMean", &["a"], &["m"], &[ints("axes", &[0])]).node(
                "Sub",
                &["a", "m"],
                &["b"],
                &[],
            );
            let mut builder = builder.domain("own", 1).node_of("own", "Centre", &["e"], &["y"], &[]);
            builder.functions.push(Function {
                name: "Centre".to_owned(),
                domain: "own".to_owned(),
                input: vec!["a".to_owned()],
                output: vec!["b".to_owned()],
                node: body.graph.node,
                opset_import: vec![Opset { domain: String::new(), version: 17 }],
                ..Function::default()
            });
            builder
        }
        _ => builder
            .initial(int64s("one", &[1], &[1]))
            .initial(floats("w", &[1, 8, 2], &noise(16)))
            .initial(floats("r", &[1, 8, 2], &noise(16)))
            .node("Unsqueeze", &["e", "one"], &["steps"], &[])
            .node("LSTM", &["steps", "w", "r"], &["all"], &[int("hidden_size", 2)])
            .initial(int64s("both", &[2], &[1, 2]))
            .node("Squeeze", &["all", "both"], &["y"], &[]),
    }
}

#[test]
fn rows_that_meet_behind_a_dictionary_never_share_a_run() {
    for dictionary in DICTIONARIES {
        for mixer in MIXERS {
            let model = load(mixed(looked_up(dictionary), mixer));
            let Batching::Unsafe { reason } = &model.batching else {
                panic!("{mixer} behind {dictionary}: {:?}", model.batching);
            };
            let named = if mixer == "Function" { "ReduceMean" } else { mixer };
            let named = match named {
                "MatMul" | "Gather" | "LSTM" | "If" | "Loop" | "TopK" | "CumSum" => Some(named),
                _ => None,
            };
            assert!(named.is_none_or(|name| reason.contains(name) || reason.contains("ReduceM")), "{mixer}: {reason}");
        }
    }
}

#[test]
fn trial_rows_hold_what_the_model_knows() {
    for dictionary in DICTIONARIES {
        for mixer in ["ReduceMean", "CumSum", "Transpose"] {
            let options = LoadOptions { reads_graph: false, ..options() };
            let model = load_with(mixed(looked_up(dictionary), mixer), &options).expect("loads");
            assert!(!model.batching.is_allowed(), "{mixer} behind {dictionary}");
        }
    }
}

#[test]
fn a_dictionary_alone_keeps_rows_apart() {
    for dictionary in DICTIONARIES {
        let plain = looked_up(dictionary)
            .node("Softmax", &["e"], &["s"], &[int("axis", 1)])
            .node("ReduceMean", &["s"], &["m"], &[ints("axes", &[-1])])
            .node("Sub", &["e", "m"], &["y"], &[])
            .output("y", FLOAT, &[-1, 2]);
        assert_eq!(load(plain).batching, Batching::Rows, "{dictionary}");
    }
}

/// Reads `x`, FLOAT [rows, 4, 6], and makes `y` of it.
fn image() -> Builder {
    Builder::new().input("x", FLOAT, &[-1, 4, 6])
}

#[test]
fn shapes_that_exporters_compute_are_understood() {
    // x.reshape(x.shape[0], 2, 2, -1).transpose(1, 2).reshape(-1, 24): as torch writes it.
    let builder = image()
        .initial(int64s("zero", &[], &[0]))
        .initial(int64s("at0", &[1], &[0]))
        .initial(int64s("two", &[1], &[2]))
        .initial(int64s("rest", &[1], &[-1]))
        .initial(int64s("rows", &[2], &[-1, 24]))
        .node("Shape", &["x"], &["s"], &[])
        .node("Gather", &["s", "zero"], &["n"], &[])
        .node("Unsqueeze", &["n", "at0"], &["n1"], &[])
        .node("Concat", &["n1", "two", "two", "rest"], &["to"], &[int("axis", 0)])
        .node("Reshape", &["x", "to"], &["r"], &[])
        .node("Transpose", &["r"], &["t"], &[ints("perm", &[0, 2, 1, 3])])
        .node("Reshape", &["t", "rows"], &["y"], &[])
        .output("y", FLOAT, &[-1, 24]);
    assert_eq!(load(builder).batching, Batching::Rows);
}

#[test]
fn rows_inside_a_dimension_are_found_again() {
    // [rows, 4, 6] → [rows × 4, 6] → product → [rows, 4, 3], as a linear layer over a sequence.
    let builder = |columns: i64| {
        image()
            .initial(int64s("flat", &[2], &[-1, 6]))
            .initial(floats("w", &[6, 3], &noise(18)))
            .initial(int64s("back", &[3], &[-1, columns, 12 / columns]))
            .node("Reshape", &["x", "flat"], &["f"], &[])
            .node("MatMul", &["f", "w"], &["p"], &[])
            .node("Reshape", &["p", "back"], &["y"], &[])
            .output("y", FLOAT, &[-1, columns, 12 / columns])
    };
    assert_eq!(load(builder(4)).batching, Batching::Rows);
    let wide = image()
        .initial(int64s("flat", &[2], &[-1, 12]))
        .initial(int64s("back", &[3], &[-1, 4, 6]))
        .node("Reshape", &["x", "flat"], &["f"], &[])
        .node("Softmax", &["f"], &["p"], &[int("axis", 0)])
        .node("Reshape", &["p", "back"], &["y"], &[])
        .output("y", FLOAT, &[-1, 4, 6]);
    assert!(matches!(load(wide).batching, Batching::Unsafe { .. }));
}

#[test]
fn a_constant_with_as_many_rows_as_a_batch_is_no_constant_for_each_row() {
    let added = |dims: &[i64]| {
        let count = dims.iter().product::<i64>() as usize;
        Builder::new()
            .input("x", FLOAT, &[-1, 2])
            .initial(floats("c", dims, &noise(count)))
            .node("Add", &["x", "c"], &["y"], &[])
            .output("y", FLOAT, &[-1, 2])
    };
    for dims in [&[1, 2][..], &[2], &[1]] {
        assert_eq!(load(added(dims)).batching, Batching::Rows, "{dims:?}");
    }
    assert_ne!(load(added(&[3, 2])).batching, Batching::Rows);
}

#[test]
fn the_number_of_rows_is_no_value() {
    let counted = |op_type: &str| {
        Builder::new()
            .input("x", FLOAT, &[-1, 2])
            .initial(int64s("zero", &[], &[0]))
            .node("Shape", &["x"], &["s"], &[])
            .node("Gather", &["s", "zero"], &["n"], &[])
            .node("Cast", &["n"], &["f"], &[int("to", 1)])
            .node(op_type, &["x", "f"], &["y"], &[])
            .output("y", FLOAT, &[-1, 2])
    };
    let model = load(counted("Div"));
    let Batching::Unsafe { reason } = &model.batching else { panic!("{:?}", model.batching) };
    assert!(reason.contains("works with the number of rows"), "{reason}");
}

#[test]
fn the_number_of_rows_is_no_size_of_a_row() {
    let counted = |rest: &[&str]| {
        Builder::new()
            .input("x", FLOAT, &[-1, 4, 6])
            .initial(int64s("zero", &[1], &[0]))
            .initial(int64s("one", &[1], &[1]))
            .initial(int64s("rest", &[1], &[-1]))
            .initial(int64s("six", &[1], &[6]))
            .node("Shape", &["x"], &["s"], &[])
            .node("Gather", &["s", "zero"], &["n"], &[])
            .node("Concat", rest, &["to"], &[int("axis", 0)])
    };
    // A table of as many columns as there are rows, and an image as high as the batch.
    let reshaped = counted(&["n", "n", "rest"])
        .node("Reshape", &["x", "to"], &["r"], &[])
        .node("ReduceMax", &["r"], &["y"], &[ints("axes", &[2]), int("keepdims", 0)])
        .output("y", FLOAT, &[-1, -2]);
    let resized = counted(&["n", "one", "n", "six"])
        .node("Unsqueeze", &["x", "one"], &["image"], &[])
        .node("Resize", &["image", "", "", "to"], &["z"], &[])
        .node("ReduceMax", &["z"], &["y"], &[ints("axes", &[1, 2, 3]), int("keepdims", 0)])
        .output("y", FLOAT, &[-1]);
    for (name, builder) in [("reshaped", reshaped), ("resized", resized)] {
        assert!(!load(builder).batching.is_allowed(), "{name}");
    }
}

#[test]
fn a_scan_as_long_as_the_batch_counts_rows() {
    let body = Builder::new()
        .input("state", FLOAT, &[-1, 2])
        .input("number", INT64, &[])
        .node("Add", &["state", "state"], &["next"], &[])
        .output("next", FLOAT, &[-1, 2]);
    let builder = Builder::new()
        .input("x", FLOAT, &[-1, 2])
        .initial(int64s("zero", &[], &[0]))
        .initial(int64s("one", &[], &[1]))
        .node("Shape", &["x"], &["s"], &[])
        .node("Gather", &["s", "zero"], &["n"], &[])
        .node("Range", &["zero", "n", "one"], &["numbers"], &[])
        .node("Scan", &["x", "numbers"], &["y"], &[graph("body", body.graph), int("num_scan_inputs", 1)])
        .output("y", FLOAT, &[-1, 2]);
    let model = load(builder);
    let Batching::Unsafe { reason } = &model.batching else { panic!("{:?}", model.batching) };
    assert!(reason.contains("Scan 'scan_3' works with the number of rows"), "{reason}");
}

#[test]
fn an_operation_that_nobody_knows_is_named() {
    let builder = Builder::new()
        .input("x", FLOAT, &[-1, 2])
        .node("EyeLike", &["x"], &["i"], &[])
        .node("Add", &["x", "i"], &["y"], &[])
        .output("y", FLOAT, &[-1, 2]);
    let model = load(builder);
    let Batching::Unsafe { reason } = &model.batching else { panic!("{:?}", model.batching) };
    assert!(reason.contains("could not be proven: EyeLike 'eyelike_0'"), "{reason}");
}
