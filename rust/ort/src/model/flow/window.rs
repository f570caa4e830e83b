//! Images and signals: the first dimension is the batch, windows move over those from the third on.

use super::size::Size;
use super::value::{Axis, Dims, How, Value};
use super::{Ruled, Step};

const NOT_FIRST: How = How::Unknown("has its rows at another axis than the first");
const UNKNOWN: How = How::Unknown("works on dimensions that are not known");

/// The rows of the first input, if they are its first dimension and everything else is constant.
fn batch(step: &Step<'_>) -> Result<Option<Axis>, How> {
    let axis = step.first()?.axis().cloned();
    if axis.as_ref().is_some_and(|axis| axis.at != 0) { Err(NOT_FIRST) } else { Ok(axis) }
}

/// `Conv` and its like; the weights are the input at this place.
pub(super) fn convolve(step: &mut Step<'_>, weights: usize) -> Ruled {
    let (dims, kernel) = (step.dims(0)?, step.dims(weights)?);
    let axis = batch(step)?;
    if dims.len() < 3 || kernel.len() != dims.len() {
        return Err(UNKNOWN);
    }
    let mut made = vec![dims[0].clone(), kernel[0].clone()];
    for at in 2..dims.len() {
        made.push(moved_over(step, &dims[at], at - 2, kernel[at].as_number()));
    }
    Ok(vec![step.made(axis, made)])
}

/// Sizes that the operation makes by its own rules; channels and whatever follows are not computed.
pub(super) fn batched(step: &mut Step<'_>) -> Ruled {
    let rank = step.dims(0)?.len();
    batched_to(step, rank)
}

/// As [`batched`], with another rank.
pub(super) fn batched_to(step: &mut Step<'_>, rank: usize) -> Ruled {
    let dims = step.dims(0)?;
    let axis = batch(step)?;
    let mut made: Dims = dims.into_iter().take(1).collect();
    made.resize_with(rank, || step.symbols.fresh());
    Ok(vec![step.made(axis, made)])
}

pub(super) fn pool(step: &mut Step<'_>) -> Ruled {
    let dims = step.dims(0)?;
    let axis = batch(step)?;
    let kernel = step.node.ints("kernel_shape").map(<[i64]>::to_vec).unwrap_or_default();
    if dims.len() < 3 || kernel.len() + 2 != dims.len() {
        return Err(UNKNOWN);
    }
    let mut made: Dims = dims[..2].to_vec();
    for at in 2..dims.len() {
        made.push(moved_over(step, &dims[at], at - 2, Some(kernel[at - 2])));
    }
    // A second output counts places through the whole batch.
    Ok(vec![step.made(axis, made)])
}

pub(super) fn pool_all(step: &mut Step<'_>) -> Ruled {
    let dims = step.dims(0)?;
    let axis = batch(step)?;
    let made = dims.into_iter().enumerate().map(|(at, size)| if at < 2 { size } else { Size::number(1) });
    Ok(vec![step.made(axis, made.collect())])
}

/// How many places a window of this size has in a dimension.
fn moved_over(step: &mut Step<'_>, size: &Size, place: usize, window: Option<i64>) -> Size {
    let list =
        |name: &str, default: i64| step.node.ints(name).and_then(|list| list.get(place).copied()).unwrap_or(default);
    let spatial = step.node.ints("pads").map_or(0, |pads| pads.len() / 2);
    let pads = step.node.ints("pads").map_or(0, |pads| {
        pads.get(place).copied().unwrap_or(0).saturating_add(pads.get(place + spatial).copied().unwrap_or(0))
    });
    let (stride, dilation) = (list("strides", 1), list("dilations", 1));
    let automatic = step.node.text("auto_pad", "NOTSET");
    let known = size.as_number().zip(window).and_then(|(size, window)| {
        let covered = dilation.checked_mul(window.checked_sub(1)?)?.checked_add(1)?;
        match automatic {
            "NOTSET" | "" => {
                let room = size.checked_add(pads)?.checked_sub(covered)?;
                let whole = room.checked_div(stride)?;
                let rest = i64::from(step.node.flag("ceil_mode") && room.checked_rem(stride)? != 0);
                whole.checked_add(rest)?.checked_add(1)
            }
            "VALID" => size.checked_sub(covered)?.checked_div(stride)?.checked_add(1),
            _ => size.checked_add(stride)?.checked_sub(1)?.checked_div(stride),
        }
    });
    // With `ceil_mode` a last window may fall away, which is not computed here.
    let known = known.filter(|_| !step.node.flag("ceil_mode"));
    known.map_or_else(|| step.symbols.fresh(), Size::number)
}

/// `Col2Im`: as many dimensions as the image has, and two.
pub(super) fn image(step: &mut Step<'_>) -> Ruled {
    let count = step.dims(1)?.first().and_then(Size::as_number).and_then(|count| usize::try_from(count).ok());
    batched_to(step, count.filter(|&count| count <= 8).ok_or(UNKNOWN)? + 2)
}

/// `SpaceToDepth` and `DepthToSpace`.
pub(super) fn blocks(step: &mut Step<'_>, is_to_depth: bool) -> Ruled {
    let dims = step.dims(0)?;
    let axis = batch(step)?;
    if dims.len() != 4 {
        return Err(UNKNOWN);
    }
    let block = Size::number(step.node.int("blocksize", 1));
    let area = block.times(&block).ok_or(UNKNOWN)?;
    let mut scaled = |size: &Size, factor: &Size, up: bool| {
        let scaled = if up { size.times(factor) } else { size.divided(factor) };
        scaled.unwrap_or_else(|| step.symbols.fresh())
    };
    let made = vec![
        dims[0].clone(),
        scaled(&dims[1], &area, is_to_depth),
        scaled(&dims[2], &block, !is_to_depth),
        scaled(&dims[3], &block, !is_to_depth),
    ];
    Ok(vec![step.made(axis, made)])
}

/// Several inputs with the same rows first, and the first one's shape: `GridSample` and attention.
pub(super) fn all_batch_first(step: &mut Step<'_>, rank: usize) -> Ruled {
    let values: Vec<&Value> = step.inputs.iter().flatten().collect();
    let Some(axis) = values.iter().find_map(|value| value.axis()).cloned() else { return Err(UNKNOWN) };
    let is_beside = |value: &&Value| match value.axis() {
        Some(own) => *own == axis,
        None => value.is_fixed() && value.dims.as_ref().is_some_and(|dims| dims.len() <= 1),
    };
    if axis != Axis::plain(0) || !values.iter().all(is_beside) {
        return Err(How::Unknown("joins rows with what may lie across them"));
    }
    let mut dims = vec![Size::rows()];
    dims.resize_with(rank, || step.symbols.fresh());
    Ok(vec![Value::rows(axis, dims)])
}

/// `Attention`: queries, keys, values, masks and past ones have the rows first; a mask may be one for all.
pub(super) fn attention(step: &mut Step<'_>) -> Ruled {
    let plain = Axis::plain(0);
    let is_row = |at: usize| step.value(at).is_none_or(|value| value.axis() == Some(&plain));
    let is_one_for_all = |value: &Value| {
        let dims = value.dims.as_deref().unwrap_or_default();
        value.is_fixed() && (dims.len() == 2 || dims.first().is_some_and(|size| dims.len() == 4 && size.is(1)))
    };
    // A mask of three dimensions begins with the heads, and one of two with the queries.
    let is_own = |value: &Value| value.axis() == Some(&plain) && value.rank() == Some(4);
    let mask_is_kept = step.value(3).is_none_or(|mask| is_own(mask) || is_one_for_all(mask));
    if step.inputs.len() > 7 || !mask_is_kept || ![0, 1, 2, 4, 5, 6].into_iter().all(is_row) {
        return Err(How::Unknown("joins rows with what may lie across them"));
    }
    let dims = step.dims(0)?;
    let mut made = |rank: usize| {
        let mut made = vec![Size::rows()];
        made.resize_with(rank, || step.symbols.fresh());
        Value::rows(plain.clone(), made)
    };
    Ok(vec![made(dims.len()), made(4), made(4), made(4)])
}

/// **Errors:** an input that is neither the rows' own, at these places, nor constant, at those; or the first has no rows.
pub(super) fn rows_first(step: &Step<'_>, rows: &[usize], constants: &[usize]) -> Result<(), How> {
    let plain = Axis::plain(0);
    let is_kept = |at: usize| {
        step.value(at).is_none_or(|value| {
            (rows.contains(&at) && value.axis() == Some(&plain)) || (constants.contains(&at) && value.is_fixed())
        })
    };
    if step.needed(0)?.axis() == Some(&plain) && (0..step.inputs.len()).all(is_kept) {
        Ok(())
    } else {
        Err(How::Unknown("joins rows with what may lie across them"))
    }
}

/// Rows of this rank, of sizes that are not computed.
pub(super) fn any_rows(step: &mut Step<'_>, rank: usize) -> Value {
    let mut dims = vec![Size::rows()];
    dims.resize_with(rank, || step.symbols.fresh());
    Value::rows(Axis::plain(0), dims)
}

/// `DeformConv`: each row has offsets of its own, and a mask.
pub(super) fn deformed(step: &mut Step<'_>) -> Ruled {
    rows_first(step, &[0, 2, 4], &[1, 3])?;
    let rank = step.dims(0)?.len();
    Ok(vec![any_rows(step, rank)])
}

/// `CausalConvWithState`: each row has a state of its own, or none.
pub(super) fn causal(step: &mut Step<'_>) -> Ruled {
    rows_first(step, &[0, 3], &[1, 2])?;
    let dims = step.dims(0)?;
    let state = any_rows(step, 3);
    Ok(vec![Value::rows(Axis::plain(0), dims), state])
}

/// `LinearAttention`: whatever it takes belongs to a row.
pub(super) fn linear_attention(step: &mut Step<'_>) -> Ruled {
    rows_first(step, &[0, 1, 2, 3, 4, 5], &[])?;
    Ok(vec![any_rows(step, 3), any_rows(step, 4)])
}

/// `RotaryEmbedding`: places are the rows' own, tables may be constant.
pub(super) fn rotated(step: &mut Step<'_>) -> Ruled {
    let dims = step.dims(0)?;
    let plain = Axis::plain(0);
    let is_row = |at: usize| step.value(at).is_some_and(|value| value.axis() == Some(&plain));
    let is_table = |at: usize| step.value(at).is_some_and(|value| value.is_fixed() && value.rank() == Some(2));
    let is_kept = is_row(0)
        && match step.value(3) {
            Some(_) => is_row(3) && is_table(1) && is_table(2),
            None => is_row(1) && is_row(2),
        };
    if is_kept {
        Ok(vec![Value::rows(plain, dims)])
    } else {
        Err(How::Unknown("turns rows by what may lie across them"))
    }
}

/// `RNN`, `GRU` and `LSTM`: layout 0, the default, has time first, then the rows of a first dimension are steps of one
/// sequence.
pub(super) fn recurrent(step: &mut Step<'_>) -> Ruled {
    let dims = step.dims(0)?;
    let (batch, time) = if step.node.flag("layout") { (0, 1) } else { (1, 0) };
    if dims.len() != 3 {
        return Err(UNKNOWN);
    }
    let is_at = |value: Option<&Value>, at: usize| value.and_then(Value::axis).is_none_or(|axis| axis.at == at);
    let Some(axis) = step.value(0).and_then(Value::axis).cloned() else { return fixed_sequence(step) };
    if axis.at == time {
        return Err(How::Mixes("takes the batch as steps of one sequence"));
    }
    let is_constant = |index: usize| step.value(index).is_none_or(Value::is_fixed);
    let is_batch = |value: Option<&Value>, at: usize| {
        is_at(value, at) && value.is_none_or(|value| value.axis().is_some_and(|own| *own == axis.moved(at)))
    };
    let state = usize::from(batch != 0);
    let is_kept = axis.at == batch
        && [1, 2, 3, 7].into_iter().all(is_constant)
        && is_batch(step.value(4), 0)
        && is_batch(step.value(5), state)
        && is_batch(step.value(6), state);
    if !is_kept {
        return Err(How::Unknown("has states that are not known to be its rows'"));
    }
    let hidden = Size::number(step.node.int("hidden_size", 0));
    let directions = Size::number(if step.node.text("direction", "forward") == "bidirectional" { 2 } else { 1 });
    let (rows, steps) = (dims[batch].clone(), dims[time].clone());
    let (all, last) = if batch == 0 {
        (vec![rows.clone(), steps, directions.clone(), hidden.clone()], vec![rows, directions, hidden])
    } else {
        (vec![steps, directions.clone(), rows.clone(), hidden.clone()], vec![directions, rows, hidden])
    };
    let all = Value::rows(axis.moved(if batch == 0 { 0 } else { 2 }), all);
    let last = Value::rows(axis.moved(state), last);
    Ok(vec![all, last.clone(), last])
}

/// A sequence that is constant: rows may come in as states only, which no exporter does.
fn fixed_sequence(step: &Step<'_>) -> Ruled {
    let no_rows = step.inputs.iter().flatten().all(|value| value.axis().is_none());
    if no_rows { Err(UNKNOWN) } else { Err(How::Unknown("has states of rows for a sequence of none")) }
}
