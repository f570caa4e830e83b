//! What ONNX does not define and the runtime does not refuse by itself: refused here, before it gets there.
//!
//! Kinds of files, and operations on tensors without elements. Found by loading changed files and running changed
//! requests in children.

use super::proto::{Attribute, Graph, Model, Node};

/// Operations that are not defined on tensors without elements.
const NOT_ON_EMPTY: [&str; 6] = ["GRU", "LSTM", "DynamicQuantizeLSTM", "ConvTranspose", "STFT", "Loop"];

/// Operations of any number of inputs, none of which may be left out.
const ALL_GIVEN: [&str; 6] = ["Concat", "Einsum", "Max", "Mean", "Min", "Sum"];

/// The operation of `model` for which requests need at least one element in each tensor, if there is one.
pub(crate) fn not_on_empty(model: &Model) -> Option<&'static str> {
    nodes(model).find_map(not_on_empty_of)
}

fn not_on_empty_of(node: &Node) -> Option<&'static str> {
    let known = NOT_ON_EMPTY.into_iter().find(|name| *name == node.op_type);
    known.or_else(|| inner(node).find_map(not_on_empty_of))
}

/// Why `model` must not reach the runtime, if so.
pub(crate) fn undefined(model: &Model) -> Option<String> {
    nodes(model).find_map(undefined_of)
}

fn undefined_of(node: &Node) -> Option<String> {
    if ALL_GIVEN.contains(&node.op_type.as_str()) && node.input.iter().any(String::is_empty) {
        return Some(format!("operation {}: one of its inputs has no name", node.label()));
    }
    inner(node).find_map(undefined_of)
}

fn nodes(model: &Model) -> impl Iterator<Item = &Node> {
    let graph = model.graph.iter().flat_map(|graph: &Graph| &graph.node);
    graph.chain(model.functions.iter().flat_map(|function| &function.node))
}

fn inner(node: &Node) -> impl Iterator<Item = &Node> {
    node.attribute.iter().flat_map(Attribute::subgraphs).flat_map(|graph| &graph.node)
}
