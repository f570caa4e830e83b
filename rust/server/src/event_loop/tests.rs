//! A loop that something goes wrong in: what is lost, what goes on, and who is told.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use mlserve_core::config::Settings;
use mlserve_core::error::Error;
use mlserve_core::request::{Answer, Input, Reply, Request};
use mlserve_core::tensor::DataType;

use super::*;
use crate::grpc::fixture::Served;
use crate::listen::Socket;

/// No test waits longer; what has not happened by then will not.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request of one row for the model of the fixture, or for one that there is not.
fn request(model: &str) -> Box<Request> {
    let data = 1_f32.to_le_bytes().to_vec().into();
    let input = Input { name: "x".into(), datatype: DataType::Fp32, shape: [1, 1].into_iter().collect(), data };
    Box::new(Request {
        model_name: model.to_owned().into(),
        inputs: [input].into_iter().collect(),
        ..Request::default()
    })
}

/// Does something on the loop when it is answered.
struct Then<F>(Option<F>);

impl<F: FnOnce(bool) + Send> Reply for Then<F> {
    fn is_gone(&mut self) -> bool {
        false
    }

    fn send(mut self: Box<Self>, outcome: Result<Answer<'_>, Error>) {
        if let Some(then) = self.0.take() {
            then(outcome.is_ok());
        }
    }
}

fn then<F: FnOnce(bool) + Send + 'static>(then: F) -> Box<dyn Reply> {
    Box::new(Then(Some(then)))
}

fn answer_of(served: &Served, model: &str) -> Receiver<bool> {
    let (sender, receiver) = channel();
    let told = then(move |is_answered| {
        let _ = sender.send(is_answered);
    });
    assert!(served.handle().submit(request(model), told));
    receiver
}

fn assert_serves(served: &Served) {
    assert_eq!(answer_of(served, "double").recv_timeout(PATIENCE), Ok(true));
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let begun = tokio::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct Client(UnixStream);

impl Client {
    fn connect(served: &Served) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        ours.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        theirs.set_nonblocking(true).expect("non-blocking");
        served.handle().connect(Socket::Unix(theirs));
        Self(ours)
    }

    fn is_live(&mut self) -> bool {
        self.0.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: t\r\n\r\n").expect("it reads");
        let mut answer = [0; 12];
        self.0.read_exact(&mut answer).expect("an answer");
        let mut rest = Vec::new();
        while !rest.ends_with(b"}") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("the rest");
            rest.push(byte[0]);
        }
        &answer == b"HTTP/1.1 200"
    }
}

#[test]
fn a_panic_in_a_turn_ends_its_requests_and_nothing_else() {
    let served = Served::start(Settings::default(), 1);
    let mut client = Client::connect(&served);
    assert!(client.is_live());
    for round in 1..=3 {
        assert!(served.handle().submit(request("double"), then(|_| panic!("on purpose"))));
        // Where the answer is delivered, so that it costs no other request of the turn.
        let plan = served.process.plan.load();
        let version = plan.find("double", None).expect("it is ready");
        eventually("counted", || version.stats.totals().panics == round);
        assert_serves(&served);
        assert!(client.is_live(), "the connection goes on");
    }
    assert_eq!(served.process.panics.count(Place::Loop), 0);
}

#[test]
fn a_panic_while_a_request_is_refused_does_not_end_the_loop() {
    let served = Served::start(Settings::default(), 1);
    let mut client = Client::connect(&served);
    assert!(served.handle().submit(request("nobody"), then(|_| panic!("on purpose"))));
    assert_serves(&served);
    assert!(client.is_live());
    assert_eq!(served.process.panics.count(Place::Turn), 1);
}

#[test]
fn a_loop_that_cannot_be_mended_is_started_again() {
    let served = Served::start(Settings::default(), 1);
    let mut client = Client::connect(&served);
    assert!(client.is_live());
    served.handle().break_it();
    let mut rest = Vec::new();
    // An error and an end are the same: it was cut.
    drop(client.0.read_to_end(&mut rest));
    eventually("counted", || served.process.panics.count(Place::Loop) == 1);
    eventually("it runs again", || served.handle().pulse().lives());
    assert_serves(&served);
    assert!(Client::connect(&served).is_live());
}

#[test]
fn a_frozen_loop_is_seen_and_gets_nothing_until_it_turns_again() {
    let served = Served::start(Settings::default(), 1);
    let frozen = served.handle().clone();
    let (other, _arrivals) = LoopHandle::new(Arc::default());
    let loops = vec![frozen.clone(), other.clone()];
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let watched = std::thread::spawn({
        let loops = vec![frozen.clone()];
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = pulse::watch(loops) => {}
                    _ = stopped => {}
                }
            });
        }
    });
    let (release, released): (Sender<()>, Receiver<()>) = channel();
    assert!(frozen.submit(
        request("double"),
        then(move |_| {
            let _ = released.recv_timeout(PATIENCE);
        })
    ));
    eventually("it is seen", || frozen.pulse().is_frozen());
    let chosen = LoopHandle::least_loaded(&loops).expect("a loop");
    assert!(Arc::ptr_eq(chosen.pulse(), other.pulse()), "new connections go to the loop that lives");
    release.send(()).expect("it waits");
    eventually("it turns again", || !frozen.pulse().is_frozen());
    drop(stop);
    watched.join().expect("the watch ends");
    assert_serves(&served);
}

#[test]
fn quiet_connections_make_room_and_one_with_a_request_in_flight_stays() {
    let served = Served::start(Settings::default(), 1);
    let mut busy = Client::connect(&served);
    let head = "POST /v2/models/double/infer HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\n";
    busy.0.write_all(head.as_bytes()).expect("it reads");
    let mut kept = Client::connect(&served);
    assert!(kept.is_live());
    let silent = Client::connect(&served);
    // More than there are, as often as newcomers would: one that has only just come is not asked yet.
    eventually("the quiet ones have left", || {
        served.handle().make_room(4);
        served.handle().connections() == 1
    });
    for mut gone in [kept, silent] {
        assert!(matches!(gone.0.read(&mut [0]), Ok(0) | Err(_)), "closed");
    }
    busy.0.write_all(b"{}").expect("it reads");
    let mut answer = [0; 12];
    busy.0.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 400");
    // Now that it is quiet it leaves, too; that it has read something since is seen now and then.
    eventually("none is left", || {
        served.handle().make_room(1);
        served.handle().connections() == 0
    });
}

#[test]
fn a_request_of_the_same_process_counts_until_it_is_answered() {
    let served = Served::start(Settings::default(), 1);
    let (release, released): (Sender<()>, Receiver<()>) = channel();
    let blocked = then(move |_| {
        let _ = released.recv_timeout(PATIENCE);
    });
    assert!(served.handle().submit(request("double"), blocked));
    let waiting = answer_of(&served, "double");
    assert_eq!(served.handle().calls(), 2);
    release.send(()).expect("it waits");
    assert_eq!(waiting.recv_timeout(PATIENCE), Ok(true));
    eventually("none is left", || served.handle().calls() == 0);
}
