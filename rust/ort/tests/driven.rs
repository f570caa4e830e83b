//! Whether the time or the size of a run follows values: those of the request do, constants and shapes do not.

mod support;

use support::onnx::{Attribute, BOOL, Builder, FLOAT, Graph, INT64, floats, graph, int, int64s, raw};
use support::try_load;

/// What is found of a model.
fn found(builder: Builder) -> Option<String> {
    try_load(builder).expect("the model loads").time_follows_values
}

/// `x` of two columns and `n`, one number for each row.
fn inputs() -> Builder {
    Builder::new().input("x", FLOAT, &[-1, 2]).input("n", INT64, &[-1])
}

/// Adds two floats of each row to what depends on `last`.
fn loop_body(condition: &str) -> Attribute {
    let body = Builder::new()
        .input("i", INT64, &[])
        .input("going", BOOL, &[])
        .input("v", FLOAT, &[-1, 2])
        .initial(floats("limit", &[], &[3.0]))
        .node("Add", &["v", "v"], &["twice"], &[])
        .node("ReduceSum", &["twice"], &["sum"], &[int("keepdims", 0)])
        .node("Less", &["sum", "limit"], &["small"], &[])
        .node("Identity", &["going"], &["as_before"], &[])
        .output(condition, BOOL, &[])
        .output("twice", FLOAT, &[-1, 2]);
    graph("body", body.graph)
}

fn looped(count: &str, condition: &str) -> Builder {
    inputs()
        .initial(int64s("three", &[], &[3]))
        .initial(int64s("zero", &[], &[0]))
        .initial(raw("yes", BOOL, &[], &[1]))
        .node("Gather", &["n", "zero"], &["first"], &[])
        .node("Size", &["x"], &["size"], &[])
        .node("Loop", &[count, "yes", "x"], &["y"], &[loop_body(condition)])
        .output("y", FLOAT, &[-1, 2])
}

#[test]
fn a_loop_follows_the_values_that_count_or_end_it() {
    for count in ["three", "size"] {
        assert_eq!(found(looped(count, "as_before")), None, "{count}");
    }
    assert_eq!(found(looped("first", "as_before")).as_deref(), Some("Loop 'loop_2'"));
    assert_eq!(found(looped("three", "small")).as_deref(), Some("Loop 'loop_2'"));
}

#[test]
fn a_range_follows_values_but_not_shapes() {
    let ranged = |up_to: &str| {
        inputs()
            .initial(int64s("zero", &[], &[0]))
            .initial(int64s("one", &[], &[1]))
            .node("Gather", &["n", "zero"], &["first"], &[])
            .node("Shape", &["x"], &["shape"], &[])
            .node("Gather", &["shape", "one"], &["columns"], &[])
            .node("Range", &["zero", up_to, "one"], &["y"], &[])
            .output("y", INT64, &[-2])
    };
    assert_eq!(found(ranged("columns")), None);
    assert_eq!(found(ranged("first")).as_deref(), Some("Range 'range_3'"));
}

#[test]
fn sizes_that_are_values_are_found_wherever_they_are_used() {
    let sized = |op_type: &str, arguments: &[&str]| {
        inputs()
            .initial(int64s("one", &[1], &[1]))
            .initial(int64s("two", &[2], &[1, 2]))
            .node("Abs", &["n"], &["sizes"], &[])
            .node("Concat", &["one", "sizes"], &["pair"], &[int("axis", 0)])
            .node(op_type, arguments, &["y"], &[])
            .output_of("y", Some(support::onnx::tensor(FLOAT, &[-2, -3])))
    };
    for (op_type, given, constant) in [
        ("Expand", &["x", "pair"][..], &["x", "two"][..]),
        ("Tile", &["x", "pair"], &["x", "two"]),
        ("ConstantOfShape", &["pair"], &["two"]),
        ("Slice", &["x", "one", "sizes"], &["x", "one", "one"]),
    ] {
        let label = format!("{op_type} '{}_2'", op_type.to_lowercase());
        assert_eq!(found(sized(op_type, given)), Some(label), "{op_type}");
        assert_eq!(found(sized(op_type, constant)), None, "{op_type} of constants");
    }
}

#[test]
fn how_many_values_are_not_zero_is_a_value() {
    let builder = inputs().node("NonZero", &["x"], &["y"], &[]).output("y", INT64, &[2, -2]);
    assert_eq!(found(builder).as_deref(), Some("NonZero 'nonzero_0'"));
}

/// `x` if the first of `n` is above zero, otherwise what `other` makes of it.
fn chosen(other: &str) -> Builder {
    let branch = |name: &str, op_type: &str, inputs: &[&str]| -> Graph {
        Builder::new().node(op_type, inputs, &[name], &[]).output(name, FLOAT, &[-1, 2]).graph
    };
    let inputs_of = if other == "MatMul" { &["x", "w"][..] } else { &["x"][..] };
    let branches =
        [graph("then_branch", branch("a", "Identity", &["x"])), graph("else_branch", branch("b", other, inputs_of))];
    inputs()
        .initial(int64s("zero", &[], &[0]))
        .initial(floats("w", &[2, 2], &[1.0, 0.0, 0.0, 1.0]))
        .node("Gather", &["n", "zero"], &["first"], &[])
        .node("Greater", &["first", "zero"], &["positive"], &[])
        .node("If", &["positive"], &["y"], &branches)
        .output("y", FLOAT, &[-1, 2])
}

#[test]
fn a_choice_by_value_is_found_if_a_branch_is_heavy() {
    assert_eq!(found(chosen("MatMul")).as_deref(), Some("If 'if_2'"));
    assert_eq!(found(chosen("Neg")), None);
}

#[test]
fn ordinary_models_follow_shapes_only() {
    for builder in [support::models::mlp(4, 8, 2), support::models::embedding(), support::models::mixing()] {
        assert_eq!(found(builder), None);
    }
    assert!(found(support::models::bomb()).is_some());
}
