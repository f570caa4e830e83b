//! The values that a model knows: keys of its dictionaries, what it compares with, thresholds of its trees.
//!
//! Trial rows that hold none of them are all alike to the model, so that a neighbour's influence would not be seen.

use super::proto::{Attribute, Graph, Model, Node};
use super::tensor::Tensor;

/// Most values of a kind that are taken, and most of one list: first, last and some between.
const MOST: usize = 256;
const MOST_OF_A_LIST: usize = 32;

/// Operations that compare their inputs, or take them for limits.
const COMPARING: [&str; 9] = ["Clip", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mod"];

/// Values by kind, neighbours of numbers included.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Constants {
    pub(crate) strings: Vec<Vec<u8>>,
    pub(crate) integers: Vec<i64>,
    pub(crate) floats: Vec<f64>,
}

/// What `model` knows.
pub(crate) fn of(model: &Model) -> Constants {
    let mut constants = Constants::default();
    let Some(graph) = &model.graph else { return constants };
    constants.read_graph(graph);
    for function in &model.functions {
        constants.read_nodes(&function.node, &[]);
    }
    constants
}

impl Constants {
    fn read_graph(&mut self, graph: &Graph) {
        for tensor in &graph.initializer {
            self.strings.extend(some(tensor.strings()).cloned());
        }
        self.read_nodes(&graph.node, &graph.initializer);
    }

    fn read_nodes(&mut self, nodes: &[Node], tensors: &[Tensor]) {
        for node in nodes {
            node.attribute.iter().for_each(|attribute| self.read_attribute(node, attribute));
            if COMPARING.contains(&node.op_type.as_str()) {
                self.read_compared(node, nodes, tensors);
            }
        }
        self.strings.truncate(MOST);
        self.integers.truncate(MOST);
        self.floats.truncate(MOST);
    }

    fn read_attribute(&mut self, node: &Node, attribute: &Attribute) {
        attribute.subgraphs().for_each(|graph| self.read_graph(graph));
        if let Some(tensor) = &attribute.t {
            self.strings.extend(some(tensor.strings()).cloned());
            if attribute.name.starts_with("keys") || attribute.name == "nodes_splits" {
                self.add_numbers(tensor);
            }
        }
        if node.domain != "ai.onnx.ml" && node.op_type != "TfIdfVectorizer" {
            return;
        }
        match attribute.name.as_str() {
            "keys_strings" | "cats_strings" | "pool_strings" | "vocabulary" | "string_vocabulary" => {
                self.strings.extend(some(&attribute.strings).cloned());
            }
            "keys_int64s" | "cats_int64s" | "pool_int64s" | "int64_vocabulary" => {
                some(&attribute.ints).for_each(|&number| self.add_integer(number));
            }
            "keys_floats" | "nodes_values" | "imputed_value_floats" | "threshold" => {
                let single = attribute.floats.is_empty().then_some(&attribute.f);
                some(&attribute.floats).chain(single).for_each(|&number| self.add_float(f64::from(number)));
            }
            "imputed_value_int64s" | "replaced_value_int64" => {
                some(&attribute.ints).for_each(|&number| self.add_integer(number));
            }
            _ => {}
        }
    }

    /// Constants that an operation compares something with.
    fn read_compared(&mut self, node: &Node, nodes: &[Node], tensors: &[Tensor]) {
        for name in &node.input {
            let constant = tensors.iter().find(|tensor| tensor.name == *name).or_else(|| {
                let made = nodes.iter().find(|made| made.op_type == "Constant" && made.output.first() == Some(name))?;
                made.attribute("value")?.t.as_ref()
            });
            if let Some(tensor) = constant {
                self.add_numbers(tensor);
            }
        }
    }

    /// The numbers of a tensor, as integers and as floats: which of the two an input holds is not looked at.
    fn add_numbers(&mut self, tensor: &Tensor) {
        let numbers = tensor.numbers().unwrap_or_default();
        for &number in some(&numbers) {
            self.add_float(number);
            #[expect(clippy::float_cmp, reason = "whole numbers are exact")]
            if number.trunc() == number {
                self.add_integer(number as i64);
            }
        }
    }

    fn add_integer(&mut self, number: i64) {
        self.integers.extend([number, number.saturating_add(1), number.saturating_sub(1)]);
    }

    /// A float, the next above it and the next below.
    fn add_float(&mut self, number: f64) {
        let single = number as f32;
        self.floats.extend([number, f64::from(single.next_up()), f64::from(single.next_down())]);
    }
}

/// Values from all over a list.
fn some<T>(list: &[T]) -> impl Iterator<Item = &T> {
    let stride = list.len().div_ceil(MOST_OF_A_LIST).max(1);
    list.iter().step_by(stride).chain(list.last().filter(|_| stride > 1))
}
