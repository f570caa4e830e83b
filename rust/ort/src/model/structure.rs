//! Structures that a parser should not be asked to take: functions that call themselves or multiply, graphs inside
//! operations that lack what the operation gives them, attributes without their content, sparse tensors that contradict
//! themselves.

use std::collections::HashMap;

use super::proto::{Attribute, Function, Graph, Model, Node, SparseTensor};
use crate::error::LoadError;

/// Most operations that the functions of a model may become once they are written out.
const MAX_EXPANDED: u64 = 1_000_000;

/// Deepest nesting of functions. Exporters' own have a handful of levels.
const MAX_DEPTH: usize = 64;

/// `AttributeProto.AttributeType` of those whose content is a message.
const TENSOR: i32 = 4;
const GRAPH: i32 = 5;
const SPARSE: i32 = 11;

/// `TensorProto.DataType` of indices.
const INT64: i32 = 7;

/// The name of a function: domain and name.
type Key<'a> = (&'a str, &'a str);

/// **Errors:** a function that calls itself, or more operations than anybody means.
pub(crate) fn check_functions(model: &Model) -> Result<(), LoadError> {
    let functions: HashMap<Key<'_>, &Function> =
        model.functions.iter().map(|function| ((function.domain.as_str(), function.name.as_str()), function)).collect();
    let mut sizes = Sizes { functions: &functions, known: HashMap::new(), depth: 0 };
    let total = match &model.graph {
        Some(graph) => sizes.of_nodes(&graph.node)?,
        None => 0,
    };
    let unused = model.functions.iter().map(|function| sizes.of_function((&function.domain, &function.name)));
    unused.collect::<Result<Vec<_>, _>>()?;
    if total > MAX_EXPANDED {
        let text = format!("its functions become {total} operations or more; {MAX_EXPANDED} are allowed");
        return Err(LoadError::unsupported(text));
    }
    Ok(())
}

/// How many operations things become.
struct Sizes<'a> {
    functions: &'a HashMap<Key<'a>, &'a Function>,
    /// `None`: being looked at.
    known: HashMap<Key<'a>, Option<u64>>,
    depth: usize,
}

impl<'a> Sizes<'a> {
    fn of_nodes(&mut self, nodes: &'a [Node]) -> Result<u64, LoadError> {
        let mut total = 0_u64;
        for node in nodes {
            let own = match self.functions.get_key_value(&(node.domain.as_str(), node.op_type.as_str())) {
                Some((&key, _)) => self.of_function(key)?,
                None => 1,
            };
            total = total.saturating_add(own);
            for graph in node.attribute.iter().flat_map(Attribute::subgraphs) {
                total = total.saturating_add(self.of_nodes(&graph.node)?);
            }
        }
        Ok(total)
    }

    fn of_function(&mut self, key: Key<'a>) -> Result<u64, LoadError> {
        match self.known.get(&key) {
            Some(Some(size)) => return Ok(*size),
            Some(None) => return Err(LoadError::broken(format!("function '{}' of the model calls itself", key.1))),
            None => {}
        }
        let Some(&function) = self.functions.get(&key) else { return Ok(1) };
        if self.depth == MAX_DEPTH {
            let text = format!("functions of the model are nested deeper than {MAX_DEPTH} levels");
            return Err(LoadError::unsupported(text));
        }
        self.known.insert(key, None);
        self.depth += 1;
        let size = self.of_nodes(&function.node)?;
        self.depth -= 1;
        self.known.insert(key, Some(size));
        Ok(size)
    }
}

/// **Errors:** an attribute lacks its content, or a graph inside does not fit the operation.
pub(crate) fn check_node(node: &Node) -> Result<(), LoadError> {
    let broken = |text: String| Err(LoadError::broken(format!("operation {} {text}", node.label())));
    for attribute in &node.attribute {
        let is_there = match attribute.r#type {
            TENSOR => attribute.t.is_some(),
            GRAPH => attribute.g.is_some(),
            SPARSE => attribute.sparse_tensor.is_some(),
            _ => true,
        };
        if !is_there && attribute.ref_attr_name.is_empty() {
            return broken(format!("has an attribute '{}' without content", attribute.name));
        }
    }
    if !matches!(node.domain.as_str(), "" | "ai.onnx") {
        return Ok(());
    }
    let graph = |name: &str| node.attribute(name).and_then(|attribute| attribute.g.as_ref());
    match node.op_type.as_str() {
        "If" => match (graph("then_branch"), graph("else_branch")) {
            (Some(yes), Some(no)) if yes.output.len() == no.output.len() && !yes.output.is_empty() => Ok(()),
            (Some(_), Some(_)) => broken("has branches with different numbers of outputs".to_owned()),
            _ => broken("lacks a branch".to_owned()),
        },
        "Loop" => match graph("body") {
            // Two limits, both of which may be left out, and what is carried.
            Some(body) => fits(node, body, node.input.len().max(2), node.input.len().max(2) - 1),
            None => broken("lacks its body".to_owned()),
        },
        "Scan" => match graph("body") {
            Some(body) => scan_fits(node, body),
            None => broken("lacks its body".to_owned()),
        },
        _ => Ok(()),
    }
}

fn scan_fits(node: &Node, body: &Graph) -> Result<(), LoadError> {
    let scanned = usize::try_from(node.int("num_scan_inputs", 0)).unwrap_or(0);
    // Until version 8 there was one more, for lengths; it may be left out, but not its place.
    let inputs = [node.input.len(), node.input.len().saturating_sub(1)];
    let is_taken = inputs.contains(&body.input.len());
    if scanned == 0 || scanned > body.input.len() || !is_taken {
        let (label, count) = (node.label(), body.input.len());
        return Err(LoadError::broken(format!("operation {label} scans {scanned} inputs with a body of {count}")));
    }
    Ok(())
}

fn fits(node: &Node, body: &Graph, inputs: usize, least_outputs: usize) -> Result<(), LoadError> {
    if body.input.len() == inputs && body.output.len() >= least_outputs {
        return Ok(());
    }
    let (label, taken, made) = (node.label(), body.input.len(), body.output.len());
    let expected = format!("{inputs} inputs and {least_outputs} outputs or more");
    Err(LoadError::broken(format!(
        "operation {label} has a body of {taken} inputs and {made} outputs; it needs {expected}"
    )))
}

/// **Errors:** values and indices do not belong together.
pub(crate) fn check_sparse(sparse: &SparseTensor) -> Result<(), LoadError> {
    let broken = |text: &str| Err(LoadError::broken(format!("a sparse tensor {text}")));
    let (Some(values), Some(indices)) = (&sparse.values, &sparse.indices) else {
        // One without values has none that could stand anywhere.
        return if sparse.values.is_none() { Ok(()) } else { broken("has values without indices") };
    };
    let rank = sparse.dims.len() as i64;
    let is_listed = match (&values.dims[..], &indices.dims[..]) {
        ([count], [places]) => count == places,
        ([count], [places, of_rank]) => count == places && *of_rank == rank,
        _ => false,
    };
    if !is_listed {
        return broken("has another number of indices than of values");
    }
    if indices.element != INT64 {
        return broken("has indices that are no INT64");
    }
    let numbers = indices.numbers().unwrap_or_default();
    let elements = sparse.dims.iter().fold(1.0, |product, &size| product * size as f64);
    let is_inside = |(place, number): (usize, &f64)| {
        let bound = if indices.dims.len() == 2 { sparse.dims[place % sparse.dims.len()] as f64 } else { elements };
        (0.0..bound).contains(number)
    };
    if numbers.iter().enumerate().all(is_inside) { Ok(()) } else { broken("has an index outside its dimensions") }
}
