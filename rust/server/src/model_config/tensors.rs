//! Holds the inputs and outputs that a configuration lists against those of the graph.

use std::collections::HashSet;

use mlserve_core::error::quoted;
use mlserve_core::model::TensorSpec;
use mlserve_core::tensor::{DataType, Shape, ShapeText};

use crate::proto;

/// One input or output as a configuration lists it.
struct Listed<'a> {
    name: &'a str,
    datatype: proto::DataType,
    dims: &'a [i64],
}

/// Whether dimensions are listed without the one that counts rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    /// They are.
    Counted,
    /// They are whole.
    Whole,
    /// Their number tells: the batch size is left to the graph, too.
    Either,
}

impl Rows {
    fn of(config: &proto::ModelConfig) -> Self {
        match (config.max_batch_size > 0, lists_all(config)) {
            (true, _) => Rows::Counted,
            (false, true) => Rows::Whole,
            (false, false) => Rows::Either,
        }
    }

    /// Dimensions of the graph's shape that are not listed.
    fn unlisted(self, dims: &[i64], shape: &[i64]) -> usize {
        usize::from(match self {
            Rows::Counted => !shape.is_empty(),
            Rows::Whole => false,
            Rows::Either => dims.len() + 1 == shape.len() && shape[0] == -1,
        })
    }
}

/// Whether both inputs and outputs are listed. Triton completes a configuration otherwise, its batch size too.
pub(super) fn lists_all(config: &proto::ModelConfig) -> bool {
    !config.input.is_empty() && !config.output.is_empty()
}

/// Checks names, types and dimensions.
///
/// **Errors:** the first tensor that does not fit, with what the graph has.
pub(super) fn check(config: &proto::ModelConfig, inputs: &[TensorSpec], outputs: &[TensorSpec]) -> Result<(), String> {
    let takes = listed_inputs(config);
    let rows = Rows::of(config);
    if rows == Rows::Counted {
        check_first_dimensions(inputs, outputs)?;
    }
    check_all("input", &takes, inputs, rows)?;
    if !takes.is_empty() && takes.len() < inputs.len() {
        let missing = inputs.iter().filter(|spec| takes.iter().all(|listed| listed.name != spec.name));
        let missing: Vec<&str> = missing.map(|spec| spec.name.as_str()).collect();
        return Err(format!("input: the graph has these inputs too: {}; list all or none", missing.join(", ")));
    }
    check_all("output", &listed_outputs(config), outputs, rows)
}

/// `inputs` with the dimensions that the configuration narrows. It must have passed [`check`].
pub(super) fn narrowed(config: &proto::ModelConfig, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
    let takes = listed_inputs(config);
    let narrow = |spec: &TensorSpec| {
        let Some(listed) = takes.iter().find(|listed| listed.name == spec.name) else { return spec.clone() };
        let from = spec.shape.len().saturating_sub(listed.dims.len());
        let mut shape: Shape = spec.shape.clone();
        // Without dimensions there is nothing to narrow: they come from the graph.
        for (dimension, &wanted) in shape.iter_mut().skip(from).zip(listed.dims) {
            *dimension = (*dimension).max(wanted);
        }
        TensorSpec { shape, ..spec.clone() }
    };
    inputs.iter().map(narrow).collect()
}

fn listed_inputs(config: &proto::ModelConfig) -> Vec<Listed<'_>> {
    let inputs = config.input.iter();
    inputs.map(|input| Listed { name: &input.name, datatype: input.data_type(), dims: &input.dims }).collect()
}

fn listed_outputs(config: &proto::ModelConfig) -> Vec<Listed<'_>> {
    let outputs = config.output.iter();
    outputs.map(|output| Listed { name: &output.name, datatype: output.data_type(), dims: &output.dims }).collect()
}

/// `max_batch_size` adds a batch dimension, which every tensor of the graph must have.
fn check_first_dimensions(inputs: &[TensorSpec], outputs: &[TensorSpec]) -> Result<(), String> {
    let tagged = inputs.iter().map(|spec| ("input", spec)).chain(outputs.iter().map(|spec| ("output", spec)));
    for (role, spec) in tagged {
        if spec.shape.first() != Some(&-1) {
            return Err(format!(
                "max_batch_size: {role} '{}' has the shape {} in the graph, whose first dimension does not count rows; \
                 allowed here: max_batch_size 0",
                spec.name,
                ShapeText(&spec.shape)
            ));
        }
    }
    Ok(())
}

fn check_all(role: &str, listed: &[Listed<'_>], specs: &[TensorSpec], rows: Rows) -> Result<(), String> {
    let mut seen = HashSet::new();
    for each in listed {
        let Some(spec) = specs.iter().find(|spec| spec.name == each.name) else {
            let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
            return Err(format!("{role}: the graph has no '{}'; allowed: {}", quoted(each.name), names.join(", ")));
        };
        if !seen.insert(each.name) {
            return Err(format!("{role}: '{}' is listed twice", spec.name));
        }
        check_type(role, each, spec)?;
        check_dims(role, each, spec, rows)?;
    }
    Ok(())
}

fn check_type(role: &str, listed: &Listed<'_>, spec: &TensorSpec) -> Result<(), String> {
    let graph = type_of(spec.datatype);
    if [graph, proto::DataType::TypeInvalid].contains(&listed.datatype) {
        return Ok(());
    }
    let (name, said, graph) = (&spec.name, listed.datatype.as_str_name(), graph.as_str_name());
    Err(format!("{role} '{name}': data_type is {said}, in the graph it is {graph}"))
}

fn check_dims(role: &str, listed: &Listed<'_>, spec: &TensorSpec, rows: Rows) -> Result<(), String> {
    if let Some(&bad) = listed.dims.iter().find(|&&dimension| dimension < 1 && dimension != -1) {
        return Err(format!("{role} '{}': dims has {bad}; allowed: -1 and sizes from 1", spec.name));
    }
    // No dimensions at all: they come from the graph.
    if listed.dims.is_empty() || fits(role, listed.dims, &spec.shape[rows.unlisted(listed.dims, &spec.shape)..]) {
        return Ok(());
    }
    let without = if rows == Rows::Counted { " after the batch dimension that max_batch_size adds" } else { "" };
    Err(format!(
        "{role} '{}': dims are {}{without}, but in the graph its shape is {}",
        spec.name,
        ShapeText(listed.dims),
        ShapeText(&spec.shape)
    ))
}

/// An input may be narrower than the graph allows; an output is described, more or less exactly.
fn fits(role: &str, dims: &[i64], graph: &[i64]) -> bool {
    let agrees = |(&said, &has): (&i64, &i64)| said == has || has == -1 || (role == "output" && said == -1);
    dims.len() == graph.len() && dims.iter().zip(graph).all(agrees)
}

/// The configuration's word for a data type.
pub(super) fn type_of(datatype: DataType) -> proto::DataType {
    match datatype {
        DataType::Bool => proto::DataType::TypeBool,
        DataType::Uint8 => proto::DataType::TypeUint8,
        DataType::Uint16 => proto::DataType::TypeUint16,
        DataType::Uint32 => proto::DataType::TypeUint32,
        DataType::Uint64 => proto::DataType::TypeUint64,
        DataType::Int8 => proto::DataType::TypeInt8,
        DataType::Int16 => proto::DataType::TypeInt16,
        DataType::Int32 => proto::DataType::TypeInt32,
        DataType::Int64 => proto::DataType::TypeInt64,
        DataType::Fp16 => proto::DataType::TypeFp16,
        DataType::Bf16 => proto::DataType::TypeBf16,
        DataType::Fp32 => proto::DataType::TypeFp32,
        DataType::Fp64 => proto::DataType::TypeFp64,
        DataType::Bytes => proto::DataType::TypeString,
    }
}
