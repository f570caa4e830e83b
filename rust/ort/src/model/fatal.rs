//! What is known to end the process inside ONNX Runtime: kinds of files that are refused before it reads them, and
//! operations that must not be run on tensors without elements.
//!
//! Found by loading changed files and running changed requests in children; the tests keep what was found. Only what
//! the runtime does not refuse by itself belongs here.

use super::proto::{Attribute, Graph, Model, Node};

/// Operations that end the process when a tensor without elements reaches them: the recurrent ones wait for threads that
/// were never started and are aborted, transposed convolution reads behind the tensor, STFT divides by its length, a
/// loop reads how often it is to turn where nothing is.
const NOT_ON_EMPTY: [&str; 6] = ["GRU", "LSTM", "DynamicQuantizeLSTM", "ConvTranspose", "STFT", "Loop"];

/// Operations of any number of inputs: the runtime takes each of them for given, and reads there.
const ALL_GIVEN: [&str; 6] = ["Concat", "Einsum", "Max", "Mean", "Min", "Sum"];

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
    if ALL_GIVEN.contains(&node.op_type.as_str()) && node.input.iter().any(String::is_empty) {
        return Some(format!("operation {}: one of its inputs has no name", node.label()));
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
