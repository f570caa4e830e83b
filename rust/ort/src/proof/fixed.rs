//! Why the first dimension cannot count rows, by the shapes of the graph alone.

use mlserve_core::config::BatchingChoice;
use mlserve_core::tensor::ShapeText;

use crate::candidate::Candidate;
use crate::model::spec::Port;

/// Why the first dimension cannot count rows, by the shapes of the graph's inputs alone. What a graph says of its outputs
/// is not held against it: exporters write the sizes of the row that they traced, and runs tell better.
pub(super) fn fixed_reason(candidate: &Candidate<'_>) -> Option<String> {
    if candidate.inputs.is_empty() {
        return Some("the model has no inputs".to_owned());
    }
    let inputs = candidate.inputs.iter().find_map(|port| fixed_port("input", port));
    let trusts = candidate.options.batching == BatchingChoice::Trust;
    let several = || several_axes(&candidate.inputs).filter(|_| !trusts);
    inputs.or_else(|| candidate.inputs.iter().find_map(repeated_symbol)).or_else(several)
}

/// What keeps the first dimension of an input or output from counting rows.
pub(super) fn fixed_port(role: &str, port: &Port) -> Option<String> {
    let (name, shape) = (&port.spec.name, &port.spec.shape);
    let problem = if shape.is_empty() { "it has no dimensions" } else { "its first dimension is fixed" };
    let is_fixed = !port.has_free_first() && port.is_known;
    is_fixed.then(|| format!("{role} '{name}' has shape {}: {problem}", ShapeText(shape)))
}

/// Inputs whose first dimensions have names of their own count different things: one user, many items.
fn several_axes(inputs: &[Port]) -> Option<String> {
    let named = |port: &&Port| port.symbols.first().is_some_and(|symbol| is_given(symbol));
    let mut inputs = inputs.iter().filter(named);
    let first = inputs.next()?;
    let other = inputs.find(|port| port.symbols[0] != first.symbols[0])?;
    let (name, other_name) = (&first.spec.name, &other.spec.name);
    let (symbol, other_symbol) = (&first.symbols[0], &other.symbols[0]);
    Some(format!(
        "inputs '{name}' and '{other_name}' have first dimensions of their own, '{symbol}' and '{other_symbol}'; give \
         them one name, or set batching to \"trust\", if both count rows"
    ))
}

/// Whether a person named the dimension. Exporters number those that nobody named, each input's anew.
fn is_given(symbol: &str) -> bool {
    let stem = symbol.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let is_numbered = stem.len() < symbol.len();
    let is_made = matches!(stem, "" | "unk__" | "unk_" | "DynamicDimension." | "?") || stem.ends_with("_dynamic_axes_");
    !(symbol.is_empty() || symbol == "?" || symbol == "None" || (is_numbered && is_made))
}

/// The batch symbol at a second place of one input: rows of different requests cannot be joined.
fn repeated_symbol(port: &Port) -> Option<String> {
    let (first, rest) = port.symbols.split_first()?;
    let is_repeated = !first.is_empty() && rest.contains(first);
    is_repeated.then(|| format!("input '{}' has its first dimension '{first}' a second time", port.spec.name))
}
