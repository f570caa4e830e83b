use mlserve_core::tensor::DataType;

use super::super::fixture::{draft, floats, model, output, read, tensor};
use super::super::rows::Rows;
use super::*;

fn text(json: Result<Vec<u8>>) -> String {
    String::from_utf8(json.expect("written")).expect("JSON")
}

#[test]
fn rows_and_columns_are_told_apart() {
    let spec = model(vec![tensor("x", DataType::Fp32, &[-1, 2])]);
    let form = |json: &str| super::super::fixture::read(&spec, json, super::read).map(|asked| asked.form);
    assert_eq!(form(r#"{"signature_name":"s","instances":[[1,2]]}"#), Ok(Form::Predictions(Rows::List(1))));
    assert_eq!(form(r#"{"inputs":[[1,2]],"signature_name":{"any":[1]}}"#), Ok(Form::Columns));
    let fault = |json: &str| form(json).expect_err(json).text().to_owned();
    assert_eq!(
        fault(r#"{"inputs":[],"instances":[]}"#),
        "one of 'instances' (rows) and 'inputs' (columns) is expected; both are there"
    );
    assert_eq!(form(r#"{"inputs":null,"instances":[[1,2]]}"#), Ok(Form::Predictions(Rows::List(1))));
    assert!(fault(r#"{"instances":null}"#).ends_with("none is there"));
    assert_eq!(fault("{}"), "one of 'instances' (rows) and 'inputs' (columns) is expected; none is there");
    assert_eq!(fault(r#"{"inputs":1,"inputs":2}"#), "'inputs' is there twice; once is allowed");
    let broken = read(&spec, "{\"inputs\":[[1,2]]} x", super::read).expect_err("trailing text");
    assert!(broken.text().contains("must not be followed"), "{broken}");
}

#[test]
fn one_output_is_bare_and_several_go_by_name() {
    let one = draft([output("y", DataType::Fp32, &[2, 2], floats(&[1.0, 2.0, 3.0, 4.0]))]);
    assert_eq!(text(write_rows(&one, Rows::List(2), 1_000)), r#"{"predictions":[[1.0,2.0],[3.0,4.0]]}"#);
    assert_eq!(text(write_columns(&one, 1_000)), r#"{"outputs":[[1.0,2.0],[3.0,4.0]]}"#);
    let two = draft([
        output("y", DataType::Fp32, &[2, 1], floats(&[1.0, 2.0])),
        output("label\"", DataType::Int8, &[2], vec![3, 4]),
    ]);
    assert_eq!(
        text(write_rows(&two, Rows::List(2), 1_000)),
        r#"{"predictions":[{"y":[1.0],"label\"":3},{"y":[2.0],"label\"":4}]}"#
    );
    assert_eq!(text(write_columns(&two, 1_000)), r#"{"outputs":{"y":[[1.0],[2.0]],"label\"":[3,4]}}"#);
}

#[test]
fn outputs_without_rows_are_one_prediction_or_refused() {
    let whole = draft([output("y", DataType::Int8, &[3], vec![1, 2, 3])]);
    assert_eq!(text(write_rows(&whole, Rows::List(1), 1_000)), r#"{"predictions":[[1,2,3]]}"#);
    let error = write_rows(&whole, Rows::List(2), 1_000).expect_err("no rows");
    assert_eq!(error.text(), "output 'y' has no row for each of 2 instances; send columns as 'inputs'");
    let one = draft([output("y", DataType::Int8, &[1], vec![1])]);
    assert_eq!(text(write_rows(&one, Rows::Whole, 1_000)), r#"{"predictions":[[1]]}"#);
    assert_eq!(text(write_rows(&one, Rows::List(1), 1_000)), r#"{"predictions":[1]}"#);
}

#[test]
fn answers_are_limited() {
    let wide = draft([output("y", DataType::Int8, &[1, 100], vec![1; 100])]);
    assert_eq!(write_rows(&wide, Rows::List(1), 100).expect_err("large").kind(), Kind::TooLarge);
    assert_eq!(write_columns(&wide, 100).expect_err("large").kind(), Kind::TooLarge);
}
