//! `ai.onnx.ml` and texts: tables with a row for each first index. A list of one dimension is one row there.

use super::size::Size;
use super::value::{Axis, How, Value};
use super::{Ruled, Step};

const ONE_ROW: How = How::Mixes("takes a list for one row");
const UNKNOWN: How = How::Unknown("takes a table of unknown form");

/// The rows of the first input, if it is a table of two dimensions.
fn table(step: &Step<'_>) -> Result<Option<Axis>, How> {
    let rank = step.dims(0)?.len();
    match step.first()?.axis() {
        Some(_) if rank == 1 => Err(ONE_ROW),
        Some(axis) if rank == 2 && axis.at == 0 => Ok(Some(axis.clone())),
        Some(_) => Err(UNKNOWN),
        None => Ok(None),
    }
}

/// What `ai.onnx.ml` operations do.
pub(super) fn apply(step: &mut Step<'_>) -> Ruled {
    match step.node.op_type.as_str() {
        "Binarizer" | "LabelEncoder" | "CategoryMapper" => super::join::all(step),
        "Imputer" | "Normalizer" | "Scaler" => {
            let axis = table(step)?;
            let dims = step.dims(0)?;
            Ok(vec![step.made(axis, dims)])
        }
        "LinearRegressor" | "SVMRegressor" | "TreeEnsembleRegressor" | "TreeEnsemble" => {
            let axis = table(step)?;
            Ok(vec![scores(step, axis)?])
        }
        "LinearClassifier" | "SVMClassifier" | "TreeEnsembleClassifier" => {
            let axis = table(step)?;
            let rows = step.dims(0)?.first().cloned().ok_or(UNKNOWN)?;
            let labels = step.made(axis.clone(), vec![rows]);
            Ok(vec![labels, scores(step, axis)?])
        }
        "OneHotEncoder" => encoded(step),
        "ArrayFeatureExtractor" => super::pick::features(step),
        "FeatureVectorizer" => joined(step),
        _ => Err(How::Unknown("is not known to keep rows apart")),
    }
}

/// As many numbers for each row as the model has targets.
fn scores(step: &mut Step<'_>, axis: Option<Axis>) -> Result<Value, How> {
    let rows = step.dims(0)?.first().cloned().ok_or(UNKNOWN)?;
    let count = |name: &str| step.node.attribute(name).map_or(0, |list| list.ints.len() + list.strings.len());
    let classes = (count("classlabels_int64s") + count("classlabels_strings")) as i64;
    let targets = match step.node.op_type.as_str() {
        "TreeEnsembleClassifier" if classes > 1 => Size::number(classes),
        "TreeEnsembleRegressor" | "TreeEnsemble" if step.node.int("n_targets", 0) > 0 => {
            Size::number(step.node.int("n_targets", 0))
        }
        _ => step.symbols.fresh(),
    };
    Ok(step.made(axis, vec![rows, targets]))
}

fn encoded(step: &mut Step<'_>) -> Ruled {
    let mut dims = step.dims(0)?;
    let axis = step.first()?.axis().cloned();
    let count = |name: &str| step.node.attribute(name).map_or(0, |list| list.ints.len() + list.strings.len());
    dims.push(Size::number((count("cats_int64s") + count("cats_strings")) as i64));
    Ok(vec![step.made(axis, dims)])
}

/// `FeatureVectorizer`: tables side by side.
fn joined(step: &mut Step<'_>) -> Ruled {
    let dims = step.dims(0)?;
    let is_table = |value: &Value| value.rank() == Some(2) && value.axis() == Some(&Axis::plain(0));
    if !step.inputs.iter().flatten().all(is_table) {
        return Err(UNKNOWN);
    }
    let width = step.symbols.fresh();
    Ok(vec![Value::rows(Axis::plain(0), vec![dims[0].clone(), width])])
}

/// `TfIdfVectorizer`: counts within each row of a table.
pub(super) fn tf_idf(step: &mut Step<'_>) -> Ruled {
    let axis = table(step)?;
    let mut dims = step.dims(0)?;
    let width = step.symbols.fresh();
    if let Some(last) = dims.last_mut() {
        *last = width;
    }
    Ok(vec![step.made(axis, dims)])
}

/// `StringNormalizer`: word by word, unless words are left out.
pub(super) fn normalised_text(step: &mut Step<'_>) -> Ruled {
    if step.node.attribute("stopwords").is_some_and(|words| !words.strings.is_empty()) {
        return Err(How::Mixes("leaves rows out"));
    }
    if step.dims(0)?.len() != 1 {
        return Err(UNKNOWN);
    }
    super::join::all(step)
}

/// `StringSplit`: as wide as the row with most parts.
pub(super) fn split_text(step: &mut Step<'_>) -> Ruled {
    if step.first()?.axis().is_some() { Err(How::Mixes("is as wide as the row with most parts")) } else { Err(UNKNOWN) }
}
