//! Classified outputs through the whole pipeline: beside others in a batch, and in parts.

mod support;

use std::sync::{Arc, Mutex};

use mlserve_core::config::{LimitSettings, ModelSettings};
use mlserve_core::error::Error;
use mlserve_core::model::Batching;
use mlserve_core::request::{Answer, Reply, Request};
use mlserve_core::tensor::{BytesElements, DataType};
use support::Bench;

/// Shape, type and elements of the only output.
type Classified = (Vec<i64>, DataType, Vec<String>);

#[derive(Clone, Debug, Default)]
struct Caller(Arc<Mutex<Option<Result<Classified, Error>>>>);

impl Caller {
    fn got(&self) -> Classified {
        self.0.lock().expect("not poisoned").clone().expect("answered").expect("not refused")
    }
}

impl Reply for Caller {
    fn is_gone(&mut self) -> bool {
        false
    }

    fn send(self: Box<Self>, outcome: Result<Answer<'_>, Error>) {
        let got = outcome.map(|answer| {
            let output = &answer.outputs[0];
            let elements = match output.datatype {
                DataType::Bytes => BytesElements::new(&output.data)
                    .map(|element| String::from_utf8(element.expect("whole").to_vec()).expect("text"))
                    .collect(),
                _ => Vec::new(),
            };
            (output.shape.to_vec(), output.datatype, elements)
        });
        *self.0.lock().expect("not poisoned") = Some(got);
    }
}

fn classified(rows: &[&[f32]], most: usize) -> Request {
    let mut request = Bench::request(rows);
    request.outputs.push("y".into());
    request.options_mut().classifications.push(("y".into(), most));
    request
}

fn send(bench: &mut Bench, request: Request) -> Caller {
    let caller = Caller::default();
    bench.pipeline.submit(request, Box::new(caller.clone()));
    caller
}

#[test]
fn a_classified_request_shares_its_run_with_others_that_are_not() {
    let mut bench = Bench::with(ModelSettings::default());
    let plain = send(&mut bench, Bench::request(&[&[1.0, 2.0]]));
    let asked = send(&mut bench, classified(&[&[1.0, 3.0], &[5.0, 4.0]], 1));
    bench.flush();
    assert_eq!(bench.backend.runs(), [3]);
    assert_eq!((plain.got().0, plain.got().1), (vec![1, 2], DataType::Fp32));
    assert_eq!(asked.got(), (vec![2, 1], DataType::Bytes, vec!["6.000000:1".to_owned(), "10.000000:0".to_owned()]));
}

#[test]
fn parts_of_a_large_request_are_classified_like_the_whole() {
    let values: Vec<[f32; 3]> = (0..10).map(|n| [n as f32, -(n as f32), 4.5]).collect();
    let rows: Vec<&[f32]> = values.iter().map(|row| &row[..]).collect();
    let answers = [4, 64].map(|max_batch_rows| {
        let mut bench = Bench::with(ModelSettings { max_batch_rows, ..ModelSettings::default() });
        let caller = send(&mut bench, classified(&rows, 2));
        bench.flush();
        caller.got()
    });
    assert_eq!(answers[0].0, [10, 2]);
    assert_eq!(answers[0].2[..2], ["9.000000:2".to_owned(), "0.000000:0".to_owned()]);
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn a_model_without_rows_is_classified_whole() {
    let batching = Batching::Fixed { reason: "the test says so".to_owned() };
    let mut bench = Bench::new(ModelSettings::default(), LimitSettings::default(), batching);
    let caller = send(&mut bench, classified(&[&[1.0, 4.0], &[3.0, 2.0]], 3));
    bench.flush();
    let expected = ["8.000000:1", "6.000000:2", "4.000000:3"].map(str::to_owned);
    assert_eq!(caller.got(), (vec![3], DataType::Bytes, expected.to_vec()));
}
