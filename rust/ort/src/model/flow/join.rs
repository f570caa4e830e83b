//! Several tensors become one, element by element with broadcasting: whether their rows meet.

use super::size::Size;
use super::value::{Axis, Dims, Flow, How, Value};
use super::{Ruled, Step};

const UNLIKE: How = How::Unknown("joins rows with what may lie across them");

/// Element by element, all inputs.
pub(super) fn all(step: &mut Step<'_>) -> Ruled {
    let inputs: Vec<Value> = step.inputs.iter().flatten().cloned().collect();
    let (axis, dims) = broadcast(step, &inputs.iter().collect::<Vec<_>>())?;
    let mut value = step.made(axis, dims);
    if value.axis().is_none() {
        value = super::content::elementwise(step, value);
    }
    Ok(vec![value; step.node.output.len()])
}

/// Where rows and dimensions are after broadcasting.
pub(super) fn broadcast(step: &mut Step<'_>, values: &[&Value]) -> Result<(Option<Axis>, Dims), How> {
    let axis = common(values)?;
    let mut dims: Dims = Vec::new();
    for value in values {
        let own = value.dims.as_ref().ok_or(How::Unknown("joins rows with a tensor of unknown rank"))?;
        dims = spread(step, &dims, own);
    }
    Ok((axis.map(|(axis, from_end)| axis.moved(dims.len() - from_end)), dims))
}

/// The axis of rows that all values share, and its place counted from the end.
fn common(values: &[&Value]) -> Result<Option<(Axis, usize)>, How> {
    let mut found: Option<(Axis, usize)> = None;
    for value in values {
        if let (Some(axis), Some(rank)) = (value.axis(), value.rank()) {
            let place = (axis.clone(), rank - axis.at);
            match &found {
                None => found = Some(place),
                Some((known, from_end)) => {
                    let is_same = *from_end == place.1 && known.outer == axis.outer && known.inner == axis.inner;
                    if !is_same {
                        return Err(How::Mixes("joins each row with every other"));
                    }
                }
            }
        }
    }
    let Some((_, from_end)) = &found else { return Ok(None) };
    for value in values.iter().filter(|value| value.axis().is_none()) {
        if matches!(value.flow, Flow::Counts) {
            return Err(How::Mixes("works with the number of rows"));
        }
        let dims = value.dims.as_ref().ok_or(How::Unknown("joins rows with a tensor of unknown rank"))?;
        let beside = dims.len().checked_sub(*from_end).and_then(|at| dims.get(at));
        if beside.is_some_and(|size| !size.is(1)) {
            return Err(UNLIKE);
        }
    }
    Ok(found)
}

/// Dimensions after broadcasting.
pub(super) fn spread(step: &mut Step<'_>, left: &[Size], right: &[Size]) -> Dims {
    let rank = left.len().max(right.len());
    let at = |dims: &[Size], from_end: usize| dims.len().checked_sub(from_end).map(|at| dims[at].clone());
    let mut dims: Dims = Vec::with_capacity(rank);
    for from_end in (1..=rank).rev() {
        dims.push(match (at(left, from_end), at(right, from_end)) {
            (Some(left), Some(right)) => wider(step, left, right),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => Size::number(1),
        });
    }
    dims
}

fn wider(step: &mut Step<'_>, left: Size, right: Size) -> Size {
    if left == right || right.is(1) {
        return left;
    }
    if left.is(1) {
        return right;
    }
    // Of others a number is what the symbol has to be, too; the number of rows is no number that stands in a model.
    let follows = left.follows_rows() || right.follows_rows();
    match (left.as_number(), right.as_number()) {
        (Some(_), _) if !follows => left,
        (_, Some(_)) if !follows => right,
        _ => step.symbols.computed("broadcast", &[&left, &right], true),
    }
}
