//! A raw request: the body is the bytes of the model's only input, and everything else follows from the model.

use mlserve_core::error::{Error, Result};
use mlserve_core::model::{ModelSpec, TensorSpec};
use mlserve_core::request::{Input, Request, Text};
use mlserve_core::tensor::{DataType, Shape, TensorBytes};
use smallvec::smallvec;

use super::decode::Decoded;
use super::wanted::Wants;

/// The request that `body` is for the model of `spec`: one row where the model counts rows, and one dimension deduced.
///
/// **Errors:** several inputs; more than one dimension to deduce; BYTES of other than one element. Whether the bytes fit
/// is the core's to check.
pub(super) fn decode(body: TensorBytes, spec: &ModelSpec) -> Result<Decoded> {
    let [tensor] = spec.inputs.as_slice() else {
        return Err(Error::invalid(format!(
            "Raw request must only have 1 input (found 1) to be deduced but got {} inputs in '{}' model configuration",
            spec.inputs.len(),
            spec.name
        )));
    };
    let mut shape = tensor.shape.clone();
    if let Some(rows) = shape.first_mut().filter(|_| spec.batching.has_rows()) {
        *rows = 1;
    }
    let data = if tensor.datatype == DataType::Bytes {
        if shape.iter().any(|&dimension| dimension != 1) {
            return Err(Error::invalid(format!(
                "For BYTE datatype raw input '{}', the model must have input shape [1]",
                tensor.name
            )));
        }
        with_length(&body)?
    } else {
        deduce(&mut shape, tensor, body.len())?;
        body
    };
    let input = Input { name: Text::from(tensor.name.clone()), datatype: tensor.datatype, shape, data };
    let request = Request { inputs: smallvec![input], ..Request::default() };
    Ok(Decoded { request, wants: Wants::all_binary(), shared: None })
}

/// Fills in the one dimension that is open, if the bytes divide evenly; if not, the core names the mismatch.
fn deduce(shape: &mut Shape, tensor: &TensorSpec, bytes: usize) -> Result<()> {
    if shape.iter().filter(|&&dimension| dimension < 0).count() > 1 {
        return Err(Error::invalid(format!(
            "The shape of the raw input '{}' can not be deduced because there are more than one variable-sized dimension",
            tensor.name
        )));
    }
    let Some(open) = shape.iter().position(|&dimension| dimension < 0) else { return Ok(()) };
    let mut fixed = shape.iter().filter(|&&dimension| dimension >= 0);
    let row = fixed.try_fold(tensor.datatype.size().unwrap_or(1), |product, &dimension| {
        product.checked_mul(usize::try_from(dimension).ok()?)
    });
    shape[open] = row.and_then(|row| bytes.checked_div(row)).map_or(0, |count| count as i64);
    Ok(())
}

/// The bytes as the single element of a BYTES tensor.
fn with_length(body: &TensorBytes) -> Result<TensorBytes> {
    let length = u32::try_from(body.len()).map_err(|_| {
        Error::too_large(format!("a BYTES element of {} bytes; at most {} are allowed", body.len(), u32::MAX))
    })?;
    let mut element = TensorBytes::from(length.to_le_bytes().to_vec());
    body.pieces().for_each(|piece| element.push(piece.clone()));
    Ok(element)
}
