//! What is known to end the process inside ONNX Runtime: kinds of files that are refused before it reads them, and
//! operations that must not be run on tensors without elements.
//!
//! Found by loading changed files and running changed requests in children; the tests keep what was found. Only what
//! the runtime does not refuse by itself belongs here.

use super::proto::{Attribute, Graph, Model, Node};

/// Operations that end the process when a tensor without elements reaches them: the recurrent ones wait for threads that
/// were never started and are aborted, transposed convolution reads behind the tensor, STFT divides by its length.
const NOT_ON_EMPTY: [&str; 5] = ["GRU", "LSTM", "DynamicQuantizeLSTM", "ConvTranspose", "STFT"];

/// Largest and smallest `start` and `end` of `Shape`: the runtime keeps 32 bits of them and reads there.
const BOUNDS_OF_SHAPE: std::ops::RangeInclusive<i64> = i32::MIN as i64..=i32::MAX as i64;

/// The operation of `model` for which requests need at least one element in each tensor, if there is one.
pub(crate) fn not_on_empty(model: &Model) -> Option<&'static str> {
    nodes(model).find_map(not_on_empty_of)
}

fn not_on_empty_of(node: &Node) -> Option<&'static str> {
    let known = NOT_ON_EMPTY.into_iter().find(|name| *name == node.op_type);
    known.or_else(|| inner(node).find_map(not_on_empty_of))
}

/// Why loading `model` would end the process, if it is known to.
pub(crate) fn fatal(model: &Model) -> Option<String> {
    nodes(model).find_map(fatal_of)
}

fn fatal_of(node: &Node) -> Option<String> {
    if node.op_type == "Shape" {
        let bound = ["start", "end"].into_iter().find_map(|name| {
            let bound = node.attribute(name)?.i;
            (!BOUNDS_OF_SHAPE.contains(&bound)).then_some((name, bound))
        });
        if let Some((name, bound)) = bound {
            return Some(format!("operation {}: its attribute '{name}' is {bound}, beyond any rank", node.label()));
        }
    }
    inner(node).find_map(fatal_of)
}

fn nodes(model: &Model) -> impl Iterator<Item = &Node> {
    let graph = model.graph.iter().flat_map(|graph: &Graph| &graph.node);
    graph.chain(model.functions.iter().flat_map(|function| &function.node))
}

fn inner(node: &Node) -> impl Iterator<Item = &Node> {
    node.attribute.iter().flat_map(Attribute::subgraphs).flat_map(|graph| &graph.node)
}
