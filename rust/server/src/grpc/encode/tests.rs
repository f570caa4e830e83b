//! The encoder against bytes written by hand and against prost.

use std::sync::Arc;

use mlserve_core::request::Text;
use mlserve_core::tensor::DataType;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::grpc::fixture::version;
use crate::proto::infer_parameter::ParameterChoice;
use crate::proto::{ModelInferResponse, ModelStreamInferResponse};

fn output(index: usize, shape: &[i64], data: Vec<u8>) -> Output {
    Output { index, datatype: DataType::Fp32, shape: shape.iter().copied().collect(), data: data.into() }
}

fn encoded(id: &str, outputs: Vec<Output>, extras: Extras) -> Message {
    let version = version(2, Arc::from([]));
    let place = BatchPlace { batch: 300, rows: 4, offset: 0 };
    let answer = Answer {
        version: &version,
        id: Text::from(id.to_owned()),
        outputs: outputs.into_iter().collect(),
        place,
        reservation: None,
    };
    encode(&answer, extras)
}

#[test]
fn a_classified_output_has_its_own_type_and_one_in_shared_memory_an_empty_entry() {
    let classified = Output { datatype: DataType::Bytes, ..output(0, &[1, 1], b"\x03\0\0\x001:0".to_vec()) };
    let message = encoded("", vec![classified, output(0, &[1, 2], Vec::new())], Extras::default());
    let response = ModelInferResponse::decode(&*joined(message)).expect("decoded");
    let found: Vec<_> = response.outputs.iter().map(|output| (&*output.datatype, &output.shape[..])).collect();
    assert_eq!(found, [("BYTES", &[1, 1][..]), ("FP32", &[1, 2][..])]);
    assert_eq!(response.raw_output_contents, [b"\x03\0\0\x001:0".to_vec(), Vec::new()]);
    assert!(response.outputs.iter().all(|output| output.parameters.is_empty()));
}

fn joined(message: Message) -> Vec<u8> {
    let len = message.len();
    let bytes = message.into_pieces().concat();
    assert_eq!(bytes.len(), len);
    assert_eq!(bytes[0], 0, "not compressed");
    assert_eq!(u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize, len - PREFIX_BYTES);
    bytes[PREFIX_BYTES..].to_vec()
}

#[test]
fn an_answer_is_these_bytes() {
    let message = encoded("q", vec![output(0, &[1, 2], vec![1, 2, 3, 4, 5, 6, 7, 8])], Extras::default());
    assert_eq!(
        joined(message),
        b"\x0a\x06double\x12\x017\x1a\x01q\x2a\x0d\x0a\x01y\x12\x04FP32\x1a\x02\x01\x02\x32\x08\x01\x02\x03\x04\x05\x06\x07\x08"
    );
}

#[test]
fn empty_outputs_have_an_entry_of_their_own() {
    let message = encoded("", vec![output(0, &[0, 2], vec![]), output(1, &[], vec![1; 4])], Extras::default());
    let response = ModelInferResponse::decode(&*joined(message)).expect("valid");
    assert_eq!(response.raw_output_contents, [vec![], vec![1; 4]]);
    assert_eq!((&*response.outputs[0].name, &response.outputs[0].shape[..]), ("y", &[0, 2][..]));
    assert_eq!((&*response.outputs[1].name, &response.outputs[1].shape[..]), ("z", &[][..]));
}

#[test]
fn large_outputs_are_not_copied() {
    let data = Bytes::from(vec![7; COPIED_BYTES + 1]);
    let outputs = vec![
        Output { index: 0, datatype: DataType::Fp32, shape: [1, 2].into_iter().collect(), data: data.clone() },
        output(1, &[1, 1], vec![1; 4]),
    ];
    let pieces = encoded("q", outputs, Extras::default()).into_pieces();
    assert!(pieces.iter().any(|piece| piece.as_ptr() == data.as_ptr()));
    let response = ModelInferResponse::decode(&pieces.concat()[PREFIX_BYTES..]).expect("valid");
    assert_eq!(response.raw_output_contents, [data.to_vec(), vec![1; 4]]);
}

#[test]
fn the_test_mode_tells_where_a_request_ran() {
    let extras = Extras { reports_batch: true, is_streamed: false };
    let response = ModelInferResponse::decode(&*joined(encoded("", vec![], extras))).expect("valid");
    for (key, expected) in [("mlserve_batch", 300), ("mlserve_batch_rows", 4), ("mlserve_batch_offset", 0)] {
        assert_eq!(response.parameters[key].parameter_choice, Some(ParameterChoice::Int64Param(expected)));
    }
}

#[test]
fn streamed_answers_are_final() {
    let extras = Extras { reports_batch: true, is_streamed: true };
    let message = encoded("q", vec![output(0, &[1], vec![9; 4])], extras);
    let response = ModelStreamInferResponse::decode(&*joined(message)).expect("valid");
    assert_eq!(response.error_message, "");
    let answer = response.infer_response.expect("present");
    assert_eq!(answer.parameters["triton_final_response"].parameter_choice, Some(ParameterChoice::BoolParam(true)));
    assert_eq!((&*answer.id, &answer.raw_output_contents[0][..]), ("q", &[9; 4][..]));
}

#[test]
fn a_streamed_error_carries_the_id_and_its_code() {
    let message = encode_stream_error(&Error::invalid("why"), "q");
    let response = ModelStreamInferResponse::decode(&*joined(message)).expect("valid");
    assert_eq!(response.error_message, "why");
    let answer = response.infer_response.expect("present");
    assert_eq!(answer.id, "q");
    let code = answer.parameters[CODE_HEADER].parameter_choice.clone();
    assert_eq!(code, Some(ParameterChoice::StringParam("invalid_argument".to_owned())));
}

#[test]
fn sizes_of_integers_are_exact() {
    for value in (0..64).flat_map(|shift| [(1_u64 << shift) - 1, 1 << shift, u64::MAX >> shift]) {
        let mut buffer = Vec::new();
        put_varint(&mut buffer, value);
        assert_eq!(varint_size(value), buffer.len(), "{value}");
        assert_eq!(decimal(value, &mut [0; 20]), value.to_string());
    }
}

proptest! {
    #[test]
    fn prost_decodes_what_was_meant(
        id in "\\PC{0,200}",
        outputs in prop::collection::vec((0_usize..2, prop::collection::vec(any::<i64>(), 0..6), any::<Vec<u8>>()), 0..5),
        reports_batch: bool,
        is_streamed: bool,
    ) {
        let built = outputs.iter().map(|(index, shape, data)| output(*index, shape, data.clone())).collect();
        let bytes = joined(encoded(&id, built, Extras { reports_batch, is_streamed }));
        let response = if is_streamed {
            ModelStreamInferResponse::decode(&*bytes).expect("valid").infer_response.expect("present")
        } else {
            ModelInferResponse::decode(&*bytes).expect("valid")
        };
        prop_assert_eq!((&*response.model_name, &*response.model_version, &response.id), ("double", "7", &id));
        prop_assert_eq!(response.outputs.len(), outputs.len());
        for ((tensor, raw), (index, shape, data)) in response.outputs.iter().zip(&response.raw_output_contents).zip(&outputs) {
            prop_assert_eq!(&*tensor.name, ["y", "z"][*index]);
            prop_assert_eq!((&tensor.shape, raw), (shape, data));
            prop_assert!(tensor.contents.is_none());
        }
    }
}
