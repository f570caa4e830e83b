//! Whole calls, from a foreign HTTP/2 client through an event loop and back.

use std::collections::HashMap;
use std::future::poll_fn;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response, StatusCode};
use mlserve_core::config::Settings;
use prost::Message;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::grpc::fixture::Served;
use crate::inflate::{self, Encoding};
use crate::proto::infer_parameter::ParameterChoice;
use crate::proto::model_infer_request::InferInputTensor;
use crate::proto::{
    InferParameter, ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
    ModelReadyRequest, ModelReadyResponse, ModelStreamInferResponse, ServerMetadataRequest, ServerMetadataResponse,
};
use crate::status::Phase;

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// What a loop keeps of the budget while it holds nothing.
const IDLE_BYTES: usize = 2 << 20;

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.server.event_loops = 1;
    settings.limits.byte_budget = 256 << 20;
    settings
}

fn request(id: &str, values: &[f32]) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "double".to_owned(),
        id: id.to_owned(),
        inputs: vec![InferInputTensor {
            name: "x".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, values.len() as i64],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![raw(values)],
        ..ModelInferRequest::default()
    }
}

fn raw(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn framed(message: &impl Message) -> Bytes {
    framed_bytes(0, &message.encode_to_vec())
}

fn framed_bytes(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = vec![flag];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    frame.into()
}

/// What a call came to.
struct Called {
    head: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
}

impl Called {
    async fn read(response: Response<RecvStream>) -> Self {
        let (parts, mut stream) = response.into_parts();
        assert_eq!(parts.status, StatusCode::OK);
        let mut body = Vec::new();
        while let Some(data) = stream.data().await {
            let data = data.expect("the stream is whole");
            let _ = stream.flow_control().release_capacity(data.len());
            body.extend_from_slice(&data);
        }
        let trailers = stream.trailers().await.expect("the stream is whole");
        // "Trailers-Only": everything is in the header.
        let trailers = trailers.unwrap_or_else(|| parts.headers.clone());
        Self { head: parts.headers, body, trailers }
    }

    fn status(&self) -> (u32, String) {
        let text = |name: &str| self.trailers.get(name).map_or("", |value| value.to_str().expect("ASCII")).to_owned();
        (text("grpc-status").parse().expect("a number"), text("grpc-message"))
    }

    fn message<T: Message + Default>(&self) -> T {
        assert_eq!(self.status(), (0, String::new()));
        let encoding = match (self.body[0], self.head.get("grpc-encoding").map(http::HeaderValue::as_bytes)) {
            (0, _) => Encoding::Identity,
            (1, Some(b"gzip")) => Encoding::Gzip,
            (1, Some(b"deflate")) => Encoding::Deflate,
            other => panic!("unexpected encoding {other:?}"),
        };
        let message = Bytes::copy_from_slice(&self.body[5..]);
        let message = inflate::inflate(encoding, &[message], 1 << 30).expect("valid");
        T::decode(&*message).expect("the RPC's message")
    }
}

/// A client's connection.
struct Client {
    send: SendRequest<Bytes>,
}

impl Client {
    async fn new(served: &Served) -> Self {
        let mut builder = h2::client::Builder::new();
        // A client gives up on a connection with many small frames that it has not read, by this window.
        builder.initial_connection_window_size(1 << 20);
        Self::with(served, &builder).await
    }

    async fn with(served: &Served, builder: &h2::client::Builder) -> Self {
        let (send, connection) = builder.handshake(served.connect()).await.expect("HTTP/2");
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Self { send }
    }

    /// Opens a stream; the body is still to be sent.
    async fn open(&mut self, path: &str, headers: &[(&str, &str)]) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let mut request = Request::post(format!("http://localhost{path}")).header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut send = self.send.clone().ready().await.expect("the connection is open");
        send.send_request(request.body(()).expect("valid"), false).expect("the connection is open")
    }

    async fn call_raw(&mut self, path: &str, headers: &[(&str, &str)], body: Bytes) -> Called {
        let (response, mut stream) = self.open(path, headers).await;
        send_all(&mut stream, body).await;
        let _ = stream.send_data(Bytes::new(), true);
        Called::read(response.await.expect("an answer")).await
    }

    async fn call(&mut self, path: &str, message: &impl Message) -> Called {
        self.call_raw(path, &[], framed(message)).await
    }

    async fn infer(&mut self, request: &ModelInferRequest) -> Called {
        self.call(INFER, request).await
    }
}

async fn send_all(stream: &mut SendStream<Bytes>, mut body: Bytes) {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let Some(Ok(room)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        if stream.send_data(body.split_to(room.min(body.len())), false).is_err() {
            return;
        }
    }
}

/// Reads messages of a streaming answer.
struct Messages {
    body: RecvStream,
    buffer: BytesMut,
}

impl Messages {
    fn new(response: Response<RecvStream>) -> Self {
        Self { body: response.into_body(), buffer: BytesMut::new() }
    }

    async fn next<T: Message + Default>(&mut self) -> Option<T> {
        loop {
            if let Some(&[_, a, b, c, d]) = self.buffer.first_chunk::<5>() {
                let len = u32::from_be_bytes([a, b, c, d]) as usize;
                if self.buffer.len() >= 5 + len {
                    let message = self.buffer.split_to(5 + len);
                    return Some(T::decode(&message[5..]).expect("the RPC's message"));
                }
            }
            let data = self.body.data().await?.expect("the stream is whole");
            let _ = self.body.flow_control().release_capacity(data.len());
            self.buffer.extend_from_slice(&data);
        }
    }

    async fn status(&mut self) -> String {
        let trailers = self.body.trailers().await.expect("the stream is whole").expect("trailers");
        trailers["grpc-status"].to_str().expect("ASCII").to_owned()
    }
}

async fn eventually(mut is_so: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come to be so within a minute");
}

#[tokio::test]
async fn a_small_request_is_answered() {
    let served = Served::start(settings(), 2);
    let mut client = Client::new(&served).await;
    let called = client.infer(&request("q", &[1.0, 2.5])).await;
    assert_eq!(called.head["content-type"], "application/grpc");
    let response: ModelInferResponse = called.message();
    assert_eq!((&*response.model_name, &*response.model_version, &*response.id), ("double", "7", "q"));
    assert_eq!(response.raw_output_contents, [raw(&[2.0, 5.0]), raw(&[2.0, 5.0])]);
    eventually(|| served.process.bytes.drawn() <= IDLE_BYTES).await;
}

#[tokio::test]
async fn every_client_gets_its_own_rows() {
    let served = Served::start(settings(), 2);
    let tasks: Vec<_> = {
        let mut tasks = Vec::new();
        for connection in 0..4 {
            let mut client = Client::new(&served).await;
            tasks.push(tokio::spawn(async move {
                for number in 0..100 {
                    let values = [connection as f32, number as f32];
                    let response: ModelInferResponse = client.infer(&request("", &values)).await.message();
                    assert_eq!(response.raw_output_contents[0], raw(&values.map(|value| 2.0 * value)));
                }
            }));
        }
        tasks
    };
    for task in tasks {
        task.await.expect("right answers");
    }
}

#[tokio::test]
async fn large_bodies_and_answers_pass_small_windows() {
    let served = Served::start(settings(), 200_000);
    let mut client = Client::new(&served).await;
    let values: Vec<f32> = (0..200_000).map(|number| number as f32 + 0.5).collect();
    let expected: Vec<f32> = values.iter().map(|value| 2.0 * value).collect();
    let response: ModelInferResponse = client.infer(&request("", &values)).await.message();
    assert_eq!(response.raw_output_contents, [raw(&expected), raw(&expected)]);
}

#[tokio::test]
async fn a_body_may_come_byte_by_byte() {
    let served = Served::start(settings(), 2);
    let mut client = Client::new(&served).await;
    let (response, mut stream) = client.open(INFER, &[]).await;
    for byte in framed(&request("slow", &[1.0, 2.0])) {
        stream.send_data(Bytes::copy_from_slice(&[byte]), false).expect("open");
        tokio::task::yield_now().await;
    }
    stream.send_data(Bytes::new(), true).expect("open");
    let response: ModelInferResponse = Called::read(response.await.expect("an answer")).await.message();
    assert_eq!(response.id, "slow");
}

#[tokio::test]
async fn messages_are_inflated_and_answers_deflated_the_same_way() {
    let served = Served::start(settings(), 500);
    let mut client = Client::new(&served).await;
    for encoding in [Encoding::Gzip, Encoding::Deflate] {
        let deflated = inflate::deflate(encoding, &[request("q", &[1.0; 500]).encode_to_vec()]);
        let headers = [("grpc-encoding", encoding.name()), ("grpc-accept-encoding", "identity, deflate, gzip")];
        let called = client.call_raw(INFER, &headers, framed_bytes(1, &deflated)).await;
        assert_eq!(called.body[0], 1, "the answer is compressed");
        let response: ModelInferResponse = called.message();
        assert_eq!(response.raw_output_contents[0], raw(&[2.0; 500]));
    }
    let called = client.call_raw(INFER, &[("grpc-encoding", "br")], framed(&request("", &[1.0; 500]))).await;
    assert_eq!(called.status().0, 12);
    assert_eq!(called.head["grpc-accept-encoding"], "identity,deflate,gzip");
}

#[tokio::test]
async fn bombs_and_giants_are_refused() {
    let mut settings = settings();
    settings.limits.max_body_bytes = 1 << 20;
    let served = Served::start(settings, 2);
    let mut client = Client::new(&served).await;
    let bomb = inflate::deflate(Encoding::Gzip, &[vec![0; 64 << 20]]);
    let called = client.call_raw(INFER, &[("grpc-encoding", "gzip")], framed_bytes(1, &bomb)).await;
    assert_eq!(called.status().0, 8);
    let giant = framed_bytes(0, &vec![0; (1 << 20) + 1]);
    assert_eq!(client.call_raw(INFER, &[], giant).await.status().0, 8);
    eventually(|| served.process.bytes.drawn() <= IDLE_BYTES).await;
    let response: ModelInferResponse = client.infer(&request("after", &[1.0, 2.0])).await.message();
    assert_eq!(response.id, "after");
}

#[tokio::test]
async fn control_calls_take_small_messages_of_their_kind_only() {
    let served = Served::start(settings(), 2);
    let mut client = Client::new(&served).await;
    let service = |name: &str| format!("/inference.GRPCInferenceService/{name}");
    for name in ["ServerLive", "ServerReady", "ServerMetadata", "ModelConfig", "ModelStatistics", "TraceSetting"] {
        let garbage = client.call_raw(&service(name), &[], framed_bytes(0, b"\x0f\xff\xff")).await;
        assert_eq!(garbage.status().0, 3, "{name}");
        let large = client.call_raw(&service(name), &[], framed_bytes(0, &vec![0; 70_000])).await;
        assert_eq!(large.status().0, 8, "{name}");
    }
    let crowd = b"\xf8\x07\x00".repeat(20_000);
    assert_eq!(client.call_raw(&service("ServerLive"), &[], framed_bytes(0, &crowd)).await.status().0, 0);
    // Nothing of its body has come, and nothing has to.
    let (response, _stream) = client.open(&service("RepositoryModelLoad"), &[("content-length", "50000000")]).await;
    let refused = Called::read(response.await.expect("an answer")).await.status();
    assert!(refused.1.starts_with("explicit model load / unload is not allowed"), "{refused:?}");
}

#[tokio::test]
async fn mistakes_get_their_row_of_the_error_table() {
    let served = Served::start(settings(), 2);
    let mut client = Client::new(&served).await;
    let mut unknown = request("", &[1.0, 2.0]);
    unknown.model_name = "nope".to_owned();
    let (code, text) = client.infer(&unknown).await.status();
    assert_eq!((code, &*text), (5, "Request for unknown model: 'nope' is not found"));
    let mut version = request("", &[1.0, 2.0]);
    version.model_version = "x".to_owned();
    assert_eq!(client.infer(&version).await.status().0, 3);
    assert_eq!(client.infer(&request("", &[1.0])).await.status().0, 3, "the wrong shape");
    assert_eq!(client.infer(&request("", &[666.0, 1.0])).await.status().0, 13, "the model fails");
    for (path, code, text) in [
        ("/inference.GRPCInferenceService/Nope", 12, "unknown RPC '/inference.GRPCInferenceService/Nope'"),
        ("/other.Service/Call", 12, "unknown RPC '/other.Service/Call'"),
    ] {
        assert_eq!(client.call(path, &request("", &[])).await.status(), (code, text.to_owned()));
    }
    for (header, code) in [(("grpc-timeout", "soon"), 3), (("grpc-timeout", "0n"), 4)] {
        let called = client.call_raw(INFER, &[header], framed(&request("", &[1.0, 2.0]))).await;
        assert_eq!(called.status().0, code, "{header:?}");
    }
    let (response, _stream) = client.open(INFER, &[("content-length", "99999999999")]).await;
    assert_eq!(Called::read(response.await.expect("an answer")).await.status().0, 8, "refused before its body");
    assert_eq!(client.call_raw(INFER, &[], Bytes::new()).await.status().1, "the call carries no message");
}

#[tokio::test]
async fn identifiers_come_back() {
    let served = Served::start(settings(), 2);
    let mut client = Client::new(&served).await;
    let headers = [("x-request-id", "r-1"), ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")];
    for body in [framed(&request("", &[1.0, 2.0])), Bytes::new()] {
        let called = client.call_raw(INFER, &headers, body).await;
        for (name, value) in headers {
            assert_eq!(called.head[name], value);
        }
    }
}

#[tokio::test]
async fn the_small_rpcs_tell_the_truth() {
    let served = Served::start(settings(), 2);
    let mut client = Client::new(&served).await;
    let service = |name: &str| format!("/inference.GRPCInferenceService/{name}");
    for (name, version, expected) in [
        ("double", "", true),
        ("double", "7", true),
        ("double", "8", false),
        ("broken", "", false),
        ("nope", "", false),
    ] {
        let asked = ModelReadyRequest { name: name.to_owned(), version: version.to_owned() };
        let response: ModelReadyResponse = client.call(&service("ModelReady"), &asked).await.message();
        assert_eq!(response.ready, expected, "{name} {version}");
    }
    let told: ServerMetadataResponse =
        client.call(&service("ServerMetadata"), &ServerMetadataRequest {}).await.message();
    assert_eq!(told.name, "mlserve");
    let asked = ModelMetadataRequest { name: "double".to_owned(), version: String::new() };
    let model: ModelMetadataResponse = client.call(&service("ModelMetadata"), &asked).await.message();
    assert_eq!((&*model.name, &model.versions[..], &*model.platform), ("double", &["7".to_owned()][..], "test"));
    assert_eq!(
        (&*model.inputs[0].name, &*model.inputs[0].datatype, &model.inputs[0].shape[..]),
        ("x", "FP32", &[-1, 2][..])
    );
    assert_eq!(model.properties["batching"], "rows");
    let asked = ModelMetadataRequest { name: "nope".to_owned(), version: String::new() };
    assert_eq!(client.call(&service("ModelMetadata"), &asked).await.status().0, 5);
}

async fn watch(client: &mut Client, service: &str) -> Messages {
    let (response, mut stream) = client.open("/grpc.health.v1.Health/Watch", &[]).await;
    let asked = HealthCheckRequest { service: service.to_owned() };
    stream.send_data(framed(&asked), true).expect("open");
    Messages::new(response.await.expect("an answer"))
}

#[tokio::test]
async fn health_is_told_and_watched() {
    let served = Served::start(settings(), 2);
    let mut client = Client::new(&served).await;
    let asked = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for (service, expected) in
        [("", 1), ("inference.GRPCInferenceService", 1), ("mlserve.model/double", 1), ("mlserve.model/broken", 2)]
    {
        let response: HealthCheckResponse =
            client.call("/grpc.health.v1.Health/Check", &asked(service)).await.message();
        assert_eq!(response.status, expected, "{service}");
    }
    assert_eq!(client.call("/grpc.health.v1.Health/Check", &asked("nope")).await.status().0, 5);

    let mut watched = Vec::new();
    for service in ["", "mlserve.model/double", "nope"] {
        watched.push(watch(&mut client, service).await);
    }
    for (messages, expected) in watched.iter_mut().zip([1, 1, 3]) {
        assert_eq!(messages.next::<HealthCheckResponse>().await.expect("the state now").status, expected);
    }
    served.process.status.advance(Phase::Notice);
    let mut newcomer = watch(&mut client, "").await;
    assert_eq!(newcomer.next::<HealthCheckResponse>().await.expect("the state now").status, 2, "whoever looks when");
    for messages in &mut watched[..2] {
        assert_eq!(messages.next::<HealthCheckResponse>().await.expect("the change").status, 2);
    }
    served.process.status.advance(Phase::Closing);
    assert!(watched[0].next::<HealthCheckResponse>().await.is_none());
    assert_eq!(watched[0].status().await, "14");
}

#[tokio::test]
async fn a_stream_answers_in_order_and_survives_mistakes() {
    let served = Served::start(settings(), 2);
    let mut client = Client::new(&served).await;
    let (response, mut stream) = client.open(STREAM, &[]).await;
    let mut sent = BytesMut::new();
    for number in 0..200 {
        let mut request = request(&number.to_string(), &[number as f32, 0.0]);
        match number % 4 {
            1 => request.model_name = "nope".to_owned(),
            2 => request.raw_input_contents[0] = raw(&[666.0, 0.0]),
            3 => request.raw_input_contents.clear(),
            _ => {}
        }
        sent.extend_from_slice(&framed(&request));
    }
    let sender = tokio::spawn(async move {
        send_all(&mut stream, sent.freeze()).await;
        stream.send_data(Bytes::new(), true).expect("open");
    });
    let mut messages = Messages::new(response.await.expect("an answer"));
    for number in 0..200 {
        let answer: ModelStreamInferResponse = messages.next().await.expect("one answer each");
        let response = answer.infer_response.expect("always present");
        assert_eq!(response.id, number.to_string());
        assert_eq!(answer.error_message.is_empty(), number % 4 == 0, "{}", answer.error_message);
        if number % 4 == 0 {
            assert_eq!(response.raw_output_contents[0], raw(&[2.0 * number as f32, 0.0]));
            let last = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
            assert_eq!(response.parameters, HashMap::from([("triton_final_response".to_owned(), last)]));
        }
    }
    assert!(messages.next::<ModelStreamInferResponse>().await.is_none());
    assert_eq!(messages.status().await, "0");
    sender.await.expect("sent");
    eventually(|| served.process.bytes.drawn() <= IDLE_BYTES).await;
}

#[tokio::test]
async fn the_models_errors_end_a_stream_that_asks_for_it() {
    let served = Served::start(settings(), 2);
    let mut client = Client::new(&served).await;
    let (response, mut stream) = client.open(STREAM, &[("triton_grpc_error", "true")]).await;
    let mut unknown = request("1", &[1.0, 1.0]);
    unknown.model_name = "nope".to_owned();
    for request in [&unknown, &request("2", &[666.0, 1.0])] {
        send_all(&mut stream, framed(request)).await;
    }
    let mut messages = Messages::new(response.await.expect("an answer"));
    let answer: ModelStreamInferResponse = messages.next().await.expect("an answer");
    assert!(answer.error_message.contains("unknown model"), "found while it was accepted");
    assert!(messages.next::<ModelStreamInferResponse>().await.is_none());
    assert_eq!(messages.status().await, "13");
}

#[tokio::test]
async fn a_broken_frame_ends_a_stream_after_what_came_before() {
    let served = Served::start(settings(), 2);
    let mut client = Client::new(&served).await;
    let (response, mut stream) = client.open(STREAM, &[]).await;
    send_all(&mut stream, framed(&request("1", &[1.0, 1.0]))).await;
    stream.send_data(Bytes::from_static(b"\x00\x00\x00"), true).expect("open");
    let mut messages = Messages::new(response.await.expect("an answer"));
    assert!(messages.next::<ModelStreamInferResponse>().await.is_some());
    assert!(messages.next::<ModelStreamInferResponse>().await.is_none());
    assert_eq!(messages.status().await, "3");
}

#[tokio::test]
async fn readers_that_never_read_cost_no_more_than_their_share_and_are_cut_off() {
    let mut settings = settings();
    settings.limits.byte_budget = 8 << 20;
    settings.limits.max_body_bytes = 1 << 20;
    settings.limits.write_timeout_ms = 1_000;
    settings.limits.min_body_rate = 0;
    let served = Served::start(settings, 25_000);
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(0);
    let mut client = Client::with(&served, &builder).await;
    let body = framed(&request("", &vec![1.0; 25_000]));
    let mut held = Vec::new();
    for _ in 0..60 {
        let (response, mut stream) = client.open(INFER, &[]).await;
        send_all(&mut stream, body.clone()).await;
        let _ = stream.send_data(Bytes::new(), true);
        let response = response.await.expect("the header needs no window");
        assert!(!response.headers().contains_key("grpc-status"), "the budget has room for all");
        held.push((response.into_body(), stream));
        // Answers of a connection may have an eighth of it, and a loop draws more than it needs.
        assert!(served.process.bytes.drawn() <= 4 << 20);
    }
    eventually(|| served.process.bytes.drawn() <= IDLE_BYTES).await;
    let (mut cut, mut refused) = (0, 0);
    for (mut answer, _stream) in held {
        if let Some(reset) = answer.data().await {
            assert_eq!(reset.expect_err("reset").reason(), Some(h2::Reason::CANCEL));
            cut += 1;
        } else {
            let trailers = answer.trailers().await.expect("whole").expect("trailers");
            assert_eq!(trailers["grpc-status"], "14");
            refused += 1;
        }
    }
    assert!(cut > 1 && refused > 0, "{cut} waited, {refused} were refused");
}

#[tokio::test]
async fn answers_of_a_stream_that_were_read_count_no_more() {
    let mut settings = settings();
    settings.limits.byte_budget = 8 << 20;
    settings.limits.max_body_bytes = 1 << 20;
    let served = Served::start(settings, 25_000);
    let mut client = Client::new(&served).await;
    // Fifteen streams that stay open would hold more than the share, which has room for ten answers.
    let mut open = Vec::new();
    for _ in 0..15 {
        let (response, mut stream) = client.open(STREAM, &[]).await;
        send_all(&mut stream, framed(&request("", &vec![1.0; 25_000]))).await;
        let mut messages = Messages::new(response.await.expect("an answer"));
        let answer: ModelStreamInferResponse = messages.next().await.expect("an answer");
        assert_eq!(answer.error_message, "");
        open.push((messages, stream));
    }
}

#[tokio::test]
async fn a_peer_that_stops_reading_its_socket_is_cut_off() {
    let mut settings = settings();
    settings.limits.byte_budget = 64 << 20;
    settings.limits.write_timeout_ms = 200;
    let served = Served::start(settings, 25_000);
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 30).initial_connection_window_size(1 << 30);
    let (send, mut connection) = builder.handshake::<_, Bytes>(served.connect()).await.expect("HTTP/2");
    let mut client = Client { send };
    let body = framed(&request("", &vec![1.0; 25_000]));
    let sending = async {
        let mut held = Vec::new();
        for _ in 0..30 {
            let (response, mut stream) = client.open(INFER, &[]).await;
            send_all(&mut stream, body.clone()).await;
            let _ = stream.send_data(Bytes::new(), true);
            held.push(response);
        }
        held
    };
    let held = tokio::select! {
        held = sending => held,
        _ = &mut connection => panic!("the connection is open"),
    };
    // From here nobody polls the client's connection: its windows are wide open, but its socket fills up.
    eventually(|| served.process.bytes.drawn() > IDLE_BYTES).await;
    eventually(|| served.process.bytes.drawn() <= IDLE_BYTES).await;
    drop(held);
}

#[tokio::test]
async fn a_cancelled_request_never_runs() {
    let served = Served::start(settings(), 2);
    let mut client = Client::new(&served).await;
    let (response, mut stream) = client.open(INFER, &[]).await;
    stream.send_data(framed(&request("", &[1.0, 2.0])).slice(..20), false).expect("open");
    stream.send_reset(h2::Reason::CANCEL);
    assert!(response.await.is_err());
    let _: ModelInferResponse = client.infer(&request("", &[1.0, 2.0])).await.message();
    let plan = served.process.plan.load();
    let version = plan.find("double", None).expect("ready");
    eventually(|| version.stats.loops[0].submitted.get() == 1).await;
    eventually(|| served.process.bytes.drawn() <= IDLE_BYTES).await;
}

#[tokio::test]
async fn a_body_that_stops_coming_is_refused() {
    let mut settings = settings();
    settings.limits.body_grace_ms = 100;
    let served = Served::start(settings, 2);
    let mut client = Client::new(&served).await;
    let (response, mut stream) = client.open(INFER, &[]).await;
    stream.send_data(Bytes::from_static(b"\0\0\0"), false).expect("open");
    let called = Called::read(response.await.expect("an answer")).await;
    assert_eq!(called.status(), (4, "the body arrived too slowly".to_owned()));
}

#[tokio::test]
async fn a_closing_server_finishes_what_it_has() {
    let served = Served::start(settings(), 2);
    let mut client = Client::new(&served).await;
    let (response, mut stream) = client.open(INFER, &[]).await;
    let (idle, _idle_stream) = client.open(STREAM, &[]).await;
    let mut idle = Messages::new(idle.await.expect("an answer"));
    served.process.status.advance(Phase::Closing);
    assert!(idle.next::<ModelStreamInferResponse>().await.is_none());
    assert_eq!(idle.status().await, "14");
    stream.send_data(framed(&request("late", &[1.0, 2.0])), true).expect("open");
    let response: ModelInferResponse = Called::read(response.await.expect("an answer")).await.message();
    assert_eq!(response.id, "late");
    let ended = tokio::time::timeout(Duration::from_secs(60), async {
        while client.send.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    ended.await.expect("the connection ends");
}

#[tokio::test]
async fn old_connections_are_closed_gracefully() {
    let mut settings = settings();
    settings.limits.max_connection_age_s = 1;
    let served = Served::start(settings, 2);
    let mut client = Client::new(&served).await;
    let _: ModelInferResponse = client.infer(&request("", &[1.0, 2.0])).await.message();
    let ended = tokio::time::timeout(Duration::from_secs(60), async {
        while client.send.clone().ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    ended.await.expect("the connection ends");
}

#[tokio::test]
async fn reflection_lists_the_services() {
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
    let served = Served::start(settings(), 2);
    let mut client = Client::new(&served).await;
    for path in [super::reflection::V1_PATH, super::reflection::V1ALPHA_PATH] {
        let asked = ServerReflectionRequest {
            message_request: Some(MessageRequest::ListServices(String::new())),
            ..ServerReflectionRequest::default()
        };
        let response: ServerReflectionResponse = client.call(path, &asked).await.message();
        let Some(MessageResponse::ListServicesResponse(list)) = response.message_response else { panic!("a list") };
        let names: Vec<_> = list.service.iter().map(|service| &*service.name).collect();
        assert!(
            names.contains(&"inference.GRPCInferenceService") && names.contains(&"grpc.health.v1.Health"),
            "{names:?}"
        );
    }
}

#[tokio::test]
async fn what_is_not_grpc_goes_to_the_rest_side() {
    let served = Served::start(settings(), 2);
    let client = Client::new(&served).await;
    let request = Request::get("http://test/v2/health/live").body(()).expect("valid");
    let mut send = client.send.ready().await.expect("open");
    let (response, _) = send.send_request(request, true).expect("open");
    assert_eq!(response.await.expect("an answer").status(), StatusCode::OK);
}
