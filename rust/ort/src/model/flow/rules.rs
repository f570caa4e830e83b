//! Which rule an operation has. What has none is not known to keep rows apart.

use super::value::How;
use super::{
    Ruled, Step, arrange, content, contrib, elementwise, join, pick, product, reduce, resize, sequence, shape, tabular,
    window,
};

const UNKNOWN: How = How::Unknown("is not known to keep rows apart");

/// Operations that count places through all rows, or leave some out.
const THROUGH_ALL: [&str; 5] = ["ImageDecoder", "MaxUnpool", "NonMaxSuppression", "NonZero", "Unique"];

/// What the operation makes of its inputs.
pub(super) fn apply(mut step: Step<'_>) -> Ruled {
    let step = &mut step;
    // The oldest way to broadcast: the second input stands at an axis that is given.
    if step.node.flag("broadcast") {
        return Err(How::Unknown("broadcasts in the way of old operator sets"));
    }
    if elementwise::is_elementwise(&step.node.domain, &step.node.op_type) {
        return passed(step);
    }
    match step.node.domain.as_str() {
        "ai.onnx.ml" => tabular::apply(step),
        "com.microsoft" => contrib::apply(step),
        "" | "ai.onnx" => sequence::apply(step).unwrap_or_else(|| onnx(step)),
        _ => Err(UNKNOWN),
    }
}

/// Element by element; what does not change elements is still the graph's input.
fn passed(step: &mut Step<'_>) -> Ruled {
    let origin = match step.node.op_type.as_str() {
        "Cast" | "Identity" | "Clip" => step.value(0).and_then(|value| value.origin),
        _ => None,
    };
    if step.node.op_type == "CastLike" {
        step.inputs.truncate(1);
    }
    Ok(join::all(step)?.into_iter().map(|value| value.with_origin(origin)).collect())
}

fn onnx(step: &mut Step<'_>) -> Ruled {
    let name = step.node.op_type.clone();
    match name.as_str() {
        "Constant" => Ok(vec![constant(step)]),
        "RandomNormal" | "RandomNormalLike" | "RandomUniform" | "RandomUniformLike" | "Multinomial" | "Bernoulli" => {
            Err(How::Random)
        }
        "Shape" => content::shape(step),
        "Size" => content::size(step),
        "Range" => content::range(step),
        _ if name.starts_with("Reduce") => reduce::reduce(step),
        "Reshape" | "Flatten" | "Transpose" | "Squeeze" | "Unsqueeze" => reshaped(step, &name),
        "Concat" => arrange::concat(step),
        "Split" => arrange::split(step),
        "Expand" => arrange::expand(step),
        "Tile" => arrange::tile(step),
        "Pad" => arrange::pad(step),
        "CenterCropPad" => arrange::centred(step),
        "ConstantOfShape" => arrange::constant_of_shape(step),
        "Gather" => pick::gather(step),
        "GatherElements" => pick::gather_elements(step),
        "GatherND" => pick::gather_nd(step),
        "Scatter" | "ScatterElements" => pick::scatter_elements(step),
        "ScatterND" => pick::scatter_nd(step),
        "TensorScatter" => pick::cached(step),
        "Slice" => pick::slice(step),
        "OneHot" => pick::one_hot(step),
        "Compress" => pick::compress(step),
        "MatMul" => Ok(vec![product::matmul(step, 0, 1)?]),
        "Gemm" => product::gemm(step),
        "MatMulInteger" => product::quantised(step, 0, 1, &[2]),
        "QLinearMatMul" => product::quantised(step, 0, 3, &[1, 2, 6, 7]),
        "Einsum" => product::einsum(step),
        "DynamicQuantizeLinear" => Err(How::Quantises),
        "TfIdfVectorizer" => tabular::tf_idf(step),
        "StringNormalizer" => tabular::normalised_text(step),
        "StringSplit" => tabular::split_text(step),
        _ if THROUGH_ALL.contains(&name.as_str()) => Err(How::Mixes("counts through the whole batch")),
        _ => normalised(step, &name),
    }
}

fn reshaped(step: &mut Step<'_>, name: &str) -> Ruled {
    match name {
        "Reshape" => shape::reshape(step),
        "Flatten" => shape::flatten(step),
        "Transpose" => shape::transpose(step),
        "Squeeze" => shape::squeeze(step),
        _ => shape::unsqueeze(step),
    }
}

/// Operations along an axis.
fn normalised(step: &mut Step<'_>, name: &str) -> Ruled {
    match name {
        "ArgMax" | "ArgMin" => reduce::arg(step),
        "Softmax" | "LogSoftmax" | "Hardmax" => reduce::softmax(step),
        "CumSum" | "CumProd" => reduce::cumulate(step),
        "TopK" => reduce::top(step),
        "LpNormalization" => reduce::along_attribute(step, -1, "normalises by the whole batch"),
        "LayerNormalization" | "RMSNormalization" | "SimplifiedLayerNormalization" => reduce::layer_norm(step),
        "MeanVarianceNormalization" => reduce::mean_variance(step),
        "BatchNormalization" => reduce::batch_norm(step),
        "Dropout" => reduce::dropout(step),
        "QuantizeLinear" | "DequantizeLinear" => reduce::quantised(step),
        "ReverseSequence" => reduce::reversed(step),
        "DFT" => reduce::fourier(step),
        "NegativeLogLikelihoodLoss" | "SoftmaxCrossEntropyLoss" => reduce::loss(step),
        "Trilu" => reduce::matrices(step, 0),
        "Det" => reduce::matrices(step, 2),
        "InstanceNormalization" | "GroupNormalization" | "LRN" => reduce::batch_first(step),
        _ => windowed(step, name),
    }
}

/// Images and signals.
fn windowed(step: &mut Step<'_>, name: &str) -> Ruled {
    match name {
        "Conv" | "ConvInteger" => window::convolve(step, 1),
        "QLinearConv" => window::convolve(step, 3),
        "ConvTranspose" => window::batched(step),
        "DeformConv" => window::deformed(step),
        "CausalConvWithState" => window::causal(step),
        "Col2Im" => window::image(step),
        // A signal with or without its last dimension.
        "STFT" => window::batched_to(step, 4),
        "AveragePool" | "MaxPool" | "LpPool" => window::pool(step),
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => window::pool_all(step),
        "Resize" | "Upsample" => resize::resize(step),
        "SpaceToDepth" => window::blocks(step, true),
        "DepthToSpace" => window::blocks(step, false),
        "GridSample" => {
            let rank = step.dims(0)?.len();
            window::all_batch_first(step, rank)
        }
        "RNN" | "GRU" | "LSTM" => window::recurrent(step),
        "Attention" => window::attention(step),
        "LinearAttention" => window::linear_attention(step),
        "RotaryEmbedding" => window::rotated(step),
        _ => Err(UNKNOWN),
    }
}

/// `Constant` in one of its forms.
fn constant(step: &Step<'_>) -> super::value::Value {
    use super::size::Size;
    use super::value::{Flow, Value};
    let node = step.node;
    if let Some(tensor) = node.attribute("value").and_then(|value| value.t.as_ref()) {
        return super::constant(tensor);
    }
    if let Some(value) = node.attribute("value_int") {
        return Value::known(vec![Some(Size::number(value.i))], Vec::new(), Flow::Fixed);
    }
    if let Some(list) = node.ints("value_ints") {
        let content: Vec<Option<Size>> = list.iter().map(|&number| Some(Size::number(number))).collect();
        let count = Size::number(content.len() as i64);
        return Value::known(content, vec![count], Flow::Fixed);
    }
    if let Some(list) = node.attribute("value_floats") {
        return Value::new(Flow::Fixed, vec![Size::number(list.floats.len() as i64)]);
    }
    if let Some(list) = node.attribute("value_strings") {
        return Value::new(Flow::Fixed, vec![Size::number(list.strings.len() as i64)]);
    }
    let is_single = node.attribute("value_float").is_some() || node.attribute("value_string").is_some();
    if is_single { Value::new(Flow::Fixed, Vec::new()) } else { Value::fixed() }
}
