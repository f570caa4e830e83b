//! Operations that work element by element: names only, as all of them follow one rule.

/// Of one element, or of several after broadcasting. ONNX's own.
#[rustfmt::skip]
const ONNX: [&str; 76] = [
    "Abs", "Acos", "Acosh", "Add", "Affine", "And", "Asin", "Asinh", "Atan", "Atanh", "BitCast", "BitShift", "BitwiseAnd",
    "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Div", "Elu",
    "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity",
    "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg",
    "Not", "Or", "PRelu", "ParametricSoftplus", "Pow", "Reciprocal", "RegexFullMatch", "Relu", "Round", "ScaledTanh",
    "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "StringConcat", "Sub", "Sum",
    "Swish", "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor",
];

/// ONNX Runtime's own.
#[rustfmt::skip]
const CONTRIB: [&str; 4] = [
    "BiasGelu", "FastGelu", "Gelu", "QuickGelu",
];

/// Whether each element of the output depends on the same place of the inputs alone.
pub(super) fn is_elementwise(domain: &str, op_type: &str) -> bool {
    match domain {
        "" | "ai.onnx" => ONNX.contains(&op_type),
        "com.microsoft" => CONTRIB.contains(&op_type),
        _ => false,
    }
}
