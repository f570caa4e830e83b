use std::borrow::Cow;
use std::sync::Arc;

use mlserve_core::budget::{Budget, LocalBudget};
use mlserve_core::config::LimitSettings;
use mlserve_core::request::Text;
use mlserve_core::tensor::{DataType, Shape, push_bytes_element};
use proptest::prelude::*;
use smallvec::smallvec;

use super::super::decode::{Source, decode};
use super::super::split::Blobs;
use super::*;

const LIMIT: usize = 1 << 24;

fn output(
    name: &'static str,
    datatype: DataType,
    shape: &[i64],
    data: Vec<u8>,
    is_binary: bool,
) -> DraftOutput<'static> {
    let form = if is_binary { OutputForm::Binary } else { OutputForm::Json };
    DraftOutput { name: Cow::Borrowed(name), datatype, shape: Shape::from_slice(shape), data: data.into(), form }
}

fn draft(outputs: impl IntoIterator<Item = DraftOutput<'static>>) -> Draft<'static> {
    Draft {
        model: Cow::Borrowed("tiny"),
        version: 1,
        id: Text::default(),
        outputs: outputs.into_iter().collect(),
        place: None,
        reservation: None,
    }
}

fn body(encoded: &Encoded) -> Vec<u8> {
    encoded.pieces.concat()
}

fn json_of(datatype: DataType, data: Vec<u8>) -> Result<String> {
    let encoded = encode(draft([output("y", datatype, &[1], data, false)]), LIMIT)?;
    let text = String::from_utf8(body(&encoded)).expect("UTF-8");
    let start = text.find("\"data\":").expect("data") + "\"data\":".len();
    Ok(text[start..text.len() - "}]}".len()].to_owned())
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn an_output_in_shared_memory_has_neither_data_nor_parameters() {
    let mut shared = output("y", DataType::Fp32, &[2, 3], Vec::new(), false);
    shared.form = OutputForm::Shared;
    let encoded = encode(draft([shared]), LIMIT).expect("encoded");
    assert_eq!(encoded.json_length, None);
    let expected =
        br#"{"model_name":"tiny","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[2,3]}]}"#;
    assert_eq!(body(&encoded), expected);
}

#[test]
fn keys_come_in_tritons_order() {
    let mut draft = draft([
        output("output", DataType::Fp32, &[1, 3], floats(&[0.1, 1.0, -2.5e-8]), false),
        output("label", DataType::Int64, &[1], 7_i64.to_le_bytes().to_vec(), true),
    ]);
    draft.id = "abc".into();
    draft.place = Some(BatchPlace { batch: 4, rows: 3, offset: 2 });
    let encoded = encode(draft, LIMIT).expect("encodes");
    let json = concat!(
        r#"{"id":"abc","model_name":"tiny","model_version":"1","#,
        r#""parameters":{"mlserve_batch":4,"mlserve_batch_rows":3,"mlserve_batch_offset":2},"#,
        r#""outputs":[{"name":"output","datatype":"FP32","shape":[1,3],"data":[0.1,1.0,-2.5e-8]},"#,
        r#"{"name":"label","datatype":"INT64","shape":[1],"parameters":{"binary_data_size":8}}]}"#
    );
    assert_eq!(encoded.json_length, Some(json.len()));
    assert_eq!(body(&encoded), [json.as_bytes(), &7_i64.to_le_bytes()].concat());
}

#[test]
fn an_answer_in_binary_has_tritons_length() {
    let mut draft = draft([output("output", DataType::Fp32, &[1, 3], vec![0; 12], true)]);
    draft.id = "abc".into();
    let encoded = encode(draft, LIMIT).expect("encodes");
    assert_eq!(encoded.json_length, Some(151));
    assert_eq!(encoded.len(), 163);
}

#[test]
fn values_are_written_as_json_has_them() {
    assert_eq!(json_of(DataType::Bool, vec![0, 1]).as_deref(), Ok("[false,true]"));
    assert_eq!(json_of(DataType::Uint8, vec![0, 255]).as_deref(), Ok("[0,255]"));
    assert_eq!(json_of(DataType::Int8, vec![0x80, 0xff]).as_deref(), Ok("[-128,-1]"));
    assert_eq!(json_of(DataType::Uint64, u64::MAX.to_le_bytes().to_vec()).as_deref(), Ok("[18446744073709551615]"));
    assert_eq!(
        json_of(DataType::Fp32, floats(&[0.1, -0.0, f32::MAX, 1e-45])).as_deref(),
        Ok("[0.1,-0.0,3.4028235e+38,1e-45]")
    );
    assert_eq!(json_of(DataType::Fp64, 0.1_f64.to_le_bytes().to_vec()).as_deref(), Ok("[0.1]"));
    assert_eq!(json_of(DataType::Fp32, vec![]).as_deref(), Ok("[]"));
    let mut strings = Vec::new();
    for text in ["a\"b\\", "é\n\u{1}"] {
        push_bytes_element(&mut strings, text.as_bytes()).expect("short");
    }
    assert_eq!(json_of(DataType::Bytes, strings).as_deref(), Ok(r#"["a\"b\\","é\n\u0001"]"#));
}

#[test]
fn what_json_cannot_carry_is_refused_with_the_way_out() {
    let not_finite = "is NaN or infinite, which JSON cannot carry; set the output's parameter 'binary_data' to true";
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = json_of(DataType::Fp32, floats(&[1.0, value])).expect_err("not finite");
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert_eq!(error.text(), format!("element 1 of output 'y' {not_finite}"));
    }
    assert!(json_of(DataType::Fp64, f64::NAN.to_le_bytes().to_vec()).is_err());
    let mut broken = Vec::new();
    push_bytes_element(&mut broken, b"\xff").expect("short");
    assert_eq!(
        json_of(DataType::Bytes, broken).expect_err("not UTF-8").text(),
        "element 0 of output 'y' is not UTF-8, which JSON cannot carry; set the output's parameter 'binary_data' to true"
    );
    for datatype in [DataType::Fp16, DataType::Bf16] {
        let error = json_of(datatype, vec![0, 0]).expect_err("no JSON");
        assert_eq!(
            error.text(),
            format!(
                "sending {datatype} data via JSON is not supported. Please use the binary data format for output y"
            )
        );
    }
}

#[test]
fn large_binary_outputs_are_not_copied() {
    let large = Bytes::from(vec![1_u8; COPIED_BYTES + 1]);
    let mut draft = draft([
        output("a", DataType::Uint8, &[3], vec![1, 2, 3], true),
        output("b", DataType::Uint8, &[1], vec![], true),
        output("c", DataType::Uint8, &[2], vec![4, 5], true),
    ]);
    draft.outputs[1].data = large.clone();
    let encoded = encode(draft, LIMIT).expect("encodes");
    assert_eq!(encoded.pieces.len(), 3);
    assert_eq!(encoded.pieces[1].as_ptr(), large.as_ptr());
    assert!(encoded.pieces[0].ends_with(&[1, 2, 3]));
    assert_eq!(encoded.pieces[2], &[4, 5][..]);
}

#[test]
fn an_answer_above_the_limit_is_too_large() {
    let values = floats(&[0.123_456_78; 4_000]);
    for is_binary in [false, true] {
        let outputs = draft([output("y", DataType::Fp32, &[4_000], values.clone(), is_binary)]);
        let error = encode(outputs, 10_000).expect_err("too large");
        assert_eq!(error.kind(), Kind::TooLarge);
    }
    let mut strings = Vec::new();
    push_bytes_element(&mut strings, &vec![b'a'; 30_000]).expect("short");
    let outputs = draft([output("y", DataType::Bytes, &[1], strings, false)]);
    assert_eq!(encode(outputs, 20_000).expect_err("too large").kind(), Kind::TooLarge);
}

#[test]
fn the_reservation_covers_what_is_written() {
    let budget = Budget::new(1 << 20);
    let local = LocalBudget::new(Arc::clone(&budget), 1);
    let mut draft = draft([output("y", DataType::Fp32, &[1_000], floats(&vec![0.123_456_78; 1_000]), false)]);
    draft.reservation = local.reserve(4_000);
    let encoded = encode(draft, LIMIT).expect("encodes");
    let held = encoded.reservation.as_ref().expect("held").units();
    assert_eq!(held, encoded.len());
    let poor = LocalBudget::new(Budget::new(5_000), 1);
    let mut draft = super::tests::draft([output("y", DataType::Fp32, &[1_000], vec![0; 4_000], false)]);
    draft.reservation = poor.reserve(4_000);
    assert_eq!(encode(draft, LIMIT).expect_err("too poor").kind(), Kind::OutOfBudget);
}

/// Elements of any type that JSON can carry, in wire form.
fn tensor() -> impl Strategy<Value = (DataType, usize, Vec<u8>)> {
    let fixed = proptest::sample::select(&DataType::ALL).prop_flat_map(|datatype| {
        let size = datatype.size().unwrap_or(1);
        (Just(datatype), proptest::collection::vec(any::<u8>(), 0..8 * size))
    });
    fixed.prop_filter_map("JSON can carry it", |(datatype, mut data)| {
        let size = datatype.size().unwrap_or(1);
        data.truncate(data.len() / size * size);
        let is_finite = match datatype {
            DataType::Fp16 | DataType::Bf16 => false,
            DataType::Fp32 => data.as_chunks().0.iter().all(|&bytes| f32::from_le_bytes(bytes).is_finite()),
            DataType::Fp64 => data.as_chunks().0.iter().all(|&bytes| f64::from_le_bytes(bytes).is_finite()),
            _ => true,
        };
        if datatype == DataType::Bool {
            for byte in &mut data {
                *byte &= 1;
            }
        }
        if datatype == DataType::Bytes {
            let text = String::from_utf8_lossy(&data).into_owned();
            let mut wire = Vec::new();
            push_bytes_element(&mut wire, text.as_bytes()).ok()?;
            return Some((datatype, 1, wire));
        }
        is_finite.then_some((datatype, data.len() / size, data))
    })
}

proptest! {
    #[test]
    fn every_type_comes_back_bit_for_bit((datatype, count, data) in tensor()) {
        let encoded = encode(draft([output("y", datatype, &[count as i64], data.clone(), false)]), LIMIT).expect("encodes");
        // An answer's outputs are read back as a request's inputs: the members have the same names.
        let json = String::from_utf8(body(&encoded)).expect("UTF-8").replace("\"outputs\"", "\"inputs\"");
        prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
        let limits = LimitSettings::default();
        let mut reservation = LocalBudget::new(Budget::new(1 << 20), 1).reserve(0).expect("nothing");
        let mut source = Source { model: "m", limits: &limits, reservation: &mut reservation, blobs: Blobs::default() };
        let decoded = decode(&Bytes::from(json), &mut source).expect("own JSON");
        prop_assert_eq!(&decoded.request.inputs[0].data.to_contiguous()[..], &data[..]);
    }

    #[test]
    fn binary_outputs_follow_in_order(blobs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9_000), 1..4)) {
        let names = ["a", "b", "c", "d"];
        let outputs = blobs.iter().enumerate().map(|(at, blob)| {
            output(names[at], DataType::Uint8, &[blob.len() as i64], blob.clone(), true)
        });
        let encoded = encode(draft(outputs), LIMIT).expect("encodes");
        let length = encoded.json_length.expect("binary");
        prop_assert_eq!(&body(&encoded)[length..], &blobs.concat()[..]);
        prop_assert!(encoded.pieces.iter().all(|piece| !piece.is_empty()));
    }
}

#[test]
fn drafts_can_leave_their_version() {
    let owned = draft([output("y", DataType::Uint8, &[1], vec![1], false)]).into_owned();
    let outputs: smallvec::SmallVec<[&str; 2]> = owned.outputs.iter().map(|output| &*output.name).collect();
    assert_eq!(outputs, smallvec!["y"] as smallvec::SmallVec<[&str; 2]>);
}
