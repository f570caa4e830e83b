//! Writes small ONNX models, so that the tests need neither Python nor binary files in the repository.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "a test helper; each test uses a part of it")]

use std::path::{Path, PathBuf};

use prost::Message;

pub const FLOAT: i32 = 1;
pub const UINT8: i32 = 2;
pub const INT8: i32 = 3;
pub const INT32: i32 = 6;
pub const INT64: i32 = 7;
pub const STRING: i32 = 8;
pub const BOOL: i32 = 9;
pub const DOUBLE: i32 = 11;

#[derive(Clone, PartialEq, Message)]
pub struct Model {
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    #[prost(string, tag = "2")]
    pub producer_name: String,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<Opset>,
    #[prost(message, repeated, tag = "25")]
    pub functions: Vec<Function>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Opset {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Function {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, repeated, tag = "4")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    pub output: Vec<String>,
    #[prost(message, repeated, tag = "7")]
    pub node: Vec<Node>,
    #[prost(message, repeated, tag = "9")]
    pub opset_import: Vec<Opset>,
    #[prost(string, tag = "10")]
    pub domain: String,
    #[prost(string, tag = "13")]
    pub overload: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<Attribute>,
    #[prost(string, tag = "7")]
    pub domain: String,
    #[prost(string, tag = "8")]
    pub overload: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Attribute {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub s: Option<Vec<u8>>,
    #[prost(message, optional, tag = "5")]
    pub t: Option<Tensor>,
    #[prost(message, optional, tag = "6")]
    pub g: Option<Graph>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub strings: Vec<Vec<u8>>,
    #[prost(int32, tag = "20")]
    pub r#type: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Tensor {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub string_data: Vec<Vec<u8>>,
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub name: String,
    #[prost(bytes = "vec", optional, tag = "9")]
    pub raw_data: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<Entry>,
    #[prost(int32, tag = "14")]
    pub data_location: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ValueInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Type {
    #[prost(oneof = "Kind", tags = "1, 4, 5")]
    pub kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    #[prost(message, tag = "1")]
    Tensor(TensorType),
    #[prost(message, boxed, tag = "4")]
    Sequence(Box<Wrapped>),
    #[prost(message, boxed, tag = "5")]
    Map(Box<MapType>),
}

#[derive(Clone, PartialEq, Message)]
pub struct Wrapped {
    #[prost(message, optional, tag = "1")]
    pub element: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
pub struct MapType {
    #[prost(int32, tag = "1")]
    pub key: i32,
    #[prost(message, optional, tag = "2")]
    pub value: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorType {
    #[prost(int32, tag = "1")]
    pub element: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Dimension {
    #[prost(oneof = "Size", tags = "1, 2")]
    pub size: Option<Size>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Size {
    #[prost(int64, tag = "1")]
    Value(i64),
    #[prost(string, tag = "2")]
    Symbol(String),
}

/// A tensor type. Negative dimensions are symbols: -1 is the batch, others get a name each.
pub fn tensor(element: i32, shape: &[i64]) -> Type {
    let size = |&size: &i64| if size < 0 { Size::Symbol(format!("d{}", -size)) } else { Size::Value(size) };
    let dim = shape.iter().map(|dimension| Dimension { size: Some(size(dimension)) }).collect();
    Type { kind: Some(Kind::Tensor(TensorType { element, shape: Some(Shape { dim }) })) }
}

pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> Tensor {
    let raw_data = Some(values.iter().flat_map(|value| value.to_le_bytes()).collect());
    Tensor { dims: dims.to_vec(), data_type: FLOAT, name: name.to_owned(), raw_data, ..Tensor::default() }
}

pub fn int64s(name: &str, dims: &[i64], values: &[i64]) -> Tensor {
    let (dims, int64_data) = (dims.to_vec(), values.to_vec());
    Tensor { dims, data_type: INT64, name: name.to_owned(), int64_data, ..Tensor::default() }
}

pub fn raw(name: &str, data_type: i32, dims: &[i64], bytes: &[u8]) -> Tensor {
    let raw_data = Some(bytes.to_vec());
    Tensor { dims: dims.to_vec(), data_type, name: name.to_owned(), raw_data, ..Tensor::default() }
}

pub fn strings(name: &str, dims: &[i64], values: &[&str]) -> Tensor {
    let string_data = values.iter().map(|value| value.as_bytes().to_vec()).collect();
    Tensor { dims: dims.to_vec(), data_type: STRING, name: name.to_owned(), string_data, ..Tensor::default() }
}

pub fn texts(name: &str, values: &[&str]) -> Attribute {
    let strings = values.iter().map(|value| value.as_bytes().to_vec()).collect();
    Attribute { name: name.to_owned(), strings, r#type: 8, ..Attribute::default() }
}

pub fn text(name: &str, value: &str) -> Attribute {
    Attribute { name: name.to_owned(), s: Some(value.as_bytes().to_vec()), r#type: 3, ..Attribute::default() }
}

pub fn int(name: &str, value: i64) -> Attribute {
    Attribute { name: name.to_owned(), i: Some(value), r#type: 2, ..Attribute::default() }
}

pub fn float(name: &str, value: f32) -> Attribute {
    Attribute { name: name.to_owned(), f: Some(value), r#type: 1, ..Attribute::default() }
}

pub fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute { name: name.to_owned(), ints: values.to_vec(), r#type: 7, ..Attribute::default() }
}

pub fn graph(name: &str, value: Graph) -> Attribute {
    Attribute { name: name.to_owned(), g: Some(value), r#type: 5, ..Attribute::default() }
}

pub fn value(name: &str, value: Tensor) -> Attribute {
    Attribute { name: name.to_owned(), t: Some(value), r#type: 4, ..Attribute::default() }
}

/// A model under construction.
#[derive(Clone, Default)]
pub struct Builder {
    pub graph: Graph,
    pub functions: Vec<Function>,
    pub domains: Vec<Opset>,
}

impl Builder {
    pub fn new() -> Self {
        Self { graph: Graph { name: "graph".to_owned(), ..Graph::default() }, ..Self::default() }
    }

    pub fn input(mut self, name: &str, element: i32, shape: &[i64]) -> Self {
        self.graph.input.push(ValueInfo { name: name.to_owned(), r#type: Some(tensor(element, shape)) });
        self
    }

    pub fn output(mut self, name: &str, element: i32, shape: &[i64]) -> Self {
        self.graph.output.push(ValueInfo { name: name.to_owned(), r#type: Some(tensor(element, shape)) });
        self
    }

    pub fn output_of(mut self, name: &str, r#type: Option<Type>) -> Self {
        self.graph.output.push(ValueInfo { name: name.to_owned(), r#type });
        self
    }

    pub fn initial(mut self, tensor: Tensor) -> Self {
        self.graph.initializer.push(tensor);
        self
    }

    pub fn node(self, op_type: &str, inputs: &[&str], outputs: &[&str], attributes: &[Attribute]) -> Self {
        self.node_of("", op_type, inputs, outputs, attributes)
    }

    pub fn node_of(
        mut self,
        domain: &str,
        op_type: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[Attribute],
    ) -> Self {
        let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        self.graph.node.push(Node {
            input: texts(inputs),
            output: texts(outputs),
            name: format!("{}_{}", op_type.to_lowercase(), self.graph.node.len()),
            op_type: op_type.to_owned(),
            attribute: attributes.to_vec(),
            domain: domain.to_owned(),
            ..Node::default()
        });
        self
    }

    pub fn domain(mut self, domain: &str, version: i64) -> Self {
        self.domains.push(Opset { domain: domain.to_owned(), version });
        self
    }

    pub fn model(self) -> Model {
        let mut opset_import = self.domains;
        if !opset_import.iter().any(|opset| opset.domain.is_empty()) {
            opset_import.insert(0, Opset { domain: String::new(), version: 17 });
        }
        Model {
            ir_version: if opset_import[0].version > 17 { 10 } else { 8 },
            producer_name: "mlserve tests".to_owned(),
            graph: Some(self.graph),
            opset_import,
            functions: self.functions,
        }
    }

    /// Writes the model to `directory/name.onnx`.
    pub fn write(self, directory: &Path, name: &str) -> PathBuf {
        let path = directory.join(format!("{name}.onnx"));
        std::fs::write(&path, self.model().encode_to_vec()).expect("a temporary file can be written");
        path
    }
}
