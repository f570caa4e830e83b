//! Checks a decoded request against the model it is for. Hot path.
//!
//! What passes here can run: every input present once, of the model's type, with a shape the model takes and as many
//! bytes as type and shape say. Texts equal Triton's where its clients match on them.

use std::hash::Hasher;
use std::sync::Arc;

use rapidhash::fast::RapidHasher;
use smallvec::SmallVec;

use crate::backend::texts_out_of_budget;
use crate::budget::Reservation;
use crate::classify::{self, Classes};
use crate::error::{Error, Result, quoted};
use crate::failpoint;
use crate::model::{ModelSpec, TensorSpec};
use crate::request::{Input, Request, Text};
use crate::tensor::{DataType, Shape, ShapeText, TensorBytes, Texts, byte_count, element_count, text_object_bytes};

/// One input, checked, in the model's order.
#[derive(Debug)]
pub struct CheckedInput {
    /// Dimensions of this request.
    pub shape: Shape,
    /// As many bytes as type and shape say.
    pub data: TensorBytes,
}

/// A request's tensors, ready to be batched.
#[derive(Debug)]
pub struct Checked {
    /// In the model's order.
    pub inputs: SmallVec<[CheckedInput; 2]>,
    /// Indices of the wanted outputs, in the caller's order; empty: all.
    pub outputs: SmallVec<[u16; 4]>,
    /// Which of them are to be classified, if any.
    pub classes: Option<Arc<[Classes]>>,
    /// Rows it counts for: the first dimension, or 1 where the model has none that counts rows.
    pub rows: usize,
    /// Requests with equal keys may share a run.
    pub key: u64,
    /// Bytes of all inputs.
    pub bytes: usize,
    /// Bytes that a run takes beside them for inputs that are texts.
    pub text_bytes: usize,
}

impl Checked {
    /// Holds in `reservation` what a run takes for texts, and returns how much that is.
    ///
    /// **Errors:** out of budget.
    pub fn hold_texts(&self, reservation: Option<&mut Reservation>) -> Result<usize> {
        let Some(reservation) = reservation.filter(|_| self.text_bytes > 0) else { return Ok(0) };
        if reservation.grow(self.text_bytes) { Ok(self.text_bytes) } else { Err(texts_out_of_budget(self.text_bytes)) }
    }
}

/// Runs that rows without any bytes may fill: they compute next to nothing, but nothing that was sent pays for them.
pub(crate) const EMPTY_RUNS: usize = 16;

/// Limits that depend on no model.
#[derive(Clone, Copy, Debug)]
pub struct TensorLimits {
    /// Bytes of one BYTES element.
    pub max_string_bytes: usize,
    /// Rows of a request whose rows have no bytes: nothing that was sent pays for them.
    pub max_empty_rows: usize,
}

/// Checks `request` against `spec` and takes its tensors out of it.
///
/// **Errors:** invalid argument, naming the tensor, the value and what is allowed.
pub fn validate(request: &mut Request, spec: &ModelSpec, limits: TensorLimits) -> Result<Checked> {
    failpoint!("validate", error => return Err(error));
    if request.inputs.len() != spec.inputs.len() {
        return Err(wrong_inputs(request, spec));
    }
    let mut inputs = SmallVec::with_capacity(spec.inputs.len());
    let (mut bytes, mut text_bytes) = (0_usize, 0_usize);
    for (index, expected) in spec.inputs.iter().enumerate() {
        // Nearly every caller sends them in the model's order.
        let found = match request.inputs.get(index).filter(|input| *input.name == *expected.name) {
            Some(_) => index,
            None => request
                .inputs
                .iter()
                .position(|input| *input.name == *expected.name)
                .ok_or_else(|| wrong_inputs(request, spec))?,
        };
        check_input(request, found, expected, spec, limits)?;
        let input = &mut request.inputs[found];
        bytes = bytes.saturating_add(input.data.len());
        if expected.datatype == DataType::Bytes {
            let count = element_count(&input.shape).unwrap_or(0);
            text_bytes = text_bytes.saturating_add(text_object_bytes(count, input.data.len()));
        }
        inputs.push(CheckedInput { shape: std::mem::take(&mut input.shape), data: std::mem::take(&mut input.data) });
    }
    let rows = common_rows(&inputs, spec, &request.id)?;
    if bytes == 0 && rows > limits.max_empty_rows && spec.batching.has_rows() {
        return Err(too_many_empty_rows(request, spec, rows, limits));
    }
    let outputs = wanted_outputs(request, spec)?;
    let classes =
        request.options.as_ref().map(|options| classes(&options.classifications, rows, spec)).transpose()?.flatten();
    Ok(Checked { key: shape_key(&inputs, spec), outputs, classes, inputs, rows, bytes, text_bytes })
}

fn check_input(
    request: &mut Request,
    index: usize,
    expected: &TensorSpec,
    spec: &ModelSpec,
    limits: TensorLimits,
) -> Result<()> {
    let input = &request.inputs[index];
    if input.datatype != expected.datatype {
        return Err(tagged(
            &request.id,
            format_args!(
                "inference input '{}' data-type is '{}', but model '{}' expects '{}'",
                expected.name, input.datatype, spec.name, expected.datatype
            ),
        ));
    }
    if !shape_fits(&input.shape, &expected.shape) {
        return Err(tagged(
            &request.id,
            format_args!(
                "unexpected shape for input '{}' for model '{}'. Expected {}, got {}",
                expected.name,
                spec.name,
                ShapeText(&expected.shape),
                ShapeText(&input.shape)
            ),
        ));
    }
    match input.datatype {
        DataType::Bytes => {
            let texts = request.inputs[index].data.texts();
            check_texts(request, &request.inputs[index], texts, spec, limits)
        }
        DataType::Bool => check_byte_count(request, input, spec).and_then(|()| check_bools(request, input, spec)),
        _ => check_byte_count(request, input, spec),
    }
}

fn shape_fits(shape: &[i64], expected: &[i64]) -> bool {
    shape.len() == expected.len()
        && shape.iter().zip(expected).all(|(&got, &wanted)| got >= 0 && (wanted < 0 || got == wanted))
}

fn check_byte_count(request: &Request, input: &Input, spec: &ModelSpec) -> Result<()> {
    let Some(expected) = byte_count(input.datatype, &input.shape) else {
        return Err(too_many_elements(request, input, spec));
    };
    if expected == input.data.len() {
        return Ok(());
    }
    Err(tagged(
        &request.id,
        format_args!(
            "input byte size mismatch for input '{}' for model '{}'. Expected {expected}, got {}",
            input.name,
            spec.name,
            input.data.len()
        ),
    ))
}

fn check_bools(request: &Request, input: &Input, spec: &ModelSpec) -> Result<()> {
    let Some((index, byte)) = input.data.bad_bool() else { return Ok(()) };
    Err(tagged(
        &request.id,
        format_args!(
            "element {index} of BOOL input '{}' for model '{}' is {byte}; allowed are 0 and 1",
            input.name, spec.name
        ),
    ))
}

fn check_texts(
    request: &Request,
    input: &Input,
    texts: Result<Texts>,
    spec: &ModelSpec,
    limits: TensorLimits,
) -> Result<()> {
    let Some(expected) = element_count(&input.shape) else {
        return Err(too_many_elements(request, input, spec));
    };
    let Texts { count, longest, longest_at } = texts.map_err(|error| {
        tagged(&request.id, format_args!("input '{}' for model '{}': {error}", input.name, spec.name))
    })?;
    if longest > limits.max_string_bytes {
        return Err(Error::too_large(format!(
            "element {longest_at} of input '{}' for model '{}' has {longest} bytes; at most {} are allowed",
            input.name, spec.name, limits.max_string_bytes
        )));
    }
    if count == expected {
        return Ok(());
    }
    Err(tagged(
        &request.id,
        format_args!(
            "input element count mismatch for input '{}' for model '{}'. Expected {expected}, got {count}",
            input.name, spec.name
        ),
    ))
}

/// The number of rows that all inputs agree on.
fn common_rows(inputs: &[CheckedInput], spec: &ModelSpec, id: &Text) -> Result<usize> {
    if !spec.batching.has_rows() {
        return Ok(1);
    }
    let rows = |input: &CheckedInput| input.shape.first().copied().unwrap_or(1);
    let Some(first) = inputs.first().map(rows) else { return Ok(1) };
    if let Some(other) = inputs.iter().position(|input| rows(input) != first) {
        return Err(tagged(
            id,
            format_args!(
                "input '{}' for model '{}' has {} rows, but input '{}' has {first}; all inputs need the same",
                spec.inputs[other].name,
                spec.name,
                rows(&inputs[other]),
                spec.inputs[0].name
            ),
        ));
    }
    usize::try_from(first).map_err(|_| Error::invalid("rows do not fit"))
}

/// Equal for requests whose dimensions agree apart from the rows.
fn shape_key(inputs: &[CheckedInput], spec: &ModelSpec) -> u64 {
    let mut hasher = RapidHasher::default_const();
    for (input, expected) in inputs.iter().zip(&spec.inputs) {
        for (&dimension, &fixed) in input.shape.iter().zip(&expected.shape).skip(1) {
            if fixed < 0 {
                hasher.write_i64(dimension);
            }
        }
    }
    hasher.finish()
}

fn wanted_outputs(request: &Request, spec: &ModelSpec) -> Result<SmallVec<[u16; 4]>> {
    let mut wanted = SmallVec::new();
    for name in &request.outputs {
        let (index, _) = spec.output(name).ok_or_else(|| {
            Error::invalid(format!("unexpected inference output '{}' for model '{}'", quoted(name), spec.name))
        })?;
        // Asked for twice: answered once, as Triton does.
        if !wanted.contains(&(index as u16)) {
            wanted.push(index as u16);
        }
    }
    Ok(wanted)
}

/// The outputs to be classified, by index; those of other names have been refused as outputs.
fn classes(asked: &[(Text, usize)], rows: usize, spec: &ModelSpec) -> Result<Option<Arc<[Classes]>>> {
    let mut classes: Vec<Classes> = Vec::new();
    for (name, most) in asked {
        let Some((index, output)) = spec.output(name) else { continue };
        classify::check(output)?;
        // Asked for twice: the first counts, as with Triton.
        if !classes.iter().any(|earlier| usize::from(earlier.output) == index) {
            classes.push(Classes { output: index as u16, most: *most, rows });
        }
    }
    Ok((!classes.is_empty()).then(|| classes.into()))
}

#[cold]
fn too_many_empty_rows(request: &Request, spec: &ModelSpec, rows: usize, limits: TensorLimits) -> Error {
    let id = if request.id.is_empty() { "<id_unknown>" } else { &request.id };
    Error::too_large(format!(
        "[request id: {}] the request for model '{}' has {rows} rows without any bytes; at most {} are allowed \
         ({EMPTY_RUNS} x models.{}.max_batch_rows)",
        quoted(id),
        spec.name,
        limits.max_empty_rows,
        spec.name
    ))
}

#[cold]
fn wrong_inputs(request: &Request, spec: &ModelSpec) -> Error {
    for (index, input) in request.inputs.iter().enumerate() {
        if spec.input(&input.name).is_none() {
            return Error::invalid(format!(
                "unexpected inference input '{}' for model '{}'",
                quoted(&input.name),
                spec.name
            ));
        }
        if request.inputs[..index].iter().any(|earlier| earlier.name == input.name) {
            return tagged(&request.id, format_args!("input '{}' already exists in request", input.name));
        }
    }
    let got: Vec<&str> = request.inputs.iter().map(|input| &*input.name).collect();
    let missing = spec.inputs.iter().map(|input| input.name.as_str()).filter(|name| !got.contains(name));
    tagged(
        &request.id,
        format_args!(
            "expected {} inputs but got {} inputs for model '{}'. Got input(s) [{}], but missing required input(s) [{}]. \
         Please provide all required input(s).",
            spec.inputs.len(),
            got.len(),
            spec.name,
            list(got.iter().copied()),
            list(missing)
        ),
    )
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("'{name}'")).collect::<Vec<_>>().join(",")
}

#[cold]
fn too_many_elements(request: &Request, input: &Input, spec: &ModelSpec) -> Error {
    tagged(
        &request.id,
        format_args!(
            "shape {} of input '{}' for model '{}' has more elements than fit",
            ShapeText(&input.shape),
            input.name,
            spec.name
        ),
    )
}

/// The text with the request's id before it, as Triton writes it.
#[cold]
fn tagged(id: &Text, text: std::fmt::Arguments<'_>) -> Error {
    let id = if id.is_empty() { "<id_unknown>" } else { id };
    Error::invalid(format!("[request id: {}] {text}", quoted(id)))
}
