//! The decoder against bytes written by hand, against prost, and against what hostile senders send.

use std::collections::HashMap;

use mlserve_core::config::LimitSettings;
use mlserve_core::error::Kind;
use mlserve_core::request::{MAX_PARAMETERS, Parameter};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::grpc::fixture::reservation;
use crate::proto::infer_parameter::ParameterChoice;
use crate::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::proto::{InferParameter, InferTensorContents, ModelInferRequest};

fn decoded_from(pieces: &[Bytes]) -> Result<Request, Refused> {
    all_decoded_from(pieces).map(|decoded| decoded.request)
}

fn all_decoded_from(pieces: &[Bytes]) -> Result<Decoded, Refused> {
    decode(pieces, &LimitSettings::default(), &mut reservation(1 << 30))
}

fn decoded(bytes: &[u8]) -> Result<Request> {
    decoded_from(&[Bytes::copy_from_slice(bytes)]).map_err(|refused| refused.error)
}

fn refusal(request: &ModelInferRequest) -> (Kind, String) {
    let error = decoded(&request.encode_to_vec()).expect_err("refused");
    (error.kind(), error.text().to_owned())
}

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    }
}

fn typed(datatype: &str, shape: &[i64], contents: InferTensorContents) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "m".to_owned(),
        inputs: vec![InferInputTensor { contents: Some(contents), ..input("x", datatype, shape) }],
        ..ModelInferRequest::default()
    }
}

fn with_parameter(key: &str, choice: Option<ParameterChoice>) -> ModelInferRequest {
    ModelInferRequest {
        parameters: HashMap::from([(key.to_owned(), InferParameter { parameter_choice: choice })]),
        ..ModelInferRequest::default()
    }
}

fn raw(request: &Request, index: usize) -> Vec<u8> {
    request.inputs[index].data.to_contiguous().to_vec()
}

#[test]
fn large_texts_are_looked_at_while_their_message_is_decoded() {
    let texts = vec![b"sixteen letters.".to_vec(); 5_000];
    let wire: Vec<u8> = texts.iter().flat_map(|text| [&16_u32.to_le_bytes()[..], text].concat()).collect();
    let contents = InferTensorContents { bytes_contents: texts, ..InferTensorContents::default() };
    let typed = typed("BYTES", &[1, 5_000], contents);
    let raw = ModelInferRequest {
        inputs: vec![input("x", "BYTES", &[1, 5_000])],
        raw_input_contents: vec![wire],
        ..ModelInferRequest::default()
    };
    for request in [typed, raw] {
        let request = decoded(&request.encode_to_vec()).expect("valid");
        assert!(!request.has_to_be_walked(), "left to the loop");
    }
}

/// `tiny`, id `q`, one FP32 input of [1, 2], raw contents.
const BY_HAND: &[u8] = b"\x0a\x04tiny\x12\x017\x1a\x01q\
    \x2a\x0d\x0a\x01x\x12\x04FP32\x1a\x02\x01\x02\
    \x32\x03\x0a\x01y\
    \x3a\x08\0\0\x80\x3f\0\0\0\x40";

#[test]
fn bytes_written_by_hand_are_read() {
    let request = decoded(BY_HAND).expect("valid");
    assert_eq!(&*request.model_name, "tiny");
    assert_eq!(request.model_version, Some(7));
    assert_eq!(&*request.id, "q");
    assert_eq!(request.outputs.iter().map(|name| &**name).collect::<Vec<_>>(), ["y"]);
    let [input] = &request.inputs[..] else { panic!("one input") };
    assert_eq!((&*input.name, input.datatype, &input.shape[..]), ("x", DataType::Fp32, &[1, 2][..]));
    assert_eq!(raw(&request, 0), [1.0_f32.to_le_bytes(), 2.0_f32.to_le_bytes()].concat());
}

#[test]
fn raw_contents_are_views_of_what_was_received() {
    let received = Bytes::from_static(BY_HAND);
    let request = decoded_from(std::slice::from_ref(&received)).expect("valid");
    let data = request.inputs[0].data.as_contiguous().expect("one piece").clone();
    let range = received.as_ptr_range();
    assert!(range.contains(&data.as_ptr()), "no copy was made");
}

#[test]
fn the_last_of_a_repeated_scalar_wins_and_unknown_fields_are_skipped() {
    let mut bytes = BY_HAND.to_vec();
    // Fields 100 (varint), 101 (fixed64), 102 (length), 103 (a group with a field), 104 (fixed32), and a second name.
    bytes.extend_from_slice(
        b"\xa0\x06\xff\x01\xa9\x0612345678\xb2\x06\x02ab\xbb\x06\x08\x01\xbc\x06\xc5\x061234\x0a\x05other",
    );
    assert_eq!(&*decoded(&bytes).expect("valid").model_name, "other");
}

#[test]
fn every_prefix_of_a_valid_message_is_valid_or_refused() {
    for end in 0..BY_HAND.len() {
        if let Err(error) = decoded(&BY_HAND[..end]) {
            assert_eq!(error.kind(), Kind::InvalidArgument, "prefix of {end} bytes: {error}");
        }
    }
}

#[test]
fn malformed_bytes_are_refused_with_what_is_wrong() {
    for (bytes, text) in [
        (&b"\x0a\x05tiny"[..], "cut off"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x", "cut off"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02x", "more than 64 bits"),
        (b"\x08\x01", "model_name has the wrong wire type"),
        (b"\x02\x01", "a field has the number 0"),
        (b"\x0f\x01", "unknown wire type"),
        (b"\xbc\x06", "a group ends that did not start"),
        (b"\xbb\x06\x08\x01", "cut off"),
        (b"\x0a\x02\xc3\x28", "model_name is not valid UTF-8"),
        (b"\x2a\x06\x2a\x04\x32\x02\0\0", "a packed list does not end with an element"),
    ] {
        let error = decoded(bytes).expect_err("malformed");
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert!(error.text().contains(text), "{text:?} in {:?}", error.text());
    }
    let nested: Vec<u8> = b"\xbb\x06".repeat(101);
    assert!(decoded(&nested).expect_err("malformed").text().contains("nested too deeply"));
}

#[test]
fn typed_contents_become_raw_ones() {
    let list = InferTensorContents::default;
    let cases: [(&str, InferTensorContents, Vec<u8>); 12] = [
        ("BOOL", InferTensorContents { bool_contents: vec![true, false], ..list() }, vec![1, 0]),
        ("INT8", InferTensorContents { int_contents: vec![-1, 5], ..list() }, vec![255, 5]),
        ("INT16", InferTensorContents { int_contents: vec![-2, 5], ..list() }, vec![254, 255, 5, 0]),
        ("INT32", InferTensorContents { int_contents: vec![-2, 5], ..list() }, vec![254, 255, 255, 255, 5, 0, 0, 0]),
        ("UINT8", InferTensorContents { uint_contents: vec![200, 5], ..list() }, vec![200, 5]),
        ("UINT16", InferTensorContents { uint_contents: vec![300, 5], ..list() }, vec![44, 1, 5, 0]),
        ("UINT32", InferTensorContents { uint_contents: vec![300, 5], ..list() }, vec![44, 1, 0, 0, 5, 0, 0, 0]),
        (
            "INT64",
            InferTensorContents { int64_contents: vec![-1, 5], ..list() },
            [(-1_i64).to_le_bytes(), 5_i64.to_le_bytes()].concat(),
        ),
        (
            "UINT64",
            InferTensorContents { uint64_contents: vec![u64::MAX, 5], ..list() },
            [u64::MAX.to_le_bytes(), 5_u64.to_le_bytes()].concat(),
        ),
        (
            "FP32",
            InferTensorContents { fp32_contents: vec![1.5, -2.0], ..list() },
            [1.5_f32.to_le_bytes(), (-2_f32).to_le_bytes()].concat(),
        ),
        (
            "FP64",
            InferTensorContents { fp64_contents: vec![1.5, -2.0], ..list() },
            [1.5_f64.to_le_bytes(), (-2_f64).to_le_bytes()].concat(),
        ),
        (
            "BYTES",
            InferTensorContents { bytes_contents: vec![b"ab".to_vec(), vec![]], ..list() },
            b"\x02\0\0\0ab\0\0\0\0".to_vec(),
        ),
    ];
    for (datatype, contents, expected) in cases {
        let request = decoded(&typed(datatype, &[2], contents).encode_to_vec()).expect("valid");
        assert_eq!(raw(&request, 0), expected, "{datatype}");
    }
}

#[test]
fn unpacked_lists_are_read_as_well() {
    // contents {int_contents: 3 (unpacked), int_contents: [4, 5] (packed)}, fp32_contents would be a second list.
    let bytes = b"\x2a\x15\x0a\x01x\x12\x05INT32\x1a\x01\x03\x2a\x06\x10\x03\x12\x02\x04\x05";
    let request = decoded(bytes).expect("valid");
    assert_eq!(raw(&request, 0), [3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0]);
}

#[test]
fn contents_of_another_type_are_refused_with_tritons_text() {
    let ints = InferTensorContents { int_contents: vec![1], ..InferTensorContents::default() };
    let (kind, text) = refusal(&typed("FP32", &[1], ints.clone()));
    assert_eq!(kind, Kind::InvalidArgument);
    assert_eq!(
        text,
        "unexpected explicit tensor data for input tensor 'x' for model 'm' of type 'INT32', expected datatype 'FP32'"
    );
    let both = InferTensorContents { bool_contents: vec![true], ..ints };
    assert!(refusal(&typed("INT32", &[1], both)).1.contains("of type 'BOOL'"));
    let halves = InferTensorContents { fp32_contents: vec![1.0], ..InferTensorContents::default() };
    assert!(refusal(&typed("FP16", &[1], halves)).1.contains("expected datatype 'FP16'"));
}

#[test]
fn raw_and_typed_contents_do_not_mix() {
    let mut request = typed("INT32", &[1], InferTensorContents { int_contents: vec![1], ..Default::default() });
    request.raw_input_contents.push(vec![1, 0, 0, 0]);
    assert_eq!(
        refusal(&request).1,
        "contents field must not be specified when using raw_input_contents for 'x' for model 'm'"
    );
}

#[test]
fn each_input_needs_its_data() {
    let mut request = ModelInferRequest { model_name: "m".to_owned(), ..Default::default() };
    request.inputs = vec![input("x", "INT8", &[1]), input("y", "INT8", &[1])];
    let missing = |name: &str| format!("unable to find data for input tensor '{name}' for model 'm' in request.");
    assert_eq!(refusal(&request).1, missing("x"));
    request.raw_input_contents = vec![vec![1]];
    assert_eq!(refusal(&request).1, missing("y"));
    request.raw_input_contents = vec![vec![1], vec![2], vec![3]];
    assert_eq!(refusal(&request).1, "expected 2 raw_input_contents, one for each input, but got 3 for model 'm'");
    request.raw_input_contents.clear();
    request.inputs = vec![input("x", "INT8", &[0, 4])];
    assert!(decoded(&request.encode_to_vec()).is_ok(), "an empty tensor has nothing to send");
}

#[test]
fn parameters_mean_what_the_protocol_says() {
    use ParameterChoice::{BoolParam, DoubleParam, Int64Param, StringParam, Uint64Param};
    let set = |key, choice| decoded(&with_parameter(key, Some(choice)).encode_to_vec());
    assert_eq!(set("priority", Uint64Param(3)).expect("valid").priority, 3);
    assert_eq!(set("priority", Int64Param(4)).expect("valid").priority, 4);
    let timeout = set("timeout", Int64Param(1_500)).expect("valid").queue_timeout;
    assert_eq!(timeout, Some(std::time::Duration::from_micros(1_500)));
    for (key, choice) in [
        ("sequence_id", Int64Param(0)),
        ("sequence_id", StringParam(String::new())),
        ("sequence_start", BoolParam(true)),
        ("triton_enable_empty_final_response", BoolParam(true)),
    ] {
        assert!(set(key, choice).expect("valid").parameters.is_empty());
    }
    let custom = set("mine", DoubleParam(0.5)).expect("valid").parameters;
    assert_eq!(custom, [(Text::from("mine"), Parameter::Double(0.5))]);
}

#[test]
fn bad_parameters_are_refused_with_tritons_texts() {
    use ParameterChoice::{BoolParam, Int64Param, StringParam, Uint64Param};
    let kind = "invalid value type for";
    for (key, choice, text) in [
        ("timeout", Some(Uint64Param(1)), format!("{kind} 'timeout' parameter, expected int64_param.")),
        ("priority", Some(Int64Param(-1)), "invalid value for 'priority', expected value >= 0.".to_owned()),
        (
            "foo",
            Some(Uint64Param(1)),
            format!("{kind} 'foo' parameter, expected int64_param, bool_param, or string_param."),
        ),
        ("foo", None, format!("{kind} 'foo' parameter, expected int64_param, bool_param, or string_param.")),
        (
            "sequence_id",
            Some(Uint64Param(1)),
            format!("{kind} 'sequence_id' parameter, expected int64_param or string_param."),
        ),
        ("sequence_start", Some(Int64Param(1)), format!("{kind} 'sequence_start' parameter, expected bool_param.")),
        (
            "triton_foo",
            Some(BoolParam(true)),
            "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys starting \
             with 'triton_' are allowed: triton_enable_empty_final_response"
                .to_owned(),
        ),
        (
            "priority",
            Some(StringParam("1".to_owned())),
            format!("{kind} 'priority' parameter, expected int64_param or uint64_param."),
        ),
    ] {
        assert_eq!(refusal(&with_parameter(key, choice)), (Kind::InvalidArgument, text));
    }
}

#[test]
fn a_sequence_becomes_the_routing_key() {
    let key = |choice| {
        let request = decoded(&with_parameter("sequence_id", Some(choice)).encode_to_vec()).expect("valid");
        request.routing_key().to_owned()
    };
    assert_eq!(key(ParameterChoice::Int64Param(7)), "7");
    assert_eq!(key(ParameterChoice::Int64Param(-1)), u64::MAX.to_string(), "the same number over HTTP");
    assert_eq!(key(ParameterChoice::StringParam("wagon".to_owned())), "wagon");
    assert_eq!(key(ParameterChoice::Int64Param(0)), "", "none");
    assert_eq!(key(ParameterChoice::StringParam(String::new())), "", "none");
    assert!(decoded(BY_HAND).expect("valid").options.is_none(), "most requests have none of this");
}

/// Parameters of a tensor.
fn parameters_of(choices: &[(&str, ParameterChoice)]) -> HashMap<String, InferParameter> {
    let parameter = |choice: &ParameterChoice| InferParameter { parameter_choice: Some(choice.clone()) };
    choices.iter().map(|(key, choice)| ((*key).to_owned(), parameter(choice))).collect()
}

/// A request for the output `y` with these parameters.
fn with_output(choices: &[(&str, ParameterChoice)]) -> ModelInferRequest {
    let output = InferRequestedOutputTensor { name: "y".to_owned(), parameters: parameters_of(choices) };
    ModelInferRequest { outputs: vec![output], ..ModelInferRequest::default() }
}

#[test]
fn outputs_are_classified_by_a_whole_number_above_0() {
    use ParameterChoice::{Int64Param, StringParam, Uint64Param};
    let request = decoded(&with_output(&[("classification", Int64Param(3))]).encode_to_vec()).expect("valid");
    let options = request.options.expect("it has some");
    assert_eq!(options.classifications, [("y".into(), 3)]);
    let kind = "invalid value type for 'classification' parameter, expected int64_param";
    for choice in [Uint64Param(3), StringParam("3".to_owned())] {
        assert_eq!(refusal(&with_output(&[("classification", choice)])), (Kind::InvalidArgument, kind.to_owned()));
    }
    for number in [0, -1] {
        let text = format!(
            "invalid value for 'classification' parameter, expected a value from 1 to {}, got {number}",
            i64::MAX
        );
        assert_eq!(refusal(&with_output(&[("classification", Int64Param(number))])), (Kind::InvalidArgument, text));
    }
}

#[test]
fn tensors_may_lie_in_shared_memory() {
    use ParameterChoice::{Int64Param, StringParam};
    let place = |offset, size| {
        let region = ("shared_memory_region", StringParam("r".to_owned()));
        [region, ("shared_memory_offset", Int64Param(offset)), ("shared_memory_byte_size", Int64Param(size))]
    };
    let mut request = with_output(&place(16, 8));
    request.inputs = vec![input("a", "FP32", &[1]), input("b", "FP32", &[2]), input("c", "FP32", &[1])];
    request.inputs[1].parameters = parameters_of(&place(0, 8));
    request.raw_input_contents = vec![vec![1; 4], vec![3; 4]];
    let found = all_decoded_from(&[request.encode_to_vec().into()]).expect("valid");
    let shared = found.shared.expect("two tensors do");
    let expected = |offset, byte_size| Place { region: "r".into(), offset, byte_size };
    assert_eq!(shared.inputs[..], [(1, expected(0, 8))]);
    assert_eq!(shared.outputs[..], [("y".into(), expected(16, 8))]);
    // Raw contents are those of the inputs that lie in the message.
    assert_eq!([0, 1, 2].map(|index| raw(&found.request, index)), [vec![1; 4], vec![], vec![3; 4]]);

    request.raw_input_contents.push(vec![2; 8]);
    assert!(refusal(&request).1.starts_with("expected 2 raw_input_contents"));
    request.raw_input_contents.clear();
    for input in &mut request.inputs {
        input.contents = Some(InferTensorContents { fp32_contents: vec![1.0], ..Default::default() });
    }
    let text = "unexpected 'content' provided when using shared memory for input tensor 'b' for model ''";
    assert_eq!(refusal(&request).1, text);
}

#[test]
fn a_place_in_shared_memory_is_whole_or_not_there() {
    use ParameterChoice::{BoolParam, Int64Param, StringParam};
    let region = || ("shared_memory_region", StringParam("r".to_owned()));
    let size = |bytes| ("shared_memory_byte_size", Int64Param(bytes));
    let offset = |choice| ("shared_memory_offset", choice);
    for (choices, text) in [
        (vec![region()], "'shared_memory_byte_size' must be specified along with 'shared_memory_region' parameter for"),
        (vec![size(1)], "'shared_memory_byte_size' can not be specified without 'shared_memory_region' parameter for"),
        (vec![offset(Int64Param(0))], "'shared_memory_offset' can not be specified without 'shared_memory_region'"),
        (vec![("shared_memory_region", Int64Param(1))], "invalid value type for 'shared_memory_region' parameter for"),
        (vec![region(), size(-1)], "invalid value for 'shared_memory_byte_size' parameter for tensor 'y', expected"),
        (vec![region(), size(1), offset(Int64Param(i64::MIN))], "invalid value for 'shared_memory_offset' parameter"),
        (vec![region(), size(1), offset(BoolParam(true))], "invalid value type for 'shared_memory_offset' parameter"),
    ] {
        let (kind, found) = refusal(&with_output(&choices));
        assert_eq!(kind, Kind::InvalidArgument);
        assert!(found.starts_with(text) && found.contains("'y'"), "{found}");
    }
}

#[test]
fn versions_are_numbers() {
    assert_eq!(model_version(""), Ok(None));
    assert_eq!(model_version("12"), Ok(Some(12)));
    for bad in ["x", "-1", "+1", " 1", "1.0", "99999999999999999999"] {
        let text = format!(
            "failed to get model version from specified version string '{bad}', version should be an integral value > 0"
        );
        assert_eq!(model_version(bad), Err(Error::invalid(text)));
    }
}

#[test]
fn counts_and_sizes_have_limits() {
    let limits = LimitSettings { max_tensors: 2, max_rank: 3, max_string_bytes: 4, ..LimitSettings::default() };
    let refused = |request: &ModelInferRequest| {
        let bytes = Bytes::from(request.encode_to_vec());
        decode(&[bytes], &limits, &mut reservation(1 << 20)).expect_err("too large").error.kind()
    };
    let many = ModelInferRequest { inputs: vec![input("x", "INT8", &[0]); 3], ..Default::default() };
    let deep = ModelInferRequest { inputs: vec![input("x", "INT8", &[0; 4])], ..Default::default() };
    let long = InferTensorContents { bytes_contents: vec![vec![0; 5]], ..Default::default() };
    for request in [many, deep, typed("BYTES", &[1], long)] {
        assert_eq!(refused(&request), Kind::TooLarge);
    }
    let parameters = (0..=MAX_PARAMETERS).map(|number| (number.to_string(), InferParameter::default())).collect();
    assert_eq!(refused(&ModelInferRequest { parameters, ..Default::default() }), Kind::TooLarge);
}

/// What a message is filled with: names 256 parameters, then pieces that cost a look each.
fn crowd(start: &[u8], piece: &[u8]) -> Vec<u8> {
    [start, &piece.repeat((4 << 20) / piece.len())].concat()
}

#[test]
fn crowds_of_small_parts_are_refused_after_a_bounded_number() {
    let parameters = (1..MAX_PARAMETERS).map(|number| (number.to_string(), InferParameter::default())).collect();
    let named = ModelInferRequest { parameters, ..Default::default() }.encode_to_vec();
    for (name, crowd) in [
        ("parameters", crowd(&named, b"\x22\x00")),
        ("a parameter again and again", crowd(&named, b"\x22\x03\x0a\x01x")),
        ("inputs", crowd(b"", b"\x2a\x00")),
        ("outputs", crowd(b"", b"\x32\x00")),
        ("raw contents", crowd(b"", b"\x3a\x00")),
        ("names", crowd(b"", b"\x0a\x00")),
        ("unknown numbers", crowd(b"", b"\xf8\x07\x00")),
        ("unknown texts", crowd(b"", b"\xfa\x07\x00")),
        ("groups in a row", crowd(b"", b"\xfb\x07\xfc\x07")),
        ("fields of a group", crowd(b"\xfb\x07", b"\x08\x00")),
        ("unknown fields of contents", crowd(b"\x2a\x85\x80\x80\x02\x2a\x80\x80\x80\x02", b"\x78\x00")),
        ("parameters of an input", crowd(b"\x2a\x80\x80\x80\x02", b"\x22\x00")),
    ] {
        let refused = decoded(&crowd).expect_err(name);
        assert_eq!(refused.kind(), Kind::TooLarge, "{name}: {refused}");
    }
}

#[test]
fn a_tensor_keeps_only_the_parameters_that_mean_something() {
    let parameters = (0..MAX_PARAMETERS).map(|number| (number.to_string(), InferParameter::default())).collect();
    let mut bytes = Vec::new();
    prost::Message::encode(&InferInputTensor { parameters, ..input("x", "INT8", &[0]) }, &mut bytes).expect("fits");
    let message = Bytes::from(bytes);
    let pieces = [message];
    let mut reader = Reader::new(&pieces);
    let read = DraftInput::read(&mut reader, &LimitSettings::default(), &mut reservation(0)).expect("valid");
    assert!(read.parameters.is_empty());
}

#[test]
fn packed_contents_take_the_room_of_their_elements() {
    for (datatype, width, contents) in [
        ("BOOL", 1, InferTensorContents { bool_contents: vec![true; 33_000], ..Default::default() }),
        ("INT32", 4, InferTensorContents { int_contents: vec![1; 33_000], ..Default::default() }),
        ("INT64", 8, InferTensorContents { int64_contents: vec![1; 33_000], ..Default::default() }),
    ] {
        let bytes = Bytes::from(typed(datatype, &[33_000], contents).encode_to_vec());
        let mut held = reservation(1 << 30);
        decode(&[bytes], &LimitSettings::default(), &mut held).expect("valid");
        assert_eq!(held.units(), width * 33_000, "{datatype}");
    }
}

#[test]
fn typed_contents_are_charged_before_they_are_stored() {
    let contents = InferTensorContents { int64_contents: vec![1; 10_000], ..Default::default() };
    let bytes = Bytes::from(typed("INT64", &[10_000], contents).encode_to_vec());
    let mut held = reservation(1 << 20);
    decode(std::slice::from_ref(&bytes), &LimitSettings::default(), &mut held).expect("fits");
    assert!(held.units() >= 80_000, "{} bytes are charged", held.units());
    let refused = decode(&[bytes], &LimitSettings::default(), &mut reservation(50_000)).expect_err("does not fit");
    assert_eq!(refused.error.kind(), Kind::OutOfBudget);
}

#[test]
fn a_refusal_tells_the_id_that_was_read() {
    let mut request = with_parameter("timeout", None);
    request.id = "q7".to_owned();
    let refused = decoded_from(&[request.encode_to_vec().into()]).expect_err("refused");
    assert_eq!(&*refused.id, "q7");
}

fn any_tensor() -> impl Strategy<Value = (InferInputTensor, Vec<u8>)> {
    (
        "[a-z]{0,9}",
        prop::sample::select(DataType::ALL.to_vec()),
        prop::collection::vec(any::<i64>(), 0..6),
        any::<Vec<u8>>(),
    )
        .prop_map(|(name, datatype, shape, data)| (input(&name, datatype.name(), &shape), data))
}

fn any_request() -> impl Strategy<Value = ModelInferRequest> {
    let parameter = prop_oneof![
        any::<bool>().prop_map(ParameterChoice::BoolParam),
        any::<i64>().prop_map(ParameterChoice::Int64Param),
        any::<f64>().prop_filter("comparable", |value| !value.is_nan()).prop_map(ParameterChoice::DoubleParam),
        ".{0,5}".prop_map(ParameterChoice::StringParam),
    ];
    let parameters = prop::collection::hash_map("[a-s]{1,5}", parameter, 0..4);
    let tensors = prop::collection::vec(any_tensor(), 0..4);
    let outputs = prop::collection::vec("\\PC{0,5}", 0..3);
    ("\\PC{0,9}", any::<Option<u64>>(), "\\PC{0,9}", parameters, tensors, outputs).prop_map(
        |(model_name, version, id, parameters, tensors, outputs)| {
            let (inputs, raw_input_contents) = tensors.into_iter().unzip();
            ModelInferRequest {
                model_name,
                model_version: version.map(|version| version.to_string()).unwrap_or_default(),
                id,
                parameters: parameters
                    .into_iter()
                    .map(|(key, choice)| (format!("p{key}"), InferParameter { parameter_choice: Some(choice) }))
                    .collect(),
                inputs,
                outputs: outputs
                    .into_iter()
                    .map(|name| InferRequestedOutputTensor { name, parameters: HashMap::new() })
                    .collect(),
                raw_input_contents,
            }
        },
    )
}

fn assert_same(request: &Request, sent: &ModelInferRequest) {
    assert_eq!(*request.model_name, *sent.model_name);
    assert_eq!(request.model_version, sent.model_version.parse().ok());
    assert_eq!(*request.id, *sent.id);
    assert_eq!(request.inputs.len(), sent.inputs.len());
    for ((input, sent), raw) in request.inputs.iter().zip(&sent.inputs).zip(&sent.raw_input_contents) {
        assert_eq!((&*input.name, input.datatype.name()), (&*sent.name, &*sent.datatype));
        assert_eq!(input.shape[..], sent.shape[..]);
        assert_eq!(input.data.to_contiguous(), *raw);
    }
    assert!(request.outputs.iter().map(|name| &**name).eq(sent.outputs.iter().map(|output| &*output.name)));
    let parameters: HashMap<String, Parameter> =
        request.parameters.iter().map(|(key, value)| (key.to_string(), value.clone())).collect();
    let sent: HashMap<String, Parameter> = sent
        .parameters
        .iter()
        .filter_map(|(key, value)| {
            let value = match value.parameter_choice.clone()? {
                ParameterChoice::BoolParam(value) => Parameter::Bool(value),
                ParameterChoice::Int64Param(value) => Parameter::Int64(value),
                ParameterChoice::StringParam(value) => Parameter::Text(value.into()),
                ParameterChoice::DoubleParam(value) => Parameter::Double(value),
                ParameterChoice::Uint64Param(value) => Parameter::Uint64(value),
            };
            Some((key.clone(), value))
        })
        .collect();
    assert_eq!(parameters, sent);
}

proptest! {
    #[test]
    fn what_prost_encodes_is_decoded_wherever_it_is_split(sent in any_request(), split in any::<prop::sample::Index>()) {
        let bytes = Bytes::from(sent.encode_to_vec());
        assert_same(&decoded_from(std::slice::from_ref(&bytes)).expect("valid"), &sent);
        let at = split.index(bytes.len() + 1);
        let pieces = [bytes.slice(..at), Bytes::new(), bytes.slice(at..)];
        assert_same(&decoded_from(&pieces).expect("valid"), &sent);
        let single: Vec<Bytes> = (0..bytes.len()).map(|at| bytes.slice(at..=at)).collect();
        assert_same(&decoded_from(&single).expect("valid"), &sent);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decoded(&bytes);
    }

    #[test]
    fn no_damage_makes_it_panic(sent in any_request(), at in any::<prop::sample::Index>(), byte: u8, end in any::<prop::sample::Index>()) {
        let mut bytes = sent.encode_to_vec();
        bytes.push(0);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(end.index(bytes.len()) + 1);
        let whole = decoded(&bytes).map(|_| ()).map_err(|error| error.kind());
        let single: Vec<Bytes> = bytes.iter().map(|&byte| Bytes::copy_from_slice(&[byte])).collect();
        let split = decoded_from(&single).map(|_| ()).map_err(|refused| refused.error.kind());
        prop_assert_eq!(whole, split, "the same answer, however it is cut up");
    }

    #[test]
    fn typed_contents_are_what_prost_says(ints: Vec<i32>, longs: Vec<u64>, elements: Vec<Vec<u8>>) {
        let cases = [
            ("INT32", InferTensorContents { int_contents: ints.clone(), ..Default::default() },
                ints.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()),
            ("UINT64", InferTensorContents { uint64_contents: longs.clone(), ..Default::default() },
                longs.iter().flat_map(|value| value.to_le_bytes()).collect()),
            ("BYTES", InferTensorContents { bytes_contents: elements.clone(), ..Default::default() },
                elements.iter().flat_map(|element| [&(element.len() as u32).to_le_bytes()[..], element].concat()).collect()),
        ];
        for (datatype, contents, expected) in cases {
            if expected.is_empty() { continue; }
            let request = decoded(&typed(datatype, &[1], contents).encode_to_vec()).expect("valid");
            prop_assert_eq!(raw(&request, 0), expected);
        }
    }
}
