//! Whether the time or the size of a model's run follows the values that it is given, and not only their shapes.
//!
//! Two marks are carried forward from the inputs: "its values are the caller's", and "its size is". `Shape` and the like
//! end the first one, so that a range over a shape is none of our findings. Constants carry neither mark.

use std::collections::HashMap;

use super::proto::{Attribute, Called, Function, Graph, Model, Node};

/// Most nodes that are looked at, those of loops and functions each time: a small file can nest them a million times.
const MAX_VISITS: usize = 200_000;

/// Operations whose output, or whose work, is as large as the values of these inputs say; an empty list: all inputs.
const SIZED: [(&str, &[usize]); 37] = [
    ("AffineGrid", &[1]),
    ("BeamSearch", &[]),
    ("BlackmanWindow", &[0]),
    ("CenterCropPad", &[1]),
    ("Col2Im", &[1, 2]),
    ("Compress", &[1]),
    ("ConstantOfShape", &[0]),
    ("ConvTransposeWithDynamicPads", &[2]),
    ("CropAndResize", &[3]),
    ("DFT", &[1]),
    ("DynamicSlice", &[1, 2, 3, 4]),
    ("Expand", &[1]),
    ("GreedySearch", &[]),
    ("HammingWindow", &[0]),
    ("HannWindow", &[0]),
    ("ImageDecoder", &[0]),
    ("MaxUnpool", &[2]),
    ("MaxpoolWithMask", &[1]),
    ("MelWeightMatrix", &[]),
    ("NonMaxSuppression", &[]),
    ("NonZero", &[0]),
    ("OneHot", &[1]),
    ("Pad", &[1]),
    ("Range", &[]),
    ("Resize", &[1, 2, 3]),
    ("STFT", &[1, 3]),
    ("Sampling", &[]),
    ("Slice", &[1, 2, 3, 4]),
    ("Split", &[1]),
    ("SplitToSequence", &[1]),
    ("StringSplit", &[0]),
    ("Tile", &[1, 2]),
    ("Tokenizer", &[0]),
    ("TopK", &[1]),
    ("Unique", &[0]),
    ("Upsample", &[1, 2]),
    ("WhisperBeamSearch", &[]),
];

/// Operations that answer from the shape of what they get.
const OF_SHAPES: [&str; 3] = ["SequenceLength", "Shape", "Size"];

/// Operations that are worth not to be run: a branch with one of them takes another time than one without.
const HEAVY: [&str; 20] = [
    "Attention",
    "BeamSearch",
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "Einsum",
    "GRU",
    "Gemm",
    "GreedySearch",
    "GroupQueryAttention",
    "LSTM",
    "Loop",
    "MatMul",
    "MatMulInteger",
    "MatMulNBits",
    "MultiHeadAttention",
    "QLinearConv",
    "QLinearMatMul",
    "RNN",
    "Scan",
];

/// The first operation by which time or size of a run follow the request's values.
pub(crate) fn time_follows_values(model: &Model) -> Option<String> {
    let graph = model.graph.as_ref()?;
    let functions = model.functions.iter();
    let functions = functions.map(|function| (function.called(), function)).collect();
    let constant = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
    let inputs = graph.input.iter().map(|info| info.name.as_str()).filter(|name| !constant(name));
    let scope = inputs.map(|name| (name, Marks { values: true, size: false })).collect();
    let mut walk = Walk { functions, scopes: vec![scope], visits: 0 };
    walk.nodes(&graph.node).err()
}

/// What of a tensor is the caller's choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Marks {
    values: bool,
    /// By values, that is: what shapes alone bring about is marked nowhere.
    size: bool,
}

impl Marks {
    fn join(self, other: Self) -> Self {
        Self { values: self.values || other.values, size: self.size || other.size }
    }
}

/// The label of the operation that was looked for ends the walk.
type Found = Result<(), String>;

struct Walk<'a> {
    functions: HashMap<Called<'a>, &'a Function>,
    /// Marks by name, of the innermost graph last.
    scopes: Vec<HashMap<&'a str, Marks>>,
    visits: usize,
}

impl<'a> Walk<'a> {
    fn marks(&self, name: &str) -> Marks {
        self.scopes.iter().rev().find_map(|scope| scope.get(name)).copied().unwrap_or_default()
    }

    fn input(&self, node: &Node, index: usize) -> Marks {
        node.input.get(index).map(|name| self.marks(name)).unwrap_or_default()
    }

    fn all_inputs(&self, node: &Node) -> Marks {
        node.input.iter().fold(Marks::default(), |all, name| all.join(self.marks(name)))
    }

    fn set(&mut self, name: &'a str, marks: Marks) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name, marks);
        }
    }

    fn nodes(&mut self, nodes: &'a [Node]) -> Found {
        nodes.iter().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, node: &'a Node) -> Found {
        self.visits += 1;
        if self.visits > MAX_VISITS || self.is_sized(node) {
            return Err(node.label());
        }
        let outputs = if let Some(&function) = self.functions.get(&node.calls()) {
            self.call(node, function)?
        } else {
            match node.op_type.as_str() {
                "If" => self.branches(node)?,
                "Loop" => self.repeated(node)?,
                _ => {
                    let all = self.generic(node)?;
                    vec![all; node.output.len()]
                }
            }
        };
        for (name, marks) in node.output.iter().zip(outputs) {
            self.set(name, marks);
        }
        Ok(())
    }

    /// Whether the values of a request say how much this operation makes.
    fn is_sized(&self, node: &Node) -> bool {
        let Some((_, inputs)) = SIZED.iter().find(|(op_type, _)| *op_type == node.op_type) else { return false };
        match inputs {
            [] => self.all_inputs(node).values,
            _ => inputs.iter().any(|&index| self.input(node, index).values),
        }
    }

    /// Everything may come from every input; graphs inside are read as if they got all of it.
    fn generic(&mut self, node: &'a Node) -> Result<Marks, String> {
        let mut all = self.all_inputs(node);
        if OF_SHAPES.contains(&node.op_type.as_str()) {
            return Ok(Marks { values: all.size, size: false });
        }
        if node.op_type == "Reshape" {
            all.size |= self.input(node, 1).values;
        }
        all.values |= node.op_type.starts_with("Random") || node.op_type == "Multinomial";
        for graph in node.attribute.iter().flat_map(Attribute::subgraphs) {
            let inputs = vec![all; graph.input.len()];
            let outputs = self.graph(graph, &inputs)?;
            all = outputs.into_iter().fold(all, Marks::join);
        }
        Ok(all)
    }

    /// Marks of the outputs of a graph inside, given those of its inputs.
    fn graph(&mut self, graph: &'a Graph, inputs: &[Marks]) -> Result<Vec<Marks>, String> {
        let names = graph.input.iter().map(|info| info.name.as_str());
        self.scopes.push(names.zip(inputs.iter().copied()).collect());
        let done = self.nodes(&graph.node);
        let outputs = graph.output.iter().map(|info| self.marks(&info.name)).collect();
        self.scopes.pop();
        done.map(|()| outputs)
    }

    fn call(&mut self, node: &'a Node, function: &'a Function) -> Result<Vec<Marks>, String> {
        let inputs = node.input.iter().map(|name| self.marks(name));
        let scope = function.input.iter().map(String::as_str).zip(inputs).collect();
        // A function sees nothing but its inputs, and itself not either: it may not call itself.
        let outside = std::mem::replace(&mut self.scopes, vec![scope]);
        let itself = self.functions.remove(&function.called());
        let done = self.nodes(&function.node);
        let outputs = function.output.iter().map(|name| self.marks(name)).collect();
        self.scopes = outside;
        self.functions.extend(itself.map(|itself| (itself.called(), itself)));
        done.map(|()| outputs)
    }

    fn branches(&mut self, node: &'a Node) -> Result<Vec<Marks>, String> {
        let condition = self.input(node, 0).values;
        let branches = || node.attribute.iter().flat_map(Attribute::subgraphs);
        if condition && branches().any(|graph| self.is_heavy(graph)) {
            return Err(node.label());
        }
        let chosen = Marks { values: condition, size: condition };
        let mut outputs = vec![chosen; node.output.len()];
        for graph in branches() {
            let found = self.graph(graph, &[])?;
            outputs.iter_mut().zip(found).for_each(|(output, found)| *output = output.join(found));
        }
        Ok(outputs)
    }

    fn is_heavy(&self, graph: &Graph) -> bool {
        graph.node.iter().any(|node| {
            let name = node.op_type.as_str();
            HEAVY.contains(&name)
                || self.functions.contains_key(&node.calls())
                || node.attribute.iter().flat_map(Attribute::subgraphs).any(|graph| self.is_heavy(graph))
        })
    }

    /// A loop ends by its count, or by a condition that its body makes; what it carries is marked until nothing changes.
    fn repeated(&mut self, node: &'a Node) -> Result<Vec<Marks>, String> {
        let body = node.attribute.iter().flat_map(Attribute::subgraphs).next();
        let Some(body) = body else { return Err(node.label()) };
        if self.input(node, 0).values || self.input(node, 1).values {
            return Err(node.label());
        }
        let mut carried: Vec<Marks> = (2..node.input.len()).map(|index| self.input(node, index)).collect();
        loop {
            let inputs: Vec<Marks> = [Marks::default(); 2].into_iter().chain(carried.iter().copied()).collect();
            let outputs = self.graph(body, &inputs)?;
            if outputs.first().is_some_and(|condition| condition.values) {
                return Err(node.label());
            }
            let made = outputs.get(1..).unwrap_or_default();
            let next: Vec<Marks> = carried.iter().zip(made).map(|(old, new)| old.join(*new)).collect();
            if next.len() != carried.len() || next == carried {
                return Ok(made.to_vec());
            }
            carried = next;
        }
    }
}
