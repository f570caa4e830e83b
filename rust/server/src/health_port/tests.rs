//! Probes beside everything else that the port may be made to do, over real sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use mlserve_core::config::Settings;

use super::*;
use crate::grpc::fixture::Served;
use crate::listen::{self, Acceptor};

/// No test waits longer for an answer; a port that is silent for so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

struct Port {
    address: SocketAddr,
    _thread: Ended,
    _served: Served,
}

struct Ended(Option<HealthPort>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(HealthPort::end);
    }
}

impl Port {
    fn open() -> Self {
        let settings = Settings::default();
        let acceptor = Arc::new(Acceptor::new(Vec::new(), &settings.limits));
        let served = Served::start(settings, 1);
        let listener = listen::bind_tcp("127.0.0.1", 0).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let port = HealthPort::start(listener, Arc::clone(&served.process), acceptor).expect("a thread");
        Self { address, _thread: Ended(Some(port)), _served: served }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the port accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// Sends `request` and returns everything until the port closes.
    fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).expect("the port reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer and a close");
        answer
    }

    fn ask(&self, method: &str, path: &str) -> String {
        self.exchange(&format!("{method} {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"))
    }

    fn assert_probes_are_answered(&self) {
        for path in ["/livez", "/readyz", "/startupz", "/v2/health/live", "/v2/health/ready"] {
            assert!(self.ask("GET", path).starts_with("HTTP/1.1 200 "), "{path}");
        }
    }
}

#[test]
fn probes_are_answered_beside_clients_that_send_ahead_and_do_not_read() {
    let port = Port::open();
    let requests = "GET /metrics HTTP/1.1\r\nhost: t\r\n\r\n".repeat(1_000);
    let greedy: Vec<TcpStream> = (0..2 * MAX_CONNECTIONS).map(|_| port.connect()).collect();
    for mut stream in &greedy {
        stream.set_nonblocking(true).expect("non-blocking");
        // Until the port takes no more of it, or has closed.
        for _ in 0..100 {
            match stream.write(requests.as_bytes()) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => break,
            }
        }
    }
    port.assert_probes_are_answered();
    drop(greedy);
    port.assert_probes_are_answered();
}

#[test]
fn probes_are_answered_beside_silent_and_unfinished_clients() {
    let port = Port::open();
    let silent: Vec<TcpStream> = (0..MAX_CONNECTIONS).map(|_| port.connect()).collect();
    let unfinished: Vec<TcpStream> = (0..MAX_CONNECTIONS).map(|_| port.connect()).collect();
    for mut stream in &unfinished {
        // May have been cut for a newcomer already.
        drop(stream.write_all(b"GET /livez HTTP/1.1\r\nhost:"));
    }
    port.assert_probes_are_answered();
    drop((silent, unfinished));
}

#[test]
fn requests_that_were_sent_ahead_are_answered_in_order_once_they_are_read() {
    let port = Port::open();
    let mut ahead = "GET /livez HTTP/1.1\r\nhost: t\r\n\r\n".repeat(500);
    ahead += "GET /startupz HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
    let answers = port.exchange(&ahead);
    assert_eq!(answers.matches(r#"{"live":true}"#).count(), 500);
    assert!(answers.ends_with(r#"{"started":true}"#));
}

#[test]
fn every_route_takes_head_and_tells_what_it_allows() {
    let port = Port::open();
    for path in ["/metrics", "/livez", "/readyz", "/startupz", "/v2/health/live", "/v2/health/ready"] {
        let head = port.ask("HEAD", path).to_lowercase();
        assert!(head.starts_with("http/1.1 200 ok") && head.ends_with("\r\n\r\n"), "{path}: {head}");
        assert!(head.contains("content-length: ") && !head.contains("content-length: 0"), "{path}: {head}");
        let refused = port.ask("POST", path).to_lowercase();
        assert!(refused.starts_with("http/1.1 405 "), "{path}: {refused}");
        assert!(refused.contains("allow: get, head, options\r\n"), "{path}: {refused}");
        let options = port.ask("OPTIONS", path).to_lowercase();
        assert!(options.starts_with("http/1.1 200 ") && options.contains("allow: get, head, options\r\n"), "{options}");
    }
    assert!(port.ask("GET", "/nothing").starts_with("HTTP/1.1 404 "));
    assert!(port.ask("OPTIONS", "/nothing").starts_with("HTTP/1.1 404 "));
}

#[test]
fn the_plain_checks_of_balancers_are_happy() {
    let port = Port::open();
    assert!(port.exchange("OPTIONS / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200 "), "HAProxy");
    assert!(port.ask("OPTIONS", "*").starts_with("HTTP/1.1 200 "));
}

#[test]
fn an_answer_that_is_not_taken_is_overdue() {
    let now = Instant::now();
    let activity = Activity::new(now);
    let later = now + 2 * ANSWER_TIMEOUT;
    assert!(!activity.is_overdue(later, ANSWER_TIMEOUT), "idle");
    activity.begin();
    assert!(!activity.is_overdue(later, ANSWER_TIMEOUT), "it waits for us");
    activity.answered(now);
    assert!(!activity.is_overdue(now + ANSWER_TIMEOUT, ANSWER_TIMEOUT));
    assert!(activity.is_overdue(later, ANSWER_TIMEOUT));
}

#[test]
fn the_first_to_be_cut_is_whoever_did_nothing_for_the_longest_time() {
    let now = Instant::now();
    let (older, younger, served) = (Activity::new(now), Activity::new(now + PATIENCE), Activity::new(now));
    served.begin();
    assert!(older.standing() < younger.standing());
    assert!(younger.standing() < served.standing(), "who waits for us comes last");
}
