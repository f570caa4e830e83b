//! ONNX Runtime's own operators (`com.microsoft`), which its optimiser and quantiser write.

use super::join::broadcast;
use super::size::Size;
use super::value::{Axis, How, Value};
use super::{Ruled, Step, product, reduce, window};

const UNKNOWN: How = How::Unknown("is not known to keep rows apart");

pub(super) fn apply(step: &mut Step<'_>) -> Ruled {
    match step.node.op_type.as_str() {
        "DynamicQuantizeMatMul" | "DynamicQuantizeLSTM" => Err(How::Quantises),
        "QuantizeLinear" | "DequantizeLinear" => reduce::quantised(step),
        "FusedMatMul" | "TransposeMatMul" => product::fused_matmul(step),
        "FusedGemm" => product::gemm(step),
        "MatMulNBits" | "MatMulBnb4" => product::packed(step),
        // A, B, their scales and zero points, and a bias.
        "MatMulIntegerToFloat" => product::quantised(step, 0, 1, &[2, 4]),
        "MatMulInteger16" => product::quantised(step, 0, 1, &[]),
        "QGemm" if !step.node.flag("transA") && !step.node.flag("transB") => {
            product::quantised(step, 0, 3, &[1, 2, 7, 8])
        }
        "QLinearAdd" | "QLinearMul" => quantised_pair(step),
        "QLinearSigmoid" | "QLinearLeakyRelu" => scaled(step),
        "QLinearSoftmax" => scaled_softmax(step),
        "QLinearConcat" => scaled_concat(step),
        "QLinearConv" if !step.node.flag("channels_last") => window::convolve(step, 3),
        "FusedConv" if step.inputs.len() <= 3 => window::convolve(step, 1),
        "QLinearGlobalAveragePool" if !step.node.flag("channels_last") => window::pool_all(step),
        "QLinearAveragePool" => window::batched(step),
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => skip_layer_norm(step),
        "SimplifiedLayerNormalization" => reduce::layer_norm(step),
        "EmbedLayerNormalization" => embed(step),
        "Attention" | "QAttention" => attention(step),
        "MultiHeadAttention" => multi_head(step),
        "RotaryEmbedding" => rotated(step),
        _ => Err(UNKNOWN),
    }
}

/// Two tensors with their scales and zero points.
fn quantised_pair(step: &mut Step<'_>) -> Ruled {
    let (a, b) = (step.needed(0)?.clone(), step.needed(3)?.clone());
    if ![1, 2, 4, 5, 6, 7].into_iter().filter_map(|at| step.value(at)).all(Value::is_scalar) {
        return Err(UNKNOWN);
    }
    let (axis, dims) = broadcast(step, &[&a, &b])?;
    Ok(vec![step.made(axis, dims)])
}

/// One tensor with scales and zero points that are one for all.
fn scaled(step: &mut Step<'_>) -> Ruled {
    if !step.inputs.iter().skip(1).flatten().all(Value::is_scalar) {
        return Err(UNKNOWN);
    }
    let dims = step.dims(0)?;
    let axis = step.needed(0)?.axis().cloned();
    Ok(vec![step.made(axis, dims)])
}

/// The sum of two tensors, normalised along the last dimension.
fn skip_layer_norm(step: &mut Step<'_>) -> Ruled {
    let (input, skip) = (step.needed(0)?.clone(), step.needed(1)?.clone());
    let (axis, dims) = broadcast(step, &[&input, &skip])?;
    // What is added may be one for all rows, but not the other way round.
    let is_kept = axis.as_ref().is_none_or(|axis| axis.at + 1 < dims.len() && input.rank() == Some(dims.len()));
    let is_kept = is_kept && input.axis().is_some() == axis.is_some();
    let rest_is_fixed = (2..step.inputs.len()).filter_map(|at| step.value(at)).all(Value::is_fixed);
    if !is_kept || !rest_is_fixed {
        return Err(UNKNOWN);
    }
    let mut statistics = dims.clone();
    if let Some(last) = statistics.last_mut() {
        *last = Size::number(1);
    }
    let statistics = step.made(axis.clone(), statistics);
    let sum = step.made(axis, dims);
    Ok(vec![sum.clone(), statistics.clone(), statistics, sum])
}

/// Word, position and segment tables; the mask's output is one number for each row.
fn embed(step: &mut Step<'_>) -> Ruled {
    let ids = step.dims(0)?;
    let plain = Some(Axis::plain(0));
    let tables_are_fixed = (2..=6).filter_map(|at| step.value(at)).all(Value::is_fixed);
    let rows = [0, 1, 7].into_iter().filter_map(|at| step.value(at)).all(|value| value.axis() == plain.as_ref());
    if ids.len() != 2 || !tables_are_fixed || !rows || step.value(8).is_some() {
        return Err(UNKNOWN);
    }
    let width = step.dims(2)?.get(1).cloned().ok_or(UNKNOWN)?;
    let embedded = Value::rows(Axis::plain(0), vec![ids[0].clone(), ids[1].clone(), width]);
    let mask = Value::rows(Axis::plain(0), vec![ids[0].clone()]);
    Ok(vec![embedded.clone(), mask, embedded])
}

/// `QLinearSoftmax`: in old operator sets all dimensions from the axis on are one.
fn scaled_softmax(step: &mut Step<'_>) -> Ruled {
    let values = scaled(step)?;
    let [value] = &values[..] else { return Err(UNKNOWN) };
    let rank = value.rank().ok_or(UNKNOWN)?;
    let first = super::index(step.node.int("axis", -1), rank).ok_or(UNKNOWN)?;
    match value.axis() {
        Some(axis) if axis.at >= first => Err(How::Mixes("normalises over the batch")),
        _ => Ok(values),
    }
}

/// `QLinearConcat`: scale and zero point of the result, then three inputs for each part.
fn scaled_concat(step: &mut Step<'_>) -> Ruled {
    let is_part = |at: usize| at >= 2 && (at - 2).is_multiple_of(3);
    let is_scale = |at: usize| step.value(at).is_some_and(Value::is_scalar);
    if step.inputs.len() < 5 || !(0..step.inputs.len()).filter(|&at| !is_part(at)).all(is_scale) {
        return Err(UNKNOWN);
    }
    step.inputs = step.inputs.iter().skip(2).step_by(3).cloned().collect();
    super::arrange::concat(step)
}

/// A bias of attention that is the same for all rows.
fn is_one_for_all(value: &Value) -> bool {
    let dims = value.dims.as_deref().unwrap_or_default();
    value.is_fixed() && dims.len() == 4 && dims[0].is(1)
}

/// Attention with keys and values of its own, and past ones of each row. Queries of five dimensions hold all three.
fn multi_head(step: &mut Step<'_>) -> Ruled {
    let dims = step.dims(0)?;
    let bias_is_shared = step.value(5).is_some_and(is_one_for_all);
    window::rows_first(step, &[0, 1, 2, 4, 5, 6, 7], if bias_is_shared { &[3, 5] } else { &[3] })?;
    let is_usual = dims.len() == 3 && step.value(1).is_some() && step.value(2).is_some();
    if !is_usual || step.node.output.len() > 3 {
        return Err(UNKNOWN);
    }
    let width = step.symbols.fresh();
    let answer = Value::rows(Axis::plain(0), vec![dims[0].clone(), dims[1].clone(), width]);
    Ok(vec![answer, window::any_rows(step, 4), window::any_rows(step, 4)])
}

/// `RotaryEmbedding`: a place for each row's elements, or one to begin with for all.
fn rotated(step: &mut Step<'_>) -> Ruled {
    let dims = step.dims(0)?;
    let places = step.needed(1)?;
    let begins_alike = places.is_scalar() && places.rank() <= Some(1);
    let is_usual = begins_alike || places.rank() == Some(2);
    window::rows_first(step, &[0, 1], if begins_alike { &[1, 2, 3] } else { &[2, 3] })?;
    if step.node.flag("is_packed_batching") || !is_usual {
        return Err(UNKNOWN);
    }
    Ok(vec![Value::rows(Axis::plain(0), dims)])
}

/// Attention without past: every input that is no weight has the rows first.
fn attention(step: &mut Step<'_>) -> Ruled {
    let dims = step.dims(0)?;
    if dims.len() != 3 || step.node.output.iter().skip(1).any(|name| !name.is_empty()) {
        return Err(UNKNOWN);
    }
    // Weights, biases, scales and zero points; past states are not followed.
    let (constant, rows): (&[usize], &[usize]) = match step.node.op_type.as_str() {
        "Attention" => (&[1, 2], &[0, 3, 5]),
        _ => (&[1, 2, 3, 4, 6, 7], &[0, 5]),
    };
    let known = |at: usize| constant.contains(&at) || rows.contains(&at) || step.value(at).is_none();
    let is_constant = |at: &usize| step.value(*at).is_none_or(Value::is_fixed);
    let bias_is_shared =
        |at: usize, value: &Value| step.node.op_type == "Attention" && at == 5 && is_one_for_all(value);
    let is_row = |at: &usize| {
        let is_own = |value: &Value| value.axis() == Some(&Axis::plain(0)) || bias_is_shared(*at, value);
        step.value(*at).is_none_or(is_own)
    };
    let scales = if step.node.op_type == "QAttention" { &[3, 6][..] } else { &[] };
    let is_one_scale = |at: &usize| step.value(*at).is_none_or(Value::is_scalar);
    let is_kept = (0..step.inputs.len()).all(known)
        && constant.iter().all(is_constant)
        && rows.iter().all(is_row)
        && scales.iter().all(is_one_scale);
    if !is_kept {
        return Err(UNKNOWN);
    }
    let width = step.symbols.fresh();
    Ok(vec![Value::rows(Axis::plain(0), vec![dims[0].clone(), dims[1].clone(), width])])
}
