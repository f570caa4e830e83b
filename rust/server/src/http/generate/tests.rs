use mlserve_core::request::Parameter;
use mlserve_core::tensor::DataType;

use super::super::fixture::{draft, floats, held, model, output, read, tensor};
use super::*;

fn shape_of(dimensions: &[i64], json: &str) -> Result<Vec<i64>> {
    let spec = model(vec![tensor("x", DataType::Fp32, dimensions)]);
    let json = format!("{{\"x\":{json}}}");
    let asked = read(&spec, &json, |cursor, reader| super::read(cursor, reader, Form::Generated))?;
    Ok(asked.request.inputs[0].shape.to_vec())
}

#[test]
fn members_are_inputs_or_parameters() {
    let spec = model(vec![tensor("text", DataType::Bytes, &[-1, 1]), tensor("count", DataType::Int32, &[-1, 1])]);
    let json = r#"{"id":"q1","text":"hi","temperature": 0.5 ,"parameters":{"count":3,"stream":false,"priority":2}}"#;
    let asked = read(&spec, json, |cursor, reader| super::read(cursor, reader, Form::Event)).expect("valid");
    assert_eq!(
        held(&asked.request.inputs),
        [("text".to_owned(), vec![1, 1], b"\x02\0\0\0hi".to_vec()), ("count".to_owned(), vec![1, 1], vec![3, 0, 0, 0])]
    );
    assert_eq!((&*asked.request.id, asked.request.priority, asked.form), ("q1", 2, Form::Event));
    let parameters: Vec<_> = asked.request.parameters.iter().map(|(name, value)| (&**name, value.clone())).collect();
    assert_eq!(parameters, [("temperature", Parameter::Double(0.5)), ("stream", Parameter::Bool(false))]);
}

#[test]
fn members_that_are_null_are_not_there() {
    let spec = model(vec![tensor("text", DataType::Bytes, &[-1, 1])]);
    let json = r#"{"id":null,"parameters":{"stream":null},"temperature":null,"text":"hi"}"#;
    let asked = read(&spec, json, |cursor, reader| super::read(cursor, reader, Form::Generated)).expect("valid");
    assert_eq!((asked.request.inputs.len(), asked.request.parameters.len()), (1, 0));
    assert!(asked.request.id.is_empty());
}

#[test]
fn the_innermost_open_dimension_takes_what_is_left() {
    assert_eq!(shape_of(&[-1, -1], "1"), Ok(vec![1, 1]));
    assert_eq!(shape_of(&[-1, -1], "[1,2,3]"), Ok(vec![1, 3]));
    assert_eq!(shape_of(&[-1, 2], "[1,2,3,4]"), Ok(vec![2, 2]));
    assert_eq!(shape_of(&[-1, -1, 2], "[1,2,3,4]"), Ok(vec![1, 2, 2]));
    assert_eq!(shape_of(&[-1, 2], "[[1,2],[3,4]]"), Ok(vec![2, 2]));
    assert_eq!(shape_of(&[], "1"), Ok(vec![]));
    assert_eq!(shape_of(&[-1], "[]"), Ok(vec![0]));
    for (dimensions, json) in [(&[-1, 2][..], "[1,2,3]"), (&[], "[1,2]"), (&[-1, 2, 2], "[[1,2]]")] {
        let error = shape_of(dimensions, json).expect_err(json);
        assert!(error.text().starts_with("input 'x': the input takes"), "{error}");
    }
}

#[test]
fn an_input_may_be_called_as_a_member_is() {
    let spec = model(vec![tensor("id", DataType::Uint8, &[-1]), tensor("parameters", DataType::Uint8, &[-1])]);
    let json = r#"{"id":[7,8],"parameters":9}"#;
    let asked = read(&spec, json, |cursor, reader| super::read(cursor, reader, Form::Generated)).expect("inputs");
    assert_eq!(
        held(&asked.request.inputs),
        [("id".to_owned(), vec![2], vec![7, 8]), ("parameters".to_owned(), vec![1], vec![9])]
    );
    assert!(asked.request.id.is_empty());
}

#[test]
fn what_is_no_input_must_be_a_parameter() {
    let spec = model(vec![tensor("x", DataType::Fp32, &[-1, 1])]);
    let fault = |json: &str| {
        let asked = read(&spec, json, |cursor, reader| super::read(cursor, reader, Form::Generated));
        asked.expect_err(json).text().to_owned()
    };
    assert_eq!(
        fault(r#"{"y":[1]}"#),
        "'y' is an array and no input of model 'tiny'; its inputs are 'x', and parameters are strings, numbers or \
         booleans"
    );
    assert_eq!(fault(r#"{"parameters":[]}"#), "'parameters' is an array; an object is expected");
    assert_eq!(fault(r#"{"id":7}"#), "'id' is a number; a string is expected");
    assert_eq!(fault(r#"{"x":1,"parameters":{"x":2}}"#), "'x' is there twice; once is allowed");
    assert_eq!(fault(r#"{"priority":-1}"#), "invalid value for 'priority', expected value >= 0.");
    assert!(fault(r#"{"triton_x":1}"#).starts_with("parameter keys starting with 'triton_'"));
}

#[test]
fn one_element_is_bare_and_several_are_flat() {
    let mut draft = draft([
        output("text", DataType::Bytes, &[1, 1], b"\x02\0\0\0ok".to_vec()),
        output("scores", DataType::Fp32, &[1, 2], floats(&[1.0, 2.0])),
        output("none", DataType::Fp32, &[0], vec![]),
    ]);
    draft.id = "q1".into();
    let json = String::from_utf8(write(&draft, 1_000).expect("written")).expect("JSON");
    assert_eq!(json, r#"{"id":"q1","model_name":"tiny","model_version":"3","text":"ok","scores":[1.0,2.0],"none":[]}"#);
}
