//! Where the batch axis goes in one operation: kept (perhaps at another place), worked across, or lost from sight.
//!
//! Rules are by operation type, from the operators' definitions (onnx/docs/Operators.md). Only certain knowledge counts:
//! an operation that is not listed, or has arguments that are not constant, is [`Follow::Unknown`].

use super::proto::Node;
use super::rows::{Integers, Known};

/// Where a value of known rank has its batch axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    pub(crate) at: usize,
    pub(crate) rank: usize,
}

/// What an operation does to the batch axis.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    /// Its outputs carry it here.
    Keeps(Axis),
    /// It works across it; how, for the reason.
    Mixes(&'static str),
    /// Cannot be told.
    Unknown,
}

/// Element by element, one input that matters.
const UNARY: [&str; 42] = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BiasGelu",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "DequantizeLinear",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "QuantizeLinear",
    "QuickGelu",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softplus",
    "Sqrt",
    "Tanh",
    "ThresholdedRelu",
];

/// Element by element, with broadcasting.
const BROADCAST: [&str; 20] = [
    "Add",
    "And",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "PRelu",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
];

/// Image operations and the like: the first axis of the first input is the batch.
const IMAGE: [&str; 10] = [
    "AveragePool",
    "Conv",
    "ConvTranspose",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "InstanceNormalization",
    "LRN",
    "MaxPool",
    "QLinearConv",
    "GroupNormalization",
];

/// Reductions over `axes`.
const REDUCE: [&str; 10] = [
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
];

/// Operations of scikit-learn exports that keep rows and their width's rank.
const TABULAR: [&str; 6] = ["Binarizer", "Imputer", "LabelEncoder", "Normalizer", "Scaler", "FeatureVectorizer"];

/// What `node` does to the batch axis of what it reads.
pub(crate) fn follow(node: &Node, known: &Known<'_>) -> Follow {
    let Some(axis) = (0..node.input.len()).find_map(|index| known.axis(node, index)) else { return Follow::Unknown };
    let op_type = node.op_type.as_str();
    if node.domain == "ai.onnx.ml" {
        return if TABULAR.contains(&op_type) { Follow::Keeps(axis) } else { Follow::Unknown };
    }
    // Two-operand rules sort out themselves which input carries; all others follow the first.
    match op_type {
        "MatMul" | "Gemm" => return product(node, known),
        _ if BROADCAST.contains(&op_type) => return broadcast(node, known),
        "Concat" => return joined(node, known, axis),
        _ => {}
    }
    let Some(axis) = known.axis(node, 0) else { return Follow::Unknown };
    match op_type {
        _ if UNARY.contains(&op_type) => Follow::Keeps(axis),
        _ if IMAGE.contains(&op_type) && axis.at == 0 => Follow::Keeps(axis),
        _ if REDUCE.contains(&op_type) => reduce(node, known, axis),
        "ArgMax" | "ArgMin" => reduced(axis, &[node.int("axis", 0)], node.int("keepdims", 1) != 0),
        "Softmax" | "LogSoftmax" | "Hardmax" => softmax(node, known, axis),
        "CumSum" => across(axis, known.integers(node, "axis", 1).known().as_deref(), "sums along the batch"),
        "TopK" => across(axis, Some(&[node.int("axis", -1)]), "picks the largest across the batch"),
        "LpNormalization" => across(axis, Some(&[node.int("axis", -1)]), "normalises by the whole batch"),
        "LayerNormalization" | "RMSNormalization" | "SimplifiedLayerNormalization" => layer_norm(node, axis),
        "MeanVarianceNormalization" => mean_variance(node, axis),
        "BatchNormalization" if node.int("training_mode", 0) == 0 => Follow::Keeps(axis),
        "BatchNormalization" => Follow::Mixes("normalises by the whole batch (training mode)"),
        "LSTM" | "GRU" | "RNN" => recurrent(node, axis),
        "Transpose" => transpose(node, axis),
        "Flatten" => flatten(node, axis),
        "Reshape" => reshape(node, known, axis),
        "Squeeze" => squeeze(node, known, axis),
        "Unsqueeze" => unsqueeze(node, known, axis),
        _ => Follow::Unknown,
    }
}

/// An axis number as an index; `None` if it is out of range.
fn index(number: i64, rank: usize) -> Option<usize> {
    let number = if number < 0 { number + rank as i64 } else { number };
    usize::try_from(number).ok().filter(|&index| index < rank)
}

/// Mixes if one of the axes with these numbers is the batch axis; otherwise the shape stays.
fn across(axis: Axis, numbers: Option<&[i64]>, how: &'static str) -> Follow {
    match numbers {
        None => Follow::Unknown,
        Some(numbers) if numbers.iter().any(|&number| index(number, axis.rank) == Some(axis.at)) => Follow::Mixes(how),
        Some(_) => Follow::Keeps(axis),
    }
}

fn reduce(node: &Node, known: &Known<'_>, axis: Axis) -> Follow {
    let keeps = node.int("keepdims", 1) != 0;
    match known.integers(node, "axes", 1) {
        Integers::Unknown => Follow::Unknown,
        Integers::Known(numbers) if !numbers.is_empty() => reduced(axis, &numbers, keeps),
        _ if node.int("noop_with_empty_axes", 0) != 0 => Follow::Keeps(axis),
        _ => Follow::Mixes("reduces over the batch"),
    }
}

fn reduced(axis: Axis, numbers: &[i64], keeps: bool) -> Follow {
    let gone: Vec<usize> = numbers.iter().filter_map(|&number| index(number, axis.rank)).collect();
    if gone.contains(&axis.at) {
        return Follow::Mixes("reduces over the batch");
    }
    if keeps {
        return Follow::Keeps(axis);
    }
    let before = gone.iter().filter(|&&index| index < axis.at).count();
    Follow::Keeps(Axis { at: axis.at - before, rank: axis.rank.saturating_sub(gone.len()) })
}

fn softmax(node: &Node, known: &Known<'_>, axis: Axis) -> Follow {
    const HOW: &str = "normalises over the batch";
    if known.opset >= 13 {
        return across(axis, Some(&[node.int("axis", -1)]), HOW);
    }
    // Until version 12 all axes from `axis` on were taken together.
    match index(node.int("axis", 1), axis.rank) {
        Some(first) if first <= axis.at => Follow::Mixes(HOW),
        _ => Follow::Keeps(axis),
    }
}

fn layer_norm(node: &Node, axis: Axis) -> Follow {
    match index(node.int("axis", -1), axis.rank) {
        Some(first) if first <= axis.at => Follow::Mixes("normalises over the batch"),
        _ => Follow::Keeps(axis),
    }
}

fn mean_variance(node: &Node, axis: Axis) -> Follow {
    let default = [0, 2, 3];
    let numbers = node.attribute("axes").map_or(&default[..], |attribute| &attribute.ints);
    across(axis, Some(numbers), "normalises by the whole batch")
}

/// Layout 0, the default, has time first: then the rows of a "batch" are steps of one sequence.
fn recurrent(node: &Node, axis: Axis) -> Follow {
    let time = usize::from(node.int("layout", 0) != 0);
    if axis.at == time { Follow::Mixes("takes the batch as steps of one sequence") } else { Follow::Unknown }
}

fn product(node: &Node, known: &Known<'_>) -> Follow {
    match (known.axis(node, 0), known.axis(node, 1)) {
        (Some(left), None) if known.constant_rank(node, 1).is_some() => {
            let contracted = if node.int("transA", 0) == 0 { left.rank - 1 } else { 0 };
            if left.rank < 2 || left.at == contracted || node.int("transA", 0) != 0 {
                return Follow::Unknown;
            }
            let rank = left.rank.max(known.constant_rank(node, 1).unwrap_or(0));
            Follow::Keeps(Axis { at: left.at + rank - left.rank, rank })
        }
        (Some(left), Some(right)) if left == right && left.at + 2 < left.rank => Follow::Keeps(left),
        _ => Follow::Unknown,
    }
}

/// All inputs carry the axis at the same place, counted from the end, or are constants.
fn broadcast(node: &Node, known: &Known<'_>) -> Follow {
    let mut found: Option<Axis> = None;
    let mut rank = 0;
    for input in 0..node.input.len() {
        match (known.axis(node, input), known.constant_rank(node, input)) {
            (Some(axis), _) => {
                rank = rank.max(axis.rank);
                if found.is_some_and(|found| found.rank - found.at != axis.rank - axis.at) {
                    return Follow::Unknown;
                }
                found = Some(axis);
            }
            (None, Some(constant)) => rank = rank.max(constant),
            (None, None) => return Follow::Unknown,
        }
    }
    found.map_or(Follow::Unknown, |axis| Follow::Keeps(Axis { at: axis.at + rank - axis.rank, rank }))
}

fn joined(node: &Node, known: &Known<'_>, axis: Axis) -> Follow {
    let all = (0..node.input.len()).all(|input| known.axis(node, input) == Some(axis));
    if all && index(node.int("axis", 1), axis.rank) != Some(axis.at) { Follow::Keeps(axis) } else { Follow::Unknown }
}

fn transpose(node: &Node, axis: Axis) -> Follow {
    let at = match node.attribute("perm") {
        None => Some(axis.rank - 1 - axis.at),
        Some(order) => order.ints.iter().position(|&from| index(from, axis.rank) == Some(axis.at)),
    };
    at.map_or(Follow::Unknown, |at| Follow::Keeps(Axis { at, rank: axis.rank }))
}

fn flatten(node: &Node, axis: Axis) -> Follow {
    let is_kept = axis.at == 0 && index(node.int("axis", 1), axis.rank + 1) == Some(1);
    if is_kept { Follow::Keeps(Axis { at: 0, rank: 2 }) } else { Follow::Unknown }
}

/// Only a leading 0 ("as in the input") keeps the batch axis for certain.
fn reshape(node: &Node, known: &Known<'_>, axis: Axis) -> Follow {
    let shape = known.integers(node, "shape", 1).known().unwrap_or_default();
    let is_kept = axis.at == 0 && shape.first() == Some(&0) && node.int("allowzero", 0) == 0;
    if is_kept { Follow::Keeps(Axis { at: 0, rank: shape.len() }) } else { Follow::Unknown }
}

fn squeeze(node: &Node, known: &Known<'_>, axis: Axis) -> Follow {
    let Integers::Known(numbers) = known.integers(node, "axes", 1) else { return Follow::Unknown };
    match reduced(axis, &numbers, false) {
        Follow::Mixes(_) => Follow::Unknown,
        kept => kept,
    }
}

fn unsqueeze(node: &Node, known: &Known<'_>, axis: Axis) -> Follow {
    let Integers::Known(numbers) = known.integers(node, "axes", 1) else { return Follow::Unknown };
    let rank = axis.rank + numbers.len();
    let new: Vec<usize> = numbers.iter().filter_map(|&number| index(number, rank)).collect();
    let old = (0..rank).filter(|index| !new.contains(index)).nth(axis.at);
    old.map_or(Follow::Unknown, |at| Follow::Keeps(Axis { at, rank }))
}
