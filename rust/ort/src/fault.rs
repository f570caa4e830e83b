//! What a caller is told when a run failed: whose fault it was, in the model's terms, without paths or internals.

use mlserve_core::backend::RunError;

use crate::api::Status;
use crate::value::Failure;

/// `OrtErrorCode` numbers that name a bad argument.
const INVALID_ARGUMENT: i32 = 2;

/// Longest text for a caller; the runtime sometimes prints whole shapes or expressions.
const MAX_TEXT: usize = 400;

/// What C++ says of a text that is no number, for a model that reads numbers from BYTES.
const NO_NUMBER: [&str; 6] = ["stod", "stof", "stold", "stoi", "stoll", "stoull"];

/// Words with which operations refuse values. They decide between the caller's and the server's fault, nothing else.
const REFUSALS: [&str; 18] = [
    "out of bound",
    "out of data bound",
    "out of range",
    "invalid",
    "must be",
    "must have",
    "should be",
    "expected",
    "cannot be",
    "mismatch",
    "not match",
    "broadcast",
    "dimension",
    "shape",
    "indices",
    "negative",
    "overflow",
    "divisible",
];

/// The failure as the caller sees it. `limit` is what all tensors may take together.
#[cold]
pub(crate) fn run_error(failure: Failure, limit: Option<usize>) -> RunError {
    match failure {
        Failure::Input(text) => RunError { is_input_fault: true, text },
        Failure::Output(text) => RunError { is_input_fault: false, text },
        Failure::Runtime(status) => classify(&status, limit),
        Failure::Endless(after) => {
            RunError { is_input_fault: false, text: format!("the run did not end within {} s", after.as_secs_f64()) }
        }
    }
}

fn classify(status: &Status, limit: Option<usize>) -> RunError {
    if let Some(error) = out_of_memory(&status.message, limit) {
        return error;
    }
    let (operation, message) = split(&status.message);
    let words = clean(message);
    let subject = operation.map_or("the model".to_owned(), |operation| format!("the model's {operation} operation"));
    let lower = message.to_ascii_lowercase();
    if NO_NUMBER.contains(&message.trim()) {
        return RunError { is_input_fault: true, text: format!("{subject} refused the values: a text is no number") };
    }
    let is_input_fault = status.code == INVALID_ARGUMENT || REFUSALS.iter().any(|refusal| lower.contains(refusal));
    let verb = if is_input_fault { "refused the values" } else { "failed" };
    let text = match words {
        Some(words) => format!("{subject} {verb}: {words}"),
        None => format!("{subject} {verb}"),
    };
    RunError { is_input_fault, text }
}

/// Whether an allocation failed. What can never fit is the request's fault; what does not fit now is not.
fn out_of_memory(message: &str, limit: Option<usize>) -> Option<RunError> {
    let is_input_fault = match requested_bytes(message, limit) {
        Some(requested) => limit.is_some_and(|limit| requested > limit),
        None if message.contains("bad_alloc") || message.contains("Failed to allocate memory") => false,
        None => return None,
    };
    let text = match limit {
        Some(limit) if is_input_fault => {
            format!(
                "these values make the model ask for more memory than all tensors may have ({limit} bytes, \
                 limits.arena_bytes)"
            )
        }
        _ => "there is not enough memory for this run at the moment (limits.arena_bytes)".to_owned(),
    };
    Some(RunError { is_input_fault, text })
}

/// Bytes that could not be given: `… smaller than requested bytes of N`. What the arena is not even asked for is told on top
/// of the limit.
pub(crate) fn requested_bytes(message: &str, limit: Option<usize>) -> Option<usize> {
    let (_, rest) = message.split_once("requested bytes of ")?;
    let digits = rest.split(|character: char| !character.is_ascii_digit()).next()?;
    let asked = digits.parse().unwrap_or(usize::MAX);
    Some(limit.and_then(|limit| asked.checked_sub(limit)).filter(|more| *more > 0).unwrap_or(asked))
}

/// Operation type and message of `Non-zero status code returned while running T node. Name:'…' Status Message: …`.
fn split(message: &str) -> (Option<&str>, &str) {
    let Some((_, rest)) = message.split_once("while running ") else { return (None, message) };
    let operation = rest.split_once(" node.").map(|(operation, _)| operation);
    let operation = operation.filter(|name| name.chars().all(|character| character.is_ascii_alphanumeric()));
    (operation, rest.split_once("Status Message: ").map_or("", |(_, words)| words))
}

/// The sentence in a message of the runtime; `None` if it cannot be told from internals.
fn clean(message: &str) -> Option<String> {
    let line = message.split(['\n', '\r']).find(|line| !line.trim().is_empty())?.trim();
    // Thrown errors read: path:line function(arguments) condition was false. The sentence.
    let sentence = if line.starts_with('/') || line.contains("::") {
        line.split_once(" was false. ").map(|(_, sentence)| sentence)?
    } else {
        line
    };
    let is_internal = [".cc", ".h:", "::", "/onnxruntime", "0x"].iter().any(|trace| sentence.contains(trace));
    if is_internal || sentence.is_empty() {
        return None;
    }
    let mut text: String = sentence.chars().filter(|character| !character.is_control()).take(MAX_TEXT).collect();
    text.truncate(text.trim_end_matches(['.', ' ']).len());
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: i32, message: &str) -> RunError {
        classify(&Status { code, message: message.to_owned() }, Some(1000))
    }

    #[test]
    fn an_index_out_of_range_is_the_callers_fault_and_names_the_operation_only() {
        let found = error(
            2,
            "Non-zero status code returned while running Gather node. Name:'secret/layer' Status Message: indices \
             element out of data bounds, idx=9 must be within the inclusive range [-5,4]",
        );
        assert!(found.is_input_fault);
        let text = "the model's Gather operation refused the values: indices element out of data bounds, idx=9 must be \
                    within the inclusive range [-5,4]";
        assert_eq!(found.text, text);
    }

    #[test]
    fn source_locations_and_functions_never_reach_the_caller() {
        let found = error(
            6,
            "Non-zero status code returned while running Reshape node. Name:'r' Status Message: \
             /onnxruntime_src/core/reshape_helper.h:47 onnxruntime::ReshapeHelper::ReshapeHelper(const \
             onnxruntime::TensorShape&) size == other was false. The input tensor cannot be reshaped to the requested \
             shape. Input shape:{2,3}, requested shape:{4}\n\nStacktrace:\n/secret",
        );
        assert!(found.is_input_fault);
        let text = "the model's Reshape operation refused the values: The input tensor cannot be reshaped to the \
                    requested shape. Input shape:{2,3}, requested shape:{4}";
        assert_eq!(found.text, text);
        let found = error(1, "/src/a.cc:3 void onnxruntime::f() something odd");
        assert_eq!(found, RunError { is_input_fault: false, text: "the model failed".to_owned() });
    }

    #[test]
    fn a_text_that_is_no_number_is_the_callers_fault() {
        let found = error(1, "Non-zero status code returned while running Cast node. Name:'c' Status Message: stod");
        assert!(found.is_input_fault);
        assert_eq!(found.text, "the model's Cast operation refused the values: a text is no number");
    }

    #[test]
    fn memory_that_can_never_be_had_is_the_callers_fault_and_other_lack_is_not() {
        let message = |bytes: usize| format!("Available memory of 5 is smaller than requested bytes of {bytes}\n");
        assert!(error(6, &message(2001)).is_input_fault, "1,001, told on top of the limit");
        assert!(!error(6, &message(1500)).is_input_fault, "500 beside what others hold");
        assert!(!error(6, &message(900)).is_input_fault);
        assert!(!error(6, "std::bad_alloc").is_input_fault);
    }
}
