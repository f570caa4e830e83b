//! The same elements in other dimensions: reshapes, and axes that come, go and change places.

use std::collections::BTreeSet;

use super::size::{Size, product};
use super::value::{Axis, Dims, Flow, How, Value};
use super::{Integers, Ruled, Step, content, index};

const UNKNOWN: How = How::Unknown("reshapes in a way that is not known to keep rows apart");

/// The first input in other dimensions, in the same order of elements.
fn reshaped(step: &Step<'_>, dims: Dims) -> Result<Value, How> {
    let axis = regrouped(step, &dims)?;
    let origin = step.needed(0)?.origin;
    Ok(with_content(step, step.made(axis, dims)).with_origin(origin))
}

fn with_content(step: &Step<'_>, value: Value) -> Value {
    match content::same(step) {
        Some(content) if value.axis().is_none() => Value::known(content, value.dims.unwrap_or_default(), value.flow),
        _ => value,
    }
}

/// Where the rows of the first input are in these dimensions.
///
/// Counted through, an element's place is `(o * rows + row) * i + …`, where `o` counts what stands before the rows and
/// `i` is what stands behind: the dimension that holds the rows is the one before which no more than `o` is left.
fn regrouped(step: &Step<'_>, new: &[Size]) -> Result<Option<Axis>, How> {
    let value = step.first()?;
    let (Some(axis), Some(old)) = (value.axis(), value.dims.as_ref()) else { return Ok(None) };
    let too_large = How::Unknown("has dimensions that do not fit");
    let before = product(old[..axis.at].iter().chain([&axis.outer])).ok_or(too_large)?;
    let behind = product(old[axis.at + 1..].iter().chain([&axis.inner])).ok_or(too_large)?;
    // A first dimension that is the number of rows has equal parts, whatever the others are.
    if before.is(1) && new.first() == Some(&Size::rows()) && !new[1..].iter().any(Size::follows_rows) {
        return Ok(Some(Axis::plain(0)));
    }
    for (at, size) in new.iter().enumerate() {
        if size.follows_rows() {
            let outer = product(&new[..at]).and_then(|taken| before.divided(&taken)).ok_or(UNKNOWN)?;
            let inner = product(&new[at + 1..]).and_then(|taken| behind.divided(&taken)).ok_or(UNKNOWN)?;
            let expected = outer.times(&inner).and_then(|rest| rest.times(&Size::rows()));
            return if expected.as_ref() == Some(size) { Ok(Some(Axis { at, outer, inner })) } else { Err(UNKNOWN) };
        }
    }
    Err(UNKNOWN)
}

pub(super) fn reshape(step: &mut Step<'_>) -> Ruled {
    let old = step.needed(0)?.dims.clone();
    let unknown_rank = How::Unknown("reshapes to a rank that is not known");
    let wanted: Vec<Option<Size>> = match (step.node.ints("shape"), step.value(1)) {
        (Some(numbers), _) => numbers.iter().map(|&number| Some(Size::number(number))).collect(),
        (None, Some(shape)) => match (&shape.content, &shape.dims) {
            (Some(content), _) => content.clone(),
            (None, Some(dims)) if shape.is_fixed() => {
                vec![None; dims.first().and_then(Size::as_number).ok_or(unknown_rank)?.clamp(0, 64) as usize]
            }
            _ => return Err(unknown_rank),
        },
        (None, None) => return Err(unknown_rank),
    };
    if step.value(1).is_some_and(|shape| shape.axis().is_some()) {
        return Err(How::Unknown("reshapes by values"));
    }
    let copies = !step.node.flag("allowzero");
    let size = |(at, size): (usize, Option<Size>)| match size {
        Some(size) if copies && size.is(0) => old.as_ref().and_then(|old| old.get(at).cloned()),
        size => size,
    };
    let wanted: Vec<Option<Size>> = wanted.into_iter().enumerate().map(size).collect();
    let dims = completed(step, wanted)?;
    let follows = step.value(1).is_some_and(|shape| !shape.is_fixed());
    step.inputs.truncate(1);
    let value = reshaped(step, dims)?;
    let flow = match value.flow {
        Flow::Fixed if follows => Flow::Counts,
        flow => flow,
    };
    Ok(vec![Value { flow, ..value }])
}

/// Fills in the dimension that is left open (-1), and those that are not known with symbols.
fn completed(step: &mut Step<'_>, wanted: Vec<Option<Size>>) -> Result<Dims, How> {
    let follows = step.value(1).is_some_and(|shape| !shape.is_fixed());
    if follows && wanted.contains(&None) {
        return Err(UNKNOWN);
    }
    let is_open = |size: &Option<Size>| size.as_ref().is_none_or(|size| size.is(-1));
    let open = wanted.iter().filter(|size| is_open(size)).count();
    let old = step.needed(0)?.dims.clone();
    let total = old.as_ref().and_then(product);
    let given = product(wanted.iter().flatten().filter(|size| !size.is(-1)));
    let rest = total.zip(given).and_then(|(total, given)| total.divided(&given)).filter(|_| open == 1);
    let has_rows = step.needed(0)?.axis().is_some();
    let mut dims = Dims::with_capacity(wanted.len());
    for size in wanted {
        dims.push(match size {
            Some(size) if !size.is(-1) => size,
            _ => match &rest {
                Some(rest) => rest.clone(),
                // What is not known may follow rows only where a first dimension has taken them.
                None if has_rows && dims.first().is_none_or(|first| *first != Size::rows()) => return Err(UNKNOWN),
                None => step.symbols.fresh(),
            },
        });
    }
    Ok(dims)
}

pub(super) fn flatten(step: &mut Step<'_>) -> Ruled {
    let old = step.dims(0)?;
    let number = step.node.int("axis", 1);
    let at = if number == old.len() as i64 { old.len() } else { index(number, old.len()).ok_or(UNKNOWN)? };
    let sizes = product(&old[..at]).zip(product(&old[at..])).ok_or(UNKNOWN)?;
    Ok(vec![reshaped(step, vec![sizes.0, sizes.1])?])
}

pub(super) fn transpose(step: &mut Step<'_>) -> Ruled {
    let old = step.dims(0)?;
    let order: Vec<usize> = match step.node.ints("perm").filter(|order| !order.is_empty()) {
        None => (0..old.len()).rev().collect(),
        Some(order) => order.iter().map(|&from| index(from, old.len())).collect::<Option<_>>().ok_or(UNKNOWN)?,
    };
    let axis = step.first()?.axis().cloned();
    let axis = match axis {
        Some(axis) => Some(axis.moved(order.iter().position(|&from| from == axis.at).ok_or(UNKNOWN)?)),
        None => None,
    };
    let origin = step.needed(0)?.origin;
    let dims = order.iter().map(|&from| old[from].clone()).collect();
    let value = step.made(axis, dims).with_origin(origin);
    Ok(vec![match content::transposed(step, &order) {
        Some(content) if value.axis().is_none() => Value::known(content, value.dims.unwrap_or_default(), value.flow),
        _ => value,
    }])
}

pub(super) fn squeeze(step: &mut Step<'_>) -> Ruled {
    let old = step.dims(0)?;
    let numbers = match step.integers("axes", 1) {
        Integers::Known(numbers) => numbers,
        // Without axes a batch of one row loses its first dimension.
        Integers::Absent if step.needed(0)?.axis().is_some() => {
            return Err(How::Unknown("takes away whatever dimensions are 1, that of the rows too"));
        }
        Integers::Absent if old.iter().all(|size| size.as_number().is_some()) => {
            (0..old.len()).filter(|&at| old[at].is(1)).map(|at| at as i64).collect()
        }
        Integers::Unknown | Integers::Absent => return Err(UNKNOWN),
    };
    // An axis may be named twice.
    let gone: BTreeSet<usize> =
        numbers.iter().map(|&number| index(number, old.len())).collect::<Option<_>>().ok_or(UNKNOWN)?;
    let axis = step.first()?.axis().cloned();
    if axis.as_ref().is_some_and(|axis| gone.contains(&axis.at)) {
        return Err(How::Unknown("takes away the dimension of the rows"));
    }
    let axis = axis.map(|axis| axis.moved(axis.at - gone.iter().filter(|&&at| at < axis.at).count()));
    let dims = old.into_iter().enumerate().filter(|(at, _)| !gone.contains(at)).map(|(_, size)| size).collect();
    let origin = step.needed(0)?.origin;
    Ok(vec![with_content(step, step.made(axis, dims)).with_origin(origin)])
}

pub(super) fn unsqueeze(step: &mut Step<'_>) -> Ruled {
    let old = step.dims(0)?;
    let Integers::Known(numbers) = step.integers("axes", 1) else { return Err(UNKNOWN) };
    let rank = old.len() + numbers.len();
    let new: Vec<usize> = numbers.iter().map(|&number| index(number, rank)).collect::<Option<_>>().ok_or(UNKNOWN)?;
    let mut old = old.into_iter();
    let mut places = Vec::new();
    let mut dims = Dims::with_capacity(rank);
    for at in 0..rank {
        if new.contains(&at) {
            dims.push(Size::number(1));
        } else {
            places.push(at);
            dims.push(old.next().ok_or(UNKNOWN)?);
        }
    }
    let axis = step.first()?.axis().cloned();
    let axis = match axis {
        Some(axis) => Some(axis.moved(*places.get(axis.at).ok_or(UNKNOWN)?)),
        None => None,
    };
    let origin = step.needed(0)?.origin;
    Ok(vec![with_content(step, step.made(axis, dims)).with_origin(origin)])
}
