use std::sync::Arc;

use super::*;
use crate::tensor::BytesElements;

fn spec(datatype: DataType, labels: &[&str]) -> TensorSpec {
    let labels: Arc<[Box<str>]> = labels.iter().map(|&label| label.into()).collect();
    TensorSpec {
        name: "y".to_owned(),
        datatype,
        shape: [-1, -1].into_iter().collect(),
        labels: (!labels.is_empty()).then_some(labels),
    }
}

fn output(datatype: DataType, shape: &[i64], data: Vec<u8>) -> Output {
    Output { index: 3, datatype, shape: shape.iter().copied().collect(), data: data.into() }
}

fn floats(shape: &[i64], values: &[f32]) -> Output {
    output(DataType::Fp32, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

fn texts(output: &Output) -> Vec<String> {
    assert_eq!(output.datatype, DataType::Bytes);
    let elements = BytesElements::new(&output.data).map(|element| element.expect("whole").to_vec());
    elements.map(|element| String::from_utf8(element).expect("text")).collect()
}

fn most(most: usize) -> Classes {
    Classes { output: 3, most, rows: 1 }
}

#[test]
fn every_row_gets_its_highest_values_with_index_and_label() {
    let spec = spec(DataType::Fp32, &["cat", "", "cow"]);
    let found = classify(&floats(&[2, 4], &[0.1, 0.962_352, 0.2, -1.0, 3.0, 1.5, 2.0, 9.0]), &spec, most(2), true);
    let found = found.expect("classified");
    assert_eq!((found.index, &found.shape[..]), (3, &[2, 2][..]));
    // No label for index 3, an empty one for index 1.
    assert_eq!(texts(&found), ["0.962352:1", "0.200000:2:cow", "9.000000:3", "3.000000:0:cat"]);
}

#[test]
fn a_tensor_without_rows_is_one_row_and_more_than_there_is_is_not_asked_for() {
    let spec = spec(DataType::Fp32, &[]);
    let found = classify(&floats(&[2, 2], &[1.0, 4.0, 3.0, 2.0]), &spec, most(9), false).expect("classified");
    assert_eq!(&found.shape[..], [4]);
    assert_eq!(texts(&found), ["4.000000:1", "3.000000:2", "2.000000:3", "1.000000:0"]);
    let labels = classify(&floats(&[3], &[1.0, 4.0, 3.0]), &spec, most(2), true).expect("classified");
    assert_eq!((&labels.shape[..], texts(&labels)[1].as_str()), (&[3, 1][..], "4.000000:0"));
}

#[test]
fn equal_values_keep_their_order_and_what_is_no_number_comes_last() {
    let values = [f32::NAN, 1.0, f32::NEG_INFINITY, -0.0, 0.0, 1.0, -f32::NAN, f32::INFINITY];
    let found = classify(&floats(&[8], &values), &spec(DataType::Fp32, &[]), most(8), false).expect("classified");
    let expected = ["inf:7", "1.000000:1", "1.000000:5", "-0.000000:3", "0.000000:4", "-inf:2", "nan:0", "-nan:6"];
    assert_eq!(texts(&found), expected);
}

#[test]
fn whole_numbers_have_no_decimals() {
    let found = output(DataType::Int8, &[1, 3], vec![0x80, 0x7f, 0xff]);
    let found = classify(&found, &spec(DataType::Int8, &[]), most(3), true).expect("classified");
    assert_eq!(texts(&found), ["127:1", "-1:2", "-128:0"]);
    let data = [u64::MAX, 0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let found = output(DataType::Uint64, &[1, 2], data);
    let found = classify(&found, &spec(DataType::Uint64, &[]), most(1), true).expect("classified");
    assert_eq!(texts(&found), ["18446744073709551615:0"]);
}

#[test]
fn empty_tensors_stay_empty() {
    let spec = spec(DataType::Fp32, &[]);
    for (shape, expected) in [([0, 4], [0, 2]), ([2, 0], [2, 0])] {
        let found = classify(&floats(&shape, &[]), &spec, most(2), true).expect("classified");
        assert_eq!((&found.shape[..], found.data.len()), (&expected[..], 0));
    }
}

#[test]
fn types_without_an_order_and_rows_that_are_too_long_are_refused() {
    for datatype in DataType::ALL {
        let is_refused = matches!(datatype, DataType::Bool | DataType::Fp16 | DataType::Bf16 | DataType::Bytes);
        assert_eq!(check(&spec(datatype, &[])).is_err(), is_refused, "{datatype}");
    }
    let long = floats(&[1, 1_000_001], &vec![0.0; 1_000_001]);
    let error = classify(&long, &spec(DataType::Fp32, &[]), most(1), true).expect_err("too long");
    assert!(error.text().starts_with("classification output tensor too large"), "{error}");
    let ten_rows = Classes { rows: 10, ..most(100_001) };
    let part = floats(&[1, 100_001], &vec![0.0; 100_001]);
    let error = classify(&part, &spec(DataType::Fp32, &[]), ten_rows, true).expect_err("too many");
    assert!(error.text().contains("100001 results for each of 10 rows"), "{error}");
    let just = floats(&[1_000_000], &vec![0.0; 1_000_000]);
    assert!(classify(&just, &spec(DataType::Fp32, &[]), most(1), false).is_ok());
}
