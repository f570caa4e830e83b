//! Computes with small tensors of numbers that follow no values: shapes, and what exporters make of them.

use super::size::{Size, Symbols, product};
use super::value::{Dims, Flow, How, Value};
use super::{Integers, Ruled, Step, index};

/// Most elements that are computed with.
const MAX_ELEMENTS: usize = 64;

/// `TensorProto.DataType` of what is computed with: floats, whole numbers of 32 and 64 bits, truth values, doubles. Others
/// are too short for sizes.
const EXACT: [i64; 5] = [1, 6, 7, 9, 11];
const FRACTIONS: [i64; 2] = [1, 11];
const INT64: i64 = 7;

/// Largest number that sums and products are known to: floats hold the whole ones up to here.
const LARGEST: i64 = 1 << 24;

type Element = Option<Size>;

/// The same value with its elements, if they can be told.
pub(super) fn elementwise(step: &mut Step<'_>, value: Value) -> Value {
    let Some(content) = computed(step) else { return value };
    let flow = step.plain();
    Value::known(content, value.dims.unwrap_or_default(), flow)
}

fn computed(step: &mut Step<'_>) -> Option<Vec<Element>> {
    let inputs: Vec<&Value> = step.inputs.iter().flatten().collect();
    let is_flat = inputs.iter().all(|value| value.rank().is_some_and(|rank| rank <= 1));
    let contents = inputs.iter().map(|value| value.content.clone()).collect::<Option<Vec<_>>>()?;
    let count = contents.iter().map(Vec::len).max()?;
    let fits = contents.iter().all(|content| content.len() == count || content.len() == 1);
    if !is_flat || !fits || count > MAX_ELEMENTS {
        return None;
    }
    let (op_type, to) = (step.node.op_type.as_str(), step.node.int("to", 0));
    let mut elements = Vec::with_capacity(count);
    for at in 0..count {
        let operands: Vec<Element> = contents.iter().map(|content| content[at % content.len()].clone()).collect();
        elements.push(element(step.symbols, op_type, to, &operands)?);
    }
    Some(elements)
}

/// One element; `None` outside: this operation is not computed.
fn element(symbols: &mut Symbols, op_type: &str, to: i64, operands: &[Element]) -> Option<Element> {
    if op_type == "Where" {
        return Some(match operands {
            [Some(condition), yes, no] => match condition.as_number() {
                Some(0) => no.clone(),
                Some(_) => yes.clone(),
                None if yes == no => yes.clone(),
                None => None,
            },
            _ => None,
        });
    }
    let known: Option<Vec<&Size>> = operands.iter().map(Option::as_ref).collect();
    let Some(known) = known else { return is_computed(op_type).then_some(None) };
    let whole = |claim: Option<bool>| claim.map(|claim| Size::number(i64::from(claim)));
    Some(match (op_type, &known[..]) {
        ("Identity" | "Floor" | "Ceil" | "Round", [only]) => Some((*only).clone()),
        ("Cast", [only]) if to == 9 => whole(only.as_number().map(|number| number != 0)),
        ("Cast", [only]) if is_exact(to) => match only.as_number() {
            Some(number) => (number.saturating_abs() <= LARGEST || to == INT64).then(|| (*only).clone()),
            None => (!FRACTIONS.contains(&to)).then(|| (*only).clone()),
        },
        ("Cast", [_]) => None,
        ("Neg", [only]) => only.times(&Size::number(-1)),
        ("Not", [only]) => whole(only.as_number().map(|number| number == 0)),
        ("Add" | "Sum", [left, right]) => Some(symbols.sum(left, right)).filter(fits),
        ("Sub", [left, right]) => Some(symbols.difference(left, right)).filter(fits),
        ("Mul", [left, right]) => Some(symbols.times(left, right)).filter(fits),
        ("Div", [left, right]) => symbols.quotient(left, right),
        ("Mod", [left, right]) => match (left.as_number(), right.as_number()) {
            (Some(left), Some(right)) if left >= 0 && right > 0 => Some(Size::number(left % right)),
            _ if left.divided(right).is_some() => Some(Size::number(0)),
            _ => None,
        },
        ("Equal", [left, right]) => whole(equal(left, right)),
        ("Max" | "Min", [left, right]) => Some(extreme(symbols, op_type == "Max", left, right)),
        ("And" | "Or" | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual", [left, right]) => {
            whole(left.as_number().zip(right.as_number()).map(|(left, right)| match op_type {
                "And" => left != 0 && right != 0,
                "Or" => left != 0 || right != 0,
                "Greater" => left > right,
                "Less" => left < right,
                "GreaterOrEqual" => left >= right,
                _ => left <= right,
            }))
        }
        _ => return None,
    })
}

/// Whether numbers of this type are computed with.
pub(super) fn is_exact(element: i64) -> bool {
    EXACT.contains(&element)
}

fn fits(size: &Size) -> bool {
    size.as_number().is_none_or(|number| number.saturating_abs() <= LARGEST)
}

fn is_computed(op_type: &str) -> bool {
    matches!(op_type, "Identity" | "Cast" | "Neg" | "Not" | "Add" | "Sum" | "Sub" | "Mul" | "Div" | "Mod" | "Equal")
}

fn equal(left: &Size, right: &Size) -> Option<bool> {
    match (left.as_number(), right.as_number()) {
        (Some(left), Some(right)) => Some(left == right),
        (Some(number), None) if number < 0 && right.is_natural() => Some(false),
        (None, Some(number)) if number < 0 && left.is_natural() => Some(false),
        _ => (left == right).then_some(true),
    }
}

fn extreme(symbols: &mut Symbols, largest: bool, left: &Size, right: &Size) -> Size {
    if left == right {
        return left.clone();
    }
    if let (Some(left), Some(right)) = (left.as_number(), right.as_number()) {
        return Size::number(if largest { left.max(right) } else { left.min(right) });
    }
    let operands = if left <= right { [left, right] } else { [right, left] };
    let is_natural = left.is_natural() && right.is_natural();
    symbols.computed(if largest { "max" } else { "min" }, &operands, is_natural)
}

/// `Shape`: the dimensions, or some of them.
pub(super) fn shape(step: &mut Step<'_>) -> Ruled {
    let dims = step.dims(0)?;
    let rank = dims.len() as i64;
    let bound = |name: &str, default: i64| {
        let number = step.node.int(name, default);
        (if number < 0 { number.saturating_add(rank) } else { number }).clamp(0, rank) as usize
    };
    let (start, end) = (bound("start", 0), bound("end", rank));
    let content: Vec<Element> = dims[start..end.max(start)].iter().cloned().map(Some).collect();
    let count = Size::number(content.len() as i64);
    Ok(vec![Value::known(content, vec![count], Flow::Counts)])
}

/// `Size`: the product of the dimensions.
pub(super) fn size(step: &mut Step<'_>) -> Ruled {
    Ok(vec![Value::known(vec![product(&step.dims(0)?)], Vec::new(), Flow::Counts)])
}

/// `ReduceProd` and the like of known numbers.
pub(super) fn reduced(step: &mut Step<'_>, value: Value) -> Value {
    let Some(content) = step.value(0).and_then(|value| value.content.clone()) else { return value };
    let all: Option<Vec<&Size>> = content.iter().map(Option::as_ref).collect();
    let Some(all) = all.filter(|_| step.value(0).and_then(Value::rank) == Some(1)) else { return value };
    let numbers: Option<Vec<i64>> = all.iter().map(|size| size.as_number()).collect();
    let result = match (step.node.op_type.as_str(), numbers) {
        ("ReduceProd", _) => product(all),
        ("ReduceMax", Some(numbers)) => numbers.into_iter().max().map(Size::number),
        ("ReduceMin", Some(numbers)) => numbers.into_iter().min().map(Size::number),
        ("ReduceSum", Some(numbers)) => Some(Size::number(numbers.into_iter().fold(0, i64::saturating_add))),
        _ => return value,
    };
    let flow = step.plain();
    Value::known(vec![result], value.dims.unwrap_or_default(), flow)
}

/// `Range`: as many numbers as the limits say.
pub(super) fn range(step: &mut Step<'_>) -> Ruled {
    let flow = step.plain();
    let known = |index: usize| step.value(index).and_then(|value| value.content.as_ref()?.first()?.clone());
    let (Some(start), Some(limit), Some(delta)) = (known(0), known(1), known(2)) else {
        return Err(How::Unknown("counts up to a value"));
    };
    let length = match (start.as_number(), limit.as_number(), delta.as_number()) {
        (Some(start), Some(limit), Some(delta)) if delta != 0 => {
            // Limits that are no whole numbers are not known, so this is exact.
            let (distance, step_by) = (limit.saturating_sub(start), delta);
            let whole = distance.checked_div(step_by).unwrap_or(0);
            let rest = i64::from(distance.checked_rem(step_by).unwrap_or(0) != 0);
            Size::number(if whole < 0 { 0 } else { whole.saturating_add(rest) })
        }
        (_, _, Some(1)) if start.is(0) && limit.is_natural() => limit.clone(),
        _ => step.symbols.computed("range", &[&start, &limit, &delta], true),
    };
    let exact = start.as_number().zip(limit.as_number()).zip(delta.as_number());
    let content = exact.filter(|_| length.as_number().is_some_and(|count| count <= MAX_ELEMENTS as i64));
    let content = content.map(|((start, limit), delta)| numbers(start, limit, delta));
    let length = content.as_ref().map_or(length, |content| Size::number(content.len() as i64));
    let flow = if length.follows_rows() { Flow::Counts } else { flow };
    Ok(vec![Value { content, ..Value::new(flow, vec![length]) }])
}

fn numbers(start: i64, limit: i64, delta: i64) -> Vec<Element> {
    let is_before = |number: &i64| if delta > 0 { *number < limit } else { *number > limit };
    let next = |number: &i64| number.checked_add(delta);
    std::iter::successors(Some(start), next)
        .take_while(is_before)
        .take(MAX_ELEMENTS)
        .map(|n| Some(Size::number(n)))
        .collect()
}

/// The elements of the first input after it was arranged in another way.
pub(super) fn same(step: &Step<'_>) -> Option<Vec<Element>> {
    step.value(0)?.content.clone()
}

/// `Gather` from a list.
pub(super) fn gathered(step: &Step<'_>) -> Option<Vec<Element>> {
    let content = step.value(0).filter(|value| value.rank() == Some(1))?.content.as_ref()?;
    let wanted = step.value(1)?.numbers()?;
    wanted.into_iter().map(|number| Some(content[index(number, content.len())?].clone())).collect()
}

/// `Slice` of a list, or of a table along one of its dimensions; also returns the dimensions that are left.
pub(super) fn sliced(step: &Step<'_>) -> Option<(Vec<Element>, Dims)> {
    let (content, sizes) = table(step)?;
    let one = |name: &str, at: usize, default: i64| match step.integers(name, at) {
        Integers::Absent => Some(default),
        Integers::Known(numbers) if numbers.len() == 1 => Some(numbers[0]),
        _ => None,
    };
    let along = index(one("axes", 3, 0)?, sizes.len())?;
    let count = sizes[along] as i64;
    let (start, end, stride) = (one("starts", 1, 0)?, one("ends", 2, count)?, one("steps", 4, 1)?);
    let place = |number: i64| if number < 0 { number.saturating_add(count) } else { number };
    let places: Vec<i64> = match stride {
        1.. => (place(start).clamp(0, count)..place(end).clamp(0, count)).step_by(stride as usize).collect(),
        -1 => (place(end).clamp(-1, count - 1) + 1..=place(start).clamp(-1, count - 1)).rev().collect(),
        _ => return None,
    };
    let behind: usize = sizes[along + 1..].iter().product();
    let mut picked = Vec::new();
    for before in 0..sizes[..along].iter().product() {
        for &at in &places {
            let from = (before * sizes[along] + at as usize) * behind;
            picked.extend_from_slice(content.get(from..from + behind)?);
        }
    }
    let mut dims: Dims = sizes.iter().map(|&size| Size::number(size as i64)).collect();
    dims[along] = Size::number(places.len() as i64);
    Some((picked, dims))
}

/// `Transpose` of a table of two dimensions.
pub(super) fn transposed(step: &Step<'_>, order: &[usize]) -> Option<Vec<Element>> {
    let (content, sizes) = table(step)?;
    match (order, &sizes[..]) {
        ([0] | [0, 1], _) => Some(content),
        ([1, 0], &[rows, columns]) => {
            let places = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
            Some(places.map(|at| content[at].clone()).collect())
        }
        _ => None,
    }
}

/// The first input's elements, and its dimensions as numbers.
fn table(step: &Step<'_>) -> Option<(Vec<Element>, Vec<usize>)> {
    let value = step.value(0)?;
    let content = value.content.clone()?;
    let sizes = value.dims.as_ref()?.iter().map(|size| usize::try_from(size.as_number()?).ok());
    let sizes = sizes.collect::<Option<Vec<_>>>()?;
    (!sizes.is_empty() && sizes.iter().product::<usize>() == content.len()).then_some((content, sizes))
}

/// `Concat` of lists.
pub(super) fn joined(step: &Step<'_>) -> Option<Vec<Element>> {
    let lists = step.inputs.iter().flatten().map(|value| match (value.rank(), &value.content) {
        (Some(1), Some(content)) => Some(content.clone()),
        (Some(1), None) => {
            let count = usize::try_from(value.dims.as_ref()?.first()?.as_number()?).ok()?;
            (count <= MAX_ELEMENTS).then(|| vec![None; count])
        }
        _ => None,
    });
    Some(lists.collect::<Option<Vec<_>>>()?.concat()).filter(|list| list.len() <= MAX_ELEMENTS)
}
