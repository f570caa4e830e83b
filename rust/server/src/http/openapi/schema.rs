//! JSON Schemas of values, tensors and answers.

use mlserve_core::model::TensorSpec;
use mlserve_core::tensor::DataType;
use serde_json::{Map, Value, json};

/// The body of every error.
pub(super) fn error() -> Value {
    object(&[("error", json!({ "type": "string", "description": "what was wrong, the value, and what is allowed" }))])
}

/// An object that has all of `members`.
pub(super) fn object(members: &[(&str, Value)]) -> Value {
    let required: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Value> =
        members.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

/// One element.
pub(super) fn element(datatype: DataType) -> Value {
    let integer = |minimum: i64, maximum: u64| json!({ "type": "integer", "minimum": minimum, "maximum": maximum });
    match datatype {
        DataType::Bool => json!({ "type": "boolean" }),
        DataType::Uint8 => integer(0, u8::MAX.into()),
        DataType::Uint16 => integer(0, u16::MAX.into()),
        DataType::Uint32 => integer(0, u32::MAX.into()),
        DataType::Uint64 => integer(0, u64::MAX),
        DataType::Int8 => integer(i8::MIN.into(), i8::MAX as u64),
        DataType::Int16 => integer(i16::MIN.into(), i16::MAX as u64),
        DataType::Int32 => integer(i32::MIN.into(), i32::MAX as u64),
        DataType::Int64 => integer(i64::MIN, i64::MAX as u64),
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => json!({ "type": "number" }),
        DataType::Bytes => json!({ "type": ["string", "object"], "description": "text, or {\"b64\": base64}" }),
    }
}

/// Lists nested by `dimensions`; open ones may be of any length.
pub(super) fn nested(dimensions: &[i64], datatype: DataType) -> Value {
    let Some((&length, inner)) = dimensions.split_first() else { return element(datatype) };
    let mut list = json!({ "type": "array", "items": nested(inner, datatype) });
    if length >= 0 {
        list["minItems"] = length.into();
        list["maxItems"] = length.into();
    }
    list
}

/// A tensor as the Open Inference Protocol writes it.
pub(super) fn tensor(tensor: &TensorSpec) -> Value {
    let dimension = |&dimension: &i64| {
        if dimension < 0 { json!({ "type": "integer", "minimum": 0 }) } else { json!({ "const": dimension }) }
    };
    let rank = tensor.shape.len();
    let mut shape = json!({ "type": "array", "minItems": rank, "maxItems": rank });
    if rank > 0 {
        shape["prefixItems"] = tensor.shape.iter().map(dimension).collect();
    }
    let mut schema = object(&[
        ("name", json!({ "const": tensor.name })),
        ("datatype", json!({ "const": tensor.datatype.name() })),
        ("shape", shape),
    ]);
    schema["properties"]["data"] = json!({
        "type": "array",
        "items": { "anyOf": [element(tensor.datatype), { "type": "array" }] },
        "description": "row-major, flat or nested like the shape; left out where the tensor is binary data",
    });
    schema["properties"]["parameters"] = json!({ "type": "object" });
    schema
}

/// A list with one of each of `tensors` at most.
pub(super) fn tensors(tensors: &[TensorSpec]) -> Value {
    let mut list = json!({ "type": "array", "maxItems": tensors.len() });
    if !tensors.is_empty() {
        list["items"] = json!({ "oneOf": tensors.iter().map(tensor).collect::<Vec<_>>() });
    }
    list
}

/// Something of each tensor: bare if there is one, else by name.
pub(super) fn of_all(tensors: &[TensorSpec], schema: impl Fn(&TensorSpec) -> Value) -> Value {
    if let [only] = tensors {
        return schema(only);
    }
    by_name(tensors, schema)
}

/// Something of each tensor, by name.
pub(super) fn by_name(tensors: &[TensorSpec], schema: impl Fn(&TensorSpec) -> Value) -> Value {
    let members: Vec<(&str, Value)> = tensors.iter().map(|tensor| (tensor.name.as_str(), schema(tensor))).collect();
    object(&members)
}
