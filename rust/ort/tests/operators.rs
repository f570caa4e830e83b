//! Rules of single operations, by pairs: a model in which the operation keeps rows, and one in which it mixes them. What is
//! taken to keep rows runs in ONNX Runtime, too: the loader's trials hold each row alone against the same row in a batch.

mod support;

use mlserve_core::model::Batching;
use support::models::noise;
use support::onnx::{Attribute, Builder, FLOAT, INT64, Tensor, UINT8, floats, graph, int, int64s, ints, raw, text};
use support::{load, load_with, options};

/// Rows are shown to be independent, and the runs agree; by the runs alone, too, so that they are known to have been made.
fn assert_keeps(name: &str, builder: Builder) {
    assert_eq!(load(builder.clone()).batching, Batching::Rows, "{name}");
    let by_runs = mlserve_ort::LoadOptions { reads_graph: false, ..options() };
    assert_eq!(load_with(builder, &by_runs).expect("the model loads").batching, Batching::Rows, "{name} by runs");
}

fn assert_mixes(name: &str, builder: Builder) {
    let batching = load(builder).batching;
    assert!(matches!(batching, Batching::Unsafe { .. } | Batching::Fixed { .. }), "{name}: {batching:?}");
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
