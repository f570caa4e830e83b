//! Tensors put together, cut, padded and repeated.

use super::join::spread;
use super::size::Size;
use super::value::{Axis, Dims, Flow, How, Value};
use super::{Integers, Ruled, Step, content, index};

const UNKNOWN: How = How::Unknown("arranges rows in a way that is not known to keep them apart");
const COUNTED: How = How::Mixes("works with the number of rows");

pub(super) fn concat(step: &mut Step<'_>) -> Ruled {
    if let Some(content) = content::joined(step) {
        let (count, flow) = (Size::number(content.len() as i64), step.plain());
        return Ok(vec![Value::known(content, vec![count], flow)]);
    }
    let mut dims = step.dims(0)?;
    let at = index(step.node.int("axis", 1), dims.len()).ok_or(UNKNOWN)?;
    let axis = concatenated(step, at)?;
    for place in 1..step.inputs.len() {
        let other = step.dims(place)?;
        let size = other.get(at).ok_or(UNKNOWN)?;
        dims[at] = step.symbols.sum(&dims[at], size);
    }
    if let Some(axis) = axis.as_ref().filter(|axis| axis.at == at) {
        let sizes = axis.outer.times(&axis.inner).and_then(|size| size.times(&Size::rows()));
        dims[at] = sizes.ok_or(UNKNOWN)?;
    }
    Ok(vec![step.made(axis, dims)])
}

/// Rows of tensors that are put together: all have the same, or none has any.
fn concatenated(step: &mut Step<'_>, at: usize) -> Result<Option<Axis>, How> {
    let axes: Vec<Option<Axis>> = step.inputs.iter().map(|value| value.as_ref()?.axis().cloned()).collect();
    if axes.iter().all(Option::is_none) {
        return Ok(None);
    }
    let axes: Vec<Axis> = axes.into_iter().collect::<Option<_>>().ok_or(How::Unknown("joins rows with a constant"))?;
    let first = axes[0].clone();
    if axes.iter().all(|axis| *axis == first) && first.at != at {
        return Ok(Some(first));
    }
    // One after the other: each row is in every part.
    if axes.iter().any(|axis| axis.at != at || axis.inner != first.inner) {
        return Err(UNKNOWN);
    }
    let mut outer = Size::number(0);
    for axis in &axes {
        outer = step.symbols.sum(&outer, &axis.outer);
    }
    Ok(Some(Axis { outer, ..first }))
}

pub(super) fn split(step: &mut Step<'_>) -> Ruled {
    let dims = step.dims(0)?;
    let at = index(step.node.int("axis", 0), dims.len()).ok_or(UNKNOWN)?;
    let axis = step.first()?.axis().cloned();
    if axis.as_ref().is_some_and(|axis| axis.at == at) {
        return Err(How::Mixes("cuts the batch by place"));
    }
    let count = step.node.output.len();
    let sizes: Vec<Option<Size>> = match step.integers("split", 1) {
        Integers::Known(numbers) => numbers.into_iter().map(|number| Some(Size::number(number))).collect(),
        Integers::Absent => vec![dims[at].divided(&Size::number(count as i64)); count],
        Integers::Unknown => vec![None; count],
    };
    let content = step.value(0).filter(|value| value.rank() == Some(1)).and_then(|value| value.content.clone());
    let mut from = 0_usize;
    let mut values = Vec::with_capacity(count);
    for size in sizes {
        let mut part = dims.clone();
        part[at] = size.clone().unwrap_or_else(|| step.symbols.fresh());
        let length = size.and_then(|size| size.as_number()).and_then(|length| usize::try_from(length).ok());
        let known = content.as_ref().zip(length).and_then(|(all, length)| all.get(from..from.checked_add(length)?));
        from = length.map_or(usize::MAX, |length| from.saturating_add(length));
        let flow = step.plain();
        values.push(match known {
            Some(known) => Value::known(known.to_vec(), part, flow),
            None => step.made(axis.clone(), part),
        });
    }
    Ok(values)
}

pub(super) fn expand(step: &mut Step<'_>) -> Ruled {
    let old = step.dims(0)?;
    let shape = step.needed(1)?;
    if shape.axis().is_some() {
        return Err(How::Unknown("is as large as values say"));
    }
    let follows = !shape.is_fixed();
    let Some(content) = shape.content.clone() else { return Err(How::Unknown("expands to a size that is not known")) };
    let axis = step.needed(0)?.axis().cloned();
    if axis.is_none() && !step.needed(0)?.is_fixed() {
        return Err(UNKNOWN);
    }
    let rank = old.len().max(content.len());
    let from_end = |at: usize| rank - at;
    let beside = |at: usize| content.len().checked_sub(from_end(at)).and_then(|place| content[place].clone());
    let mut wanted = Dims::new();
    for size in &content {
        // A size that is not known may be anything but the rows'.
        let size = match size {
            Some(size) => size.clone(),
            None if follows => return Err(COUNTED),
            None => step.symbols.fresh(),
        };
        wanted.push(size);
    }
    let dims = spread(step, &old, &wanted);
    if let Some(axis) = axis {
        let moved = axis.moved(axis.at + rank - old.len());
        let covers = rank - moved.at <= content.len();
        let own = old[axis.at].clone();
        let is_kept = !covers || beside(moved.at).is_some_and(|size| size.is(1) || size == own);
        let others = (0..rank).filter(|&at| at != moved.at).all(|at| !dims[at].follows_rows());
        return if is_kept && others { Ok(vec![Value::rows(moved, dims)]) } else { Err(UNKNOWN) };
    }
    // A constant that has several elements where rows are counted gives each row another.
    let of_old = |at: usize| old.len().checked_sub(from_end(at)).map(|place| &old[place]);
    let is_same_for_all = (0..rank).all(|at| !dims[at].follows_rows() || of_old(at).is_none_or(|size| size.is(1)));
    let value = if is_same_for_all { repeated(dims) } else { Value::new(Flow::Counts, dims) };
    let content = step.value(0).and_then(|value| value.content.clone()).filter(|content| content.len() == 1);
    let count = value.dims.as_ref().filter(|dims| dims.len() == 1).and_then(|dims| dims[0].as_number());
    Ok(vec![match (content, count.filter(|&count| (0..=64).contains(&count))) {
        (Some(content), Some(count)) => {
            let flow = value.flow.clone();
            Value::known(vec![content[0].clone(); count as usize], value.dims.unwrap_or_default(), flow)
        }
        _ => value,
    }])
}

/// One number everywhere in these dimensions, so that it is the same for each row.
fn repeated(dims: Dims) -> Value {
    let following: Vec<usize> = (0..dims.len()).filter(|&at| dims[at].follows_rows()).collect();
    match following[..] {
        [] => Value::new(Flow::Fixed, dims),
        [at] => match dims[at].per_row() {
            Some(inner) => Value::rows(Axis { inner, ..Axis::plain(at) }, dims),
            None => Value::new(Flow::Counts, dims),
        },
        _ => Value::new(Flow::Counts, dims),
    }
}

pub(super) fn constant_of_shape(step: &mut Step<'_>) -> Ruled {
    let shape = step.needed(0)?;
    if shape.axis().is_some() {
        return Err(How::Unknown("is as large as values say"));
    }
    let follows = !shape.is_fixed();
    let content = shape.content.clone().ok_or(How::Unknown("has a size that is not known"))?;
    let mut dims = Dims::new();
    for size in content {
        dims.push(match size {
            Some(size) => size,
            None if follows => return Err(COUNTED),
            None => step.symbols.fresh(),
        });
    }
    let fill = step.node.attribute("value").and_then(|value| value.t.as_ref());
    let number = fill.map_or(Some(0.0), |tensor| tensor.numbers()?.first().copied());
    let value = repeated(dims);
    let count = value.dims.as_ref().filter(|dims| dims.len() <= 1).and_then(super::size::product);
    let count = count.and_then(|count| count.as_number()).filter(|count| (0..=64).contains(count));
    #[expect(clippy::float_cmp, reason = "whole numbers are exact")]
    let number = number.filter(|number| number.trunc() == *number);
    Ok(vec![match (number, count) {
        (Some(number), Some(count)) if value.axis().is_none() => {
            let flow = value.flow.clone();
            let elements = vec![Some(Size::number(number as i64)); count as usize];
            Value::known(elements, value.dims.unwrap_or_default(), flow)
        }
        _ => value,
    }])
}

pub(super) fn tile(step: &mut Step<'_>) -> Ruled {
    let old = step.dims(0)?;
    let repeats = step.needed(1)?;
    if repeats.axis().is_some() {
        return Err(How::Unknown("is as large as values say"));
    }
    let content = repeats.content.clone().filter(|content| content.len() == old.len());
    let content = content.ok_or(How::Unknown("repeats as often as is not known"))?;
    let mut dims = Dims::new();
    let mut axis = step.needed(0)?.axis().cloned();
    if axis.is_none() && !step.needed(0)?.is_fixed() {
        return Err(UNKNOWN);
    }
    for (at, (size, times)) in old.iter().zip(content).enumerate() {
        let times = times.ok_or(How::Unknown("repeats as often as is not known"))?;
        dims.push(size.times(&times).ok_or(UNKNOWN)?);
        match &axis {
            Some(rows) if rows.at == at && !times.follows_rows() => {
                let outer = rows.outer.times(&times).ok_or(UNKNOWN)?;
                axis = Some(Axis { outer, ..rows.clone() });
            }
            Some(_) if times.follows_rows() => return Err(COUNTED),
            None if times.follows_rows() => {
                let outer = times.per_row().ok_or(COUNTED)?;
                if !outer.is(1) || size.follows_rows() {
                    return Err(COUNTED);
                }
                axis = Some(Axis { at, outer, inner: size.clone() });
            }
            _ => {}
        }
    }
    Ok(vec![Value::new(axis.map_or(Flow::Fixed, Flow::Rows), dims)])
}

/// `Pad`: nothing before and behind the rows.
pub(super) fn pad(step: &mut Step<'_>) -> Ruled {
    let mut dims = step.dims(0)?;
    let axis = step.first()?.axis().cloned();
    let list = match (step.node.ints("pads"), step.value(1)) {
        (Some(numbers), _) => Some(numbers.iter().map(|&number| Some(Size::number(number))).collect()),
        (None, Some(pads)) => pads.content.clone(),
        (None, None) => None,
    };
    let list: Vec<Option<Size>> = list.ok_or(How::Unknown("pads by sizes that are not known"))?;
    let numbers: Vec<i64> = match step.integers("axes", 3) {
        Integers::Known(numbers) => numbers,
        Integers::Absent => (0..dims.len() as i64).collect(),
        Integers::Unknown => return Err(UNKNOWN),
    };
    if list.len() != 2 * numbers.len() {
        return Err(UNKNOWN);
    }
    for (place, number) in numbers.iter().enumerate() {
        let at = index(*number, dims.len()).ok_or(UNKNOWN)?;
        let (before, behind) = (&list[place], &list[place + numbers.len()]);
        let is_none = |size: &Option<Size>| size.as_ref().is_some_and(|size| size.is(0));
        if is_none(before) && is_none(behind) {
            continue;
        }
        if axis.as_ref().is_some_and(|axis| axis.at == at) {
            return Err(How::Unknown("adds to the rows"));
        }
        dims[at] = match (before, behind) {
            (Some(before), Some(behind)) => {
                let both = step.symbols.sum(before, behind);
                step.symbols.sum(&dims[at], &both)
            }
            _ => step.symbols.fresh(),
        };
    }
    Ok(vec![step.made(axis, dims)])
}

/// `CenterCropPad` of dimensions that are named, those of the rows not among them.
pub(super) fn centred(step: &mut Step<'_>) -> Ruled {
    let mut dims = step.dims(0)?;
    let axis = step.first()?.axis().cloned();
    let numbers = step.node.ints("axes").map_or_else(|| (0..dims.len() as i64).collect(), <[i64]>::to_vec);
    for number in numbers {
        let at = index(number, dims.len()).ok_or(UNKNOWN)?;
        if axis.as_ref().is_some_and(|axis| axis.at == at) {
            return Err(How::Unknown("cuts or adds to the rows"));
        }
        dims[at] = step.symbols.fresh();
    }
    Ok(vec![step.made(axis, dims)])
}
