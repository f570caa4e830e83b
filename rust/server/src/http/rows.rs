//! Rows and columns of JSON values to a model's inputs: what `instances`, `inputs` and `features` hold.
//!
//! A row form is a list of rows, and a row is a value for a model with one input, or an object by input name. A column
//! form is one value for each input. Shapes follow from how deep values are nested; see [`super::nest`].

use mlserve_core::error::{Error, Result, quoted};
use mlserve_core::model::{ModelSpec, TensorSpec};
use mlserve_core::request::{Input, Text};
use mlserve_core::tensor::{Shape, ShapeText};
use smallvec::{SmallVec, smallvec};

use super::json::{Cursor, Token};
use super::nest::Nest;
use super::values::{Reader, Value, once, whole_shape};

/// A request's inputs.
pub(super) type Inputs = SmallVec<[Input; 2]>;

/// Inputs, and how many rows the caller sent.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) inputs: Inputs,
    pub(super) rows: Rows,
}

/// How rows were sent, which is how they are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// One, not in a list.
    Bare,
    /// A list of so many.
    List(usize),
    /// A list of one, which is all that a model without rows takes.
    Whole,
}

impl Rows {
    /// How many there are.
    pub(super) fn count(self) -> usize {
        if let Rows::List(count) = self { count } else { 1 }
    }
}

/// Reads the column form: an object by input name, or the value of the only input.
///
/// **Errors:** an unknown input, one that is there twice, values that are no tensor of the model's rank.
pub(super) fn columns(cursor: &mut Cursor<'_>, reader: &mut Reader<'_>, key: &str) -> Result<Inputs> {
    if cursor.token()? == Token::Object && !reader.is_element(cursor)? {
        return by_name(cursor, reader, whole_shape);
    }
    let tensor = reader.only_input(key)?;
    let value = reader.value(cursor, tensor)?;
    let shape = whole_shape(&value.nest, tensor)?;
    Ok(smallvec![input(tensor, shape, value.wire)])
}

/// Reads a list of rows. A model without rows takes one, or its whole tensor in place of the list.
///
/// **Errors:** no list, or an empty one; rows of different kinds or shapes, or without a value for some input.
pub(super) fn list(cursor: &mut Cursor<'_>, reader: &mut Reader<'_>, key: &str) -> Result<Table> {
    let token = cursor.token()?;
    if token != Token::Array {
        return Err(Error::invalid(format!("'{key}' is {}; a list of rows is expected", token.name())));
    }
    if are_objects(cursor, reader)? {
        return rows_by_name(cursor, reader, key);
    }
    let tensor = reader.only_input(key)?;
    let Value { nest, wire } = reader.value(cursor, tensor)?;
    let count = nest.lengths().first().copied().unwrap_or_default();
    if count == 0 {
        return Err(no_rows(key));
    }
    let has_rows = reader.spec.batching.has_rows();
    if let Some(shape) = nest.fit(&tensor.shape).filter(|_| !has_rows) {
        return Ok(Table { inputs: smallvec![input(tensor, shape, wire)], rows: Rows::List(as_count(count)) });
    }
    if count > 1 && !has_rows {
        return Err(one_at_a_time(reader, key, count));
    }
    let row = nest.inner();
    let mut shape = row_shape(&row, tensor, has_rows)?;
    if has_rows {
        shape[0] = count;
    }
    let is_whole = row.is_whole(tensor);
    let rows = if is_whole { Rows::Whole } else { Rows::List(as_count(count)) };
    Ok(Table { inputs: smallvec![input(tensor, shape, wire)], rows })
}

/// Reads one row or several: values for the only input, an object by input name, or a list of such objects.
///
/// **Errors:** as [`columns`] and [`list`].
pub(super) fn rows(cursor: &mut Cursor<'_>, reader: &mut Reader<'_>, key: &str) -> Result<Table> {
    let token = cursor.token()?;
    if token == Token::Array && are_objects(cursor, reader)? {
        return rows_by_name(cursor, reader, key);
    }
    let has_rows = reader.spec.batching.has_rows();
    let mut count = None;
    let mut shape = |nest: &Nest, tensor: &TensorSpec| {
        // One row comes first: a single number is a row of one, not a whole tensor.
        if let Ok(shape) = row_shape(nest, tensor, has_rows) {
            return Ok(shape);
        }
        let shape = if has_rows { nest.fit(&tensor.shape) } else { None };
        let shape = shape.ok_or_else(|| nest.misfit(&tensor.name, row_dimensions(tensor, has_rows), "a row"))?;
        count = shape.first().copied();
        Ok(shape)
    };
    let inputs = if token == Token::Object && !reader.is_element(cursor)? {
        by_name(cursor, reader, shape)?
    } else {
        let tensor = reader.only_input(key)?;
        let value = reader.value(cursor, tensor)?;
        let shape = shape(&value.nest, tensor)?;
        smallvec![input(tensor, shape, value.wire)]
    };
    match count {
        Some(0) => Err(no_rows(key)),
        Some(count) => Ok(Table { inputs, rows: Rows::List(as_count(count)) }),
        None => Ok(Table { inputs, rows: Rows::Bare }),
    }
}

/// An input as the core takes it.
pub(super) fn input(tensor: &TensorSpec, shape: Shape, wire: Vec<u8>) -> Input {
    Input { name: Text::from(tensor.name.clone()), datatype: tensor.datatype, shape, data: wire.into() }
}

/// Reads an object of values by input name; `shape` says which shape each has.
fn by_name(
    cursor: &mut Cursor<'_>,
    reader: &mut Reader<'_>,
    mut shape: impl FnMut(&Nest, &TensorSpec) -> Result<Shape>,
) -> Result<Inputs> {
    let mut inputs = Inputs::new();
    cursor.object(|cursor, key| {
        if cursor.null()? {
            return Ok(());
        }
        let (_, tensor) = reader.input(&key)?;
        once(inputs.iter().all(|input: &Input| *input.name != *key), &key)?;
        let value = reader.value(cursor, tensor)?;
        let shape = shape(&value.nest, tensor)?;
        inputs.push(input(tensor, shape, value.wire));
        Ok(())
    })?;
    Ok(inputs)
}

/// What has come of an input, row after row.
#[derive(Default)]
struct Column {
    wire: Vec<u8>,
    shape: Shape,
    rows: usize,
    /// Whether a row is the whole tensor.
    is_whole: bool,
}

/// Reads a list of objects by input name.
fn rows_by_name(cursor: &mut Cursor<'_>, reader: &mut Reader<'_>, key: &str) -> Result<Table> {
    let spec = reader.spec;
    let mut columns: Vec<Column> = spec.inputs.iter().map(|_| Column::default()).collect();
    let mut count = 0_usize;
    cursor.array(|cursor| {
        let token = cursor.token()?;
        if token != Token::Object {
            return Err(in_row(key, count, &format!("it is {}; an object by input name is expected", token.name())));
        }
        cursor.object(|cursor, name| {
            if cursor.null()? {
                return Ok(());
            }
            let (index, tensor) = reader.input(&name)?;
            let column = &mut columns[index];
            once(column.rows == count, &name)?;
            push_row(cursor, reader, tensor, column)
                .map_err(|error| Error::new(error.kind(), in_row(key, count, error.text()).to_string()))
        })?;
        count += 1;
        match columns.iter().position(|column| column.rows < count) {
            Some(index) => {
                let name = quoted(&spec.inputs[index].name);
                Err(in_row(key, count - 1, &format!("it has no value for input '{name}'")))
            }
            None => Ok(()),
        }
    })?;
    if count > 1 && !spec.batching.has_rows() {
        return Err(one_at_a_time(reader, key, count as i64));
    }
    Ok(joined(spec, columns, count))
}

/// The columns of `count` rows as inputs.
fn joined(spec: &ModelSpec, columns: Vec<Column>, count: usize) -> Table {
    let is_whole = count == 1 && columns.iter().all(|column| column.is_whole);
    let inputs = spec.inputs.iter().zip(columns).map(|(tensor, column)| {
        let Column { wire, mut shape, .. } = column;
        if spec.batching.has_rows() {
            shape[0] = count as i64;
        }
        input(tensor, shape, wire)
    });
    let rows = if is_whole { Rows::Whole } else { Rows::List(count) };
    Table { inputs: inputs.collect(), rows }
}

fn push_row(cursor: &mut Cursor<'_>, reader: &mut Reader<'_>, tensor: &TensorSpec, column: &mut Column) -> Result<()> {
    let held = reader.reservation.units();
    let Value { nest, wire } = reader.value(cursor, tensor)?;
    let shape = row_shape(&nest, tensor, reader.spec.batching.has_rows())?;
    if column.rows == 0 {
        column.shape = shape;
        column.is_whole = nest.is_whole(tensor);
    } else if column.shape != shape {
        return Err(Error::invalid(format!(
            "input '{}' has shape {}, but {} in the rows before; all rows need the same",
            quoted(&tensor.name),
            ShapeText(&shape[1..]),
            ShapeText(&column.shape[1..])
        )));
    }
    let before = column.wire.capacity();
    column.wire.extend_from_slice(&wire);
    column.rows += 1;
    // The row's own bytes go; what the column grew by stays.
    reader.reservation.shrink_to(held);
    reader.hold(column.wire.capacity() - before)
}

/// Whether the list at `cursor` begins with an object by input name.
fn are_objects(cursor: &Cursor<'_>, reader: &Reader<'_>) -> Result<bool> {
    let mut first = cursor.clone();
    first.enter(b'[')?;
    Ok(!first.leave(b']') && first.token()? == Token::Object && !reader.is_element(&first)?)
}

/// The dimensions of one row.
fn row_dimensions(tensor: &TensorSpec, has_rows: bool) -> &[i64] {
    tensor.shape.get(usize::from(has_rows)..).unwrap_or_default()
}

/// The shape of a tensor that holds one row of `nest`.
fn row_shape(nest: &Nest, tensor: &TensorSpec, has_rows: bool) -> Result<Shape> {
    let dimensions = row_dimensions(tensor, has_rows);
    let prepended = |row: Shape| std::iter::once(1).chain(row).collect();
    let shape = match nest.fit(dimensions) {
        Some(row) if has_rows => Some(prepended(row)),
        Some(whole) => Some(whole),
        // A model exported for one row only: its first dimension goes without saying.
        None if !has_rows && dimensions.first() == Some(&1) => nest.fit(&dimensions[1..]).map(prepended),
        None => None,
    };
    shape.ok_or_else(|| nest.misfit(&tensor.name, dimensions, "a row"))
}

fn as_count(count: i64) -> usize {
    usize::try_from(count).unwrap_or_default()
}

#[cold]
fn in_row(key: &str, row: usize, what: &str) -> Error {
    Error::invalid(format!("row {row} of '{key}': {what}"))
}

#[cold]
fn no_rows(key: &str) -> Error {
    Error::invalid(format!("'{key}' is empty; at least one row is expected"))
}

#[cold]
fn one_at_a_time(reader: &Reader<'_>, key: &str, count: i64) -> Error {
    let reason = reader.spec.batching.reason().unwrap_or("its first dimension is fixed");
    Error::invalid(format!("'{key}' has {count} rows, but model '{}' takes one at a time: {reason}", reader.spec.name))
}

#[cfg(test)]
mod tests;
