//! What strings cost beside their bytes: an empty one takes four bytes on the wire and twenty times as many in the runtime.

use mlserve_core::error::{Error, Kind, Result};
use mlserve_core::request::{Input, Request};
use mlserve_core::tensor::{DataType, element_count};

/// A C++ string in the runtime's input, another in an output of as many, and where that one begins when it is read.
const BYTES_PER_STRING: usize = 32 + 32 + 8;

/// Charges what the runtime makes of a request's strings, until its answer has been written.
///
/// **Errors:** out of budget.
pub(crate) fn hold(request: &mut Request) -> Result<()> {
    let strings: usize = request.inputs.iter().map(count).sum();
    if strings == 0 {
        return Ok(());
    }
    let bytes = strings.saturating_mul(BYTES_PER_STRING);
    if request.reservation.as_mut().is_none_or(|held| held.grow(bytes)) { Ok(()) } else { Err(out_of_budget(strings)) }
}

/// How many strings an input has; if its shape and its bytes contradict each other, it is refused later.
fn count(input: &Input) -> usize {
    if input.datatype != DataType::Bytes {
        return 0;
    }
    element_count(&input.shape).unwrap_or(usize::MAX).min(input.data.len() / 4)
}

#[cold]
fn out_of_budget(strings: usize) -> Error {
    let text =
        format!("{strings} BYTES elements take {BYTES_PER_STRING} bytes each, which the server's byte budget has not");
    Error::new(Kind::OutOfBudget, text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mlserve_core::budget::{Budget, LocalBudget};

    use super::*;

    fn request(datatype: DataType, shape: &[i64], bytes: usize, budget: &Arc<Budget>) -> Request {
        let data = vec![0; bytes].into();
        let input = Input { name: "x".into(), datatype, shape: shape.into(), data };
        let reservation = LocalBudget::new(Arc::clone(budget), 1).reserve(bytes);
        Request { inputs: [input].into_iter().collect(), reservation, ..Request::default() }
    }

    #[test]
    fn strings_are_charged_as_what_the_runtime_makes_of_them() {
        let budget = Budget::new(100_000);
        let mut sound = request(DataType::Bytes, &[1_000], 4_000, &budget);
        hold(&mut sound).expect("it fits");
        assert_eq!(budget.drawn(), 4_000 + 1_000 * BYTES_PER_STRING);
        let error = hold(&mut request(DataType::Bytes, &[500], 2_000, &budget)).expect_err("spent");
        assert_eq!(error.kind(), Kind::OutOfBudget);
        drop(sound);
        assert_eq!(budget.drawn(), 0);
    }

    #[test]
    fn other_types_and_shapes_that_lie_cost_nothing_more() {
        let budget = Budget::new(10_000);
        hold(&mut request(DataType::Fp32, &[1_000], 4_000, &budget)).expect("no strings");
        hold(&mut request(DataType::Bytes, &[i64::MAX, 8], 40, &budget)).expect("ten at most");
    }
}
