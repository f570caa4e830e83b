use std::sync::Arc;

use mlserve_core::budget::{Budget, LocalBudget};
use proptest::prelude::*;

use super::*;

fn reservation() -> Reservation {
    LocalBudget::new(Budget::new(1 << 30), 1).reserve(0).expect("nothing")
}

fn read_as(datatype: DataType, shape: &[i64], text: &str) -> Result<Vec<u8>> {
    let mut cursor = Cursor::new(text, 64);
    let declared = Declared { name: "x", datatype, shape, max_string_bytes: 100 };
    let wire = read(&mut cursor, declared, &mut reservation())?;
    cursor.end()?;
    Ok(wire)
}

fn fault(datatype: DataType, shape: &[i64], text: &str) -> String {
    read_as(datatype, shape, text).expect_err(text).text().to_owned()
}

#[test]
fn nested_and_flat_data_are_the_same() {
    let flat = read_as(DataType::Int16, &[2, 3], "[1,2,3,4,5,6]").expect("flat");
    let nested = read_as(DataType::Int16, &[2, 3], " [ [1 , 2,3],[4,5,6 ] ] ").expect("nested");
    assert_eq!(flat, nested);
    assert_eq!(flat, [1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0]);
    assert_eq!(read_as(DataType::Uint8, &[1, 2, 1], "[[[1],[2]]]"), Ok(vec![1, 2]));
}

#[test]
fn scalars_and_empty_tensors_are_read() {
    assert_eq!(read_as(DataType::Uint8, &[], "[7]"), Ok(vec![7]));
    assert_eq!(read_as(DataType::Uint8, &[], "7"), Ok(vec![7]));
    assert_eq!(read_as(DataType::Uint8, &[0], "[]"), Ok(vec![]));
    assert_eq!(read_as(DataType::Uint8, &[2, 0], "[[],[]]"), Ok(vec![]));
    assert_eq!(read_as(DataType::Uint8, &[0, 3], "[]"), Ok(vec![]));
    assert!(read_as(DataType::Uint8, &[1], "7").is_err());
    assert!(read_as(DataType::Uint8, &[0], "[1]").is_err());
    assert!(read_as(DataType::Uint8, &[], "[]").is_err());
}

#[test]
fn data_that_does_not_match_its_shape_is_refused() {
    let start = "Unable to parse 'data': Shape does not match true shape of 'data' field: input 'x' of shape";
    for (shape, text, rest) in [
        (&[2, 2][..], "[1,2,3]", "[2,2]: it takes 4 elements, got 3"),
        (&[2, 2], "[1,2,3,4,5]", "[2,2]: it takes 4 elements, got more"),
        (&[2, 2], "[[1,2,3],[4]]", "[2,2]: an array at level 2 has 3 elements"),
        (&[2, 2], "[[1],[2],[3],[4]]", "[2,2]: an array at level 2 has 1 elements"),
        (&[4], "[[1,2],[3,4]]", "[4]: element 0 is 2 levels deep; all must be 1 (flat) or 1 (nested)"),
        (&[2, 1, 2], "[[1,2],[3,4]]", "[2,1,2]: element 0 is 2 levels deep; all must be 1 (flat) or 3 (nested)"),
        (&[2, 2], "[1,[2,3],4]", "[2,2]: element 1 is 2 levels deep; all must be 1 (flat) or 2 (nested)"),
        (&[2, 2], "[[1,2],3,4]", "[2,2]: element 2 is 1 levels deep; all must be 1 (flat) or 2 (nested)"),
        (&[2, 2], "[[1,2],[]]", "[2,2]: an array at level 2 has 0 elements"),
        (&[2, 2], "[]", "[2,2]: it takes 4 elements, got 0"),
    ] {
        assert_eq!(fault(DataType::Int32, shape, text), format!("{start} {rest}"), "{text}");
    }
}

#[test]
fn elements_of_another_kind_or_out_of_range_are_named() {
    for (datatype, text, fault_text) in [
        (DataType::Uint8, "[1,300]", "element 1 of input 'x' is 300; UINT8 takes a whole number from 0 to 255"),
        (DataType::Uint8, "[1,-1]", "element 1 of input 'x' is -1; UINT8 takes a whole number from 0 to 255"),
        (
            DataType::Int32,
            "[1.5,2]",
            "element 0 of input 'x' is 1.5; INT32 takes a whole number from -2147483648 to 2147483647",
        ),
        (
            DataType::Fp32,
            "[1,1e400]",
            "element 1 of input 'x' is 1e400; FP32 takes a number from -3.4028235e38 to 3.4028235e38",
        ),
        (DataType::Fp32, "[\"1\",2]", "element 0 of input 'x' is a string; a number is expected for FP32"),
        (DataType::Fp32, "[null,2]", "element 0 of input 'x' is null; a number is expected for FP32"),
        (DataType::Fp32, "[{},2]", "element 0 of input 'x' is an object; a number is expected for FP32"),
        (DataType::Bool, "[1,0]", "element 0 of input 'x' is a number; true or false is expected for BOOL"),
        (DataType::Bytes, "[\"a\",1]", "element 1 of input 'x' is a number; a string is expected for BYTES"),
    ] {
        assert_eq!(fault(datatype, &[2], text), format!("Unable to parse 'data': {fault_text}"), "{text}");
    }
    let long = fault(DataType::Int8, &[1], &format!("[{}]", "9".repeat(100_000)));
    assert!(long.len() < 200, "{long}");
}

#[test]
fn bare_words_and_half_floats_are_refused() {
    assert!(fault(DataType::Fp32, &[2], "[1,NaN]").contains("NaN and Infinity are not JSON"));
    assert!(fault(DataType::Fp64, &[2], "[-Infinity,1]").contains("NaN and Infinity are not JSON"));
    assert_eq!(
        fault(DataType::Fp16, &[1], "[1]"),
        "receiving FP16 data via JSON is not supported. Please use the binary data format for input x"
    );
    assert_eq!(
        fault(DataType::Bf16, &[1], "[1]"),
        "receiving BF16 data via JSON is not supported. Please use the binary data format for input x"
    );
}

#[test]
fn a_shape_that_promises_much_takes_no_memory() {
    let budget = Budget::new(1_000);
    let mut reservation = LocalBudget::new(Arc::clone(&budget), 1).reserve(0).expect("nothing");
    let mut cursor = Cursor::new("[1]", 64);
    let declared = Declared { name: "x", datatype: DataType::Fp64, shape: &[1 << 40], max_string_bytes: 1 };
    let error = read(&mut cursor, declared, &mut reservation).expect_err("one of a trillion");
    assert_eq!(error.kind(), Kind::InvalidArgument);
    assert!(reservation.units() < 100);
    assert!(fault(DataType::Fp64, &[i64::MAX, i64::MAX], "[1]").contains("has more elements than fit"));
}

#[test]
fn long_strings_are_too_large() {
    let text = format!("[\"{}\"]", "a".repeat(101));
    let error = read_as(DataType::Bytes, &[1], &text).expect_err("too long");
    assert_eq!(error.kind(), Kind::TooLarge);
    assert_eq!(error.text(), "element 0 of input 'x' has 101 bytes; at most 100 are allowed");
}

/// `values` as JSON, flat or nested by `shape`.
fn nested(values: &[String], shape: &[usize]) -> String {
    match shape {
        [] => values[0].clone(),
        [_] => format!("[{}]", values.join(",")),
        [outer, inner @ ..] => {
            let size = values.len() / outer.max(&1);
            let parts: Vec<String> = (0..*outer).map(|at| nested(&values[at * size..(at + 1) * size], inner)).collect();
            format!("[{}]", parts.join(","))
        }
    }
}

proptest! {
    #[test]
    fn nesting_never_changes_the_bytes(shape in proptest::collection::vec(1_usize..4, 1..5), seed in any::<u32>()) {
        let count: usize = shape.iter().product();
        let values: Vec<String> = (0..count).map(|at| (seed.wrapping_mul(at as u32 + 1)).to_string()).collect();
        let dimensions: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        let flat = read_as(DataType::Uint32, &dimensions, &nested(&values, &[count]));
        let deep = read_as(DataType::Uint32, &dimensions, &nested(&values, &shape));
        prop_assert_eq!(flat.clone(), deep);
        let expected: Vec<u8> = values.iter().flat_map(|value| value.parse::<u32>().expect("own").to_le_bytes()).collect();
        prop_assert_eq!(flat, Ok(expected));
    }

    #[test]
    fn random_text_never_panics(text in r#"[\[\],0-9."a-z\\{}: -]{0,24}"#, datatype in proptest::sample::select(&DataType::ALL)) {
        let _ = read_as(datatype, &[2, 2], &text);
    }
}
