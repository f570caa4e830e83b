//! Follows the rows of a batch through a graph: what each tensor's rows depend on, from the operators' definitions.
//!
//! A batch may be shared only if every output is shown to keep its rows: whatever is not known to keep them loses them
//! ([`value::How`]), and the operation is named. Graphs inside and the model's own functions are followed too. The rules
//! are in `rules` and the files beside it; values that hold sizes are computed with, as exporters reshape by them.

mod arrange;
mod content;
mod contrib;
mod control;
mod elementwise;
mod join;
mod pick;
mod product;
mod reduce;
mod resize;
mod rules;
mod sequence;
mod shape;
mod size;
mod tabular;
mod value;
mod window;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use self::size::{Size, Symbols};
use self::value::{Axis, Flow, How, Loss, Value};
use super::proto::{Called, Function, Graph, Model, Node, Opset};
use super::spec::Port;
use super::tensor::Tensor;

/// Most nodes that are looked at, those of loops and functions each time: a small file can nest them a million times.
const MAX_VISITS: usize = 200_000;

/// What was found out about a graph.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    /// Why rows may not share a run.
    pub(crate) refusal: Option<Refusal>,
    /// Exclusive bounds of integers by input: sizes of the tables that they are looked up in.
    pub(crate) bounds: BTreeMap<usize, i64>,
}

/// Why rows may not share a run.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// They are not shown to be independent.
    Dependent(String),
    /// An output does not count them.
    Uncounted(String),
}

/// Follows rows from `inputs`, all of whose first dimensions count them, to the outputs.
pub(crate) fn follow(model: &Model, inputs: &[Port]) -> Followed {
    let Some(graph) = &model.graph else { return Followed { refusal: None, bounds: BTreeMap::new() } };
    let mut walk = Walk::new(model);
    let mut scope = Walk::constants(graph);
    for (index, port) in inputs.iter().enumerate() {
        let dims = port.spec.shape.iter().enumerate().map(|(at, &size)| match size {
            _ if at == 0 => Size::rows(),
            -1 => walk.symbols.fresh(),
            size => Size::number(size),
        });
        let value = Value::rows(Axis::plain(0), dims.collect()).with_origin(Some(index));
        scope.insert(port.spec.name.clone(), value);
    }
    walk.scopes.push(scope);
    walk.nodes(&graph.node);
    let refusal = graph.output.iter().find_map(|info| refusal(&info.name, &walk.value(&info.name)));
    Followed { refusal, bounds: walk.bounds }
}

/// Why the output of this name may not be cut into rows.
fn refusal(name: &str, output: &Value) -> Option<Refusal> {
    let uncounted = |what: &str| Some(Refusal::Uncounted(format!("the first dimension of output '{name}' {what}")));
    match &output.flow {
        Flow::Rows(axis) if axis.at != 0 => uncounted(&format!("counts no rows: dimension {} does", axis.at)),
        Flow::Rows(axis) if !axis.is_plain() => uncounted("counts several for each row"),
        Flow::Rows(_) => None,
        Flow::Fixed => uncounted("counts no rows: it is the same for all requests"),
        Flow::Counts => Some(Refusal::Dependent(format!(
            "output '{name}' follows the number of rows, so rows influence each other"
        ))),
        Flow::Lost(loss) => Some(Refusal::Dependent(loss.text())),
    }
}

/// Sizes of tables by the input that looks into them.
type Bounds = BTreeMap<usize, i64>;

/// Outcome of a rule: the operation's outputs, or why their rows are lost.
type Ruled = Result<Vec<Value>, How>;

/// A graph that is being followed.
struct Walk<'a> {
    functions: HashMap<Called<'a>, &'a Function>,
    /// Values by name, of the innermost graph last.
    scopes: Vec<HashMap<String, Value>>,
    symbols: Symbols,
    /// Version of ONNX's own operators here.
    opset: i64,
    visits: usize,
    bounds: Bounds,
}

/// One operation and what it reads.
struct Step<'a> {
    node: &'a Node,
    /// `None` where the node leaves an input out.
    inputs: Vec<Option<Value>>,
    opset: i64,
    symbols: &'a mut Symbols,
    bounds: &'a mut Bounds,
}

impl<'a> Walk<'a> {
    fn new(model: &'a Model) -> Self {
        let functions = model.functions.iter();
        let functions = functions.map(|function| (function.called(), function));
        Self {
            functions: functions.collect(),
            scopes: Vec::new(),
            symbols: Symbols::default(),
            opset: version(&model.opset_import).unwrap_or(0),
            visits: 0,
            bounds: Bounds::new(),
        }
    }

    /// The scope of a graph before its first operation.
    fn constants(graph: &Graph) -> HashMap<String, Value> {
        let sparse = graph.sparse_initializer.iter().filter_map(|sparse| Some(&sparse.values.as_ref()?.name));
        let sparse = sparse.map(|name| (name.clone(), Value::fixed()));
        graph.initializer.iter().map(|tensor| (tensor.name.clone(), constant(tensor))).chain(sparse).collect()
    }

    fn value(&self, name: &str) -> Value {
        let known = self.scopes.iter().rev().find_map(|scope| scope.get(name)).cloned();
        known.unwrap_or_else(|| {
            let how = How::Unknown("is made by no operation");
            Value::lost(&Rc::new(Loss { label: format!("'{name}'"), how }))
        })
    }

    fn set(&mut self, name: &str, value: Value) {
        if let Some(scope) = self.scopes.last_mut()
            && !name.is_empty()
        {
            scope.insert(name.to_owned(), value);
        }
    }

    fn nodes(&mut self, nodes: &[Node]) {
        for node in nodes {
            self.node(node);
        }
    }

    fn node(&mut self, node: &Node) {
        self.visits += 1;
        let inputs = node.input.iter().map(|name| (!name.is_empty()).then(|| self.value(name))).collect();
        let outputs = self.outputs(node, inputs);
        for (name, value) in node.output.iter().zip(outputs) {
            self.set(name, value);
        }
    }

    /// What the node makes of its inputs: as many values as it has outputs.
    fn outputs(&mut self, node: &Node, inputs: Vec<Option<Value>>) -> Vec<Value> {
        if self.visits > MAX_VISITS {
            return lose(node, How::Unknown("is nested too deep to be followed"));
        }
        if let Some(loss) = inputs.iter().flatten().find(|value| matches!(value.flow, Flow::Lost(_))) {
            return vec![Value { content: None, origin: None, ..loss.clone() }; node.output.len()];
        }
        let any = |is: fn(&Value) -> bool| inputs.iter().flatten().any(is);
        let (has_rows, has_counts) =
            (any(|value| value.axis().is_some()), any(|value| matches!(value.flow, Flow::Counts)));
        // Graphs inside see more than the inputs.
        let is_open = node.attribute.iter().any(|attribute| attribute.subgraphs().next().is_some())
            || self.functions.contains_key(&node.calls());
        let ruled = self.ruled(node, inputs);
        // What is fixed stays so whatever is done with it.
        let otherwise = |how| match how {
            How::Random => lose(node, how),
            _ if has_rows || is_open => lose(node, how),
            _ if has_counts => vec![Value::counts(); node.output.len()],
            _ => vec![Value::fixed(); node.output.len()],
        };
        match ruled {
            Ok(outputs) if outputs.iter().any(is_uneven) => otherwise(How::Mixes("works with the number of rows")),
            Ok(mut outputs) => {
                let missing = otherwise(How::Unknown("has an output that is not known to keep rows apart"));
                outputs.extend(missing.into_iter().skip(outputs.len()));
                outputs
            }
            Err(how) => otherwise(how),
        }
    }

    fn ruled(&mut self, node: &Node, inputs: Vec<Option<Value>>) -> Ruled {
        if let Some(&function) = self.functions.get(&node.calls()) {
            return self.call(node, inputs, function);
        }
        if matches!(node.domain.as_str(), "" | "ai.onnx") {
            match node.op_type.as_str() {
                "If" => return self.branches(node, &inputs),
                "Loop" => return self.repeated(node, &inputs),
                "Scan" => return self.scanned(node, &inputs),
                "SequenceMap" => return self.mapped(node, &inputs),
                _ => {}
            }
        }
        let (opset, symbols, bounds) = (self.opset, &mut self.symbols, &mut self.bounds);
        rules::apply(Step { node, inputs, opset, symbols, bounds })
    }
}

impl Step<'_> {
    fn value(&self, index: usize) -> Option<&Value> {
        self.inputs.get(index)?.as_ref()
    }

    /// An input that the operation cannot do without.
    fn needed(&self, index: usize) -> Result<&Value, How> {
        self.value(index).ok_or(How::Unknown("lacks an input"))
    }

    /// Dimensions of an input.
    fn dims(&self, index: usize) -> Result<Vec<Size>, How> {
        self.needed(index)?.dims.clone().ok_or(How::Unknown("has an input of unknown rank"))
    }

    /// The first input, if the others are constants.
    fn first(&self) -> Result<&Value, How> {
        let others_are_fixed = self.inputs.iter().skip(1).flatten().all(Value::is_fixed);
        if others_are_fixed { self.needed(0) } else { Err(How::Unknown("takes rows where constants are expected")) }
    }

    /// How a result of no rows flows.
    fn plain(&self) -> Flow {
        let counts = self.inputs.iter().flatten().any(|value| matches!(value.flow, Flow::Counts));
        if counts { Flow::Counts } else { Flow::Fixed }
    }

    /// `value` flows on with these dimensions: rows where they are, or as the inputs do.
    fn made(&self, axis: Option<Axis>, dims: Vec<Size>) -> Value {
        let flow = axis.map_or_else(|| self.plain(), Flow::Rows);
        Value::new(flow, dims)
    }

    /// A list of integers: an attribute in old operator sets, a constant input in new ones.
    fn integers(&self, attribute: &str, index: usize) -> Integers {
        if let Some(values) = self.node.ints(attribute) {
            return Integers::Known(values.to_vec());
        }
        match self.value(index) {
            None => Integers::Absent,
            Some(value) => value.numbers().map_or(Integers::Unknown, Integers::Known),
        }
    }
}

/// A list of integers that a node takes.
#[derive(Debug, PartialEq, Eq)]
enum Integers {
    /// The node leaves it out.
    Absent,
    /// It is no constant.
    Unknown,
    /// These.
    Known(Vec<i64>),
}

/// An axis number as an index; `None` if it is out of range.
fn index(number: i64, rank: usize) -> Option<usize> {
    let number = if number < 0 { number.checked_add(rank as i64)? } else { number };
    usize::try_from(number).ok().filter(|&index| index < rank)
}

/// Whether a tensor's rows are of a size that follows their number, or not where they are said to be.
fn is_uneven(value: &Value) -> bool {
    let (Some(axis), Some(dims)) = (value.axis(), &value.dims) else { return false };
    let sizes = axis.outer.times(&axis.inner).and_then(|rest| rest.times(&Size::rows()));
    let is_where_said = sizes.is_some() && dims.get(axis.at) == sizes.as_ref();
    !is_where_said || dims.iter().enumerate().any(|(at, size)| at != axis.at && size.follows_rows())
}

fn lose(node: &Node, how: How) -> Vec<Value> {
    vec![Value::lost(&Rc::new(Loss { label: node.label(), how })); node.output.len()]
}

/// A constant with its values, if they are few, and of a type in which sizes are exact.
fn constant(tensor: &Tensor) -> Value {
    let dims = tensor.dims.iter().map(|&size| Size::number(size)).collect();
    let whole = |number: f64| (number.fract() == 0.0).then(|| Size::number(number as i64));
    let content = tensor
        .numbers()
        .filter(|_| content::is_exact(i64::from(tensor.element)))
        .map(|numbers| numbers.into_iter().map(whole).collect());
    Value { content, ..Value::new(Flow::Fixed, dims) }
}

/// Version of ONNX's own operators.
fn version(imports: &[Opset]) -> Option<i64> {
    imports.iter().find(|opset| matches!(opset.domain.as_str(), "" | "ai.onnx")).map(|opset| opset.version)
}
