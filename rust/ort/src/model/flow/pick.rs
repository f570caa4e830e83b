//! Elements picked and placed by index: tables that rows look into, and rows that are picked by their place.

use super::size::{Size, product};
use super::value::{Axis, How, Value};
use super::{Integers, Ruled, Step, content, index};

const BY_PLACE: How = How::Mixes("picks rows by their place in the batch");
const BETWEEN: How = How::Mixes("lets a row pick from other rows");
/// An end that no dimension reaches: exporters write several such numbers, and no batch has as many rows.
const ALL: i64 = 1_000_000_000;

const UNKNOWN: How = How::Unknown("picks in a way that is not known to keep rows apart");

pub(super) fn gather(step: &mut Step<'_>) -> Ruled {
    if let Some(content) = content::gathered(step) {
        let dims = step.dims(1)?;
        let flow = step.plain();
        return Ok(vec![Value::known(content, dims, flow)]);
    }
    let (data, indices) = (step.dims(0)?, step.dims(1)?);
    let along = index(step.node.int("axis", 0), data.len()).ok_or(UNKNOWN)?;
    let axis = match (step.needed(0)?.axis(), step.needed(1)?.axis()) {
        (Some(rows), None) if rows.at == along => return Err(BY_PLACE),
        (Some(rows), Some(_)) if rows.at == along => return Err(BETWEEN),
        (Some(_), Some(_)) => return Err(How::Mixes("joins each row with every other")),
        (Some(_), None) if !step.needed(1)?.is_fixed() => return Err(How::Mixes("works with the number of rows")),
        (None, Some(_)) if !step.needed(0)?.is_fixed() => return Err(UNKNOWN),
        (Some(rows), None) if rows.at < along => Some(rows.clone()),
        (Some(rows), None) => Some(rows.moved(rows.at - 1 + indices.len())),
        (None, Some(rows)) => Some(rows.moved(along + rows.at)),
        (None, None) => None,
    };
    note_table(step, data[along].as_number());
    let dims = [&data[..along], &indices[..], &data[along + 1..]].concat();
    Ok(vec![step.made(axis, dims)])
}

/// Remembers the size of the table that an input of the graph looks into.
fn note_table(step: &mut Step<'_>, size: Option<i64>) {
    if let (Some(size), Some(origin)) = (size, step.value(1).and_then(|value| value.origin))
        && step.value(0).is_some_and(Value::is_fixed)
    {
        let bound = step.bounds.entry(origin).or_insert(size);
        *bound = size.min(*bound);
    }
}

pub(super) fn gather_elements(step: &mut Step<'_>) -> Ruled {
    let (data, indices) = (step.dims(0)?, step.dims(1)?);
    let along = index(step.node.int("axis", 0), data.len()).ok_or(UNKNOWN)?;
    let axis = match (step.needed(0)?.axis(), step.needed(1)?.axis()) {
        (Some(rows), _) if rows.at == along => return Err(BETWEEN),
        (Some(rows), Some(own)) if rows == own => Some(own.clone()),
        // Each index stands at a place of its own in the table, but along the axis it picks freely.
        (None, Some(own)) if own.at == along && step.needed(0)?.is_fixed() => Some(own.clone()),
        (None, None) => None,
        _ => return Err(UNKNOWN),
    };
    Ok(vec![step.made(axis, indices)])
}

pub(super) fn gather_nd(step: &mut Step<'_>) -> Ruled {
    let (data, indices) = (step.dims(0)?, step.dims(1)?);
    let shared = usize::try_from(step.node.int("batch_dims", 0)).map_err(|_| UNKNOWN)?;
    let depth =
        indices.last().and_then(Size::as_number).and_then(|depth| usize::try_from(depth).ok()).ok_or(UNKNOWN)?;
    let taken = shared + depth;
    if indices.is_empty() || taken > data.len() || shared >= indices.len() {
        return Err(UNKNOWN);
    }
    let lead = indices.len() - 1;
    let axis = match (step.needed(0)?.axis(), step.needed(1)?.axis()) {
        (Some(rows), Some(own)) if rows == own && rows.at < shared => Some(own.clone()),
        (Some(rows), _) if (shared..taken).contains(&rows.at) => return Err(BETWEEN),
        (Some(rows), None) if rows.at >= taken && step.needed(1)?.is_fixed() => {
            Some(rows.moved(rows.at - taken + lead))
        }
        (None, Some(own)) if (shared..lead).contains(&own.at) && step.needed(0)?.is_fixed() => Some(own.clone()),
        (None, None) => None,
        _ => return Err(UNKNOWN),
    };
    let dims = [&indices[..lead], &data[taken..]].concat();
    Ok(vec![step.made(axis, dims)])
}

/// `ScatterElements`: all three have the same rows, and places are taken along another axis.
pub(super) fn scatter_elements(step: &mut Step<'_>) -> Ruled {
    let data = step.dims(0)?;
    let along = index(step.node.int("axis", 0), data.len()).ok_or(UNKNOWN)?;
    let all: Vec<Option<&Axis>> = (0..3).map(|at| step.value(at).and_then(Value::axis)).collect();
    let axis = match all[..] {
        [Some(data), Some(indices), Some(updates)] if data == indices && data == updates => {
            if data.at == along {
                return Err(BETWEEN);
            }
            Some(data.clone())
        }
        [None, None, None] => None,
        _ => return Err(UNKNOWN),
    };
    Ok(vec![step.made(axis, data)])
}

/// `ScatterND` at constant places that take whole rows' worth of the dimensions behind.
pub(super) fn scatter_nd(step: &mut Step<'_>) -> Ruled {
    let (data, indices) = (step.dims(0)?, step.dims(1)?);
    let depth =
        indices.last().and_then(Size::as_number).and_then(|depth| usize::try_from(depth).ok()).ok_or(UNKNOWN)?;
    let axis = match (step.needed(0)?.axis(), step.needed(2)?.axis()) {
        (Some(data), Some(updates)) => {
            let is_beside = data.at >= depth && updates.at == data.at - depth + indices.len() - 1;
            let is_same = data.outer == updates.outer && data.inner == updates.inner;
            if !(is_beside && is_same && step.needed(1)?.is_fixed()) {
                return Err(UNKNOWN);
            }
            Some(data.clone())
        }
        (None, None) if step.needed(1)?.axis().is_none() => None,
        _ => return Err(UNKNOWN),
    };
    Ok(vec![step.made(axis, data)])
}

/// `TensorScatter`: each row has a cache, what is written there, and a place for it.
pub(super) fn cached(step: &mut Step<'_>) -> Ruled {
    let dims = step.dims(0)?;
    if index(step.node.int("axis", -2), dims.len()).is_none_or(|along| along == 0) {
        return Err(UNKNOWN);
    }
    super::window::rows_first(step, &[0, 1, 2], &[])?;
    Ok(vec![Value::rows(Axis::plain(0), dims)])
}

/// `OneHot`: each number becomes a list.
pub(super) fn one_hot(step: &mut Step<'_>) -> Ruled {
    let mut dims = step.dims(0)?;
    let axis = step.first()?.axis().cloned();
    let at = index(step.node.int("axis", -1), dims.len() + 1).ok_or(UNKNOWN)?;
    let depth = step.value(1).and_then(|value| value.content.clone()).and_then(|content| content.into_iter().next());
    dims.insert(at, depth.flatten().unwrap_or_else(|| step.symbols.fresh()));
    let axis = axis.map(|axis| if axis.at >= at { axis.moved(axis.at + 1) } else { axis });
    Ok(vec![step.made(axis, dims)])
}

/// `Compress` along another axis than that of the rows.
pub(super) fn compress(step: &mut Step<'_>) -> Ruled {
    let mut dims = step.dims(0)?;
    let axis = step.first()?.axis().cloned();
    let Some(number) = step.node.attribute("axis").map(|attribute| attribute.i) else { return Err(UNKNOWN) };
    let along = index(number, dims.len()).ok_or(UNKNOWN)?;
    if axis.as_ref().is_some_and(|axis| axis.at == along) {
        return Err(BY_PLACE);
    }
    dims[along] = step.symbols.fresh();
    Ok(vec![step.made(axis, dims)])
}

pub(super) fn slice(step: &mut Step<'_>) -> Ruled {
    if let Some((content, dims)) = content::sliced(step) {
        let flow = step.plain();
        return Ok(vec![Value::known(content, dims, flow)]);
    }
    let mut dims = step.dims(0)?;
    let axis = step.needed(0)?.axis().cloned();
    let bounds = Bounds::of(step, dims.len())?;
    for (place, at) in bounds.axes.iter().enumerate() {
        let (start, end, stride) = (bounds.start(place), bounds.end(place), bounds.stride(place));
        let is_whole = start.is_some_and(|start| start.is(0))
            && stride.is_some_and(|stride| stride.is(1))
            && end.is_some_and(|end| *end == dims[*at] || end.as_number().is_some_and(|end| end >= ALL));
        if is_whole {
            continue;
        }
        let follows = step.inputs.iter().skip(1).flatten().any(|value| !value.is_fixed());
        match &axis {
            Some(axis) if axis.at == *at => return Err(BY_PLACE),
            Some(_) if follows => return Err(How::Unknown("cuts at places that follow values")),
            _ => {}
        }
        let numbers = (dims[*at].as_number(), start.and_then(Size::as_number), end.and_then(Size::as_number));
        dims[*at] = match (numbers, stride.and_then(Size::as_number)) {
            ((Some(size), Some(start), Some(end)), Some(1)) => {
                let place = |number: i64| if number < 0 { number.saturating_add(size) } else { number }.clamp(0, size);
                Size::number((place(end) - place(start)).max(0))
            }
            _ => step.symbols.fresh(),
        };
    }
    let rest_is_fixed = step.inputs.iter().skip(1).flatten().all(Value::is_fixed);
    if axis.is_none() && !rest_is_fixed {
        return Err(How::Unknown("cuts at places that follow values"));
    }
    Ok(vec![step.made(axis, dims)])
}

/// Where a slice begins and ends, as far as it is known.
struct Bounds {
    axes: Vec<usize>,
    lists: [Option<Vec<Option<Size>>>; 3],
}

impl Bounds {
    fn of(step: &Step<'_>, rank: usize) -> Result<Self, How> {
        let list = |name: &str, at: usize| match step.node.ints(name) {
            Some(numbers) => Some(numbers.iter().map(|&number| Some(Size::number(number))).collect()),
            None => step.value(at).and_then(|value| value.content.clone()),
        };
        let (starts, ends) = (list("starts", 1), list("ends", 2));
        let count = starts.as_ref().map(Vec::len).or(ends.as_ref().map(Vec::len));
        let ones = || count.map(|count| vec![Some(Size::number(1)); count]);
        let steps = if step.value(4).is_some() { list("steps", 4) } else { ones() };
        let axes: Vec<i64> = match step.integers("axes", 3) {
            Integers::Known(axes) => axes,
            Integers::Absent => (0..count.ok_or(UNKNOWN)? as i64).collect(),
            Integers::Unknown => return Err(UNKNOWN),
        };
        let axes = axes.into_iter().map(|number| index(number, rank)).collect::<Option<_>>().ok_or(UNKNOWN)?;
        Ok(Self { axes, lists: [starts, ends, steps] })
    }

    fn one(&self, list: usize, place: usize) -> Option<&Size> {
        self.lists[list].as_ref()?.get(place)?.as_ref()
    }

    fn start(&self, place: usize) -> Option<&Size> {
        self.one(0, place)
    }

    fn end(&self, place: usize) -> Option<&Size> {
        self.one(1, place)
    }

    fn stride(&self, place: usize) -> Option<&Size> {
        self.one(2, place)
    }
}

/// `ArrayFeatureExtractor`: picks along the last axis, at all the places of the second input one after the other.
pub(super) fn features(step: &mut Step<'_>) -> Ruled {
    let (mut dims, places) = (step.dims(0)?, step.dims(1)?);
    let last = dims.len().checked_sub(1).ok_or(UNKNOWN)?;
    let axis = match (step.needed(0)?.axis(), step.needed(1)?.axis()) {
        (Some(rows), None) if rows.at == last => return Err(BY_PLACE),
        (Some(rows), None) if step.needed(1)?.is_fixed() => Some(rows.clone()),
        (None, Some(rows)) if step.needed(0)?.is_fixed() => {
            let outer = product(places[..rows.at].iter().chain([&rows.outer])).ok_or(UNKNOWN)?;
            let inner = product(places[rows.at + 1..].iter().chain([&rows.inner])).ok_or(UNKNOWN)?;
            Some(Axis { at: last, outer, inner })
        }
        (None, None) => None,
        _ => return Err(BETWEEN),
    };
    dims[last] = product(&places).ok_or(UNKNOWN)?;
    if dims.len() == 1 {
        // A list is a table of one row, and so is what is picked from it.
        dims.insert(0, Size::number(1));
        return Ok(vec![step.made(axis.map(|axis| axis.moved(1)), dims)]);
    }
    Ok(vec![step.made(axis, dims)])
}
