//! Lists of tensors. A list is followed as one tensor that stands for each of its elements: all have their rows at the
//! same axis, and where their sizes differ, each has one of its own when it is taken out.

use super::size::Size;
use super::value::{Dims, Flow, How, Value};
use super::{Ruled, Step, index};

const UNLIKE: How = How::Unknown("lists tensors whose rows are not alike");
const BY_COUNT: How = How::Mixes("works with the number of rows");
const UNKNOWN: How = How::Unknown("takes a list apart in a way that is not known to keep rows apart");

/// Operations on lists; `None` for others.
pub(super) fn apply(step: &mut Step<'_>) -> Option<Ruled> {
    Some(match step.node.op_type.as_str() {
        "SequenceEmpty" => Ok(vec![Value { content: Some(Vec::new()), ..Value::fixed() }]),
        "SequenceConstruct" => constructed(step),
        "SequenceInsert" => inserted(step),
        "SequenceErase" => erased(step),
        "SequenceAt" => taken(step),
        "SequenceLength" => counted(step),
        "SplitToSequence" => split(step),
        "ConcatFromSequence" => joined(step),
        _ => return None,
    })
}

/// An element: sizes that are no numbers may be others in the next one.
pub(super) fn element(step_symbols: &mut super::size::Symbols, list: &Value) -> Value {
    let rows = list.axis().map(|axis| axis.at);
    let own = |(at, size): (usize, &Size)| {
        if Some(at) == rows || size.as_number().is_some() { size.clone() } else { step_symbols.fresh() }
    };
    let dims = list.dims.as_ref().map(|dims| dims.iter().enumerate().map(own).collect());
    Value { flow: list.flow.clone(), dims, content: None, origin: None }
}

/// One tensor for both: they flow alike.
fn alike(step: &mut Step<'_>, one: &Value, other: &Value) -> Result<Value, How> {
    let flow = match (&one.flow, &other.flow) {
        (Flow::Fixed, Flow::Fixed) => Flow::Fixed,
        (Flow::Rows(one), Flow::Rows(other)) if one == other => Flow::Rows(one.clone()),
        (Flow::Rows(_), _) | (_, Flow::Rows(_)) => return Err(UNLIKE),
        _ => Flow::Counts,
    };
    let has_rows = matches!(flow, Flow::Rows(_));
    let dims = one.dims.as_ref().zip(other.dims.as_ref()).filter(|(one, other)| one.len() == other.len());
    let mut merge = |(one, other): (&Size, &Size)| if one == other { one.clone() } else { step.symbols.fresh() };
    let dims: Option<Dims> = dims.map(|(one, other)| one.iter().zip(other).map(&mut merge).collect());
    if has_rows && dims.is_none() { Err(UNLIKE) } else { Ok(Value { flow, dims, content: None, origin: None }) }
}

fn constructed(step: &mut Step<'_>) -> Ruled {
    let mut list = Value { content: None, origin: None, ..step.needed(0)?.clone() };
    for at in 1..step.inputs.len() {
        let other = step.needed(at)?.clone();
        list = alike(step, &list, &other)?;
    }
    Ok(vec![list])
}

/// **Errors:** the place follows rows, or how many there are.
fn constant_place(step: &Step<'_>, at: usize) -> Result<(), How> {
    match step.value(at).map(|value| &value.flow) {
        None | Some(Flow::Fixed) => Ok(()),
        Some(Flow::Counts) => Err(BY_COUNT),
        Some(Flow::Rows(_) | Flow::Lost(_)) => Err(UNKNOWN),
    }
}

fn inserted(step: &mut Step<'_>) -> Ruled {
    constant_place(step, 2)?;
    let (list, new) = (step.needed(0)?.clone(), step.needed(1)?.clone());
    let is_empty = list.is_fixed() && list.content.as_ref().is_some_and(Vec::is_empty);
    if is_empty {
        return Ok(vec![Value { content: None, origin: None, ..new }]);
    }
    Ok(vec![alike(step, &list, &new)?])
}

fn erased(step: &mut Step<'_>) -> Ruled {
    constant_place(step, 1)?;
    Ok(vec![Value { content: None, ..step.needed(0)?.clone() }])
}

fn taken(step: &mut Step<'_>) -> Ruled {
    constant_place(step, 1)?;
    let list = step.needed(0)?.clone();
    Ok(vec![element(step.symbols, &list)])
}

/// No list is longer for more rows: what would make one so is refused.
fn counted(step: &mut Step<'_>) -> Ruled {
    let flow = if step.needed(0)?.axis().is_some() { Flow::Fixed } else { step.plain() };
    Ok(vec![Value::new(flow, Vec::new())])
}

fn split(step: &mut Step<'_>) -> Ruled {
    constant_place(step, 1)?;
    let mut dims = step.dims(0)?;
    let axis = step.needed(0)?.axis().cloned();
    let at = index(step.node.int("axis", 0), dims.len()).ok_or(UNKNOWN)?;
    if axis.as_ref().is_some_and(|axis| axis.at == at) {
        return Err(How::Mixes("cuts the batch by place"));
    }
    let is_dropped = step.value(1).is_none() && step.node.int("keepdims", 1) == 0;
    if is_dropped {
        dims.remove(at);
        let axis = axis.map(|axis| if axis.at > at { axis.moved(axis.at - 1) } else { axis });
        return Ok(vec![step.made(axis, dims)]);
    }
    dims[at] = if step.value(1).is_none() { Size::number(1) } else { step.symbols.fresh() };
    Ok(vec![step.made(axis, dims)])
}

fn joined(step: &mut Step<'_>) -> Ruled {
    let list = step.needed(0)?.clone();
    let list = element(step.symbols, &list);
    let mut dims = list.dims.clone().ok_or(UNKNOWN)?;
    let axis = list.axis().cloned();
    let is_new = step.node.flag("new_axis");
    let at = index(step.node.int("axis", 0), dims.len() + usize::from(is_new)).ok_or(UNKNOWN)?;
    let size = step.symbols.fresh();
    if is_new {
        dims.insert(at, size);
        let axis = axis.map(|axis| if axis.at >= at { axis.moved(axis.at + 1) } else { axis });
        return Ok(vec![step.made(axis, dims)]);
    }
    if axis.as_ref().is_some_and(|axis| axis.at == at) {
        return Err(How::Unknown("puts rows one after the other"));
    }
    dims[at] = size;
    Ok(vec![step.made(axis, dims)])
}
