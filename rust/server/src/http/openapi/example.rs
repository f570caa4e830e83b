//! Bodies that work when they are sent as they are, for models that take ordinary values.

use mlserve_core::model::{ModelSpec, TensorSpec};
use mlserve_core::tensor::DataType;
use serde_json::{Map, Value, json};

/// The size of open dimensions: the first that is tried when a model is loaded, so nearly every model takes it.
const OPEN_SIZE: i64 = 4;

/// Elements of an example at most: more would make the document large and help nobody.
const MAX_ELEMENTS: i64 = 4_096;

/// Whether JSON can carry a model's tensors, and an example of its inputs is short enough.
pub(super) fn is_short(spec: &ModelSpec) -> bool {
    let count =
        |tensor: &TensorSpec| sizes(spec, tensor).iter().try_fold(1_i64, |count, &size| count.checked_mul(size));
    let total = spec.inputs.iter().try_fold(0_i64, |total, tensor| total.checked_add(count(tensor)?));
    total.is_some_and(|total| total <= MAX_ELEMENTS)
}

/// An inference request of one row.
pub(super) fn infer(spec: &ModelSpec) -> Value {
    let input = |tensor: &TensorSpec| {
        let shape = sizes(spec, tensor);
        let count = shape.iter().product::<i64>();
        let data: Vec<Value> = (0..count).map(|_| value(tensor.datatype)).collect();
        json!({ "name": tensor.name, "datatype": tensor.datatype.name(), "shape": shape, "data": data })
    };
    json!({ "inputs": spec.inputs.iter().map(input).collect::<Vec<_>>() })
}

/// One row, as a value or an object by input name.
pub(super) fn row(spec: &ModelSpec) -> Value {
    let first = usize::from(spec.batching.has_rows());
    let row = |tensor: &TensorSpec| nested(sizes(spec, tensor).get(first..).unwrap_or_default(), tensor.datatype);
    let object = |tensor: &TensorSpec| (tensor.name.clone(), row(tensor));
    match spec.inputs.as_slice() {
        [only] => row(only),
        several => Value::Object(several.iter().map(object).collect()),
    }
}

/// The members of a generate request: one element bare, several as a flat list.
pub(super) fn generate(spec: &ModelSpec) -> Value {
    let flat = |tensor: &TensorSpec| {
        let open = tensor.shape.iter().skip(usize::from(spec.batching.has_rows())).any(|&dimension| dimension < 0);
        let fixed: i64 = tensor.shape.iter().filter(|&&dimension| dimension >= 0).product();
        let count = if open { fixed * OPEN_SIZE } else { fixed };
        if count == 1 { value(tensor.datatype) } else { nested(&[count], tensor.datatype) }
    };
    let members: Map<String, Value> = spec.inputs.iter().map(|tensor| (tensor.name.clone(), flat(tensor))).collect();
    Value::Object(members)
}

/// The dimensions of an example of `tensor`.
fn sizes(spec: &ModelSpec, tensor: &TensorSpec) -> Vec<i64> {
    let has_rows = spec.batching.has_rows();
    let size = |(axis, &dimension): (usize, &i64)| match dimension {
        open if open < 0 && axis == 0 && has_rows => 1,
        open if open < 0 => OPEN_SIZE,
        fixed => fixed,
    };
    tensor.shape.iter().enumerate().map(size).collect()
}

fn nested(dimensions: &[i64], datatype: DataType) -> Value {
    let Some((&length, inner)) = dimensions.split_first() else { return value(datatype) };
    (0..length).map(|_| nested(inner, datatype)).collect()
}

/// A value that most models take: identifiers reach to 1, masks mean "there" by it, and it reads as a number.
fn value(datatype: DataType) -> Value {
    match datatype {
        DataType::Bool => true.into(),
        DataType::Bytes => "1".into(),
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => 0.5.into(),
        _ => 1.into(),
    }
}
