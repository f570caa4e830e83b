use std::io::Read;

use mlserve_core::error::Kind;
use mlserve_core::request::Protocol;
use mlserve_core::tensor::DataType;

use self::server::TestServer;
use crate::inflate::{Encoding, deflate};
use crate::status::Phase;

mod server;

const ROW: &str = r#"{"inputs":[{"name":"x","shape":[1,8],"datatype":"FP32","data":[1,2,3,4,5,6,7,8.5]}]}"#;

fn with_rows(rows: usize) -> String {
    let values = vec!["7"; rows * 3].join(",");
    format!(r#"{{"inputs":[{{"name":"x","shape":[{rows},3],"datatype":"UINT8","data":[{values}]}}]}}"#)
}

fn start() -> TestServer {
    TestServer::start(|_| {})
}

#[test]
fn json_is_answered_with_json() {
    let server = start();
    let answer = server.connect().infer("tiny", "", ROW.as_bytes());
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(
        answer.text(),
        r#"{"model_name":"tiny","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[1,8],"data":[1.0,2.0,3.0,4.0,5.0,6.0,7.0,8.5]}]}"#
    );
}

#[test]
fn binary_is_answered_with_binary_if_it_is_asked_for() {
    let server = start();
    let mut client = server.connect();
    let data: Vec<u8> = (0..8).flat_map(|value: u8| f32::from(value).to_le_bytes()).collect();
    for wants_binary in [true, false] {
        let json = format!(
            r#"{{"id":"abc","parameters":{{"binary_data_output":{wants_binary}}},"inputs":[{{"name":"x","shape":[1,8],"datatype":"FP32","parameters":{{"binary_data_size":32}}}}]}}"#
        );
        let fields = format!("Inference-Header-Content-Length: {}\r\n", json.len());
        let answer = client.infer("tiny", &fields, &[json.as_bytes(), &data].concat());
        assert_eq!(answer.status, 200, "{}", answer.text());
        if wants_binary {
            assert_eq!(answer.headers["content-type"], "application/octet-stream");
            let length: usize = answer.headers["inference-header-content-length"].parse().expect("a length");
            assert_eq!(&answer.body[length..], &data[..]);
            assert!(answer.body[..length].starts_with(br#"{"id":"abc","model_name":"tiny""#));
        } else {
            assert_eq!(answer.json()["outputs"][0]["data"][7], 7.0);
            assert!(!answer.headers.contains_key("inference-header-content-length"));
        }
    }
}

#[test]
fn every_type_goes_through_in_binary_and_all_but_two_as_json() {
    let server = start();
    let mut client = server.connect();
    for datatype in DataType::ALL {
        let name = datatype.name();
        let data = match datatype {
            DataType::Bool => vec![1, 0],
            DataType::Bytes => b"\x01\0\0\0a\0\0\0\0".to_vec(),
            _ => vec![0x3f; 2 * datatype.size().expect("fixed")],
        };
        let json = format!(
            r#"{{"inputs":[{{"name":"x","shape":[2],"datatype":"{name}","parameters":{{"binary_data_size":{}}}}}],"outputs":[{{"name":"y","parameters":{{"binary_data":true}}}}]}}"#,
            data.len()
        );
        let fields = format!("inference-header-content-length: {}\r\n", json.len());
        let body = [json.as_bytes(), &data].concat();
        let answer = client.infer(&name.to_lowercase(), &fields, &body);
        assert_eq!(answer.status, 200, "{name}");
        assert!(answer.body.ends_with(&data), "{name}");
        let json = json.replace("\"binary_data\":true", "\"binary_data\":false");
        let fields = format!("inference-header-content-length: {}\r\n", json.len());
        let answer = client.infer(&name.to_lowercase(), &fields, &[json.as_bytes(), &data].concat());
        let is_half = matches!(datatype, DataType::Fp16 | DataType::Bf16);
        assert_eq!(answer.status, if is_half { 400 } else { 200 }, "{name}: {}", answer.text());
    }
}

#[test]
fn raw_bodies_take_everything_from_the_model() {
    let server = start();
    let mut client = server.connect();
    let zero = "Inference-Header-Content-Length: 0\r\n";
    let answer = client.infer("tiny", zero, &[0; 32]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.body.ends_with(&[0; 32]));
    for (fields, body, part) in [
        (zero, &[][..], "input byte size mismatch for input 'x' for model 'tiny'. Expected 32, got 0"),
        (zero, &[0; 64], "input byte size mismatch for input 'x' for model 'tiny'. Expected 32, got 64"),
        ("", &[], "the body is empty"),
    ] {
        let answer = client.infer("tiny", fields, body);
        assert_eq!(answer.status, 400);
        let text = answer.json()["error"].as_str().expect("a text").to_owned();
        assert!(text.contains(part), "{text}");
    }
    let answer = client.infer("image", zero, &[7; 12]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(String::from_utf8_lossy(&answer.body).contains(r#""shape":[4,3]"#));
    let answer = client.infer("document", zero, b"whole document");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.body.ends_with(b"\x0e\0\0\0whole document"));
    assert_eq!(client.infer("nope", zero, b"x").status, 404);
}

#[test]
fn faults_have_their_status_and_text() {
    let server = start();
    let mut client = server.connect();
    let ok = ROW.as_bytes();
    let many = "[".repeat(1_000);
    for (model, fields, body, status, text) in [
        ("nope", "", ok, 404, "Request for unknown model: 'nope' is not found"),
        ("tiny/versions/9", "", ok, 404, "Request for unknown model: 'tiny' version 9 is not found"),
        (
            "tiny",
            "Inference-Header-Content-Length: abc\r\n",
            ok,
            400,
            "Unable to parse Inference-Header-Content-Length, got: abc",
        ),
        (
            "tiny",
            "Inference-Header-Content-Length: 99999\r\n",
            ok,
            400,
            "inference header size should be in range (0, 84), got: 99999",
        ),
        ("tiny", "Content-Encoding: br\r\n", ok, 501, "Unsupported compression type"),
        ("tiny", "Content-Encoding: gzip\r\n", ok, 400, "the request is not valid gzip data"),
        ("tiny", "x-request-timeout-ms: soon\r\n", ok, 400, "Unable to parse x-request-timeout-ms"),
        ("tiny", "", b"{\"inputs\":", 400, "failed to parse the request JSON buffer: invalid value at 10"),
        ("tiny", "", b"\xff\xfe", 400, "failed to parse the request JSON buffer: invalid encoding in string"),
        ("tiny", "", many.as_bytes(), 413, "the request JSON is nested deeper than 64 levels"),
        ("uint8", "", ok, 400, "inference input 'x' data-type is 'FP32', but model 'uint8' expects 'UINT8'"),
    ] {
        let answer = client.infer(model, fields, body);
        let got = answer.json()["error"].as_str().expect("a text").to_owned();
        assert_eq!(answer.status, status, "{got}");
        assert!(got.contains(text), "{got:?} lacks {text:?}");
        assert_eq!(answer.headers["content-type"], "application/json");
    }
    let answer = client.infer("fp32", "", br#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}"#);
    assert_eq!(answer.status, 400);
    let json = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}}]}"#;
    let body = [json.as_bytes(), &f32::NAN.to_le_bytes()].concat();
    let answer = client.infer("fp32", &format!("Inference-Header-Content-Length: {}\r\n", json.len()), &body);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("element 0 of output 'y' is NaN or infinite"), "{}", answer.text());
    let refused = &server.process.shared.refused[0].0[Protocol::Http as usize];
    let count = |kind: Kind| refused[kind as usize].get();
    assert_eq!((count(Kind::NotFound), count(Kind::NotOffered), count(Kind::TooLarge)), (2, 1, 1));
    assert!(count(Kind::InvalidArgument) >= 6, "{}", count(Kind::InvalidArgument));
    // The connection took all of it.
    assert_eq!(client.infer("tiny", "", ok).status, 200);
}

#[test]
fn encodings_go_both_ways() {
    let server = start();
    let mut client = server.connect();
    for encoding in [Encoding::Gzip, Encoding::Deflate] {
        for rows in [1, 1_000, 100_000] {
            let json = with_rows(rows);
            let sent = deflate(encoding, &[json.as_bytes()]);
            let fields = format!("Content-Encoding: {0}\r\nAccept-Encoding: {0}\r\n", encoding.name());
            let answer = client.infer("image", &fields, &sent);
            assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
            let is_small = rows == 1;
            assert_eq!(!answer.headers.contains_key("content-encoding"), is_small);
            let body = match encoding {
                _ if is_small => answer.body,
                Encoding::Gzip => read(flate2::read::GzDecoder::new(&answer.body[..])),
                _ => read(flate2::read::ZlibDecoder::new(&answer.body[..])),
            };
            let answer: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(answer["outputs"][0]["shape"][0], rows);
            assert_eq!(answer["outputs"][0]["data"].as_array().map(Vec::len), Some(rows * 3));
        }
    }
}

fn read(mut reader: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).expect("valid data");
    bytes
}

#[test]
fn bombs_are_too_large_and_leave_the_budget_as_it_was() {
    let server = TestServer::start(|settings| settings.limits.max_body_bytes = 1 << 20);
    let zeros = vec![0_u8; 1 << 20];
    let bomb = deflate(Encoding::Gzip, &vec![&zeros[..]; 64]);
    let mut client = server.connect();
    for _ in 0..10 {
        let answer = client.infer("image", "Content-Encoding: gzip\r\n", &bomb);
        assert_eq!(answer.status, 413, "{}", answer.text());
    }
    drop(client);
    drop_connections(&server);
    assert!(server.process.bytes.drawn() <= 4 << 20, "{} bytes are still drawn", server.process.bytes.drawn());
}

/// Waits until the server has let go of its connections.
fn drop_connections(server: &TestServer) {
    while server.connections() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn large_bodies_come_back_whole_in_any_framing() {
    let server = start();
    let mut client = server.connect();
    let data: Vec<u8> = (0..3_000_000_u32).map(|at| at.wrapping_mul(2_654_435_761) as u8).collect();
    let json = r#"{"inputs":[{"name":"x","shape":[1000000,3],"datatype":"UINT8","parameters":{"binary_data_size":3000000}}],"parameters":{"binary_data_output":true}}"#;
    let body = [json.as_bytes(), &data].concat();
    let fields = format!("Inference-Header-Content-Length: {}\r\n", json.len());
    let answer = client.infer("image", &fields, &body);
    assert_eq!(answer.status, 200);
    assert!(answer.body.ends_with(&data));
    client.send(
        format!("POST /v2/models/image/infer HTTP/1.1\r\nHost: t\r\n{fields}Transfer-Encoding: chunked\r\n\r\n")
            .as_bytes(),
    );
    for chunk in body.chunks(10_000) {
        client.send(&[format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    }
    client.send(b"0\r\n\r\n");
    assert!(client.receive().body.ends_with(&data));
    let answer = client.infer("image", "", with_rows(200_000).as_bytes());
    assert_eq!(answer.json()["outputs"][0]["data"].as_array().map(Vec::len), Some(600_000));
}

#[test]
fn bodies_above_the_limit_are_refused() {
    let server = TestServer::start(|settings| settings.limits.max_body_bytes = 1_000);
    let mut client = server.connect();
    client.send(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: t\r\nContent-Length: 1001\r\n\r\n");
    let answer = client.receive();
    assert_eq!(answer.status, 413);
    assert_eq!(answer.json()["error"], "the body is larger than 1000 bytes, which is the limit");
}

#[test]
fn health_and_metadata_are_answered() {
    let server = start();
    let mut client = server.connect();
    assert_eq!(client.get("/v2/health/live").text(), r#"{"live":true}"#);
    assert_eq!(client.get("/v2/health/ready").text(), r#"{"ready":true}"#);
    assert_eq!(client.get("/v2/models/tiny/ready").text(), r#"{"name":"tiny","ready":true}"#);
    for path in ["/v2/models/nope/ready", "/v2/models/tiny/versions/9/ready"] {
        let answer = client.get(path);
        assert_eq!((answer.status, answer.text()), (400, r#"{"error":"Model version not ready"}"#));
    }
    let metadata = client.get("/v2/models/tiny").json();
    assert_eq!(metadata["versions"], serde_json::json!(["1"]));
    assert_eq!(metadata["inputs"], serde_json::json!([{"name": "x", "datatype": "FP32", "shape": [-1, 8]}]));
    assert_eq!(metadata["properties"]["batching"], "rows");
    assert_eq!(client.get("/v2/models/nope").status, 404);
    let about = client.get("/v2").json();
    assert_eq!(about["name"], "mlserve");
    assert!(about["extensions"].as_array().is_some_and(|list| list.contains(&"binary_tensor_data".into())));
    client.send(b"HEAD /v2 HTTP/1.1\r\nHost: t\r\n\r\nGET /v2/health/live HTTP/1.1\r\nHost: t\r\n\r\n");
    let head = client.receive_head();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-length"), "{head}");
    assert_eq!(client.receive().text(), r#"{"live":true}"#);
    server.process.status.advance(Phase::Notice);
    let answer = client.get("/v2/health/ready");
    assert_eq!((answer.status, answer.text()), (400, r#"{"ready":false}"#));
    assert_eq!(server.connect().get("/v2/models/tiny/ready").status, 400);
    assert_eq!(server.connect().get("/v2/health/live").status, 200);
}

#[test]
fn unknown_routes_are_refused_before_their_body() {
    let server = start();
    let mut client = server.connect();
    client.send(b"POST /nowhere HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n");
    let answer = client.receive();
    assert_eq!((answer.status, answer.text()), (404, r#"{"error":"Not Found"}"#));
    let mut client = server.connect();
    client.send(b"PUT /v2 HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n");
    let answer = client.receive();
    assert_eq!((answer.status, answer.text()), (405, r#"{"error":"Method Not Allowed"}"#));
    assert_eq!(answer.headers["allow"], "GET, HEAD, OPTIONS");
}

#[test]
fn identifiers_come_back_with_answers_and_refusals() {
    let server = start();
    let mut client = server.connect();
    let fields = "X-Request-Id: r-1\r\nTraceParent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    for (model, status) in [("tiny", 200), ("nope", 404)] {
        let answer = client.infer(model, fields, ROW.as_bytes());
        assert_eq!(answer.status, status);
        assert_eq!(answer.headers["x-request-id"], "r-1");
        assert_eq!(answer.headers["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    }
}

#[test]
fn expectations_are_met_and_empty_ones_ignored() {
    let server = start();
    let mut client = server.connect();
    let head = |field: &str| {
        format!("POST /v2/models/tiny/infer HTTP/1.1\r\nHost: t\r\n{field}\r\nContent-Length: {}\r\n\r\n", ROW.len())
    };
    client.send(head("Expect: 100-continue").as_bytes());
    assert_eq!(client.receive().status, 100);
    client.send(ROW.as_bytes());
    assert_eq!(client.receive().status, 200);
    client.send(head("Expect:").as_bytes());
    client.send(ROW.as_bytes());
    assert_eq!(client.receive().status, 200);
}

#[test]
fn heads_that_are_too_large_or_none_end_the_connection() {
    let server = start();
    let mut client = server.connect();
    client.send(format!("GET /v2 HTTP/1.1\r\nHost: t\r\nx: {}\r\n\r\n", "a".repeat(20_000)).as_bytes());
    let answer = client.receive();
    assert_eq!((answer.status, answer.headers["mlserve-code"].as_str()), (431, "headers_too_large"));
    assert_eq!(
        answer.json()["error"],
        "the request's header has more than 16384 bytes or more than 100 fields, which are the limits"
    );
    assert!(client.drain().is_empty());
    let mut client = server.connect();
    client.send(format!("GET /v2 HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101)).as_bytes());
    assert_eq!(client.receive().status, 431);
    for bad in ["\x01\x02\r\n\r\n", "GET\r\n\r\n", "GET /v2 HTTP/9.9\r\n\r\n", "GET /v2 HTTP/1.1\r\nno colon\r\n\r\n"] {
        let mut client = server.connect();
        client.send(bad.as_bytes());
        let answer = client.receive();
        assert_eq!((answer.status, answer.headers["content-type"].as_str()), (400, "application/json"), "{bad:?}");
        assert!(answer.json()["error"].as_str().is_some_and(|text| text.starts_with("the request is not HTTP/1.1")));
        assert!(client.drain().is_empty());
    }
    let refused = &server.process.shared.refused[0].0[Protocol::Http as usize];
    drop_connections(&server);
    assert_eq!(refused[Kind::HeadersTooLarge as usize].get(), 2);
    assert_eq!(refused[Kind::InvalidArgument as usize].get(), 4);
}

#[test]
fn a_slow_header_and_an_idle_connection_are_cut_off() {
    let server = TestServer::start(|settings| {
        settings.limits.header_timeout_ms = 50;
        settings.limits.idle_timeout_ms = 100;
    });
    let mut slow = server.connect();
    slow.send(b"GET /v2 HT");
    assert!(slow.drain().is_empty());
    let mut idle = server.connect();
    assert_eq!(idle.get("/v2/health/live").status, 200);
    assert!(idle.drain().is_empty());
    let mut again = server.connect();
    assert_eq!(again.get("/v2/health/live").status, 200);
    again.send(b"GET ");
    assert!(again.drain().is_empty());
}

#[test]
fn an_old_connection_says_that_it_closes() {
    let server = TestServer::start(|settings| settings.limits.max_connection_age_s = 1);
    let mut client = server.connect();
    // Answered, however old it is: to close a connection between two answers would lose requests that are under way.
    loop {
        let answer = client.get("/v2/health/live");
        assert_eq!(answer.status, 200);
        if answer.headers.get("connection").is_some_and(|value| value == "close") {
            break;
        }
    }
    assert!(client.drain().is_empty());
}

#[test]
fn from_the_notice_on_each_answer_is_the_last_of_its_connection() {
    let server = start();
    let (mut one, mut other) = (server.connect(), server.connect());
    for client in [&mut one, &mut other] {
        assert!(!client.get("/v2/health/live").headers.contains_key("connection"));
    }
    server.process.status.advance(Phase::Notice);
    let answer = one.infer("tiny", "", ROW.as_bytes());
    assert_eq!((answer.status, answer.headers["connection"].as_str()), (200, "close"));
    assert!(one.drain().is_empty());
    // What was under way when the server closed is still answered.
    server.process.status.advance(Phase::Closing);
    let answer = other.infer("tiny", "", ROW.as_bytes());
    assert_eq!((answer.status, answer.headers["connection"].as_str()), (200, "close"));
    assert!(other.drain().is_empty());
}

#[test]
fn a_client_that_closed_its_side_gets_its_answer() {
    let server = start();
    for is_held in [false, true] {
        server.echo.hold(is_held);
        let runs = server.echo.runs();
        let mut client = server.connect();
        let head =
            format!("POST /v2/models/tiny/infer HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{ROW}", ROW.len());
        client.send(head.as_bytes());
        client.close_side();
        while server.echo.runs() == runs {
            std::thread::yield_now();
        }
        if is_held {
            // It learns meanwhile that it is still served.
            assert_eq!(client.receive().status, 100);
            server.echo.hold(false);
        }
        assert_eq!(client.receive().status, 200);
        assert!(client.drain().is_empty());
    }
}

#[test]
fn heads_that_others_may_read_differently_are_refused() {
    let server = start();
    let text = |bytes: &str| {
        let mut client = server.connect();
        client.send(bytes.as_bytes());
        let answer = client.receive();
        assert!(client.drain().is_empty(), "{bytes:?}");
        (answer.status, answer.json()["error"].as_str().expect("a text").to_owned())
    };
    let post = |fields: &str| format!("POST /v2/models/tiny/infer HTTP/1.1\r\nHost: t\r\n{fields}\r\n0\r\n\r\n");
    for (bytes, status, part) in [
        (post("Transfer-Encoding: gzip, chunked\r\n"), 501, "transfer-encoding 'gzip, chunked' is not offered"),
        (post("Transfer-Encoding: identity, chunked\r\n"), 400, "'identity, chunked' is none; chunked alone"),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), 400, "both content-length and"),
        (post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400, "both content-length and"),
        (post("Host: u\r\nContent-Length: 5\r\n"), 400, "one host field"),
        ("GET /v2 HTTP/1.1\r\n\r\n".to_owned(), 400, "one host field"),
        ("GET /v2 HTTP/1.1\nHost: t\r\n\r\n".to_owned(), 400, "LF alone"),
        ("GET /v2 HTTP/1.1\r\nHost: t\n\r\n".to_owned(), 400, "LF alone"),
        ("GET /v2 HTTP/1.1\r\nHost: t\r\n\n".to_owned(), 400, "LF alone"),
    ] {
        let (found, text) = text(&bytes);
        assert_eq!(found, status, "{bytes:?}: {text}");
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    let mut client = server.connect();
    client.send(b"GET /v2/health/live HTTP/1.0\r\n\r\n");
    assert_eq!(client.receive().status, 200, "HTTP/1.0 knows no host");
}

#[test]
fn closing_finishes_what_is_in_flight() {
    let server = start();
    server.echo.hold(true);
    let mut busy = server.connect();
    let head = format!("POST /v2/models/tiny/infer HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{ROW}", ROW.len());
    busy.send(head.as_bytes());
    while server.echo.runs() == 0 {
        std::thread::yield_now();
    }
    let mut idle = server.connect();
    assert_eq!(idle.get("/v2/health/live").status, 200);
    server.process.status.advance(Phase::Closing);
    server.echo.hold(false);
    let answer = busy.receive();
    assert_eq!((answer.status, answer.headers["connection"].as_str()), (200, "close"));
    assert!(busy.drain().is_empty());
    assert!(idle.drain().is_empty());
}

#[test]
fn requests_whose_callers_left_are_not_run() {
    let server = start();
    server.echo.hold(true);
    let mut first = server.connect();
    let head = format!("POST /v2/models/tiny/infer HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{ROW}", ROW.len());
    first.send(head.as_bytes());
    while server.echo.runs() == 0 {
        std::thread::yield_now();
    }
    for _ in 0..5 {
        let mut gone = server.connect();
        gone.send(head.as_bytes());
        drop(gone);
    }
    while server.connections() > 1 {
        std::thread::yield_now();
    }
    server.echo.hold(false);
    assert_eq!(first.receive().status, 200);
    assert_eq!(server.connect().infer("tiny", "", ROW.as_bytes()).status, 200);
    assert_eq!(server.echo.runs(), 2);
}

#[test]
fn requests_in_a_row_are_answered_in_order() {
    let server = TestServer::start(|settings| settings.server.report_batches = true);
    let mut client = server.connect();
    let mut all = Vec::new();
    for number in 0..20 {
        let body = ROW.replacen("{\"inputs\"", &format!("{{\"id\":\"{number}\",\"inputs\""), 1);
        let head = format!("POST /v2/models/tiny/infer HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len());
        all.extend_from_slice(head.as_bytes());
        all.extend_from_slice(body.as_bytes());
    }
    client.send(&all);
    for number in 0..20 {
        let answer = client.receive().json();
        assert_eq!(answer["id"], number.to_string());
        assert_eq!(answer["parameters"]["mlserve_batch_rows"], 1);
    }
}

#[test]
fn each_request_has_its_line_in_the_access_log() {
    let server = TestServer::start(|settings| settings.log.access_log = true);
    let mut client = server.connect();
    client.infer("tiny", "x-request-id: forged\"\\,\r\n", ROW.as_bytes());
    client.infer("tiny/versions/9", "", ROW.as_bytes());
    client.get("/nowhere");
    let lines = server.access_lines(3);
    assert_eq!(lines[0]["request_id"], "forged\"\\,");
    assert_eq!(lines[0]["code"], "ok");
    assert_eq!(lines[0]["version"], 1);
    assert_eq!(lines[0]["bytes_in"], ROW.len());
    assert_eq!(lines[1]["code"], "not_found");
    assert_eq!(lines[1]["route"], "/v2/models/{model}/versions/{version}/infer");
    assert_eq!(lines[2]["code"], "unknown_route");
}
