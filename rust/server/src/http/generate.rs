//! Triton's generate extension: inputs and parameters as the members of one object, outputs likewise.
//!
//! Source: `ConvertGenerateRequest` and `ExactMappingInput` of Triton's `http_server.cc`. We differ in that lists may be
//! nested as the input is, and an input may be called `id` or `parameters`.

use mlserve_core::error::{Error, Result, quoted};
use mlserve_core::model::TensorSpec;
use mlserve_core::request::{Request, Text};
use mlserve_core::tensor::Shape;

use super::draft::Draft;
use super::json::{Cursor, Token};
use super::nest::Nest;
use super::nested::Elements;
use super::parameters;
use super::plain::{Asked, Form};
use super::rows::input;
use super::values::{Reader, input_names, once};
use super::write::{push_integer, push_string, too_large};

/// Reads a request: `id`, `parameters`, and members that are inputs by name; others that are scalars are parameters.
///
/// **Errors:** a list or an object that is no input; values that make no tensor of the input's shape.
pub(super) fn read(mut cursor: Cursor<'_>, reader: &mut Reader<'_>, form: Form) -> Result<Asked> {
    let mut request = Request::default();
    let (mut has_id, mut has_parameters) = (false, false);
    if cursor.token()? != Token::Object {
        cursor.skip()?;
        return Err(cursor.broken("the request must be an object"));
    }
    let spec = reader.spec;
    let is_input = |key: &str| spec.input(key).is_some();
    cursor.object(|cursor, key| match &*key {
        _ if cursor.null()? => Ok(()),
        "id" if !is_input("id") => {
            once(!has_id, &key)?;
            has_id = true;
            request.id = id(cursor)?;
            Ok(())
        }
        "parameters" if !is_input("parameters") => {
            once(!has_parameters, &key)?;
            has_parameters = true;
            let token = cursor.token()?;
            if token != Token::Object {
                return Err(Error::invalid(format!("'parameters' is {}; an object is expected", token.name())));
            }
            cursor.object(|cursor, key| member(cursor, &key, reader, &mut request))
        }
        _ => member(cursor, &key, reader, &mut request),
    })?;
    cursor.end()?;
    Ok(Asked { request, form })
}

fn id(cursor: &mut Cursor<'_>) -> Result<Text> {
    match cursor.token()? {
        Token::Text => Ok(Text::from(cursor.string()?.into_owned())),
        token => Err(Error::invalid(format!("'id' is {}; a string is expected", token.name()))),
    }
}

/// Reads an input or a parameter.
fn member(cursor: &mut Cursor<'_>, key: &str, reader: &mut Reader<'_>, request: &mut Request) -> Result<()> {
    if cursor.null()? {
        return Ok(());
    }
    if let Some((_, tensor)) = reader.spec.input(key) {
        once(request.inputs.iter().all(|input| *input.name != *key), key)?;
        let value = reader.value(cursor, tensor)?;
        request.inputs.push(input(tensor, spread(&value.nest, tensor)?, value.wire));
        return Ok(());
    }
    let start = cursor.clone();
    let token = cursor.token()?;
    // A value that is too deep is refused as such, not for its kind.
    cursor.skip()?;
    if matches!(token, Token::Object | Token::Array | Token::Null) {
        return Err(Error::invalid(format!(
            "'{}' is {} and no input of model '{}'; its inputs are {}, and parameters are strings, numbers or booleans",
            quoted(key),
            token.name(),
            reader.spec.name,
            input_names(reader.spec)
        )));
    }
    // One reader says what parameters mean; it takes them as an object.
    let mut object = b"{".to_vec();
    push_string(&mut object, key);
    object.push(b':');
    object.extend_from_slice(start.text_until(cursor).as_bytes());
    object.push(b'}');
    let object = String::from_utf8(object).map_err(|_| Error::internal("a parameter is no text"))?;
    parameters::read_request(&mut Cursor::new(&object, 1), request).map(drop)
}

/// The shape of `tensor` that takes the elements of `nest`: as nested if the rank agrees, else the innermost open
/// dimension takes what the fixed ones leave, and other open ones are 1.
fn spread(nest: &Nest, tensor: &TensorSpec) -> Result<Shape> {
    if nest.lengths().len() == tensor.shape.len() {
        return Ok(nest.lengths().into());
    }
    let misfit = || nest.misfit(&tensor.name, &tensor.shape, "the input");
    let count = match nest.lengths() {
        [] => 1,
        &[count] => count,
        _ => return Err(misfit()),
    };
    let mut fixed = tensor.shape.iter().filter(|&&dimension| dimension >= 0);
    let fixed = fixed.try_fold(1_i64, |product, &dimension| product.checked_mul(dimension)).ok_or_else(misfit)?;
    let is_divided = if fixed == 0 { count == 0 } else { count % fixed == 0 };
    let mut rest = if fixed == 0 { 1 } else { count / fixed };
    let mut shape = tensor.shape.clone();
    for dimension in shape.iter_mut().rev().filter(|dimension| **dimension < 0) {
        *dimension = std::mem::replace(&mut rest, 1);
    }
    if is_divided && rest == 1 { Ok(shape) } else { Err(misfit()) }
}

/// Writes the outputs beside the model's name and version: one element bare, several as a flat list.
///
/// **Errors:** what JSON cannot carry; too large.
pub(super) fn write(draft: &Draft<'_>, limit: usize) -> Result<Vec<u8>> {
    let mut json = b"{".to_vec();
    if !draft.id.is_empty() {
        json.extend_from_slice(b"\"id\":");
        push_string(&mut json, &draft.id);
        json.push(b',');
    }
    json.extend_from_slice(b"\"model_name\":");
    push_string(&mut json, &draft.model);
    json.extend_from_slice(b",\"model_version\":\"");
    push_integer(&mut json, draft.version);
    json.push(b'"');
    for output in &draft.outputs {
        let elements = Elements::new(output)?;
        json.push(b',');
        push_string(&mut json, elements.name());
        json.push(b':');
        if elements.len() == 1 {
            elements.push_element(&mut json, 0)?;
        } else {
            push_flat(&mut json, &elements, limit)?;
        }
    }
    json.push(b'}');
    Ok(json)
}

fn push_flat(json: &mut Vec<u8>, elements: &Elements<'_>, limit: usize) -> Result<()> {
    json.push(b'[');
    for index in 0..elements.len() {
        if index > 0 {
            json.push(b',');
        }
        elements.push_element(json, index)?;
        if json.len() > limit {
            return Err(too_large(limit));
        }
    }
    json.push(b']');
    Ok(())
}

#[cfg(test)]
mod tests;
