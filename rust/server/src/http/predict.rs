//! `POST /predict/{model}`: features in, a prediction for each row and how sure the model is of it.

use mlserve_core::error::{Error, Result};
use mlserve_core::request::Request;
use mlserve_core::tensor::DataType;

use super::draft::Draft;
use super::json::Cursor;
use super::nested::Elements;
use super::plain::{Asked, Form, Writing};
use super::rows::{self, Rows};
use super::v1::push_all;
use super::values::{Reader, members};
use super::write::{push_integer, push_string};

const FEATURES: &str = "features";

/// How far probabilities may miss a sum of 1: what a thousand roundings to FP32, or a few to FP16, add up to.
const SUM_TOLERANCE: f64 = 1e-3;

/// Reads a request: `{"features": …}`, one row or several.
///
/// **Errors:** none there; what the values are refused for.
pub(super) fn read(mut cursor: Cursor<'_>, reader: &mut Reader<'_>) -> Result<Asked> {
    let [features] = members(&mut cursor, [FEATURES])?;
    let mut features = features.ok_or_else(no_features)?;
    let table = rows::rows(&mut features, reader, FEATURES)?;
    Ok(Asked { request: Request { inputs: table.inputs, ..Request::default() }, form: Form::Prediction(table.rows) })
}

/// Writes an answer. What is a list of rows in the request is a list in the answer.
///
/// **Errors:** an output without a row for each that was sent; what JSON cannot carry; too large.
pub(super) fn write(draft: &Draft<'_>, rows: Rows, writing: Writing) -> Result<Vec<u8>> {
    let outputs: Vec<Elements<'_>> = draft.outputs.iter().map(Elements::new).collect::<Result<_>>()?;
    let found = Found::of(outputs, rows)?;
    let limit = writing.limit;
    let mut json = b"{\"prediction\":".to_vec();
    found.push_each(&mut json, |json, row| found.push_prediction(json, row, limit))?;
    json.extend_from_slice(b",\"confidence\":");
    match &found.probabilities {
        Some(output) => {
            found.push_each(&mut json, |json, row| output.push_element(json, highest(output, row).0))?;
            json.extend_from_slice(b",\"probabilities\":");
            found.push_each(&mut json, |json, row| output.push_row(json, row, limit))?;
        }
        None => json.extend_from_slice(b"null"),
    }
    json.extend_from_slice(b",\"model_name\":");
    push_string(&mut json, &draft.model);
    json.extend_from_slice(b",\"model_version\":\"");
    push_integer(&mut json, draft.version);
    json.extend_from_slice(b"\",\"processing_time\":");
    json.extend_from_slice(zmij::Buffer::new().format_finite(writing.elapsed.as_secs_f64()).as_bytes());
    json.push(b'}');
    Ok(json)
}

/// What of an answer is the prediction, and what says how sure it is.
struct Found<'a> {
    rows: Rows,
    /// Whether outputs are the row, instead of having one: a model without rows.
    are_whole: bool,
    probabilities: Option<Elements<'a>>,
    /// The output that holds one label for each row beside probabilities; without those, all outputs.
    values: Vec<Elements<'a>>,
}

impl<'a> Found<'a> {
    fn of(mut outputs: Vec<Elements<'a>>, rows: Rows) -> Result<Self> {
        let count = rows.count();
        let has_rows = |output: &Elements<'_>| output.shape().first() == Some(&(count as i64));
        let are_whole = !outputs.iter().all(has_rows);
        if are_whole && count > 1 {
            return Err(Error::invalid(format!(
                "an output has no row for each of the {count} rows of '{FEATURES}'; ask /v2/models/…/infer instead"
            )));
        }
        let place = if are_whole { None } else { outputs.iter().position(|output| are_probabilities(output, count)) };
        let probabilities = place.map(|place| outputs.remove(place));
        if probabilities.is_some() {
            let label = outputs.iter().position(|output| output.row_len() == 1);
            outputs = label.map(|label| outputs.swap_remove(label)).into_iter().collect();
        }
        Ok(Self { rows, are_whole, probabilities, values: outputs })
    }

    /// Writes something for each row: bare if one row was sent bare.
    fn push_each(&self, json: &mut Vec<u8>, push: impl Fn(&mut Vec<u8>, usize) -> Result<()>) -> Result<()> {
        if self.rows == Rows::Bare {
            return push(json, 0);
        }
        json.push(b'[');
        for row in 0..self.rows.count() {
            if row > 0 {
                json.push(b',');
            }
            push(json, row)?;
        }
        json.push(b']');
        Ok(())
    }

    fn push_prediction(&self, json: &mut Vec<u8>, row: usize, limit: usize) -> Result<()> {
        if let (Some(output), []) = (&self.probabilities, self.values.as_slice()) {
            push_integer(json, highest(output, row).1);
            return Ok(());
        }
        push_all(json, &self.values, |json, output| {
            if self.are_whole {
                output.push_whole(json, limit)
            } else if output.row_len() == 1 {
                // A label in a list of its own is still one label.
                output.push_element(json, row)
            } else {
                output.push_row(json, row, limit)
            }
        })
    }
}

/// Whether every row is a distribution over two classes or more: none negative, and a sum of 1.
fn are_probabilities(output: &Elements<'_>, rows: usize) -> bool {
    let &[_, classes] = output.shape() else { return false };
    let is_float = matches!(output.datatype(), DataType::Fp32 | DataType::Fp64);
    let classes = usize::try_from(classes).unwrap_or_default();
    is_float
        && classes >= 2
        && (0..rows).all(|row| {
            let mut sum = 0.0;
            let values = (row * classes..(row + 1) * classes).map(|index| output.float(index).unwrap_or(f64::NAN));
            let are_positive = values.inspect(|value| sum += value).all(|value| value >= 0.0);
            are_positive && (sum - 1.0).abs() <= SUM_TOLERANCE
        })
}

/// The highest value of a row: its element, and its place in the row; the first of equal ones.
fn highest(output: &Elements<'_>, row: usize) -> (usize, usize) {
    let classes = output.row_len();
    let value = |class: usize| output.float(row * classes + class).unwrap_or(f64::NAN);
    let best = (1..classes).fold(0, |best, class| if value(class) > value(best) { class } else { best });
    (row * classes + best, best)
}

#[cold]
fn no_features() -> Error {
    Error::invalid(format!(
        "'{FEATURES}' is not there; send {{\"{FEATURES}\": […]}}: one row, a list of rows, or values by input name"
    ))
}

#[cfg(test)]
mod tests;
