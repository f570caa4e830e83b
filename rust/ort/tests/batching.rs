//! What may share a run: rows that are independent, and nothing else. Where a model is refused, the leak is shown.

mod support;

use mlserve_core::model::Batching;
use mlserve_ort::{LoadOptions, LoadedModel};
use support::models::{bomb, dynamically_quantised, embedding, hidden_mixing, mixing, mlp, noise};
use support::onnx::{Builder, FLOAT, INT32, INT64, Kind, STRING, Size, float, floats, graph, int, int64s, ints};
use support::{Owned, as_floats, load, options, run};

fn unsafe_reason(model: &LoadedModel) -> &str {
    match &model.batching {
        Batching::Unsafe { reason } => reason,
        other => panic!("expected unsafe, found {other:?}"),
    }
}

fn fixed_reason(model: &LoadedModel) -> &str {
    match &model.batching {
        Batching::Fixed { reason } => reason,
        other => panic!("expected fixed, found {other:?}"),
    }
}

/// How far the answers of row 0 move when its neighbour turns extreme, in numbers.
fn leak(model: &LoadedModel, columns: usize) -> f32 {
    let calm = noise(2 * columns);
    let mut wild = calm.clone();
    wild[columns..].fill(1e6);
    let shape = [2, columns as i64];
    let first = |values: &[f32]| {
        let outputs = run(&*model.backend, &[Owned::floats(&shape, values)], &[0]).expect("runs");
        let values = as_floats(&outputs[0]);
        values[..values.len() / 2].to_vec()
    };
    first(&calm).iter().zip(first(&wild)).map(|(calm, wild)| (calm - wild).abs()).fold(0.0, f32::max)
}

#[test]
fn independent_rows_may_share_a_run() {
    for builder in [mlp(8, 16, 3), mlp(1, 1, 1), embedding()] {
        assert_eq!(load(builder).batching, Batching::Rows);
    }
    assert_eq!(leak(&load(mlp(8, 16, 3)), 8).to_bits(), 0);
}

#[test]
fn dynamic_quantisation_is_found_and_would_leak() {
    let model = load(dynamically_quantised());
    assert!(unsafe_reason(&model).contains("DynamicQuantizeLinear"), "{:?}", model.batching);
    let leak = leak(&model, 4);
    assert!(leak > 0.1, "batching would move a neighbour's answer by {leak}");
}

#[test]
fn dynamic_quantisation_in_a_branch_is_found() {
    let branch = |name: &str| {
        let builder = Builder::new().node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"], &[]);
        let builder = builder.node("DequantizeLinear", &["q", "s", "z"], &[name], &[]);
        graph(if name == "a" { "then_branch" } else { "else_branch" }, builder.output(name, FLOAT, &[-1, 4]).graph)
    };
    let builder = Builder::new()
        .input("x", FLOAT, &[-1, 4])
        .initial(support::onnx::raw("yes", support::onnx::BOOL, &[], &[1]))
        .node("If", &["yes"], &["y"], &[branch("a"), branch("b")])
        .output("y", FLOAT, &[-1, 4]);
    assert!(unsafe_reason(&load(builder)).contains("DynamicQuantizeLinear"));
}

#[test]
fn a_mean_over_the_batch_is_found_and_would_leak() {
    let model = load(mixing());
    let reason = unsafe_reason(&model);
    assert!(reason.contains("ReduceMean 'reducemean_0'") && reason.contains("reduces over the batch"), "{reason}");
    assert!(leak(&model, 4) > 1e5);
}

#[test]
fn mixing_behind_reshapes_is_found_and_would_leak() {
    let model = load(hidden_mixing());
    assert!(unsafe_reason(&model).contains("Softmax 'softmax_1' normalises over the batch"), "{:?}", model.batching);
    assert!(leak(&model, 4) > 0.01);
}

/// What the runs alone find, as if the graph had been misread.
fn load_by_runs(builder: Builder) -> LoadedModel {
    support::load_with(builder, &LoadOptions { reads_graph: false, ..options() }).expect("the model loads")
}

#[test]
fn runs_find_what_the_graph_would_hide() {
    let model = load_by_runs(hidden_mixing());
    let reason = unsafe_reason(&model);
    assert!(reason.contains("output 'y' changes from") && reason.contains("beside rows with"), "{reason}");
}

#[test]
fn not_a_number_that_spreads_to_neighbours_is_found() {
    // The sum over all rows times zero is zero, whatever the rows, unless one of them is no number.
    let builder = Builder::new()
        .input("x", FLOAT, &[-1, 4])
        .initial(int64s("flat", &[1], &[-1]))
        .initial(floats("zero", &[], &[0.0]))
        .node("Reshape", &["x", "flat"], &["all"], &[])
        .node("ReduceSum", &["all"], &["sum"], &[int("keepdims", 0)])
        .node("Mul", &["sum", "zero"], &["nothing"], &[])
        .node("Add", &["x", "nothing"], &["y"], &[])
        .output("y", FLOAT, &[-1, 4]);
    assert!(unsafe_reason(&load(builder.clone())).contains("ReduceSum"));
    let model = load_by_runs(builder);
    assert!(unsafe_reason(&model).contains("no numbers"), "{:?}", model.batching);
}

#[test]
fn operations_across_the_first_axis_are_found_by_name() {
    let unary = |op_type: &str, attributes: &[support::onnx::Attribute]| {
        let builder = Builder::new().input("x", FLOAT, &[-1, 4]).node("Relu", &["x"], &["r"], &[]);
        builder.node(op_type, &["r"], &["y"], attributes).output("y", FLOAT, &[-1, 4])
    };
    let cases = [
        unary("Softmax", &[int("axis", 0)]),
        unary("LogSoftmax", &[int("axis", -2)]),
        unary("LpNormalization", &[int("axis", 0)]),
        unary("CumSum", &[]).initial(int64s("axis", &[], &[0])),
    ];
    for (index, mut builder) in cases.into_iter().enumerate() {
        if index == 3 {
            builder.graph.node[1].input.push("axis".to_owned());
        }
        let operation = builder.graph.node[1].op_type.clone();
        let model = load(builder);
        assert!(unsafe_reason(&model).starts_with(&operation), "{operation}: {:?}", model.batching);
    }
    assert_eq!(load(unary("Softmax", &[int("axis", 1)])).batching, Batching::Rows);
}

#[test]
fn the_batch_axis_is_followed_through_shapes() {
    let builder = |axis: i64| {
        Builder::new()
            .input("x", FLOAT, &[-1, 3, 4])
            .node("Transpose", &["x"], &["t"], &[ints("perm", &[2, 0, 1])])
            .node("ReduceMax", &["t"], &["m"], &[ints("axes", &[axis]), int("keepdims", 1)])
            .node("Sub", &["t", "m"], &["d"], &[])
            .node("Transpose", &["d"], &["y"], &[ints("perm", &[1, 2, 0])])
            .output("y", FLOAT, &[-1, 3, 4])
    };
    assert!(unsafe_reason(&load(builder(1))).starts_with("ReduceMax"));
    for axis in [0, 2] {
        assert_eq!(load(builder(axis)).batching, Batching::Rows, "axis {axis}");
    }
}

#[test]
fn rows_of_a_sequence_are_no_batch() {
    let zeros = |count: usize| vec![0.1; count];
    let builder = Builder::new()
        .input("x", FLOAT, &[-1, 1, 2])
        .initial(floats("w", &[1, 12, 2], &zeros(24)))
        .initial(floats("r", &[1, 12, 3], &zeros(36)))
        .node("LSTM", &["x", "w", "r"], &["y"], &[int("hidden_size", 3)])
        .output("y", FLOAT, &[-1, 1, 1, 3]);
    assert!(unsafe_reason(&load(builder)).contains("one sequence"));
}

#[test]
fn random_answers_are_not_batched() {
    let builder = Builder::new()
        .input("x", FLOAT, &[-1, 4])
        .node("RandomNormalLike", &["x"], &["n"], &[float("mean", 0.0)])
        .node("Add", &["x", "n"], &["y"], &[])
        .output("y", FLOAT, &[-1, 4]);
    assert!(unsafe_reason(&load(builder)).contains("random"));
}

#[test]
fn a_fixed_first_dimension_is_fixed() {
    let builder = |input: &[i64], output: &[i64]| {
        let builder = Builder::new().input("x", FLOAT, input).node("Relu", &["x"], &["y"], &[]);
        builder.output("y", FLOAT, output)
    };
    assert!(fixed_reason(&load(builder(&[3, 4], &[3, 4]))).contains("input 'x' has shape [3,4]"));
    assert!(fixed_reason(&load(builder(&[], &[]))).contains("no dimensions"));
    assert!(fixed_reason(&load(bomb())).contains("input 'count' has shape [1]"));
    assert!(fixed_reason(&load(builder(&[-1, -1], &[-1, -1]))).contains("a second time"));
}

#[test]
fn an_output_that_does_not_count_rows_is_fixed() {
    let builder = Builder::new()
        .input("x", FLOAT, &[-1, 4])
        .node("NonZero", &["x"], &["i"], &[])
        .node("Transpose", &["i"], &["y"], &[ints("perm", &[1, 0])])
        .output("y", INT64, &[-2, 2]);
    assert!(fixed_reason(&load(builder)).contains("output 'y' has shape [4,2] for 1 rows"));
    let builder = Builder::new()
        .input("x", FLOAT, &[-1, 4])
        .node("ReduceSum", &["x"], &["y"], &[int("keepdims", 0)])
        .output("y", FLOAT, &[]);
    assert!(fixed_reason(&load(builder)).contains("output 'y' has shape []"));
}

#[test]
fn what_a_graph_says_of_its_outputs_is_not_held_against_it() {
    // LightGBM's converter writes one label, Paddle's no dimensions at all.
    let builder = |declared: &[i64]| {
        Builder::new().input("x", FLOAT, &[-1, 4]).node("Relu", &["x"], &["y"], &[]).output("y", FLOAT, declared)
    };
    for declared in [&[1, 4][..], &[]] {
        let model = load(builder(declared));
        assert_eq!(model.batching, Batching::Rows, "{declared:?}");
        assert_eq!((model.outputs[0].shape.len(), model.outputs[0].shape[0]), (2, -1));
    }
    let first = Builder::new()
        .input("x", FLOAT, &[-1, 4])
        .initial(int64s("none", &[], &[0]))
        .node("Gather", &["x", "none"], &["y"], &[])
        .output("y", FLOAT, &[4]);
    assert!(fixed_reason(&load(first)).contains("output 'y' has shape [4] for 1 rows"));
}

#[test]
fn open_dimensions_and_small_tables_are_tried_until_the_model_runs() {
    let table = Builder::new()
        .input("ids", INT32, &[-1, -2])
        .initial(floats("table", &[1, 3], &noise(3)))
        .node("Gather", &["table", "ids"], &["e"], &[])
        .node("ReduceMean", &["e"], &["y"], &[ints("axes", &[1]), int("keepdims", 0)])
        .output("y", FLOAT, &[-1, 3]);
    assert_eq!(load(table).batching, Batching::Rows);
    let image = Builder::new()
        .input("x", FLOAT, &[-1, 1, -2, -3])
        .initial(floats("k", &[1, 1, 20, 20], &noise(400)))
        .node("Conv", &["x", "k"], &["c"], &[])
        .node("GlobalAveragePool", &["c"], &["y"], &[])
        .output("y", FLOAT, &[-1, 1, 1, 1]);
    let model = load(image);
    assert_eq!(model.batching, Batching::Rows);
    assert!(!model.warmup.is_empty());
}

#[test]
fn strings_share_a_run() {
    let builder = Builder::new().input("x", STRING, &[-1, 2]).node("Identity", &["x"], &["y"], &[]);
    assert_eq!(load(builder.output("y", STRING, &[-1, 2])).batching, Batching::Rows);
}

#[test]
fn a_model_that_refuses_every_trial_is_served_alone() {
    let builder = Builder::new()
        .input("x", FLOAT, &[-1, 4])
        .initial(int64s("shape", &[2], &[-1, 1000]))
        .node("Reshape", &["x", "shape"], &["y"], &[])
        .output("y", FLOAT, &[-1, 1000]);
    let model = load(builder);
    assert!(unsafe_reason(&model).contains("could not be proven"), "{:?}", model.batching);
    assert!(model.warmup.is_empty());
}

#[test]
fn warm_up_measures_sizes_up_to_the_maximum() {
    let model = load(mlp(8, 16, 3));
    let rows: Vec<usize> = model.warmup.iter().map(|(rows, _)| *rows).collect();
    assert_eq!(rows, [1, 2, 4, 8]);
    assert_eq!((model.threads, model.instances), (1, 2));
}

#[test]
fn inputs_with_first_dimensions_of_their_own_are_no_rows_of_one_batch() {
    // One user, many items: an answer for each pair.
    let ranker = |users: i64| {
        Builder::new()
            .input("items", FLOAT, &[-1, 3])
            .input("user", FLOAT, &[users, 3])
            .node("ReduceSum", &["user"], &["one"], &[int("keepdims", 1)])
            .node("Add", &["items", "one"], &["y"], &[])
            .output("y", FLOAT, &[-1, 3])
    };
    let model = load(ranker(-2));
    let reason = fixed_reason(&model);
    assert!(reason.contains("'items' and 'user' have first dimensions of their own, 'd1' and 'd2'"), "{reason}");
    let inputs = [Owned::floats(&[5, 3], &[0.5; 15]), Owned::floats(&[1, 3], &[1.0; 3])];
    assert_eq!(as_floats(&run(&*model.backend, &inputs, &[0]).expect("runs")[0]), [3.5; 15]);
    assert!(unsafe_reason(&load(ranker(-1))).contains("ReduceSum"));
}

#[test]
fn dimensions_that_an_exporter_numbered_count_the_same_rows() {
    for (first, second) in [("unk__12", "unk__34"), ("x_dynamic_axes_1", "z_dynamic_axes_1"), ("", "")] {
        let mut builder = Builder::new()
            .input("x", FLOAT, &[-1, 3])
            .input("z", FLOAT, &[-1, 3])
            .node("Add", &["x", "z"], &["y"], &[])
            .output("y", FLOAT, &[-1, 3]);
        for (info, symbol) in builder.graph.input.iter_mut().zip([first, second]) {
            let Some(Kind::Tensor(tensor)) = info.r#type.as_mut().and_then(|r#type| r#type.kind.as_mut()) else {
                panic!()
            };
            let shape = tensor.shape.as_mut().expect("a shape");
            shape.dim[0].size = (!symbol.is_empty()).then(|| Size::Symbol(symbol.to_owned()));
        }
        assert_eq!(load(builder).batching, Batching::Rows, "{first}");
    }
}
