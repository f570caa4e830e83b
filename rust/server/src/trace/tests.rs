use std::fs;
use std::time::Duration;

use mlserve_core::clock::ManualClock;
use mlserve_core::entry::Timing;
use mlserve_core::request::{Protocol, Request};
use mlserve_core::trace::Trace;
use serde_json::Value;

use super::*;
use crate::grpc::fixture;

const ON: TraceChange =
    TraceChange { is_on: Change::Set(true), rate: Change::Set(1), count: Change::Keep, log_frequency: Change::Keep };

/// A folder of its own for the files of one test; removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mlserve-trace-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("trace.json")
    }

    /// The names of all files, in order.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("the folder");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn members(path: &Path) -> Vec<Value> {
    serde_json::from_str(&fs::read_to_string(path).expect("a file")).expect("a JSON array")
}

fn ids(path: &Path) -> Vec<u64> {
    members(path).iter().filter(|member| member["model_name"] == "double").filter_map(|m| m["id"].as_u64()).collect()
}

fn begin(tracing: &Tracing, clock: &ManualClock, protocol: Protocol) -> Option<Box<Trace>> {
    let version = fixture::version(1, Arc::new([]));
    let request = Request { protocol, id: "a\"b".into(), ..Request::default() };
    tracing.tracer.sample(&version, &request, clock.now(), clock.now())
}

/// Traces one request, if it is chosen, from its arrival to its end 5 ms later.
fn trace(tracing: &Tracing, clock: &ManualClock, protocol: Protocol) {
    let Some(trace) = begin(tracing, clock, protocol) else { return };
    let ms = Duration::from_millis;
    let timing = Timing { queue: ms(1), gather: ms(1), compute: ms(1), scatter: ms(1) };
    clock.advance(ms(4));
    let trace = trace.ended(Some(timing), clock.now());
    clock.advance(ms(1));
    trace.sent(clock.now());
}

fn started(folder: &Folder) -> (Tracing, ManualClock) {
    let clock = ManualClock::new();
    (Tracing::start(Some(&folder.file()), Clock::Manual(clock.clone())).expect("a file"), clock)
}

#[test]
fn a_trace_is_written_as_triton_writes_it() {
    let folder = Folder::new("form");
    let (tracing, clock) = started(&folder);
    tracing.change("", ON).expect("valid");
    trace(&tracing, &clock, Protocol::Http);
    tracing.flush();
    let [head, times] = &members(&folder.file())[..] else { panic!("two members") };
    let expected = serde_json::json!({"id": 1, "model_name": "double", "model_version": 7, "request_id": "a\"b"});
    assert_eq!(*head, expected);
    assert_eq!(times["id"], 1);
    let stamps = times["timestamps"].as_array().expect("a list");
    let start = stamps[0]["ns"].as_u64().expect("a number");
    let told: Vec<(&str, u64)> = stamps
        .iter()
        .map(|stamp| (stamp["name"].as_str().expect("text"), (stamp["ns"].as_u64().expect("ns") - start) / 1_000_000))
        .collect();
    let expected = [
        ("HTTP_RECV_START", 0),
        ("HTTP_RECV_END", 0),
        ("REQUEST_START", 0),
        ("QUEUE_START", 0),
        ("COMPUTE_START", 1),
        ("COMPUTE_INPUT_END", 2),
        ("COMPUTE_OUTPUT_START", 3),
        ("COMPUTE_END", 4),
        ("REQUEST_END", 4),
        ("HTTP_SEND_START", 4),
        ("HTTP_SEND_END", 5),
    ];
    assert_eq!(told, expected);
}

#[test]
fn the_file_is_whole_after_each_write_and_begins_with_the_first_trace() {
    let folder = Folder::new("whole");
    fs::write(folder.file(), "of an earlier server").expect("written");
    let (tracing, clock) = started(&folder);
    tracing.flush();
    assert_eq!(fs::read_to_string(folder.file()).expect("a file"), "of an earlier server", "nothing was traced yet");
    tracing.change("", ON).expect("valid");
    for count in 1..=3 {
        trace(&tracing, &clock, Protocol::Grpc);
        tracing.flush();
        assert_eq!(ids(&folder.file()), (1..=count).collect::<Vec<_>>());
    }
}

#[test]
fn a_file_without_traces_is_an_empty_array() {
    let folder = Folder::new("empty");
    let (_tracing, _clock) = started(&folder);
    assert_eq!(members(&folder.file()), [Value::Null; 0]);
}

#[test]
fn a_new_file_begins_after_so_many_traces() {
    let folder = Folder::new("parts");
    let (tracing, clock) = started(&folder);
    tracing.change("", TraceChange { log_frequency: Change::Set(2), ..ON }).expect("valid");
    (0..5).for_each(|_| trace(&tracing, &clock, Protocol::Grpc));
    tracing.flush();
    assert_eq!(folder.names(), ["trace.json", "trace.json.0", "trace.json.1", "trace.json.2"]);
    let part = |number: usize| ids(&folder.0.join(format!("trace.json.{number}")));
    assert_eq!([part(0), part(1), part(2)], [vec![1, 2], vec![3, 4], vec![5]]);
}

#[test]
fn settings_of_a_model_win_over_the_global_ones_until_they_are_cleared() {
    let folder = Folder::new("models");
    let (tracing, _) = started(&folder);
    let rate = |model: &str| tracing.in_force(model).rate;
    assert_eq!((rate(""), rate("m")), (1_000, 1_000));
    tracing.change("m", TraceChange { rate: Change::Set(7), ..TraceChange::default() }).expect("valid");
    assert_eq!((rate(""), rate("m"), rate("n")), (1_000, 7, 1_000));
    assert!(!tracing.in_force("m").is_on);
    tracing
        .change("", TraceChange { is_on: Change::Set(true), rate: Change::Set(5), ..TraceChange::default() })
        .expect("valid");
    assert_eq!((rate(""), rate("m"), rate("n")), (5, 7, 5));
    assert!(tracing.in_force("m").is_on, "what a model does not set is as the global setting, then as now");
    tracing.change("m", TraceChange { rate: Change::Clear, ..TraceChange::default() }).expect("valid");
    tracing.change("", TraceChange { rate: Change::Clear, ..TraceChange::default() }).expect("valid");
    assert_eq!((rate(""), rate("m")), (1_000, 1_000));
}

#[test]
fn a_change_of_one_model_does_not_disturb_the_counts_of_another() {
    let folder = Folder::new("counts");
    let (tracing, clock) = started(&folder);
    tracing.change("double", TraceChange { count: Change::Set(5), ..ON }).expect("valid");
    trace(&tracing, &clock, Protocol::Grpc);
    assert_eq!(tracing.in_force("double").left(), 4);
    tracing.change("other", ON).expect("valid");
    tracing.change("double", TraceChange::default()).expect("nothing to do");
    assert_eq!(tracing.in_force("double").left(), 4);
    tracing.change("", TraceChange { rate: Change::Set(3), ..TraceChange::default() }).expect("valid");
    assert_eq!(tracing.in_force("double").left(), 5, "it takes its log frequency from there, and begins anew");
}

#[test]
fn nothing_is_traced_without_a_file_and_nothing_changes_when_a_change_is_refused() {
    let tracing = Tracing::start(None, Clock::Monotonic).expect("nothing to open");
    let error = tracing.change("", TraceChange { rate: Change::Set(9), ..ON }).expect_err("no file");
    assert_eq!(
        error.text(),
        "Attempting to set invalid trace setting :trace file name is not given; start the server with --trace-file \
         FILE (server.trace_file)"
    );
    assert_eq!((tracing.in_force("").rate, tracing.in_force("").is_on), (1_000, false));
    tracing.change("", TraceChange { rate: Change::Set(9), ..TraceChange::default() }).expect("a rate alone is fine");
    let zero = tracing.change("", TraceChange { rate: Change::Set(0), ..TraceChange::default() });
    assert!(zero.expect_err("zero").text().ends_with("sample rate must be non-zero"));
    assert!(begin(&tracing, &ManualClock::new(), Protocol::Grpc).is_none());
}

#[test]
fn a_file_that_cannot_be_written_is_named_at_the_start() {
    let error = Tracing::start(Some(Path::new("/nowhere/trace.json")), Clock::Monotonic).expect_err("no folder");
    assert!(error.starts_with("server.trace_file = /nowhere/trace.json: "), "{error}");
}
