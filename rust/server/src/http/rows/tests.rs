use mlserve_core::error::Kind;
use mlserve_core::model::ModelSpec;
use mlserve_core::tensor::DataType;
use proptest::prelude::*;

use super::super::fixture::{fixed, floats, held, model, output, read, tensor};
use super::super::nested::Elements;
use super::*;

type Held = Vec<(String, Vec<i64>, Vec<u8>)>;

fn as_list(spec: &ModelSpec, json: &str) -> Result<(Held, Rows)> {
    let table = read(spec, json, |mut cursor, reader| list(&mut cursor, reader, "instances"))?;
    Ok((held(&table.inputs), table.rows))
}

fn as_rows(spec: &ModelSpec, json: &str) -> Result<(Held, Rows)> {
    let table = read(spec, json, |mut cursor, reader| rows(&mut cursor, reader, "features"))?;
    Ok((held(&table.inputs), table.rows))
}

fn as_columns(spec: &ModelSpec, json: &str) -> Result<Held> {
    read(spec, json, |mut cursor, reader| columns(&mut cursor, reader, "inputs")).map(|inputs| held(&inputs))
}

fn x(shape: &[i64], values: &[f32]) -> (String, Vec<i64>, Vec<u8>) {
    ("x".to_owned(), shape.to_vec(), floats(values))
}

fn pairs() -> ModelSpec {
    model(vec![tensor("x", DataType::Fp32, &[-1, 2])])
}

fn two_inputs() -> ModelSpec {
    model(vec![tensor("x", DataType::Fp32, &[-1, 2]), tensor("ids", DataType::Uint8, &[-1])])
}

#[test]
fn a_list_of_values_is_the_batch_of_the_only_input() {
    let expected = (vec![x(&[2, 2], &[1.0, 2.0, 3.0, 4.0])], Rows::List(2));
    assert_eq!(as_list(&pairs(), "[[1,2],[3,4]]"), Ok(expected.clone()));
    assert_eq!(as_list(&pairs(), r#"[{"x":[1,2]},{"x":[3,4]}]"#), Ok(expected.clone()));
    assert_eq!(as_rows(&pairs(), "[[1,2],[3,4]]"), Ok(expected.clone()));
    assert_eq!(as_rows(&pairs(), r#"{"x":[[1,2],[3,4]]}"#), Ok(expected));
    assert_eq!(as_columns(&pairs(), "[[1,2]]"), Ok(vec![x(&[1, 2], &[1.0, 2.0])]));
}

#[test]
fn one_row_may_come_without_its_list_where_rows_are_expected() {
    let expected = Ok((vec![x(&[1, 2], &[1.0, 2.0])], Rows::Bare));
    assert_eq!(as_rows(&pairs(), "[1,2]"), expected);
    assert_eq!(as_rows(&pairs(), r#"{"x":[1,2]}"#), expected);
    let numbers = model(vec![tensor("x", DataType::Fp32, &[-1])]);
    assert_eq!(as_rows(&numbers, "7"), Ok((vec![x(&[1], &[7.0])], Rows::Bare)));
    assert_eq!(as_rows(&numbers, "[7]"), Ok((vec![x(&[1], &[7.0])], Rows::List(1))));
}

#[test]
fn a_single_value_stands_for_a_row_of_one() {
    let column = model(vec![tensor("x", DataType::Fp32, &[-1, 1])]);
    let expected = Ok((vec![x(&[2, 1], &[1.0, 2.0])], Rows::List(2)));
    assert_eq!(as_list(&column, "[1,2]"), expected);
    assert_eq!(as_list(&column, "[[1],[2]]"), expected);
    assert_eq!(as_rows(&column, "5"), Ok((vec![x(&[1, 1], &[5.0])], Rows::Bare)));
}

#[test]
fn rows_by_name_are_joined_in_the_models_order() {
    let json = r#"[{"ids":7,"x":[1,2]},{"x":[3,4],"ids":8}]"#;
    let expected = vec![x(&[2, 2], &[1.0, 2.0, 3.0, 4.0]), ("ids".to_owned(), vec![2], vec![7, 8])];
    assert_eq!(as_list(&two_inputs(), json), Ok((expected.clone(), Rows::List(2))));
    assert_eq!(as_columns(&two_inputs(), r#"{"x":[[1,2],[3,4]],"ids":[7,8]}"#), Ok(expected));
}

#[test]
fn bytes_are_text_or_base64() {
    let texts = model(vec![tensor("x", DataType::Bytes, &[-1])]);
    let wire = b"\x01\0\0\0a\x02\0\0\0\xff\x00".to_vec();
    let expected = Ok((vec![("x".to_owned(), vec![2], wire)], Rows::List(2)));
    assert_eq!(as_list(&texts, r#"["a",{"b64":"/wA="}]"#), expected);
    assert_eq!(as_list(&texts, r#"[{"x":"a"},{"x":{"b64":"/wA="}}]"#), expected);
    // The first row decides what objects are.
    assert_eq!(as_list(&texts, r#"[{"b64":"YQ=="},{"b64":"/wA="}]"#), expected);
    let named = model(vec![tensor("b64", DataType::Bytes, &[-1])]);
    let wire = b"\x04\0\0\0YQ==".to_vec();
    assert_eq!(as_list(&named, r#"[{"b64":"YQ=="}]"#), Ok((vec![("b64".to_owned(), vec![1], wire)], Rows::List(1))));
}

#[test]
fn models_without_rows_take_one_at_a_time() {
    let spec = fixed(vec![tensor("x", DataType::Fp32, &[2, 2])]);
    let tensor_of = |rows| Ok((vec![x(&[2, 2], &[1.0, 2.0, 3.0, 4.0])], rows));
    assert_eq!(as_list(&spec, "[[1,2],[3,4]]"), tensor_of(Rows::List(2)));
    assert_eq!(as_list(&spec, "[[[1,2],[3,4]]]"), tensor_of(Rows::Whole));
    assert_eq!(as_list(&spec, r#"[{"x":[[1,2],[3,4]]}]"#), tensor_of(Rows::Whole));
    assert_eq!(as_rows(&spec, "[[1,2],[3,4]]"), tensor_of(Rows::Bare));
    let text = "'instances' has 2 rows, but model 'tiny' takes one at a time: its first dimension is fixed";
    let twice = as_list(&spec, "[[[1,2],[3,4]],[[1,2],[3,4]]]").expect_err("two");
    assert_eq!(twice.text(), text);
    let twice = as_list(&spec, r#"[{"x":[[1,2],[3,4]]},{"x":[[1,2],[3,4]]}]"#).expect_err("two");
    assert_eq!(twice.text(), text);
}

#[test]
fn a_model_for_one_row_takes_it_with_and_without_its_list() {
    let spec = fixed(vec![tensor("x", DataType::Fp32, &[1, 2])]);
    assert_eq!(as_list(&spec, "[[1,2]]"), Ok((vec![x(&[1, 2], &[1.0, 2.0])], Rows::List(1))));
    assert_eq!(as_rows(&spec, "[1,2]"), Ok((vec![x(&[1, 2], &[1.0, 2.0])], Rows::Bare)));
    assert_eq!(as_rows(&spec, "[[1,2]]"), Ok((vec![x(&[1, 2], &[1.0, 2.0])], Rows::Bare)));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (json, text) in [
        ("[[1,2],[3]]", "input 'x' is ragged: the list at [1] has 1 elements, those before it have 2"),
        ("[[[1,2]]]", "input 'x': a row takes a list of shape [2], got shape [1,2]"),
        ("[]", "'instances' is empty; at least one row is expected"),
        ("7", "'instances' is a number; a list of rows is expected"),
        ("[[1,\"a\"]]", "Unable to parse 'data': element 1 of input 'x' is a string; a number is expected for FP32"),
        (r#"[{"z":1}]"#, "unexpected inference input 'z' for model 'tiny'; its inputs are: 'x'"),
        (r#"[{"x":[1,2],"x":[1,2]}]"#, "'x' is there twice; once is allowed"),
        (r#"[{"x":[1,2]},{}]"#, "row 1 of 'instances': it has no value for input 'x'"),
        (r#"[{"x":[1,2]},[1,2]]"#, "row 1 of 'instances': it is an array; an object by input name is expected"),
        (r#"[[1,2],{"x":[1,2]}]"#, "input 'x' is ragged: there is a value at [1], where a list stands before it"),
        (
            r#"[{"x":[1,2]},{"x":[[1,2]]}]"#,
            "row 1 of 'instances': input 'x': a row takes a list of shape [2], got shape [1,2]",
        ),
    ] {
        assert_eq!(as_list(&pairs(), json).expect_err(json).text(), text, "{json}");
    }
    let wide = model(vec![tensor("x", DataType::Fp32, &[-1, -1])]);
    assert_eq!(
        as_list(&wide, r#"[{"x":[1,2]},{"x":[1]}]"#).expect_err("ragged").text(),
        "row 1 of 'instances': input 'x' has shape [1], but [2] in the rows before; all rows need the same"
    );
    assert_eq!(
        as_list(&two_inputs(), "[[1,2]]").expect_err("no names").text(),
        "'instances' holds values without names, but model 'tiny' takes 2 inputs; send objects by input name: 'x', 'ids'"
    );
    let texts = model(vec![tensor("x", DataType::Bytes, &[-1])]);
    for (json, text) in [
        ("[1]", "element 0 of input 'x' is a number; a string or {\"b64\": \"…\"} is expected for BYTES"),
        (
            "[\"a\",{\"b64\":1}]",
            "element 1 of input 'x' is an object; a string or {\"b64\": \"…\"} is expected for BYTES",
        ),
        ("[\"a\",{}]", "element 1 of input 'x' is an object; a string or {\"b64\": \"…\"} is expected for BYTES"),
        ("[\"a\",{\"b64\":\"?\"}]", "element 1 of input 'x' is not base64: Invalid symbol 63, offset 0."),
    ] {
        assert_eq!(as_list(&texts, json).expect_err(json).text(), text, "{json}");
    }
}

#[test]
fn limits_hold() {
    let texts = model(vec![tensor("x", DataType::Bytes, &[-1])]);
    let long = format!("[\"{}\"]", "a".repeat(101));
    assert_eq!(as_list(&texts, &long).expect_err("long").kind(), Kind::TooLarge);
    let deep = format!("{}{}", "[".repeat(9), "]".repeat(9));
    assert_eq!(as_list(&pairs(), &deep).expect_err("deep").kind(), Kind::TooLarge);
    // More bytes than the budget of the test has, in rows that come one by one.
    let wide = model(vec![tensor("x", DataType::Fp64, &[-1, -1])]);
    let row = format!("{{\"x\":[{}]}}", ["1"; 1_000].join(","));
    let json = format!("[{}]", vec![row; 200].join(","));
    assert_eq!(as_list(&wide, &json).expect_err("out of budget").kind(), Kind::OutOfBudget);
}

proptest! {
    #[test]
    fn values_survive_the_way_into_tensors_and_back(
        rows in prop::collection::vec(prop::collection::vec(prop::array::uniform2(-1e6_f32..1e6), 3), 1..5)
    ) {
        let spec = model(vec![tensor("x", DataType::Fp32, &[-1, 3, 2])]);
        let json = serde_json::to_string(&rows).expect("JSON");
        let (held, count) = as_list(&spec, &json).expect("valid");
        prop_assert_eq!(count, Rows::List(rows.len()));
        let (_, shape, wire) = held.into_iter().next().expect("one input");
        let output = output("x", DataType::Fp32, &shape, wire);
        let mut text = Vec::new();
        Elements::new(&output).expect("elements").push_whole(&mut text, 1 << 20).expect("written");
        let back: Vec<Vec<[f32; 2]>> = serde_json::from_slice(&text).expect("JSON");
        prop_assert_eq!(back, rows);
    }

    #[test]
    fn any_text_is_read_or_refused(json in r#"[\[\]{}",:0-9xab64. ]{0,40}"#) {
        for spec in [pairs(), two_inputs(), fixed(vec![tensor("x", DataType::Bytes, &[2])])] {
            let _ = as_list(&spec, &json);
            let _ = as_rows(&spec, &json);
            let _ = as_columns(&spec, &json);
        }
    }
}
