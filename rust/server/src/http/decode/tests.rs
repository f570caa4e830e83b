use std::sync::Arc;

use mlserve_core::budget::{Budget, LocalBudget};
use mlserve_core::error::Kind;
use mlserve_core::request::Parameter;
use mlserve_core::tensor::push_bytes_element;
use proptest::prelude::*;

use super::*;

/// Decodes a body of `json` and `blobs`, cut into pieces of `size` bytes, with a small budget.
fn decode_cut(json: &str, blobs: &[u8], size: usize) -> Result<Decoded> {
    let body = [json.as_bytes(), blobs].concat();
    let mut pieces = Blobs::new(body.chunks(size.max(1)).map(Bytes::copy_from_slice));
    let text = pieces.take_joined(json.len()).expect("as long");
    let limits = LimitSettings { max_tensors: 4, max_rank: 3, max_string_bytes: 1_000, ..LimitSettings::default() };
    let mut reservation = LocalBudget::new(Budget::new(1 << 24), 1).reserve(0).expect("nothing");
    let mut source = Source { model: "tiny", limits: &limits, reservation: &mut reservation, blobs: pieces };
    decode(&text, &mut source)
}

fn decode_json(json: &str) -> Result<Decoded> {
    decode_cut(json, b"", usize::MAX)
}

fn fault(json: &str) -> String {
    decode_json(json).expect_err(json).text().to_owned()
}

/// A body with one input of these members.
fn with_input(members: &str) -> String {
    format!(r#"{{"inputs":[{{{members}}}]}}"#)
}

fn bytes(decoded: &Decoded, input: usize) -> Bytes {
    decoded.request.inputs[input].data.to_contiguous()
}

const ROW: &str = r#""name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]"#;

#[test]
fn a_whole_request_is_read() {
    let decoded = decode_json(
        r#"{"id":"a\"b","unknown":{"deep":[1,{}]},"parameters":{"priority":3,"timeout":1500,"sequence_id":7,
        "sequence_start":true,"flag":false,"count":-4,"ratio":0.5,"word":"w","big":18446744073709551616},
        "inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"other":[1]},"data":[[1.5,-2]]},
        {"data":["é",""],"shape":[2],"datatype":"BYTES","name":"y","extra":null}],
        "outputs":[{"name":"p","parameters":{"binary_data":true}},{"name":"q"}]}"#,
    )
    .expect("valid");
    let request = &decoded.request;
    assert_eq!(&*request.id, "a\"b");
    assert_eq!(request.priority, 3);
    assert_eq!(request.queue_timeout, Some(std::time::Duration::from_micros(1_500)));
    let parameters: Vec<(&str, &Parameter)> = request.parameters.iter().map(|(key, value)| (&**key, value)).collect();
    assert_eq!(
        parameters,
        [
            ("flag", &Parameter::Bool(false)),
            ("count", &Parameter::Int64(-4)),
            ("ratio", &Parameter::Double(0.5)),
            ("word", &Parameter::Text("w".into())),
            ("big", &Parameter::Double(18_446_744_073_709_551_616.0)),
        ]
    );
    assert_eq!(request.inputs.len(), 2);
    assert_eq!(bytes(&decoded, 0), [1.5_f32.to_le_bytes(), (-2.0_f32).to_le_bytes()].concat());
    assert_eq!(&*request.inputs[1].name, "y");
    assert_eq!(bytes(&decoded, 1), &b"\x02\0\0\0\xc3\xa9\0\0\0\0"[..]);
    assert_eq!(request.outputs.iter().map(|name| &**name).collect::<Vec<_>>(), ["p", "q"]);
    assert_eq!(decoded.wants.form("p"), OutputForm::Binary);
    assert_eq!(decoded.wants.form("q"), OutputForm::Json);
}

#[test]
fn binary_output_is_the_default_of_the_request_or_its_own() {
    let json = format!(
        r#"{{"parameters":{{"binary_data_output":true}},"inputs":[{{{ROW}}}],
        "outputs":[{{"name":"a"}},{{"name":"b","parameters":{{"binary_data":false}}}}]}}"#
    );
    let wants = decode_json(&json).expect("valid").wants;
    let forms = ["a", "b", "not named"].map(|name| wants.form(name));
    assert_eq!(forms, [OutputForm::Binary, OutputForm::Json, OutputForm::Binary]);
}

#[test]
fn what_is_missing_or_of_another_kind_is_named() {
    for (json, text) in [
        ("{}", "Unable to parse 'inputs': attempt to access non-existing object member 'inputs'"),
        ("[]", "failed to parse the request JSON buffer: the request must be an object at 2"),
        ("{\"inputs\":{}}", "Unable to parse 'inputs': it is an object; an array is expected"),
        ("{\"inputs\":[1]}", "Unable to parse 'inputs': it is a number; an object is expected"),
        ("{\"id\":5,\"inputs\":[]}", "Unable to parse 'id': it is a number; a string is expected"),
        ("{\"inputs\":[],\"inputs\":[]}", "'inputs' is there twice; once is allowed"),
        (
            "{\"inputs\":[],\"outputs\":[{}]}",
            "Unable to parse 'name': attempt to access non-existing object member 'name'",
        ),
        ("{a", "failed to parse the request JSON buffer: missing a name for object member at 1"),
    ] {
        assert_eq!(fault(json), text, "{json}");
    }
    for (members, text) in [
        (
            r#""shape":[1],"datatype":"FP32","data":[1]"#,
            "Unable to parse 'name': attempt to access non-existing object member 'name'",
        ),
        (
            r#""name":"x","datatype":"FP32","data":[1]"#,
            "Unable to parse 'shape': attempt to access non-existing object member 'shape'",
        ),
        (
            r#""name":"x","shape":[1],"data":[1]"#,
            "Unable to parse 'datatype': attempt to access non-existing object member 'datatype'",
        ),
        (r#""name":"x","shape":[1],"datatype":"fp32","data":[1]"#, "invalid datatype for input x: 'fp32'"),
        (r#""name":"x","name":"y""#, "'name' is there twice; once is allowed"),
        (r#""name":"x","shape":[1],"datatype":"FP32","data":[1],"data":[2]"#, "'data' is there twice; once is allowed"),
    ] {
        assert_eq!(fault(&with_input(members)), text, "{members}");
    }
}

#[test]
fn dimensions_are_whole_and_not_negative() {
    for (dimension, shown) in
        [("-1", "-1"), ("1.5", "1.5"), ("\"1\"", "a string"), ("9223372036854775808", "9223372036854775808")]
    {
        let json = with_input(&format!(r#""name":"x","shape":[1,{dimension}],"datatype":"FP32","data":[1]"#));
        assert_eq!(
            fault(&json),
            format!(
                "Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer: dimension 1 of \
                 input 'x' is {shown}; a whole number from 0 to 9223372036854775807 is expected"
            )
        );
    }
}

#[test]
fn an_input_has_exactly_one_source() {
    let but = |members: &str| {
        let json = with_input(&format!(r#""name":"x","shape":[1],"datatype":"UINT8"{members}"#));
        fault(&json)
    };
    let start = "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', \
                 'shared_memory_region' in 'parameters'. But";
    assert_eq!(but(""), format!("{start} no field is set"));
    assert_eq!(
        but(r#","data":[1],"parameters":{"binary_data_size":1}"#),
        format!("{start} set 'data' 'binary_data_size'")
    );
    assert_eq!(
        but(r#","data":[1],"parameters":{"binary_data_size":1,"shared_memory_region":"r"}"#),
        format!("{start} set 'data' 'binary_data_size' 'shared_memory_region'")
    );
}

#[test]
fn blobs_must_be_as_long_as_they_say() {
    let json = with_input(r#""name":"x","shape":[1,8],"datatype":"FP32","parameters":{"binary_data_size":32}"#);
    assert_eq!(
        decode_cut(&json, &[0; 10], 7).expect_err("short").text(),
        "unexpected size for input 'x', expecting 22 additional bytes for model 'tiny'"
    );
    assert_eq!(
        decode_cut(&json, &[0; 33], 7).expect_err("long").text(),
        "unexpected additional input data for model 'tiny'"
    );
    let huge = json.replace("32}", "18446744073709551615}");
    assert!(decode_cut(&huge, &[0; 10], 7).is_err());
    for bad in ["-1", "1.5", "\"32\"", "true", "null", "18446744073709551616"] {
        let error = decode_cut(&json.replace("32}", &format!("{bad}}}")), &[0; 32], 7).expect_err(bad);
        assert_eq!(error.kind(), Kind::InvalidArgument, "{bad}");
    }
}

#[test]
fn optional_members_that_are_null_are_not_there() {
    let plain = decode_json(&with_input(ROW)).expect("valid");
    let nulls = r#"{"id":null,"parameters":null,"outputs":null,"unknown":null,
        "inputs":[{"parameters":null,"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#;
    let inner = r#"{"parameters":{"priority":null,"timeout":null,"sequence_id":null,"binary_data_output":null,"any":null},
        "inputs":[{"parameters":{"binary_data_size":null,"shared_memory_region":null,"shared_memory_offset":null},
        "name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}],
        "outputs":[{"name":"y","parameters":null},
        {"name":"z","parameters":{"binary_data":null,"classification":null,"shared_memory_region":null}}]}"#;
    for json in [nulls, inner] {
        let decoded = decode_json(json).expect(json);
        assert_eq!(bytes(&decoded, 0), bytes(&plain, 0));
        let request = decoded.request;
        assert!(request.id.is_empty() && request.parameters.is_empty() && request.queue_timeout.is_none());
        assert!(request.options.is_none() && decoded.shared.is_none());
        assert_eq!(decoded.wants.form("z"), OutputForm::Json);
    }
    for member in ["name", "shape", "datatype"] {
        let text = fault(&with_input(&ROW.replace(&format!("\"{member}\":"), &format!("\"{member}\":null,\"_\":"))));
        assert!(text.contains(&format!("'{member}'")), "{text}");
    }
    assert!(
        fault(&with_input(&ROW.replace("[1,2]}", "null}").replace("\"data\":[1,2]", "\"data\":null")))
            .contains("no field is set")
    );
    assert!(fault(r#"{"inputs":null}"#).contains("'inputs'"));
}

#[test]
fn what_is_no_text_of_json_is_named() {
    assert!(fault("").contains("the body is empty"));
    assert!(fault(" \n").contains("the body is empty"));
    assert!(fault("\u{feff}{}").contains("byte order mark"));
}

#[test]
fn blobs_are_slices_of_what_was_received() {
    let json = with_input(r#""name":"x","shape":[8],"datatype":"UINT8","parameters":{"binary_data_size":8}"#);
    let body = Bytes::from([json.as_bytes(), &[9; 8]].concat());
    let mut blobs = Blobs::new([body.clone()]);
    let text = blobs.take_joined(json.len()).expect("as long");
    assert_eq!(text.as_ptr(), body.as_ptr());
    let data = blobs.take(8).expect("as long");
    assert_eq!(data.as_contiguous().expect("one piece").as_ptr(), body[json.len()..].as_ptr());
}

#[test]
fn parameters_have_their_texts() {
    for (parameters, text) in [
        (r#"{"priority":-1}"#, "invalid value for 'priority', expected value >= 0."),
        (r#"{"timeout":"1"}"#, "invalid value type for 'timeout' parameter, expected int64_param."),
        (r#"{"timeout":1.5}"#, "invalid value type for 'timeout' parameter, expected int64_param."),
        (
            r#"{"sequence_id":true}"#,
            "invalid value type for 'sequence_id' parameter, expected int64_param or string_param.",
        ),
        (r#"{"sequence_start":1}"#, "invalid value type for 'sequence_start' parameter, expected bool_param."),
        (
            r#"{"foo":[1]}"#,
            "invalid value type for 'foo' parameter, expected int64_param, bool_param, or string_param.",
        ),
        (
            r#"{"foo":1e400}"#,
            "invalid value type for 'foo' parameter, expected int64_param, bool_param, or string_param.",
        ),
        (
            r#"{"triton_x":1}"#,
            "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified.",
        ),
    ] {
        assert_eq!(fault(&format!(r#"{{"inputs":[],"parameters":{parameters}}}"#)), text);
    }
}

#[test]
fn a_sequence_becomes_the_routing_key() {
    let key = |id: &str| {
        let decoded = decode_json(&format!(r#"{{"inputs":[],"parameters":{{"sequence_id":{id}}}}}"#)).expect("valid");
        decoded.request.routing_key().to_owned()
    };
    assert_eq!([key("7"), key("18446744073709551615"), key("\"wagon\"")], ["7", "18446744073709551615", "wagon"]);
    assert_eq!([key("0"), key("\"\"")], ["", ""], "none");
    assert!(decode_json(&with_input(ROW)).expect("valid").request.options.is_none(), "most requests have none");
}

/// A body that wants the output `p` with these parameters.
fn with_output(parameters: &str) -> String {
    format!(r#"{{"inputs":[],"outputs":[{{"name":"p","parameters":{{{parameters}}}}}]}}"#)
}

#[test]
fn outputs_are_classified_by_a_whole_number() {
    let decoded = decode_json(&with_output(r#""classification":3,"binary_data":true"#)).expect("valid");
    assert_eq!(decoded.request.options.expect("it has some").classifications, [("p".into(), 3)]);
    assert_eq!(decoded.wants.form("p"), OutputForm::Binary);
    let none = decode_json(&with_output(r#""classification":0"#)).expect("as Triton reads it");
    assert!(none.request.options.is_none());
    for value in ["-1", "1.5", "\"3\"", "true", "18446744073709551616"] {
        let text = fault(&with_output(&format!(r#""classification":{value}"#)));
        assert!(text.starts_with("invalid value") && text.contains("'classification' parameter, expected"), "{text}");
    }
}

#[test]
fn tensors_may_lie_in_shared_memory() {
    let place = r#""shared_memory_region":"r","shared_memory_offset":4,"shared_memory_byte_size":8"#;
    let decoded = decode_json(&format!(
        r#"{{"inputs":[{{{ROW}}},{{"name":"s","shape":[2],"datatype":"FP32","parameters":{{{place}}}}}],
        "outputs":[{{"name":"p","parameters":{{"binary_data":false,{place}}}}}]}}"#
    ))
    .expect("valid");
    let shared = decoded.shared.expect("two tensors do");
    let expected = Place { region: "r".into(), offset: 4, byte_size: 8 };
    assert_eq!(shared.inputs[..], [(1, expected.clone())]);
    assert_eq!(shared.outputs[..], [("p".into(), expected)]);
    assert_eq!(decoded.wants.form("p"), OutputForm::Shared);
    for (also, what) in [(r#","binary_data":true"#, "binary_data"), (r#","classification":1"#, "classification")] {
        let text = fault(&with_output(&format!("{place}{also}")));
        assert_eq!(text, format!("Output can't set both 'shared_memory_region' and '{what}'; output 'p' does"));
    }
}

#[test]
fn a_place_in_shared_memory_is_whole_or_not_there() {
    for (parameters, text) in [
        (r#""shared_memory_region":"r""#, "'shared_memory_byte_size' must be specified along with"),
        (r#""shared_memory_offset":0"#, "'shared_memory_offset' can not be specified without"),
        (r#""shared_memory_byte_size":0"#, "'shared_memory_byte_size' can not be specified without"),
        (r#""shared_memory_region":7"#, "invalid value type for 'shared_memory_region' parameter for tensor"),
        (
            r#""shared_memory_region":"r","shared_memory_byte_size":-1"#,
            "invalid value for 'shared_memory_byte_size' parameter for",
        ),
        (
            r#""shared_memory_region":"r","shared_memory_offset":1.5"#,
            "invalid value type for 'shared_memory_offset' parameter for",
        ),
    ] {
        let found = fault(&with_output(parameters));
        assert!(found.starts_with(text), "{found}");
        let found =
            fault(&with_input(&format!(r#""name":"x","shape":[1],"datatype":"UINT8","parameters":{{{parameters}}}"#)));
        assert!(found.starts_with(text) || found.starts_with("Input must set only one"), "{found}");
    }
}

#[test]
fn counts_are_limited() {
    let inputs = vec![format!("{{{ROW}}}"); 5].join(",");
    let error = decode_json(&format!("{{\"inputs\":[{inputs}]}}")).expect_err("five");
    assert_eq!(error.text(), "the request has more than 4 inputs; at most 4 are allowed (limits.max_tensors)");
    let outputs = [r#"{"name":"p"}"#; 5].join(",");
    assert_eq!(
        decode_json(&format!("{{\"inputs\":[],\"outputs\":[{outputs}]}}")).expect_err("five").kind(),
        Kind::TooLarge
    );
    let error = decode_json(&with_input(r#""name":"x","shape":[1,1,1,1]"#)).expect_err("rank 4");
    assert_eq!(error.text(), "input 'x' has more than 3 dimensions; at most 3 are allowed (limits.max_rank)");
    let many: Vec<String> = (0..257).map(|number| format!("\"p{number}\":1")).collect();
    let error = decode_json(&format!("{{\"inputs\":[],\"parameters\":{{{}}}}}", many.join(","))).expect_err("257");
    assert_eq!(error.kind(), Kind::TooLarge);
}

#[test]
fn depth_is_refused_as_too_large_wherever_it_is() {
    for count in [100, 1_000, 1_000_000] {
        let deep = "[".repeat(count);
        for json in [
            deep.clone(),
            format!("{{\"x\":{deep}"),
            format!("{{\"id\":{deep}"),
            format!("{{\"inputs\":[{deep}"),
            with_input(&format!(r#""name":"x","shape":[1],"datatype":"FP32","data":{deep}"#)),
            with_input(&format!(r#""data":{deep}"#)),
            with_input(&format!(r#""name":{deep}"#)),
            with_input(&format!(r#""parameters":{{"a":{deep}"#)),
        ] {
            assert_eq!(decode_json(&json).expect_err("deep").kind(), Kind::TooLarge, "{}", &json[..40]);
        }
    }
}

#[test]
fn every_prefix_of_a_valid_body_is_an_error() {
    let json = r#"{"id":"é\u00e9","parameters":{"timeout":1,"p":0.5e1},"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32",
        "data":[[1.5,-2e3]]},{"name":"y","shape":[4],"datatype":"UINT8","parameters":{"binary_data_size":4}}],
        "outputs":[{"name":"p","parameters":{"binary_data":true}}]}"#;
    let body = [json.as_bytes(), b"\x01\x02\x03\x04"].concat();
    let limits = LimitSettings::default();
    let budget = LocalBudget::new(Budget::new(1 << 24), 1);
    let run = |json: &[u8], blobs: &[u8]| {
        let mut reservation = budget.reserve(0).expect("nothing");
        let blobs = Blobs::new([Bytes::copy_from_slice(blobs)]);
        let mut source = Source { model: "m", limits: &limits, reservation: &mut reservation, blobs };
        decode(&Bytes::copy_from_slice(json), &mut source).map(drop)
    };
    assert_eq!(run(&body[..json.len()], &body[json.len()..]), Ok(()));
    for len in 0..json.len() {
        assert!(run(&body[..len], b"").is_err(), "{len}");
        assert!(run(&body[..len], &body[json.len()..]).is_err(), "{len}");
    }
    for len in json.len()..body.len() {
        assert!(run(&body[..json.len()], &body[json.len()..len]).is_err(), "{len}");
    }
}

#[test]
fn what_decoding_allocates_is_reserved() {
    let budget = Budget::new(1 << 20);
    let local = LocalBudget::new(Arc::clone(&budget), 1);
    let mut reservation = local.reserve(0).expect("nothing");
    let limits = LimitSettings::default();
    let values = ["1"; 1_000].join(",");
    let json = Bytes::from(with_input(&format!(r#""name":"x","shape":[1000],"datatype":"FP64","data":[{values}]"#)));
    let mut source = Source { model: "m", limits: &limits, reservation: &mut reservation, blobs: Blobs::default() };
    drop(decode(&json, &mut source).expect("valid"));
    assert_eq!(reservation.units(), 8_000);
    let mut poor = LocalBudget::new(Budget::new(7_999), 1).reserve(0).expect("nothing");
    let mut source = Source { model: "m", limits: &limits, reservation: &mut poor, blobs: Blobs::default() };
    assert_eq!(decode(&json, &mut source).expect_err("too poor").kind(), Kind::OutOfBudget);
}

proptest! {
    #[test]
    fn blobs_arrive_whole_however_the_body_is_cut(
        blobs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..4),
        size in 1_usize..80,
    ) {
        let inputs: Vec<String> = blobs.iter().enumerate().map(|(at, blob)| format!(
            r#"{{"name":"i{at}","shape":[{len}],"datatype":"UINT8","parameters":{{"binary_data_size":{len}}}}}"#,
            len = blob.len()
        )).collect();
        let json = format!("{{\"inputs\":[{}]}}", inputs.join(","));
        let decoded = decode_cut(&json, &blobs.concat(), size).expect("valid");
        for (at, blob) in blobs.iter().enumerate() {
            prop_assert_eq!(&bytes(&decoded, at)[..], &blob[..]);
        }
    }

    #[test]
    fn members_may_come_in_any_order(order in Just(vec![0_usize, 1, 2, 3]).prop_shuffle()) {
        let members = [r#""name":"x""#, r#""shape":[2]"#, r#""datatype":"INT8""#, r#""data":[1,-1]"#];
        let json = with_input(&order.iter().map(|&at| members[at]).collect::<Vec<_>>().join(","));
        prop_assert_eq!(&bytes(&decode_json(&json).expect("valid"), 0)[..], &[1, 0xff][..]);
    }

    #[test]
    fn random_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200) {
        let limits = LimitSettings::default();
        let mut reservation = LocalBudget::new(Budget::new(1 << 24), 1).reserve(0).expect("nothing");
        let (json, blobs) = body.split_at(cut.min(body.len()));
        let blobs = Blobs::new([Bytes::copy_from_slice(blobs)]);
        let mut source = Source { model: "m", limits: &limits, reservation: &mut reservation, blobs };
        prop_assert!(decode(&Bytes::copy_from_slice(json), &mut source).is_err());
    }

    #[test]
    fn a_changed_byte_never_panics(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let mut blob = Vec::new();
        push_bytes_element(&mut blob, b"abc").expect("short");
        let json = r#"{"id":"i","parameters":{"timeout":1},"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[[1.5,-2e3]]},{"name":"y","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":7}}]}"#;
        let mut changed = json.as_bytes().to_vec();
        let at = at.index(changed.len());
        changed[at] = byte;
        let limits = LimitSettings::default();
        let mut reservation = LocalBudget::new(Budget::new(1 << 24), 1).reserve(0).expect("nothing");
        let mut source = Source { model: "m", limits: &limits, reservation: &mut reservation, blobs: Blobs::new([blob.into()]) };
        let _ = decode(&changed.into(), &mut source);
    }
}
