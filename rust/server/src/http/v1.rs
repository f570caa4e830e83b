//! `KServe`'s V1 protocol, which is that of TensorFlow Serving: rows as `instances`, or columns as `inputs`.
//!
//! `signature_name` is passed over: an ONNX model has one signature.

use http::StatusCode;
use mlserve_core::error::{Error, Kind, Result, quoted};
use mlserve_core::request::Request;

use super::HttpResponse;
use super::draft::Draft;
use super::json::Cursor;
use super::nested::Elements;
use super::plain::{Asked, Form};
use super::route::Target;
use super::rows::{self, Rows};
use super::status::json_response;
use super::values::{Reader, members};
use super::write::push_string;
use crate::process::Process;

const INSTANCES: &str = "instances";
const INPUTS: &str = "inputs";

/// Reads a request: `{"instances": …}` or `{"inputs": …}`.
///
/// **Errors:** both or neither; what the values are refused for.
pub(super) fn read(mut cursor: Cursor<'_>, reader: &mut Reader<'_>) -> Result<Asked> {
    let (inputs, form) = match members(&mut cursor, [INSTANCES, INPUTS])? {
        [Some(mut instances), None] => {
            let table = rows::list(&mut instances, reader, INSTANCES)?;
            (table.inputs, Form::Predictions(table.rows))
        }
        [None, Some(mut inputs)] => (rows::columns(&mut inputs, reader, INPUTS)?, Form::Columns),
        [Some(_), Some(_)] => return Err(not_one("both are")),
        [None, None] => return Err(not_one("none is")),
    };
    Ok(Asked { request: Request { inputs, ..Request::default() }, form })
}

/// Writes one prediction for each row: a value for a model with one output, else an object by output name.
///
/// **Errors:** an output that has not as many rows; what JSON cannot carry; too large.
pub(super) fn write_rows(draft: &Draft<'_>, rows: Rows, limit: usize) -> Result<Vec<u8>> {
    let count = rows.count();
    let outputs: Vec<Elements<'_>> = draft.outputs.iter().map(Elements::new).collect::<Result<_>>()?;
    let has_rows = |output: &&Elements<'_>| output.shape().first() == Some(&(count as i64));
    let other = outputs.iter().find(|output| !has_rows(output));
    if let Some(output) = other.filter(|_| count > 1) {
        return Err(Error::invalid(format!(
            "output '{}' has no row for each of {count} instances; send columns as '{INPUTS}'",
            quoted(output.name())
        )));
    }
    let are_whole = other.is_some() || rows == Rows::Whole;
    let mut json = format!("{{\"{}\":[", "predictions").into_bytes();
    for row in 0..count {
        if row > 0 {
            json.push(b',');
        }
        push_all(&mut json, &outputs, |json, output| {
            if are_whole { output.push_whole(json, limit) } else { output.push_row(json, row, limit) }
        })?;
    }
    json.extend_from_slice(b"]}");
    Ok(json)
}

/// Writes the outputs whole: a value for a model with one, else an object by output name.
///
/// **Errors:** what JSON cannot carry; too large.
pub(super) fn write_columns(draft: &Draft<'_>, limit: usize) -> Result<Vec<u8>> {
    let outputs: Vec<Elements<'_>> = draft.outputs.iter().map(Elements::new).collect::<Result<_>>()?;
    let mut json = b"{\"outputs\":".to_vec();
    push_all(&mut json, &outputs, |json, output| output.push_whole(json, limit))?;
    json.push(b'}');
    Ok(json)
}

/// Writes something of each output: bare if there is one, else by name.
pub(super) fn push_all(
    json: &mut Vec<u8>,
    outputs: &[Elements<'_>],
    mut push: impl FnMut(&mut Vec<u8>, &Elements<'_>) -> Result<()>,
) -> Result<()> {
    if let [only] = outputs {
        return push(json, only);
    }
    json.push(b'{');
    for (index, output) in outputs.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        push_string(json, output.name());
        json.push(b':');
        push(json, output)?;
    }
    json.push(b'}');
    Ok(())
}

/// The names of the models that are ready, in order.
pub(super) fn models(process: &Process) -> HttpResponse {
    let plan = process.plan.load();
    let is_ready = |name: &str| process.status.is_model_ready(&plan, name, None);
    let mut names: Vec<&str> = plan.endpoints().map(|(name, _)| name).filter(|name| is_ready(name)).collect();
    names.sort_unstable();
    json_response(StatusCode::OK, serde_json::json!({ "models": names }).to_string())
}

/// Whether one model is ready, as `KServe` tells it: 200, or an error that says why not.
///
/// **Errors:** not found; not ready.
pub(super) fn model(process: &Process, target: &Target) -> Result<HttpResponse> {
    let plan = process.plan.load();
    plan.look_up(&target.model, target.version)?;
    if !process.status.is_model_ready(&plan, &target.model, target.version) {
        return Err(Error::new(Kind::NotReady, format!("Model with name {} is not ready.", quoted(&target.model))));
    }
    let body = serde_json::json!({ "name": &*target.model, "ready": true });
    Ok(json_response(StatusCode::OK, body.to_string()))
}

#[cold]
fn not_one(which: &str) -> Error {
    Error::invalid(format!("one of '{INSTANCES}' (rows) and '{INPUTS}' (columns) is expected; {which} there"))
}

#[cfg(test)]
mod tests;
