use std::time::Duration;

use super::super::fixture::{draft, floats, model, output, read, tensor};
use super::*;

const WRITING: Writing = Writing { limit: 10_000, elapsed: Duration::from_millis(2) };

fn written(draft: &Draft<'_>, rows: Rows) -> serde_json::Value {
    serde_json::from_slice(&write(draft, rows, WRITING).expect("written")).expect("JSON")
}

#[test]
fn features_have_to_be_there() {
    let spec = model(vec![tensor("x", DataType::Fp32, &[-1, 2])]);
    let error = read(&spec, r#"{"feature":[1,2]}"#, super::read).expect_err("misspelt");
    assert!(error.text().starts_with("'features' is not there; send {\"features\": […]}"), "{error}");
    let asked = read(&spec, r#"{"features":[1,2]}"#, super::read).expect("one row");
    assert_eq!(asked.form, Form::Prediction(Rows::Bare));
}

#[test]
fn a_label_beside_probabilities_is_the_prediction() {
    let labels = [7_i64, 9].iter().flat_map(|label| label.to_le_bytes()).collect();
    let draft = draft([
        output("label", DataType::Int64, &[2], labels),
        output("scores", DataType::Fp32, &[2, 3], floats(&[5.0, 1.0, 2.0, 0.0, 0.0, 9.0])),
        output("probabilities", DataType::Fp32, &[2, 3], floats(&[0.1, 0.7, 0.2, 0.25, 0.25, 0.5])),
    ]);
    let found = written(&draft, Rows::List(2));
    assert_eq!(found["prediction"], serde_json::json!([7, 9]));
    assert_eq!(found["confidence"], serde_json::json!([0.7, 0.5]));
    assert_eq!(found["probabilities"][1], serde_json::json!([0.25, 0.25, 0.5]));
    assert_eq!((&found["model_name"], &found["model_version"]), (&"tiny".into(), &"3".into()));
    assert_eq!(found["processing_time"], 0.002);
}

#[test]
fn probabilities_alone_predict_the_first_highest_class() {
    let draft = draft([output("p", DataType::Fp32, &[1, 3], floats(&[0.25, 0.375, 0.375]))]);
    let found = written(&draft, Rows::Bare);
    assert_eq!((&found["prediction"], &found["confidence"]), (&1.into(), &0.375.into()));
}

#[test]
fn without_probabilities_there_is_no_confidence() {
    for (shape, values) in [
        (&[2, 2][..], &[0.5, 0.6, 0.5, 0.5][..]),
        (&[2, 2], &[-0.5, 1.5, 0.5, 0.5]),
        (&[2, 1], &[1.0, 1.0]),
        (&[2, 1, 2], &[0.5, 0.5, 0.5, 0.5]),
    ] {
        let draft = draft([output("y", DataType::Fp32, shape, floats(values))]);
        let found = written(&draft, Rows::List(2));
        assert_eq!(found["confidence"], serde_json::Value::Null, "{shape:?}");
        assert_eq!(found.get("probabilities"), None);
        assert_eq!(found["prediction"].as_array().map(Vec::len), Some(2));
    }
}

#[test]
fn one_value_is_bare_and_several_outputs_go_by_name() {
    let price = draft([output("price", DataType::Fp32, &[1, 1], floats(&[3.5]))]);
    assert_eq!(written(&price, Rows::Bare)["prediction"], 3.5);
    let both = draft([
        output("price", DataType::Fp32, &[1, 1], floats(&[3.5])),
        output("range", DataType::Fp32, &[1, 2], floats(&[3.0, 4.0])),
    ]);
    assert_eq!(written(&both, Rows::Bare)["prediction"], serde_json::json!({ "price": 3.5, "range": [3.0, 4.0] }));
}

#[test]
fn an_output_without_rows_is_the_prediction_of_one_and_refused_for_several() {
    let whole = draft([output("y", DataType::Fp32, &[3], floats(&[1.0, 2.0, 3.0]))]);
    assert_eq!(written(&whole, Rows::Bare)["prediction"], serde_json::json!([1.0, 2.0, 3.0]));
    assert!(write(&whole, Rows::List(2), WRITING).is_err());
}

#[test]
fn what_is_not_finite_is_refused() {
    let draft = draft([output("y", DataType::Fp32, &[1], floats(&[f32::NAN]))]);
    let error = write(&draft, Rows::Bare, WRITING).expect_err("NaN");
    assert!(error.text().contains("NaN or infinite"), "{error}");
}
