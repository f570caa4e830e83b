//! Whether a graph's operations mix rows, as far as reading tells.
//!
//! Two scans. Some operations are known by name: those that quantise by the values of the whole tensor, and those that
//! draw random numbers; they are looked for everywhere, subgraphs and functions included. For the others the batch axis
//! is followed forward from the inputs through operations that keep it ([`super::axis`]), until one works across it.
//! What neither scan knows is left to the run test ([`crate::proof`]): no answer here means "not seen".

use std::collections::HashMap;

use super::axis::{Axis, Follow, follow};
use super::proto::{Graph, Model, Node};
use super::spec::Port;

/// Operations that take a scale from the values of the whole tensor (ONNX and ONNX Runtime's contrib domain).
/// `MatMulIntegerToFloat` is not among them: fed by static scales it is safe, and what feeds it otherwise is found.
const DYNAMIC_QUANTISATION: [&str; 3] = ["DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"];

/// Operations whose answer differs from run to run.
const RANDOM: [&str; 6] =
    ["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"];

/// Why rows of `model` influence each other; `None` if no operation is known to mix them.
pub(crate) fn mixing(model: &Model, inputs: &[Port]) -> Option<String> {
    let graph = model.graph.as_ref()?;
    let functions = model.functions.iter().flat_map(|function| &function.node);
    graph.node.iter().chain(functions).find_map(by_name).or_else(|| across_axis(model, graph, inputs))
}

fn by_name(node: &Node) -> Option<String> {
    let label = node.label();
    if DYNAMIC_QUANTISATION.contains(&node.op_type.as_str()) {
        let advice = "quantise statically (QDQ) to batch";
        return Some(format!(
            "{label} quantises by the range of the whole batch, so rows influence each other; {advice}"
        ));
    }
    if RANDOM.contains(&node.op_type.as_str()) {
        return Some(format!("{label} draws random numbers, so that rows are independent cannot be proven"));
    }
    let subgraphs = node.attribute.iter().flat_map(super::proto::Attribute::subgraphs);
    subgraphs.flat_map(|graph| &graph.node).find_map(by_name)
}

/// Follows the batch axis through the main graph.
fn across_axis(model: &Model, graph: &Graph, inputs: &[Port]) -> Option<String> {
    let opset = model.opset_import.iter().find(|opset| matches!(opset.domain.as_str(), "" | "ai.onnx"));
    let mut known = Known::new(graph, opset.map_or(0, |opset| opset.version));
    for port in inputs.iter().filter(|port| port.has_free_first()) {
        known.axes.insert(&port.spec.name, Axis { at: 0, rank: port.spec.shape.len() });
    }
    // Nodes are sorted by dependence: ONNX demands it.
    for node in &graph.node {
        match follow(node, &known) {
            Follow::Mixes(how) => return Some(format!("{} {how}, so rows influence each other", node.label())),
            Follow::Unknown => {}
            Follow::Keeps(axis) => {
                known.axes.extend(node.output.iter().map(|output| (output.as_str(), axis)));
            }
        }
    }
    None
}

/// What is known about a graph's values while it is walked.
pub(crate) struct Known<'a> {
    /// Version of ONNX's own operator set.
    pub(crate) opset: i64,
    /// Where values carry the batch axis.
    pub(crate) axes: HashMap<&'a str, Axis>,
    /// Rank, and values if small integers, of constants.
    constants: HashMap<&'a str, (usize, Option<Vec<i64>>)>,
}

impl<'a> Known<'a> {
    fn new(graph: &'a Graph, opset: i64) -> Self {
        let initial = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor));
        let nodes = graph.node.iter().filter(|node| node.op_type == "Constant");
        let made = nodes.filter_map(|node| Some((node.output.first()?.as_str(), node.attribute("value")?.t.as_ref()?)));
        let constants =
            initial.chain(made).map(|(name, tensor)| (name, (tensor.dims.len(), tensor.int64s()))).collect();
        Self { opset, axes: HashMap::new(), constants }
    }

    /// Where the node's input of this index carries the batch axis.
    pub(crate) fn axis(&self, node: &Node, index: usize) -> Option<Axis> {
        self.axes.get(node.input.get(index)?.as_str()).copied()
    }

    /// Rank of the node's input of this index, if it is a constant.
    pub(crate) fn constant_rank(&self, node: &Node, index: usize) -> Option<usize> {
        self.constants.get(node.input.get(index)?.as_str()).map(|(rank, _)| *rank)
    }

    /// A list of integers: an attribute in old operator sets, a constant input in new ones.
    pub(crate) fn integers(&self, node: &Node, attribute: &str, index: usize) -> Integers {
        if let Some(attribute) = node.attribute(attribute) {
            return Integers::Known(attribute.ints.clone());
        }
        match node.input.get(index).filter(|name| !name.is_empty()) {
            None => Integers::Absent,
            Some(name) => match self.constants.get(name.as_str()) {
                Some((_, Some(values))) => Integers::Known(values.clone()),
                _ => Integers::Unknown,
            },
        }
    }
}

/// A list of integers that a node takes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Integers {
    /// The node leaves it out.
    Absent,
    /// It depends on the request.
    Unknown,
    /// These.
    Known(Vec<i64>),
}

impl Integers {
    /// The list, if it is there and known.
    pub(crate) fn known(self) -> Option<Vec<i64>> {
        if let Integers::Known(values) = self { Some(values) } else { None }
    }
}
