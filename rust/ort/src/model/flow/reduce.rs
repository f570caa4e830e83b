//! Operations along an axis: sums, norms, searches. Across the axis of rows they mix; along any other they keep it.

use super::join::broadcast;
use super::size::Size;
use super::value::{Axis, Dims, Flow, How, Value};
use super::{Integers, Ruled, Step, content, index};

const REDUCES: How = How::Mixes("reduces over the batch");
const NORMALISES: How = How::Mixes("normalises over the batch");
const UNKNOWN_AXES: How = How::Unknown("works along axes that are not known");

/// The operations of this file that keep every dimension, given the axes that they work along.
fn along(step: &Step<'_>, numbers: &[i64], how: How) -> Result<Value, How> {
    let dims = step.dims(0)?;
    let axis = step.first()?.axis().cloned();
    let places = crossed(numbers, dims.len())?;
    let crosses = |axis: &Axis| places.contains(&axis.at);
    if axis.as_ref().is_some_and(crosses) { Err(how) } else { Ok(step.made(axis, dims)) }
}

/// Axis numbers as indices; one that is out of range is not known, rather than none.
fn crossed(numbers: &[i64], rank: usize) -> Result<Vec<usize>, How> {
    numbers.iter().map(|&number| index(number, rank)).collect::<Option<_>>().ok_or(UNKNOWN_AXES)
}

/// As [`along`], with all axes from one on.
fn along_all_from(step: &Step<'_>, first: i64, how: How) -> Result<Value, How> {
    let dims = step.dims(0)?;
    let axis = step.first()?.axis().cloned();
    let first = index(first, dims.len());
    let crosses = |axis: &Axis| first.is_none_or(|first| first <= axis.at);
    if axis.as_ref().is_some_and(crosses) { Err(how) } else { Ok(step.made(axis, dims)) }
}

/// `ReduceSum` and its like.
pub(super) fn reduce(step: &mut Step<'_>) -> Ruled {
    let keeps = step.node.int("keepdims", 1) != 0;
    let numbers = match step.integers("axes", 1) {
        Integers::Unknown => return Err(UNKNOWN_AXES),
        Integers::Known(numbers) if !numbers.is_empty() => numbers,
        _ if step.node.flag("noop_with_empty_axes") => {
            step.inputs.truncate(1);
            return super::join::all(step);
        }
        _ => (0..step.dims(0)?.len() as i64).collect(),
    };
    let value = reduced(step, &numbers, keeps)?;
    let value = if value.axis().is_none() { content::reduced(step, value) } else { value };
    Ok(vec![value])
}

fn reduced(step: &Step<'_>, numbers: &[i64], keeps: bool) -> Result<Value, How> {
    let dims = step.dims(0)?;
    let gone = crossed(numbers, dims.len())?;
    let axis = step.first()?.axis().cloned();
    if axis.as_ref().is_some_and(|axis| gone.contains(&axis.at)) {
        return Err(REDUCES);
    }
    if keeps {
        let one = |(at, size): (usize, Size)| if gone.contains(&at) { Size::number(1) } else { size };
        return Ok(step.made(axis, dims.into_iter().enumerate().map(one).collect()));
    }
    let before = |at: usize| (0..at).filter(|other| gone.contains(other)).count();
    let axis = axis.map(|axis| axis.moved(axis.at - before(axis.at)));
    let left = dims.into_iter().enumerate().filter(|(at, _)| !gone.contains(at)).map(|(_, size)| size);
    Ok(step.made(axis, left.collect()))
}

/// `ArgMax` and `ArgMin`.
pub(super) fn arg(step: &mut Step<'_>) -> Ruled {
    let keeps = step.node.int("keepdims", 1) != 0;
    Ok(vec![reduced(step, &[step.node.int("axis", 0)], keeps)?])
}

pub(super) fn softmax(step: &mut Step<'_>) -> Ruled {
    let value = if step.opset >= 13 {
        along(step, &[step.node.int("axis", -1)], NORMALISES)?
    } else {
        // Until version 12 all axes from `axis` on were taken together.
        along_all_from(step, step.node.int("axis", 1), NORMALISES)?
    };
    Ok(vec![value])
}

/// One axis, from an attribute; every dimension stays.
pub(super) fn along_attribute(step: &mut Step<'_>, default: i64, how: &'static str) -> Ruled {
    Ok(vec![along(step, &[step.node.int("axis", default)], How::Mixes(how))?])
}

pub(super) fn cumulate(step: &mut Step<'_>) -> Ruled {
    let Integers::Known(numbers) = step.integers("axis", 1) else { return Err(UNKNOWN_AXES) };
    Ok(vec![along(step, &numbers, How::Mixes("sums along the batch"))?])
}

pub(super) fn top(step: &mut Step<'_>) -> Ruled {
    let number = step.node.int("axis", -1);
    let value = along(step, &[number], How::Mixes("picks the largest across the batch"))?;
    let axis = value.axis().cloned();
    let mut dims = value.dims.unwrap_or_default();
    let count = match (step.node.attribute("k"), step.value(1).and_then(|value| value.content.clone())) {
        (Some(count), _) => Size::number(count.i),
        (None, Some(content)) => content.into_iter().next().flatten().unwrap_or_else(|| step.symbols.fresh()),
        (None, None) => step.symbols.fresh(),
    };
    if count.follows_rows() {
        return Err(How::Mixes("works with the number of rows"));
    }
    if let Some(at) = index(number, dims.len()) {
        dims[at] = count;
    }
    let value = step.made(axis, dims);
    Ok(vec![value.clone(), value])
}

/// `LayerNormalization` and its like: all axes from one on, then a scale and a shift for each place.
pub(super) fn layer_norm(step: &mut Step<'_>) -> Ruled {
    let dims = step.dims(0)?;
    let normalised = along_all_from(step, step.node.int("axis", -1), NORMALISES)?;
    let mut joined = vec![&normalised];
    let others: Vec<Value> = step.inputs.iter().skip(1).flatten().cloned().collect();
    joined.extend(&others);
    let (axis, _) = broadcast(step, &joined)?;
    let first = index(step.node.int("axis", -1), dims.len()).unwrap_or(0);
    let statistics: Dims =
        dims.iter().enumerate().map(|(at, size)| if at < first { size.clone() } else { Size::number(1) }).collect();
    let statistics = step.made(axis.clone(), statistics);
    Ok(vec![step.made(axis, dims), statistics.clone(), statistics])
}

pub(super) fn mean_variance(step: &mut Step<'_>) -> Ruled {
    let axes = step.node.ints("axes").unwrap_or(&[0, 2, 3]).to_vec();
    Ok(vec![along(step, &axes, NORMALISES)?])
}

/// `BatchNormalization` with statistics from training.
pub(super) fn batch_norm(step: &mut Step<'_>) -> Ruled {
    if step.node.flag("training_mode") {
        return Err(How::Mixes("normalises by the whole batch (training mode)"));
    }
    if step.node.output.len() > 1 && step.opset < 14 {
        return Err(How::Unknown("may normalise by the whole batch (training mode)"));
    }
    per_channel(step)
}

/// Constants for each index of axis 1.
pub(super) fn per_channel(step: &mut Step<'_>) -> Ruled {
    Ok(vec![along(step, &[1], How::Unknown("has constants for each row"))?])
}

/// Constants for each index of an axis, or one for all: `QuantizeLinear` and its like.
pub(super) fn quantised(step: &mut Step<'_>) -> Ruled {
    let unlike = How::Unknown("has constants for each row");
    let is_one_for_all = step.inputs.iter().skip(1).flatten().all(Value::is_scalar);
    if is_one_for_all {
        return Ok(vec![along(step, &[], unlike)?]);
    }
    if step.node.flag("block_size") {
        return Err(How::Unknown("quantises by blocks"));
    }
    Ok(vec![along(step, &[step.node.int("axis", 1)], unlike)?])
}

/// The first axis of the first input is the batch, whatever is done with the others, and the shape stays.
pub(super) fn batch_first(step: &mut Step<'_>) -> Ruled {
    let dims = step.dims(0)?;
    let axis = step.first()?.axis().cloned();
    if axis.as_ref().is_some_and(|axis| axis.at != 0) {
        return Err(How::Unknown("has its rows at another axis than the first"));
    }
    Ok(vec![step.made(axis, dims)])
}

/// `Dropout`: at serving time nothing, unless it is told to train.
pub(super) fn dropout(step: &mut Step<'_>) -> Ruled {
    let trains = match step.value(2) {
        None => false,
        Some(value) => value.numbers().is_none_or(|numbers| numbers != [0]),
    };
    if trains || (step.opset < 7 && !step.node.flag("is_test")) {
        return Err(How::Random);
    }
    let value = along(step, &[], REDUCES)?;
    Ok(vec![value.clone(), value])
}

/// `DFT` along an axis, whose size may change.
pub(super) fn fourier(step: &mut Step<'_>) -> Ruled {
    let number = match (step.node.attribute("axis"), step.value(2)) {
        (Some(axis), _) => axis.i,
        (None, Some(axis)) => axis.numbers().and_then(|numbers| numbers.first().copied()).ok_or(UNKNOWN_AXES)?,
        (None, None) => {
            if step.opset < 20 {
                1
            } else {
                -2
            }
        }
    };
    let value = along(step, &[number, -1], How::Mixes("transforms along the batch"))?;
    let axis = value.axis().cloned();
    let mut dims = value.dims.unwrap_or_default();
    for at in [index(number, dims.len()), dims.len().checked_sub(1)].into_iter().flatten() {
        dims[at] = step.symbols.fresh();
    }
    Ok(vec![step.made(axis, dims)])
}

/// Losses that are told for each element, with constant weights.
pub(super) fn loss(step: &mut Step<'_>) -> Ruled {
    if step.node.text("reduction", "mean") != "none" {
        return Err(REDUCES);
    }
    let (scores, labels) = (step.needed(0)?.clone(), step.needed(1)?.clone());
    let plain = Axis::plain(0);
    let is_kept =
        scores.axis() == Some(&plain) && labels.axis() == Some(&plain) && step.value(2).is_none_or(Value::is_fixed);
    if !is_kept {
        return Err(How::Unknown("takes rows where constants are expected"));
    }
    let (of_labels, of_scores) = (step.dims(1)?, step.dims(0)?);
    Ok(vec![Value::rows(plain.clone(), of_labels), Value::rows(plain, of_scores)])
}

/// Matrices in the last two axes, each by itself.
pub(super) fn matrices(step: &mut Step<'_>, taken_away: usize) -> Ruled {
    let mut dims = step.dims(0)?;
    let axis = step.first()?.axis().cloned();
    if axis.as_ref().is_some_and(|axis| axis.at + 2 >= dims.len()) {
        return Err(How::Mixes("takes the batch for the rows of one matrix"));
    }
    dims.truncate(dims.len().saturating_sub(taken_away));
    Ok(vec![step.made(axis, dims)])
}

/// `ReverseSequence`: one length for each row.
pub(super) fn reversed(step: &mut Step<'_>) -> Ruled {
    let dims = step.dims(0)?;
    let (batch, time) = (step.node.int("batch_axis", 1), step.node.int("time_axis", 0));
    let is_at =
        |index: usize, at: i64| step.value(index).and_then(Value::axis).is_some_and(|axis| axis.at as i64 == at);
    let is_kept = batch != time && is_at(0, batch) && is_at(1, 0) && step.inputs.iter().flatten().all(is_plain);
    if !is_kept {
        return Err(How::Unknown("reverses by lengths that are not known to be its rows'"));
    }
    Ok(vec![step.made(Some(Axis::plain(batch as usize)), dims)])
}

fn is_plain(value: &Value) -> bool {
    matches!(&value.flow, Flow::Rows(axis) if axis.is_plain())
}
