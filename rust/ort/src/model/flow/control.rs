//! Graphs inside operations: branches, loops, scans and the model's own functions.

use std::collections::HashMap;

use super::super::proto::{Attribute, Function, Graph, Node};
use super::size::Size;
use super::value::{Axis, Dims, Flow, How, Value};
use super::{Ruled, Walk, index, sequence, version};

/// How often a loop's body is read until what it carries has settled.
const MAX_ROUNDS: usize = 4;

const BY_VALUE: How = How::Mixes("decides for the whole batch by a value");
const BY_COUNT: How = How::Mixes("works with the number of rows");
const UNSETTLED: How = How::Unknown("carries what is not known to keep rows apart");
const NO_BODY: How = How::Unknown("has no graph");

impl<'a> Walk<'a> {
    /// Follows a graph inside, which gets these inputs.
    fn inside(&mut self, graph: &Graph, inputs: &[Value]) -> Vec<Value> {
        let mut scope = Self::constants(graph);
        scope.extend(graph.input.iter().map(|info| info.name.clone()).zip(inputs.iter().cloned()));
        self.scopes.push(scope);
        self.nodes(&graph.node);
        let outputs = graph.output.iter().map(|info| self.value(&info.name)).collect();
        self.scopes.pop();
        outputs
    }

    /// A function of the model's own: it sees its inputs and the attributes of the node that calls it.
    pub(super) fn call(&mut self, node: &Node, inputs: Vec<Option<Value>>, function: &'a Function) -> Ruled {
        if matches!(node.domain.as_str(), "" | "ai.onnx" | "ai.onnx.ml" | "com.microsoft") {
            return Err(How::Unknown("is defined anew under the name of a standard operation"));
        }
        let given = function.input.iter().cloned().zip(inputs);
        let scope: HashMap<String, Value> = given.filter_map(|(name, value)| Some((name, value?))).collect();
        let body = function.node.iter().map(|inner| filled_in(inner, node, function)).collect::<Vec<_>>();
        let key = function.called();
        // It sees nothing of its surroundings, and itself not either: it may not call itself.
        let outside = std::mem::replace(&mut self.scopes, vec![scope]);
        let itself = self.functions.remove(&key);
        let opset = self.opset;
        self.opset = version(&function.opset_import).unwrap_or(opset);
        self.nodes(&body);
        let outputs = function.output.iter().map(|name| self.value(name)).collect();
        self.functions.extend(itself.map(|itself| (key, itself)));
        (self.opset, self.scopes) = (opset, outside);
        Ok(outputs)
    }

    pub(super) fn branches(&mut self, node: &Node, inputs: &[Option<Value>]) -> Ruled {
        let condition = inputs.first().cloned().flatten().ok_or(How::Unknown("lacks an input"))?;
        let branch = |name: &str| node.attribute(name).and_then(|attribute| attribute.g.as_ref()).ok_or(NO_BODY);
        let (yes, no) = (branch("then_branch")?, branch("else_branch")?);
        if let Some(&[number]) = condition.numbers().as_deref() {
            return Ok(self.inside(if number == 0 { no } else { yes }, &[]));
        }
        match condition.flow {
            Flow::Rows(_) => return Err(BY_VALUE),
            Flow::Counts => return Err(BY_COUNT),
            Flow::Fixed | Flow::Lost(_) => {}
        }
        let (yes, no) = (self.inside(yes, &[]), self.inside(no, &[]));
        yes.into_iter().zip(no).map(|(yes, no)| self.either(yes, no)).collect()
    }

    /// One of two values, nobody knows which; it is the same one for all rows.
    fn either(&mut self, one: Value, other: Value) -> Result<Value, How> {
        let flow = match (&one.flow, &other.flow) {
            (Flow::Lost(_), _) => return Ok(one),
            (_, Flow::Lost(_)) => return Ok(other),
            (Flow::Fixed, Flow::Fixed) => Flow::Fixed,
            (Flow::Rows(one), Flow::Rows(other)) if one == other => Flow::Rows(one.clone()),
            (Flow::Rows(_), _) | (_, Flow::Rows(_)) => return Err(UNSETTLED),
            _ => Flow::Counts,
        };
        let dims = one.dims.zip(other.dims).filter(|(one, other)| one.len() == other.len());
        let dims: Option<Dims> = dims.map(|(one, other)| self.merged(one, other));
        if dims.is_none() && matches!(flow, Flow::Rows(_)) {
            return Err(How::Unknown("has a result of unknown rank"));
        }
        let content = if one.content == other.content { one.content } else { None };
        Ok(Value { flow, dims, content, origin: None })
    }

    fn merged(&mut self, one: Dims, other: Dims) -> Dims {
        let mut merge = |(one, other): (Size, Size)| if one == other { one } else { self.symbols.fresh() };
        one.into_iter().zip(other).map(&mut merge).collect()
    }

    /// `SequenceMap`: the graph inside gets one element after the other.
    pub(super) fn mapped(&mut self, node: &Node, inputs: &[Option<Value>]) -> Ruled {
        let body = node.attribute.iter().find_map(|attribute| attribute.g.as_ref()).ok_or(NO_BODY)?;
        let elements: Option<Vec<Value>> =
            inputs.iter().map(|list| Some(sequence::element(&mut self.symbols, list.as_ref()?))).collect();
        let made = self.inside(body, &elements.ok_or(How::Unknown("lacks an input"))?);
        // What is made of elements without rows may yet be made of rows around.
        Ok(made.into_iter().map(|value| Value { content: None, origin: None, ..value }).collect())
    }

    pub(super) fn repeated(&mut self, node: &Node, inputs: &[Option<Value>]) -> Ruled {
        let body = node.attribute.iter().find_map(|attribute| attribute.g.as_ref()).ok_or(NO_BODY)?;
        for limit in inputs.iter().take(2).flatten() {
            match limit.flow {
                Flow::Rows(_) => return Err(BY_VALUE),
                Flow::Counts => return Err(BY_COUNT),
                Flow::Fixed | Flow::Lost(_) => {}
            }
        }
        let carried: Option<Vec<Value>> = inputs.iter().skip(2).cloned().collect();
        let carried = carried.ok_or(How::Unknown("lacks an input"))?;
        let scalar = Value::new(Flow::Fixed, Vec::new());
        let around = |carried: &[Value]| [&[scalar.clone(), scalar.clone()], carried].concat();
        let (carried, mut outputs) = self.settled(body, forgotten(carried), &around, 1)?;
        if !outputs.first().is_some_and(Value::is_fixed) {
            return Err(BY_VALUE);
        }
        let scanned = outputs.split_off((1 + carried.len()).min(outputs.len()));
        let mut values = carried;
        for value in scanned {
            let count = self.symbols.fresh();
            values.push(stacked(value, 0, count)?);
        }
        Ok(values)
    }

    pub(super) fn scanned(&mut self, node: &Node, inputs: &[Option<Value>]) -> Ruled {
        let body = node.attribute.iter().find_map(|attribute| attribute.g.as_ref()).ok_or(NO_BODY)?;
        let count = usize::try_from(node.int("num_scan_inputs", 0)).unwrap_or(0);
        let states = inputs.len().checked_sub(count).filter(|_| self.opset >= 9);
        let states = states.ok_or(How::Unknown("scans in the way of old operator sets"))?;
        let values: Option<Vec<Value>> = inputs.iter().cloned().collect();
        let mut values = values.ok_or(How::Unknown("lacks an input"))?;
        let axes = |name: &str, place: usize| node.ints(name).and_then(|axes| axes.get(place).copied()).unwrap_or(0);
        let mut steps = Vec::new();
        let mut length = None;
        for (place, value) in values.split_off(states).into_iter().enumerate() {
            let (value, size) = unstacked(value, axes("scan_input_axes", place))?;
            if size.follows_rows() {
                return Err(BY_COUNT);
            }
            length = Some(size);
            steps.push(value);
        }
        let around = |carried: &[Value]| [carried, &steps].concat();
        let (mut made, outputs) = self.settled(body, forgotten(values), &around, 0)?;
        let length = length.ok_or(How::Unknown("scans nothing"))?;
        for (place, value) in outputs.into_iter().skip(states).enumerate() {
            made.push(stacked(value, axes("scan_output_axes", place), length.clone())?);
        }
        Ok(made)
    }

    /// Reads a body until what it carries does not change any more; `around` says what it gets besides.
    fn settled(
        &mut self,
        body: &Graph,
        mut carried: Vec<Value>,
        around: &dyn Fn(&[Value]) -> Vec<Value>,
        before: usize,
    ) -> Result<(Vec<Value>, Vec<Value>), How> {
        let mut widened = Vec::new();
        for _ in 0..MAX_ROUNDS {
            let outputs = self.inside(body, &around(&carried));
            let next = self.joined(&carried, outputs.get(before..).unwrap_or_default())?;
            let changed = changes(&carried, &next);
            // A size that is any already is still any after another round.
            let is_settled =
                changed.as_ref().is_some_and(|changed| changed.iter().all(|place| widened.contains(place)));
            if is_settled {
                return Ok((next, outputs));
            }
            widened = changed.unwrap_or_default();
            carried = next;
        }
        Err(UNSETTLED)
    }

    /// What is carried into the next round: what came in, or what was made of it.
    fn joined(&mut self, carried: &[Value], made: &[Value]) -> Result<Vec<Value>, How> {
        if made.len() < carried.len() {
            return Err(NO_BODY);
        }
        let pairs = carried.iter().zip(made);
        pairs
            .map(|(old, new)| {
                let value = self.either(old.clone(), new.clone())?;
                Ok(Value { content: None, origin: None, ..value })
            })
            .collect()
    }
}

/// Which dimensions of which values changed from one round to the next; `None`: more than dimensions.
fn changes(old: &[Value], new: &[Value]) -> Option<Vec<(usize, usize)>> {
    let mut changed = Vec::new();
    for (place, (old, new)) in old.iter().zip(new).enumerate() {
        let is_same_flow = match (&old.flow, &new.flow) {
            (Flow::Rows(old), Flow::Rows(new)) => old == new,
            (old, new) => std::mem::discriminant(old) == std::mem::discriminant(new),
        };
        match (&old.dims, &new.dims) {
            (Some(old), Some(new)) if old.len() == new.len() => {
                changed.extend((0..old.len()).filter(|&at| old[at] != new[at]).map(|at| (place, at)));
            }
            (None, None) => {}
            _ => return None,
        }
        if !is_same_flow {
            return None;
        }
    }
    Some(changed)
}

/// Values of which the elements change.
fn forgotten(values: Vec<Value>) -> Vec<Value> {
    values.into_iter().map(|value| Value { content: None, origin: None, ..value }).collect()
}

/// A step of a sequence: without the axis that is stepped along, whose size is returned too.
fn unstacked(value: Value, number: i64) -> Result<(Value, Size), How> {
    let mut dims = value.dims.ok_or(How::Unknown("scans a tensor of unknown rank"))?;
    let at = index(number, dims.len()).ok_or(How::Unknown("scans along no axis"))?;
    let size = dims.remove(at);
    let flow = match value.flow {
        Flow::Rows(axis) if axis.at == at => return Err(How::Mixes("takes the batch as steps of one sequence")),
        Flow::Rows(axis) if axis.at > at => Flow::Rows(axis.moved(axis.at - 1)),
        flow => flow,
    };
    Ok((Value::new(flow, dims), size))
}

/// Steps put together along a new axis.
fn stacked(value: Value, number: i64, count: Size) -> Result<Value, How> {
    let Some(mut dims) = value.dims else { return Ok(value) };
    let at = index(number, dims.len() + 1).ok_or(How::Unknown("stacks along no axis"))?;
    dims.insert(at, count);
    let flow = match value.flow {
        Flow::Rows(axis) if axis.at >= at => Flow::Rows(Axis { at: axis.at + 1, ..axis }),
        flow => flow,
    };
    Ok(Value::new(flow, dims))
}

/// A node of a function, with the caller's attributes in the places that ask for them, in graphs inside too.
fn filled_in(inner: &Node, caller: &Node, function: &Function) -> Node {
    let mut node = inner.clone();
    node.attribute.retain_mut(|attribute| {
        for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            let nodes = graph.node.iter().map(|inner| filled_in(inner, caller, function)).collect();
            graph.node = nodes;
        }
        if attribute.ref_attr_name.is_empty() {
            return true;
        }
        let name = std::mem::take(&mut attribute.ref_attr_name);
        let defaults = function.attribute.iter().find(|default| default.name == name);
        match caller.attribute(&name).or(defaults) {
            Some(given) => *attribute = Attribute { name: attribute.name.clone(), ..given.clone() },
            None => return false,
        }
        true
    });
    node
}
