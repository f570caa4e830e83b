//! What a graph takes and gives, in the protocol's terms, and what the protocol cannot carry, with the way out.

use std::collections::HashSet;

use mlserve_core::model::TensorSpec;
use mlserve_core::tensor::{DataType, Shape};

use super::proto::{Graph, Kind, Size, TensorType, Type, ValueInfo};
use crate::error::LoadError;
use crate::value::datatype_of;

/// Names of `TensorProto.DataType` numbers that no protocol type stands for.
const UNSUPPORTED: [(i32, &str); 13] = [
    (14, "COMPLEX64"),
    (15, "COMPLEX128"),
    (17, "FLOAT8E4M3FN"),
    (18, "FLOAT8E4M3FNUZ"),
    (19, "FLOAT8E5M2"),
    (20, "FLOAT8E5M2FNUZ"),
    (21, "UINT4"),
    (22, "INT4"),
    (23, "FLOAT4E2M1"),
    (24, "FLOAT8E8M0"),
    (25, "UINT2"),
    (26, "INT2"),
    (0, "UNDEFINED"),
];

/// One input or output of a graph.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) spec: TensorSpec,
    /// The symbol of each dimension; empty for a number, and where the graph gives none.
    pub(crate) symbols: Vec<String>,
    /// Whether type and rank are known. Only an output's may not be; a run tells them.
    pub(crate) is_known: bool,
}

impl Port {
    /// Whether the first dimension may have any size.
    pub(crate) fn has_free_first(&self) -> bool {
        self.spec.shape.first() == Some(&-1)
    }
}

/// The graph's inputs: what is not an initialiser too.
pub(crate) fn inputs(graph: &Graph) -> Result<Vec<Port>, LoadError> {
    let initial: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let is_input = |info: &&ValueInfo| !initial.contains(info.name.as_str());
    let ports = graph.input.iter().filter(is_input).map(|info| {
        let port = port(info, "input")?;
        if port.is_known {
            return Ok(port);
        }
        let name = &info.name;
        let hint = "its type and rank are not known; export with a shape (symbolic dimensions will do)";
        Err(LoadError::unsupported(format!("input '{name}' cannot be served: {hint}")))
    });
    ports.collect()
}

/// The graph's outputs.
pub(crate) fn outputs(graph: &Graph) -> Result<Vec<Port>, LoadError> {
    if graph.output.is_empty() {
        return Err(LoadError::unsupported("the graph has no output"));
    }
    graph.output.iter().map(|info| port(info, "output")).collect()
}

fn port(info: &ValueInfo, role: &str) -> Result<Port, LoadError> {
    let refuse = |what: &str| LoadError::unsupported(format!("{role} '{}' {what}", info.name));
    let kind = info.r#type.as_ref().and_then(|r#type| r#type.kind.as_ref());
    match kind {
        None => Ok(unknown(info)),
        Some(Kind::Tensor(tensor)) => tensor_port(info, tensor, role),
        Some(Kind::Sequence(sequence)) => Err(refuse(sequence_text(sequence.element.as_deref()))),
        Some(Kind::Map(_)) => Err(refuse(
            "is a map, which the protocol cannot carry; a scikit-learn classifier exported with options={'zipmap': \
             False} gives a tensor",
        )),
        Some(Kind::Optional(_)) => {
            Err(refuse("is an optional, which the protocol cannot carry; export it as a tensor"))
        }
        Some(Kind::Sparse(_)) => Err(refuse("is a sparse tensor, which the protocol cannot carry; export it as dense")),
        Some(Kind::Opaque(_)) => Err(refuse("is of an opaque type, which the protocol cannot carry")),
    }
}

fn sequence_text(element: Option<&Type>) -> &'static str {
    match element.and_then(|element| element.kind.as_ref()) {
        Some(Kind::Map(_)) => {
            "is a sequence of maps, which the protocol cannot carry; export with options={'zipmap': False}"
        }
        _ => "is a sequence, which the protocol cannot carry; let the model join it into a tensor (ConcatFromSequence)",
    }
}

fn tensor_port(info: &ValueInfo, tensor: &TensorType, role: &str) -> Result<Port, LoadError> {
    let Some(datatype) = datatype_of(tensor.element) else {
        if role == "output" && tensor.element == 0 {
            return Ok(unknown(info));
        }
        let name = UNSUPPORTED.iter().find(|(number, _)| *number == tensor.element).map_or("unknown", |(_, name)| name);
        let hint = "which the protocol cannot carry; let the model cast it";
        return Err(LoadError::unsupported(format!("{role} '{}' is of type {name}, {hint}", info.name)));
    };
    let Some(shape) = &tensor.shape else { return Ok(unknown(info)) };
    let size = |size: &Option<Size>| match size {
        Some(Size::Value(value)) => (*value).max(-1),
        Some(Size::Symbol(_)) | None => -1,
    };
    let symbol = |size: &Option<Size>| match size {
        Some(Size::Symbol(symbol)) => symbol.clone(),
        Some(Size::Value(_)) | None => String::new(),
    };
    let symbols = shape.dim.iter().map(|dimension| symbol(&dimension.size)).collect();
    let shape = shape.dim.iter().map(|dimension| size(&dimension.size)).collect();
    Ok(Port { spec: TensorSpec { name: info.name.clone(), datatype, shape, labels: None }, symbols, is_known: true })
}

/// A port whose type and rank a run has to tell.
fn unknown(info: &ValueInfo) -> Port {
    let spec = TensorSpec { name: info.name.clone(), datatype: DataType::Fp32, shape: Shape::new(), labels: None };
    Port { spec, symbols: Vec::new(), is_known: false }
}
