//! JSON values without a declared shape, and the model's tensors: how deep a value is nested tells what it is.
//!
//! A value is walked twice: for its lengths, which must be those of a regular array, then into the tensor's bytes. What
//! the lengths mean (a whole tensor, or one row of it) is asked of [`Nest`]; whether dimensions fit is the core's to
//! check. Must not know the routes that use it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mlserve_core::budget::Reservation;
use mlserve_core::config::LimitSettings;
use mlserve_core::error::{Error, Kind, Result, quoted};
use mlserve_core::model::{ModelSpec, TensorSpec};
use mlserve_core::tensor::{DataType, Shape};

use super::arrays::{self, Declared};
use super::json::{Cursor, Token};
use super::nest::{Nest, walk};

/// The member that holds bytes which are no text.
pub(super) const BASE64_KEY: &str = "b64";

/// What values are read with.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    /// The model that they are for.
    pub(super) spec: &'a ModelSpec,
    /// The limits in force.
    pub(super) limits: &'a LimitSettings,
    /// Grows by what is allocated.
    pub(super) reservation: &'a mut Reservation,
}

/// A value that has been read.
#[derive(Debug)]
pub(super) struct Value {
    /// How it was nested.
    pub(super) nest: Nest,
    /// Its elements, in wire form.
    pub(super) wire: Vec<u8>,
}

impl<'a> Reader<'a> {
    /// Reads the value at `cursor` as elements of `tensor`.
    ///
    /// **Errors:** not nested like an array; an element of another kind or out of range; out of budget. Each names the
    /// input and the position.
    pub(super) fn value(&mut self, cursor: &mut Cursor<'_>, tensor: &TensorSpec) -> Result<Value> {
        let nest = Nest::measure(&mut cursor.clone(), &tensor.name)?;
        let wire = if tensor.datatype == DataType::Bytes {
            self.strings(cursor, &tensor.name)?
        } else {
            let declared = Declared {
                name: &tensor.name,
                datatype: tensor.datatype,
                shape: nest.lengths(),
                max_string_bytes: self.limits.max_string_bytes,
            };
            arrays::read(cursor, declared, self.reservation)?
        };
        Ok(Value { nest, wire })
    }

    /// Strings, and bytes as `{"b64": …}`.
    fn strings(&mut self, cursor: &mut Cursor<'_>, input: &str) -> Result<Vec<u8>> {
        let limit = self.limits.max_string_bytes;
        let reservation = &mut *self.reservation;
        let mut wire = Vec::new();
        let mut index = 0_usize;
        walk(cursor, input, |cursor, token| {
            let check =
                |bytes: usize| if bytes > limit { Err(long_string(input, index, bytes, limit)) } else { Ok(()) };
            match token {
                Token::Text => {
                    let text = cursor.string()?;
                    check(text.len())?;
                    arrays::push_string(&mut wire, text.as_bytes(), reservation)?;
                }
                Token::Object => {
                    let bytes = decoded(cursor, input, index)?;
                    check(bytes.len())?;
                    arrays::push_string(&mut wire, &bytes, reservation)?;
                }
                other => return Err(no_string(input, index, other)),
            }
            index += 1;
            Ok(())
        })?;
        Ok(wire)
    }

    /// Counts `bytes` more.
    ///
    /// **Errors:** out of budget.
    pub(super) fn hold(&mut self, bytes: usize) -> Result<()> {
        if self.reservation.grow(bytes) {
            return Ok(());
        }
        let text = format!("{bytes} more bytes for tensors would exceed the server's byte budget (limits.byte_budget)");
        Err(Error::new(Kind::OutOfBudget, text))
    }

    /// The model's only input.
    ///
    /// **Errors:** it has several, or none.
    pub(super) fn only_input(&self, key: &str) -> Result<&'a TensorSpec> {
        match self.spec.inputs.as_slice() {
            [tensor] => Ok(tensor),
            _ => Err(Error::invalid(format!(
                "'{key}' holds values without names, but model '{}' takes {} inputs; send objects by input name: {}",
                self.spec.name,
                self.spec.inputs.len(),
                input_names(self.spec)
            ))),
        }
    }

    /// The input of this name.
    ///
    /// **Errors:** there is none.
    pub(super) fn input(&self, name: &str) -> Result<(usize, &'a TensorSpec)> {
        self.spec.input(name).ok_or_else(|| {
            Error::invalid(format!(
                "unexpected inference input '{}' for model '{}'; its inputs are: {}",
                quoted(name),
                self.spec.name,
                input_names(self.spec)
            ))
        })
    }

    /// Whether the object at `cursor` is one element, `{"b64": …}`, and not values by input name.
    pub(super) fn is_element(&self, cursor: &Cursor<'_>) -> Result<bool> {
        let takes_bytes = matches!(self.spec.inputs.as_slice(), [only] if only.datatype == DataType::Bytes);
        if !takes_bytes || self.spec.input(BASE64_KEY).is_some() {
            return Ok(false);
        }
        let (mut members, mut is_base64) = (0, false);
        cursor.clone().object(|cursor, key| {
            members += 1;
            is_base64 = key == BASE64_KEY;
            cursor.skip()
        })?;
        Ok(members == 1 && is_base64)
    }
}

/// The names of a model's inputs, for error texts.
pub(super) fn input_names(spec: &ModelSpec) -> String {
    let names: Vec<String> = spec.inputs.iter().map(|input| format!("'{}'", quoted(&input.name))).collect();
    names.join(", ")
}

/// Where each of `keys` stands in the object at `cursor`; other members are passed over.
///
/// **Errors:** no object; a key that is there twice.
pub(super) fn members<'a, const COUNT: usize>(
    cursor: &mut Cursor<'a>,
    keys: [&str; COUNT],
) -> Result<[Option<Cursor<'a>>; COUNT]> {
    let mut found = [const { None }; COUNT];
    if cursor.token()? != Token::Object {
        cursor.skip()?;
        return Err(cursor.broken("the request must be an object"));
    }
    cursor.object(|cursor, key| {
        if cursor.null()? {
            return Ok(());
        }
        if let Some(place) = keys.iter().position(|wanted| **wanted == *key) {
            once(found[place].is_none(), &key)?;
            found[place] = Some(cursor.clone());
        }
        cursor.skip()
    })?;
    cursor.end()?;
    Ok(found)
}

/// Two values for one key leave open which is meant.
pub(super) fn once(is_first: bool, key: &str) -> Result<()> {
    if is_first { Ok(()) } else { Err(Error::invalid(format!("'{}' is there twice; once is allowed", quoted(key)))) }
}

/// Reads `{"b64": "…"}`.
fn decoded(cursor: &mut Cursor<'_>, input: &str, index: usize) -> Result<Vec<u8>> {
    let mut bytes = None;
    cursor.object(|cursor, key| {
        if key != BASE64_KEY || bytes.is_some() || cursor.token()? != Token::Text {
            return Err(no_string(input, index, Token::Object));
        }
        bytes = Some(STANDARD.decode(cursor.string()?.as_bytes()).map_err(|error| {
            Error::invalid(format!("element {index} of input '{}' is not base64: {error}", quoted(input)))
        })?);
        Ok(())
    })?;
    bytes.ok_or_else(|| no_string(input, index, Token::Object))
}

#[cold]
fn no_string(input: &str, index: usize, token: Token) -> Error {
    Error::invalid(format!(
        "element {index} of input '{}' is {}; a string or {{\"{BASE64_KEY}\": \"…\"}} is expected for BYTES",
        quoted(input),
        token.name()
    ))
}

#[cold]
fn long_string(input: &str, index: usize, bytes: usize, limit: usize) -> Error {
    Error::too_large(format!(
        "element {index} of input '{}' has {bytes} bytes; at most {limit} are allowed (limits.max_string_bytes)",
        quoted(input)
    ))
}

/// The tensor's shape if a value of `nest` is the whole of it, and if not, what is wrong.
pub(super) fn whole_shape(nest: &Nest, tensor: &TensorSpec) -> Result<Shape> {
    nest.fit(&tensor.shape).ok_or_else(|| nest.misfit(&tensor.name, &tensor.shape, "the input"))
}
