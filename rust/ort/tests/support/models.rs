//! Models that several tests use.

use super::onnx::{BOOL, Builder, Entry, FLOAT, INT64, Tensor, floats, graph, int64s};

/// Small numbers that look random and are the same every time.
pub fn noise(count: usize) -> Vec<f32> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// `inputs` → `hidden` → `outputs`, with rectifier and softmax.
pub fn mlp(inputs: i64, hidden: i64, outputs: i64) -> Builder {
    let size = |rows: i64, columns: i64| (rows * columns) as usize;
    Builder::new()
        .input("x", FLOAT, &[-1, inputs])
        .initial(floats("w1", &[inputs, hidden], &noise(size(inputs, hidden))))
        .initial(floats("w2", &[hidden, outputs], &noise(size(hidden, outputs))))
        .node("MatMul", &["x", "w1"], &["h"], &[])
        .node("Relu", &["h"], &["r"], &[])
        .node("MatMul", &["r", "w2"], &["y"], &[])
        .node("Softmax", &["y"], &["p"], &[])
        .output("p", FLOAT, &[-1, outputs])
}

/// Looks up rows of a table of ten.
pub fn embedding() -> Builder {
    Builder::new()
        .input("ids", INT64, &[-1, 4])
        .initial(floats("table", &[10, 3], &noise(30)))
        .node("Gather", &["table", "ids"], &["y"], &[])
        .output("y", FLOAT, &[-1, 4, 3])
}

/// Eight bytes in, as many floats out as they say.
pub fn bomb() -> Builder {
    Builder::new().input("count", INT64, &[1]).node("ConstantOfShape", &["count"], &["y"], &[]).output(
        "y",
        FLOAT,
        &[-2],
    )
}

/// As many blocks of 4 KiB as it is told, each of a turn of its own, in one tensor.
pub fn collected() -> Builder {
    let body = Builder::new()
        .input("turn", INT64, &[])
        .input("going", BOOL, &[])
        .node("Identity", &["going"], &["goes_on"], &[])
        .node("Identity", &["block"], &["seen"], &[])
        .output("goes_on", BOOL, &[])
        .output("seen", FLOAT, &[1_024]);
    Builder::new()
        .input("count", INT64, &[1])
        .initial(super::onnx::raw("yes", BOOL, &[], &[1]))
        .initial(floats("block", &[1_024], &noise(1_024)))
        .node("Squeeze", &["count"], &["turns"], &[])
        .node("Loop", &["turns", "yes"], &["y"], &[super::onnx::graph("body", body.graph)])
        .output("y", FLOAT, &[-2, 1_024])
}

/// Each row less the mean of all rows.
pub fn mixing() -> Builder {
    Builder::new()
        .input("x", FLOAT, &[-1, 4])
        .node("ReduceMean", &["x"], &["m"], &[super::onnx::ints("axes", &[0])])
        .node("Sub", &["x", "m"], &["y"], &[])
        .output("y", FLOAT, &[-1, 4])
}

/// A softmax over all rows at once, behind reshapes that the scan does not follow.
pub fn hidden_mixing() -> Builder {
    Builder::new()
        .input("x", FLOAT, &[-1, 4])
        .initial(int64s("shape", &[2], &[1, -1]))
        .initial(int64s("back", &[2], &[-1, 4]))
        .node("Reshape", &["x", "shape"], &["flat"], &[])
        .node("Softmax", &["flat"], &["s"], &[])
        .node("Reshape", &["s", "back"], &["y"], &[])
        .output("y", FLOAT, &[-1, 4])
}

/// 4 → 3, weights and activations quantised from the values of each run.
pub fn dynamically_quantised() -> Builder {
    let weights: Vec<u8> = (0..12_u8).map(|index| index.wrapping_mul(21) ^ 0x55).collect();
    Builder::new()
        .input("x", FLOAT, &[-1, 4])
        .initial(super::onnx::raw("w", super::onnx::INT8, &[4, 3], &weights))
        .initial(floats("scale", &[], &[0.02]))
        .node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"], &[])
        .node("MatMulInteger", &["q", "w", "z"], &["i"], &[])
        .node("Cast", &["i"], &["f"], &[super::onnx::int("to", 1)])
        .node("Mul", &["s", "scale"], &["k"], &[])
        .node("Mul", &["f", "k"], &["y"], &[])
        .output("y", FLOAT, &[-1, 3])
}

/// A tensor of floats that lies in the file `location`.
fn outside(name: &str, dims: &[i64], location: &str) -> Tensor {
    let location = Entry { key: "location".to_owned(), value: location.to_owned() };
    Tensor { raw_data: None, data_location: 1, external_data: vec![location], ..floats(name, dims, &[]) }
}

/// Adds what lies in the file `location`: `columns` floats.
pub fn adding(columns: i64, location: &str) -> Builder {
    Builder::new()
        .input("x", FLOAT, &[-1, columns])
        .initial(outside("w", &[columns], location))
        .node("Add", &["x", "w"], &["y"], &[])
        .output("y", FLOAT, &[-1, columns])
}

/// As [`adding`], with the weights in a branch.
pub fn adding_in_a_branch(columns: i64, location: &str) -> Builder {
    let branch = |weights: &str| {
        let body = Builder::new().initial(outside(weights, &[columns], location));
        body.node("Add", &["x", weights], &["z"], &[]).output("z", FLOAT, &[-1, columns]).graph
    };
    let branches = [graph("then_branch", branch("w1")), graph("else_branch", branch("w2"))];
    Builder::new()
        .input("x", FLOAT, &[-1, columns])
        .input("c", BOOL, &[1])
        .node("If", &["c"], &["y"], &branches)
        .output("y", FLOAT, &[-1, columns])
}
