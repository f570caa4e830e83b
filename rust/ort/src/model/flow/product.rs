//! Products of matrices: rows may be rows of the left matrix, columns of the right one, or matrices by themselves.

use super::join::{broadcast, spread};
use super::size::Size;
use super::value::{Axis, Dims, How, Value};
use super::{Ruled, Step};

const ACROSS: How = How::Mixes("sums over the batch");
const EACH_WITH_EACH: How = How::Mixes("joins each row with every other");
const UNKNOWN: How = How::Unknown("multiplies in a way that is not known to keep rows apart");

/// `MatMul` of the inputs at these places; those behind are constants.
pub(super) fn matmul(step: &mut Step<'_>, left: usize, right: usize) -> Result<Value, How> {
    let (a, b) = (step.needed(left)?.clone(), step.needed(right)?.clone());
    let others_are_fixed = (0..step.inputs.len()).filter(|&at| at != left && at != right);
    if !others_are_fixed.filter_map(|at| step.value(at)).all(Value::is_fixed) {
        return Err(How::Unknown("takes rows where constants are expected"));
    }
    multiplied(step, &a, &b)
}

/// The product of two tensors.
pub(super) fn multiplied(step: &mut Step<'_>, a: &Value, b: &Value) -> Result<Value, How> {
    let unknown_rank = How::Unknown("multiplies by a tensor of unknown rank");
    let (a_dims, b_dims) = (a.dims.as_ref().ok_or(unknown_rank)?, b.dims.as_ref().ok_or(unknown_rank)?);
    let (a_rank, b_rank) = (a_dims.len(), b_dims.len());
    if a_rank == 0 || b_rank == 0 {
        return Err(UNKNOWN);
    }
    // Matrices by themselves stand before the last two dimensions, counted from the end of the result's.
    let (a_lead, b_lead) = (&a_dims[..a_rank.saturating_sub(2)], &b_dims[..b_rank.saturating_sub(2)]);
    let lead = spread(step, a_lead, b_lead);
    let mut dims: Dims = lead.clone();
    if a_rank >= 2 {
        dims.push(a_dims[a_rank - 2].clone());
    }
    if b_rank >= 2 {
        dims.push(b_dims[b_rank - 1].clone());
    }
    let a_place = match a.axis() {
        Some(axis) if axis.at == a_rank - 1 => return Err(ACROSS),
        Some(axis) => Some((axis, axis.at + lead.len() - a_lead.len())),
        None => None,
    };
    let b_place = match b.axis() {
        Some(axis) if axis.at + 2 == b_rank || b_rank == 1 => return Err(ACROSS),
        Some(axis) if axis.at == b_rank - 1 => Some((axis, dims.len() - 1)),
        Some(axis) => Some((axis, axis.at + lead.len() - b_lead.len())),
        None => None,
    };
    let found = match (a_place, b_place) {
        (None, None) => return Ok(step.made(None, dims)),
        (Some((left, at)), Some((right, other))) => {
            if at != other || left.outer != right.outer || left.inner != right.inner {
                return Err(EACH_WITH_EACH);
            }
            (left, at)
        }
        (Some(found), None) if b.is_fixed() && stands_beside_one(found.1, &lead, b_lead) => found,
        (None, Some(found)) if a.is_fixed() && stands_beside_one(found.1, &lead, a_lead) => found,
        _ => return Err(UNKNOWN),
    };
    Ok(Value::rows(found.0.moved(found.1), dims))
}

/// Whether the dimension at this place of the result is not one of the other tensor's, or 1 there.
fn stands_beside_one(at: usize, lead: &[Size], other: &[Size]) -> bool {
    let Some(from_end) = lead.len().checked_sub(at).filter(|&from_end| from_end > 0) else { return true };
    other.len().checked_sub(from_end).is_none_or(|place| other[place].is(1))
}

/// The first two inputs swap their last two dimensions if they are told to.
fn turned(value: &Value, is_turned: bool) -> Result<Value, How> {
    if !is_turned {
        return Ok(value.clone());
    }
    let mut dims = value.dims.clone().ok_or(UNKNOWN)?;
    let rank = dims.len();
    if rank < 2 {
        return Err(UNKNOWN);
    }
    dims.swap(rank - 2, rank - 1);
    let swap = |at: usize| {
        if at + 2 == rank {
            rank - 1
        } else if at + 1 == rank {
            rank - 2
        } else {
            at
        }
    };
    Ok(match value.axis() {
        Some(axis) => Value::rows(axis.moved(swap(axis.at)), dims),
        None => Value::new(value.flow.clone(), dims),
    })
}

pub(super) fn gemm(step: &mut Step<'_>) -> Ruled {
    let a = turned(step.needed(0)?, step.node.flag("transA"))?;
    let b = turned(step.needed(1)?, step.node.flag("transB"))?;
    let product = multiplied(step, &a, &b)?;
    let Some(added) = step.value(2).cloned() else { return Ok(vec![product]) };
    let dims = product.dims.clone().unwrap_or_default();
    let (axis, _) = broadcast(step, &[&product, &added])?;
    Ok(vec![step.made(axis, dims)])
}

/// ONNX Runtime's `FusedMatMul`.
pub(super) fn fused_matmul(step: &mut Step<'_>) -> Ruled {
    if step.node.flag("transBatchA") || step.node.flag("transBatchB") {
        return Err(UNKNOWN);
    }
    let a = turned(step.needed(0)?, step.node.flag("transA"))?;
    let b = turned(step.needed(1)?, step.node.flag("transB"))?;
    Ok(vec![multiplied(step, &a, &b)?])
}

/// Integer products with scales and zero points: those of the left matrix are one for all rows.
pub(super) fn quantised(step: &mut Step<'_>, left: usize, right: usize, of_left: &[usize]) -> Ruled {
    if !of_left.iter().filter_map(|&at| step.value(at)).all(Value::is_scalar) && step.needed(left)?.axis().is_some() {
        return Err(How::Unknown("has constants for each row"));
    }
    Ok(vec![matmul(step, left, right)?])
}

/// A constant matrix with so many columns: `MatMulNBits`.
pub(super) fn packed(step: &mut Step<'_>) -> Ruled {
    let mut dims = step.dims(0)?;
    let axis = step.first()?.axis().cloned();
    let last = dims.len().checked_sub(1).ok_or(UNKNOWN)?;
    if axis.as_ref().is_some_and(|axis| axis.at == last) {
        return Err(ACROSS);
    }
    dims[last] = Size::number(step.node.int("N", 0));
    Ok(vec![step.made(axis, dims)])
}

/// The equation with a digit for each dimension that dots stand for, if they stand for as many wherever they are.
fn spelled_out(step: &Step<'_>, equation: &str) -> Option<String> {
    const DOTS: &str = "...";
    let (operands, _) = equation.split_once("->")?;
    let mut dimensions = None;
    for (place, letters) in operands.split(',').enumerate().filter(|(_, letters)| letters.contains(DOTS)) {
        let own = step.value(place)?.rank()?.checked_sub(letters.len() - DOTS.len())?;
        if dimensions.is_some_and(|known| known != own) || own >= 10 {
            return None;
        }
        dimensions = Some(own);
    }
    let digits: String = ('0'..='9').take(dimensions.unwrap_or(0)).collect();
    Some(equation.replace(DOTS, &digits)).filter(|equation| !equation.contains('.'))
}

/// `Einsum`: the letter of the rows stands in every operand that has them, and in the result.
pub(super) fn einsum(step: &mut Step<'_>) -> Ruled {
    let equation: String = step.node.text("equation", "").chars().filter(|letter| !letter.is_whitespace()).collect();
    let equation = spelled_out(step, &equation).ok_or(UNKNOWN)?;
    let (operands, result) = equation.split_once("->").ok_or(UNKNOWN)?;
    let operands: Vec<&str> = operands.split(',').collect();
    if operands.len() != step.inputs.len() {
        return Err(UNKNOWN);
    }
    let mut found: Option<(char, Axis)> = None;
    for (place, letters) in operands.iter().enumerate() {
        let value = step.needed(place)?;
        let rank = value.rank().ok_or(UNKNOWN)?;
        let Some(axis) = value.axis() else { continue };
        let letter = letters.chars().nth(axis.at).filter(|_| letters.chars().count() == rank).ok_or(UNKNOWN)?;
        let is_once = letters.chars().filter(|other| *other == letter).count() == 1;
        if found.as_ref().is_some_and(|(known, own)| *known != letter || !axis.is_plain() || !own.is_plain()) {
            return Err(EACH_WITH_EACH);
        }
        if !is_once {
            return Err(UNKNOWN);
        }
        found = Some((letter, axis.clone()));
    }
    let mut sizes: Vec<(char, Size)> = Vec::new();
    for (place, letters) in operands.iter().enumerate() {
        let value = step.needed(place)?;
        if let Some((letter, _)) = &found
            && value.axis().is_none()
            && (letters.contains(*letter) || !value.is_fixed())
        {
            return Err(UNKNOWN);
        }
        sizes.extend(letters.chars().zip(step.dims(place)?));
    }
    let axis = match found {
        Some((letter, axis)) => Some(axis.moved(result.chars().position(|other| other == letter).ok_or(ACROSS)?)),
        None => None,
    };
    let size =
        |letter: char| sizes.iter().find(|(own, size)| *own == letter && !size.is(1)).map(|(_, size)| size.clone());
    let dims = result.chars().map(|letter| size(letter).unwrap_or(Size::number(1))).collect();
    Ok(vec![step.made(axis, dims)])
}
