//! Rules of single operations, by pairs: a model in which the operation keeps rows, and one in which it mixes them. What is
//! taken to keep rows runs in ONNX Runtime, too: the loader's trials hold each row alone against the same row in a batch.

mod support;

use mlserve_core::model::Batching;
use support::models::noise;
use support::onnx::{
    Attribute, Builder, FLOAT, Function, INT64, Opset, Tensor, UINT8, floats, graph, int, int64s, ints, raw, text,
};
use support::{load, load_with, options};

/// Rows are shown to be independent, and the runs agree; by the runs alone, too, so that they are known to have been made.
fn assert_keeps(name: &str, builder: Builder) {
    assert_eq!(load(builder.clone()).batching, Batching::Rows, "{name}");
    let by_runs = mlserve_ort::LoadOptions { reads_graph: false, ..options() };
    assert_eq!(load_with(builder, &by_runs).expect("the model loads").batching, Batching::Rows, "{name} by runs");
}

/// What reasons say that were found by runs.
const OF_TRIALS: [&str; 3] = ["beside rows with", "as a run of rows failed", "has shape"];

/// The graph shows it: trials might have found it, too, but there is not always time for them.
fn assert_mixes(name: &str, builder: Builder) {
    let batching = load(builder).batching;
    let is_found_by_graph = match &batching {
        Batching::Unsafe { reason } => !OF_TRIALS.iter().any(|part| reason.contains(part)),
        Batching::Fixed { .. } => true,
        _ => false,
    };
    assert!(is_found_by_graph, "{name}: {batching:?}");
}

/// The operation takes the batch for another of its axes: the rows are swapped with it before and after.
fn swapped(shape: &[i64], perm: &[i64], builder: impl Fn(Builder) -> Builder) -> Builder {
    let before = Builder::new().input("rows", FLOAT, shape).node("Transpose", &["rows"], &["x"], &[ints("perm", perm)]);
    builder(before).node("Transpose", &["z"], &["y"], &[ints("perm", perm)]).output("y", FLOAT, shape)
}

#[test]
fn deformed_windows_belong_to_a_row() {
    let builder = |offset: &str| {
        Builder::new()
            .domain("", 22)
            .input("x", FLOAT, &[-1, 1, 4, 4])
            .input("o", FLOAT, &[-1, 8, 3, 3])
            .initial(int64s("first", &[1], &[0]))
            .node("ReduceMean", &["o", "first"], &["mean"], &[])
            .node("Expand", &["mean", "sizes"], &["all"], &[])
            .node("DeformConv", &["x", "w", offset], &["y"], &[ints("kernel_shape", &[2, 2])])
            .output("y", FLOAT, &[-1, 1, 3, 3])
            .initial(floats("w", &[1, 1, 2, 2], &noise(4)))
    };
    let keeps = |mut builder: Builder| {
        builder.graph.node.drain(..2);
        builder
    };
    assert_keeps("offsets of each row", keeps(builder("o")));
    let mut mixing = builder("all");
    mixing.graph.node.insert(1, Builder::new().node("Shape", &["o"], &["sizes"], &[]).graph.node.remove(0));
    assert_mixes("offsets of all rows", mixing);
}

#[test]
fn linear_attention_is_along_the_second_dimension() {
    let attended = |builder: Builder, output: &str| {
        let rule = [int("q_num_heads", 2), int("kv_num_heads", 2), text("update_rule", "linear")];
        builder.domain("", 27).node("LinearAttention", &["x", "x", "x"], &[output, "state"], &rule)
    };
    let plain = attended(Builder::new().input("x", FLOAT, &[-1, 3, 4]), "y").output("y", FLOAT, &[-1, 3, 4]).output(
        "state",
        FLOAT,
        &[-1, 2, 2, 2],
    );
    assert_keeps("steps of a row", plain);
    assert_mixes("rows as steps", swapped(&[-1, 3, 4], &[1, 0, 2], |builder| attended(builder, "z")));
}

#[test]
fn causal_convolution_is_along_the_last_dimension() {
    let convolved = |builder: Builder, output: &str| {
        let builder = builder.domain("", 27).initial(floats("w", &[2, 1, 3], &noise(6)));
        builder.node("CausalConvWithState", &["x", "w"], &[output, "state"], &[])
    };
    let plain = convolved(Builder::new().input("x", FLOAT, &[-1, 2, 5]), "y").output("y", FLOAT, &[-1, 2, 5]);
    assert_keeps("steps of a row", plain.output("state", FLOAT, &[-1, 2, 2]));
    assert_mixes("rows as steps", swapped(&[-1, 2, 5], &[2, 1, 0], |builder| convolved(builder, "z")));
}

/// `x`, FLOAT [rows, 6], taken to pieces and put together.
fn listed(builder: impl Fn(Builder) -> Builder) -> Builder {
    let before = Builder::new()
        .input("x", FLOAT, &[-1, 6])
        .initial(int64s("zero", &[], &[0]))
        .initial(int64s("one", &[], &[1]))
        .initial(int64s("parts", &[2], &[2, 4]));
    builder(before).output("y", FLOAT, &[-1, -2])
}

#[test]
fn lists_of_tensors_keep_the_rows_of_their_elements() {
    let at_zero = || int("axis", 0);
    let cut = |builder: Builder| builder.node("SplitToSequence", &["x", "parts"], &["list"], &[int("axis", 1)]);
    let keeping: [(&str, Builder); 6] = [
        ("taken", listed(|b| cut(b).node("SequenceAt", &["list", "one"], &["y"], &[]))),
        ("joined", listed(|b| cut(b).node("ConcatFromSequence", &["list"], &["y"], &[int("axis", 1)]))),
        (
            "erased",
            listed(|b| {
                let b = cut(b).node("SequenceErase", &["list", "zero"], &["rest"], &[]);
                b.node("SequenceAt", &["rest", "zero"], &["y"], &[])
            }),
        ),
        (
            "stacked",
            listed(|b| {
                let b = b.node("Relu", &["x"], &["r"], &[]).node("SequenceConstruct", &["x", "r"], &["list"], &[]);
                let stacked = [int("axis", 1), int("new_axis", 1)];
                b.node("ConcatFromSequence", &["list"], &["s"], &stacked).node("Flatten", &["s"], &["y"], &[])
            }),
        ),
        (
            "inserted",
            listed(|b| {
                let b =
                    b.node("SequenceEmpty", &[], &["none"], &[]).node("SequenceInsert", &["none", "x"], &["list"], &[]);
                b.node("SequenceAt", &["list", "zero"], &["y"], &[])
            }),
        ),
        ("mapped", listed(|b| mapped(cut(b), 1))),
    ];
    for (name, builder) in keeping {
        assert_keeps(name, builder);
    }
    let mixing: [(&str, Builder); 5] = [
        (
            "cut by rows",
            listed(|b| {
                let b = b.node("SplitToSequence", &["x"], &["list"], &[at_zero()]);
                b.node("SequenceAt", &["list", "zero"], &["y"], &[])
            }),
        ),
        (
            "one after the other",
            listed(|b| {
                let b = b.node("SequenceConstruct", &["x", "x"], &["list"], &[]);
                b.node("ConcatFromSequence", &["list"], &["y"], &[at_zero()])
            }),
        ),
        (
            "by value",
            listed(|b| {
                let b = cut(b).node("ReduceMax", &["x"], &["most"], &[int("keepdims", 0)]);
                let b = b.node("Cast", &["most"], &["place"], &[int("to", i64::from(INT64))]);
                b.node("SequenceAt", &["list", "place"], &["y"], &[])
            }),
        ),
        ("mapped across rows", listed(|b| mapped(cut(b), 0))),
        (
            "sizes of another element",
            listed(|b| {
                // Elements of two and of four columns: what one is wide tells nothing of the other.
                let b = cut(b).node("SequenceAt", &["list", "zero"], &["narrow"], &[]);
                let b =
                    b.node("SequenceAt", &["list", "one"], &["wide"], &[]).node("Shape", &["narrow"], &["sizes"], &[]);
                let b = b.initial(int64s("last", &[1], &[1])).initial(int64s("rest", &[1], &[-1]));
                let b = b.node("Gather", &["sizes", "last"], &["two"], &[]);
                let b = b.node("Concat", &["rest", "two"], &["to"], &[at_zero()]);
                b.node("Reshape", &["wide", "to"], &["y"], &[])
            }),
        ),
    ];
    for (name, builder) in mixing {
        assert_mixes(name, builder);
    }
}

/// A softmax of each element of `list`, along an axis.
fn mapped(builder: Builder, axis: i64) -> Builder {
    let body = Builder::new()
        .input("e", FLOAT, &[-1, -2])
        .node("Softmax", &["e"], &["s"], &[int("axis", axis)])
        .output("s", FLOAT, &[-1, -2]);
    let builder = builder.node("SequenceMap", &["list"], &["soft"], &[graph("body", body.graph)]);
    builder.node("ConcatFromSequence", &["soft"], &["y"], &[int("axis", 1)])
}

/// ONNX Runtime's own operations.
fn own() -> Builder {
    Builder::new().domain("com.microsoft", 1)
}

fn contrib(builder: Builder, op_type: &str, inputs: &[&str], outputs: &[&str], attributes: &[Attribute]) -> Builder {
    let builder = if builder.domains.is_empty() { builder.domain("com.microsoft", 1) } else { builder };
    builder.node_of("com.microsoft", op_type, inputs, outputs, attributes)
}

#[test]
fn attention_with_past_keys_is_within_a_row() {
    let heads = [int("num_heads", 2)];
    let past = ["x", "x", "x", "", "", "", "pk", "pv"];
    let input =
        own().input("x", FLOAT, &[-1, 2, 4]).input("pk", FLOAT, &[-1, 2, 3, 2]).input("pv", FLOAT, &[-1, 2, 3, 2]);
    let builder = contrib(input, "MultiHeadAttention", &past, &["y", "ok", "ov"], &heads)
        .output("y", FLOAT, &[-1, 2, 4])
        .output("ok", FLOAT, &[-1, 2, 5, 2])
        .output("ov", FLOAT, &[-1, 2, 5, 2]);
    assert_keeps("past of each row", builder);
    let attended = |builder| contrib(builder, "MultiHeadAttention", &["x", "x", "x"], &["z"], &heads);
    assert_mixes("rows as steps", swapped(&[-1, 2, 4], &[1, 0, 2], attended));
}

#[test]
fn a_bias_of_attention_may_be_one_for_all() {
    let biased = |bias: Tensor| {
        let builder = own().input("x", FLOAT, &[-1, 2, 4]).initial(bias);
        let inputs = ["x", "x", "x", "", "", "bias"];
        contrib(builder, "MultiHeadAttention", &inputs, &["y"], &[int("num_heads", 2)]).output("y", FLOAT, &[-1, 2, 4])
    };
    assert_keeps("one for all", biased(floats("bias", &[1, 2, 2, 2], &noise(8))));
    assert_mixes("one for each of three rows", biased(floats("bias", &[3, 2, 2, 2], &noise(24))));
}

#[test]
fn rotary_places_are_a_rows_own() {
    let turned = |builder: Builder, output: &str| {
        let builder = builder.initial(int64s("p", &[1], &[1]));
        let builder = builder.initial(floats("c", &[8, 2], &noise(16))).initial(floats("s", &[8, 2], &noise(16)));
        contrib(builder, "RotaryEmbedding", &["x", "p", "c", "s"], &[output], &[int("num_heads", 2)])
    };
    let plain = turned(own().input("x", FLOAT, &[-1, 3, 8]), "y").output("y", FLOAT, &[-1, 3, 8]);
    assert_keeps("from one place on", plain);
    assert_mixes("rows as steps", swapped(&[-1, 3, 8], &[1, 0, 2], |builder| turned(builder, "z")));
}

#[test]
fn quantised_operations_have_one_scale_for_all() {
    let scales = |builder: Builder| {
        let builder = builder.initial(floats("xs", &[], &[0.1])).initial(floats("ys", &[], &[1.0 / 256.0]));
        builder.initial(raw("xz", UINT8, &[], &[0])).initial(raw("yz", UINT8, &[], &[0]))
    };
    let softmax = |axis: i64| {
        let builder = scales(own().input("x", UINT8, &[-1, 4]));
        let attributes = [int("axis", axis), int("opset", 13)];
        contrib(builder, "QLinearSoftmax", &["x", "xs", "xz", "ys", "yz"], &["y"], &attributes).output(
            "y",
            UINT8,
            &[-1, 4],
        )
    };
    assert_keeps("softmax of a row", softmax(1));
    assert_mixes("softmax across rows", softmax(0));
    let concat = |axis: i64| {
        let builder = scales(own().input("x", UINT8, &[-1, 4]));
        let inputs = ["ys", "yz", "x", "xs", "xz", "x", "xs", "xz"];
        contrib(builder, "QLinearConcat", &inputs, &["y"], &[int("axis", axis)]).output("y", UINT8, &[-1, -2])
    };
    assert_keeps("columns side by side", concat(1));
    assert_mixes("rows one after the other", concat(0));
}

#[test]
fn what_quantises_by_the_batch_is_never_shared() {
    let builder =
        own().input("x", FLOAT, &[-1, 4]).initial(raw("w", UINT8, &[4, 3], &[1; 12])).initial(floats("s", &[], &[0.1]));
    let builder = contrib(builder, "DynamicQuantizeMatMul", &["x", "w", "s"], &["y"], &[]).output("y", FLOAT, &[-1, 3]);
    let Batching::Unsafe { reason } = load(builder).batching else { panic!("it is shared") };
    assert!(reason.contains("quantises by the range of the whole batch"), "{reason}");
}

/// A neighbour that is no number stays one in the row alone, whatever it is multiplied with.
#[test]
fn images_are_resized_without_their_neighbours() {
    let resized = |shape: &[i64], factors: &[f32], attributes: &[Attribute]| {
        let count = factors.len() as i64;
        let builder = Builder::new().domain("", 18).input("x", FLOAT, shape).initial(floats("f", &[count], factors));
        let sizes: Vec<i64> = (0..shape.len() as i64).map(|at| -1 - at).collect();
        builder.node("Resize", &["x", "", "f"], &["y"], attributes).output("y", FLOAT, &sizes)
    };
    let linear = text("mode", "linear");
    assert_keeps("images", resized(&[-1, 2, 4, 4], &[1.0, 1.0, 2.0, 2.0], std::slice::from_ref(&linear)));
    assert_keeps("signals by the nearest", resized(&[-1, 2, 4], &[1.0, 1.0, 2.0], &[text("mode", "nearest")]));
    assert_mixes("signals", resized(&[-1, 2, 4], &[1.0, 1.0, 2.0], &[linear]));
    assert_mixes("rows named last", resized(&[-1, 2, 4], &[1.0, 2.0, 1.0], &[ints("axes", &[1, 0, 2])]));
    assert_keeps("rows named first", resized(&[-1, 2, 4], &[1.0, 2.0], &[ints("axes", &[0, 1])]));
}

#[test]
fn one_ratio_for_all_dimensions_is_for_the_rows_too() {
    let resized = |policy: &str| {
        let builder =
            Builder::new().domain("", 18).input("x", FLOAT, &[-1, 2, 4]).initial(int64s("wanted", &[2], &[4, 8]));
        let builder = builder.node("Shape", &["x"], &["n"], &[int("end", 1)]);
        let builder = builder.node("Concat", &["n", "wanted"], &["sizes"], &[int("axis", 0)]);
        let attributes = [ints("axes", &[0, 1, 2]), text("keep_aspect_ratio_policy", policy), text("mode", "nearest")];
        builder.node("Resize", &["x", "", "", "sizes"], &["y"], &attributes).output("y", FLOAT, &[-1, -2, -3])
    };
    assert_keeps("each by its own", resized("stretch"));
    assert_mixes("one for all", resized("not_smaller"));
}

#[test]
fn a_mask_of_three_dimensions_is_one_for_each_head() {
    let masked = |mask: &[i64]| {
        let builder = Builder::new().domain("", 23).input("x", FLOAT, &[-1, 2, 3, 4]).input("m", FLOAT, mask);
        builder.node("Attention", &["x", "x", "x", "m"], &["y"], &[]).output("y", FLOAT, &[-1, 2, 3, 4])
    };
    assert_keeps("four dimensions", masked(&[-1, 1, 3, 3]));
    assert_mixes("three dimensions", masked(&[-1, 3, 3]));
}

/// 260 becomes 4 in a byte, so rows of 260 are cut into pieces of 4.
#[test]
fn sizes_are_not_known_after_they_were_bytes() {
    let reshaped = |element: i64| {
        let builder = Builder::new().input("x", FLOAT, &[-1, 260]).initial(int64s("open", &[1], &[-1]));
        let builder = builder.node("Shape", &["x"], &["s"], &[int("start", 1)]);
        let builder = builder.node("Cast", &["s"], &["short"], &[int("to", element)]);
        let builder = builder.node("Cast", &["short"], &["long"], &[int("to", 7)]);
        let builder = builder.node("Transpose", &["x"], &["t"], &[]);
        let builder = builder.node("Concat", &["long", "open"], &["to"], &[int("axis", 0)]);
        let builder = builder.node("Reshape", &["t", "to"], &["r"], &[]).node("Transpose", &["r"], &["b"], &[]);
        builder.initial(int64s("rows", &[2], &[-1, 260])).node("Reshape", &["b", "rows"], &["y"], &[]).output(
            "y",
            FLOAT,
            &[-1, 260],
        )
    };
    assert_keeps("whole numbers of 32 bits", reshaped(6));
    assert_mixes("bytes", reshaped(2));
}

#[test]
fn an_axis_that_is_named_twice_goes_once() {
    let builder = Builder::new().input("x", FLOAT, &[-1, 4]).initial(int64s("first", &[1], &[0]));
    let builder = builder.initial(int64s("twice", &[2], &[0, -3])).node("Unsqueeze", &["x", "first"], &["u"], &[]);
    assert_keeps("a dimension", builder.node("Squeeze", &["u", "twice"], &["y"], &[]).output("y", FLOAT, &[-1, 4]));
}

#[test]
fn a_constant_of_as_many_as_rows_is_not_counted_on() {
    let builder =
        Builder::new().input("x", FLOAT, &[-1, 3]).input("n", FLOAT, &[-1]).node("Shape", &["n"], &["s"], &[]);
    let builder = builder.node("Unsqueeze", &["x", "first"], &["u"], &[]).initial(int64s("first", &[1], &[1]));
    assert_mixes("fits three", builder.node("Expand", &["u", "s"], &["y"], &[]).output("y", FLOAT, &[-1, 1, 3]));
}

/// A softmax along the axis that the function of this overload has, for rows that were moved to the second dimension.
fn overloaded(overloads: [(&str, i64); 2], overload: &str) -> Builder {
    let mut builder = Builder::new().domain("", 18).domain("own", 1).input("x", FLOAT, &[-1, 4]);
    for (name, axis) in overloads {
        let node = Builder::new().node("Softmax", &["a"], &["b"], &[int("axis", axis)]).graph.node;
        builder.functions.push(Function {
            name: "normalised".to_owned(),
            input: vec!["a".to_owned()],
            output: vec!["b".to_owned()],
            node,
            opset_import: vec![Opset { domain: String::new(), version: 18 }],
            domain: "own".to_owned(),
            overload: name.to_owned(),
        });
    }
    let mut builder = builder.node_of("own", "normalised", &["x"], &["y"], &[]).output("y", FLOAT, &[-1, 4]);
    overload.clone_into(&mut builder.graph.node[0].overload);
    builder
}

#[test]
fn the_overload_of_a_function_is_the_one_that_is_called() {
    for overloads in [[("along", 1), ("across", 0)], [("across", 0), ("along", 1)]] {
        assert_keeps("along", overloaded(overloads, "along"));
        assert_mixes("across", overloaded(overloads, "across"));
    }
}

#[test]
fn caches_are_written_by_row() {
    let written = |axis: i64| {
        let builder = Builder::new().domain("", 24).input("x", FLOAT, &[-1, 2, 4]).input("i", INT64, &[-1]);
        let attributes = [int("axis", axis), text("mode", "circular")];
        builder.node("TensorScatter", &["x", "x", "i"], &["y"], &attributes).output("y", FLOAT, &[-1, 2, 4])
    };
    assert_keeps("along the second dimension", written(1));
    assert_keeps("along the last but one", written(-2));
}

#[test]
fn dots_of_an_einsum_stand_for_the_same_dimensions() {
    let summed = |equation: &str, sizes: &[i64]| {
        let builder = Builder::new().input("x", FLOAT, &[-1, 3, 3]);
        builder.node("Einsum", &["x"], &["y"], &[text("equation", equation)]).output("y", FLOAT, sizes)
    };
    assert_keeps("diagonals", summed("...ii->...i", &[-1, 3]));
    assert_keeps("columns", summed("...i->...", &[-1, 3]));
    assert_mixes("rows", summed("i...->...", &[3, 3]));
}

#[test]
fn images_are_cut_and_padded_within_rows() {
    let cut = |axis: i64| {
        let builder = Builder::new().domain("", 18).input("x", FLOAT, &[-1, 3]).initial(int64s("size", &[1], &[2]));
        builder.node("CenterCropPad", &["x", "size"], &["y"], &[ints("axes", &[axis])]).output("y", FLOAT, &[-1, -2])
    };
    assert_keeps("columns", cut(1));
    assert_mixes("rows", cut(0));
}
