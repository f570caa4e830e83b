use std::io::Write;

use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

use super::*;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}

/// The messages that are logged while each choice is in force, one of each level.
fn logged(choices: &[LogChoices]) -> Vec<Vec<String>> {
    let lines = Lines::default();
    let control = LogControl::new(LogLevel::Info, None);
    let timer = Timer { control: control.clone(), console: false };
    let json = tracing_subscriber::fmt::layer().with_writer(lines.clone()).with_timer(timer).json();
    let subscriber = tracing_subscriber::registry().with(control).with(json.flatten_event(true));
    tracing::subscriber::with_default(subscriber, || {
        let control = LogControl::of_process().expect("found in the subscriber");
        let log = |choices: &LogChoices| {
            control.choose(*choices);
            assert_eq!(control.choices(), *choices);
            tracing::error!("error");
            tracing::warn!("warning");
            tracing::info!("info");
            tracing::debug!("verbose");
            tracing::warn!(target: "h2::codec", "foreign");
            let text = String::from_utf8(std::mem::take(&mut *lines.0.lock())).expect("UTF-8");
            let message = |line: &str| {
                let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
                line["message"].as_str().expect("a message").to_owned()
            };
            text.lines().map(message).collect()
        };
        choices.iter().map(log).collect()
    })
}

#[test]
fn each_level_is_turned_on_and_off_while_lines_are_logged() {
    let all = LogChoices { error: true, warning: true, info: true, verbose_level: 1, whole_seconds: false };
    let choices = [
        all,
        LogChoices { verbose_level: 0, ..all },
        LogChoices { info: false, verbose_level: 2, ..all },
        LogChoices { error: false, warning: false, info: false, verbose_level: 0, ..all },
        LogChoices { error: false, info: false, verbose_level: 0, ..all },
        all,
    ];
    let expected: [&[&str]; 6] = [
        &["error", "warning", "info", "verbose"],
        &["error", "warning", "info"],
        &["error", "warning", "verbose"],
        &[],
        &["warning"],
        &["error", "warning", "info", "verbose"],
    ];
    assert_eq!(logged(&choices), expected);
}

#[test]
fn seconds_are_whole_if_that_is_asked_for() {
    assert_eq!(to_the_second("2026-11-23T15:31:52.123456789Z"), "2026-11-23T15:31:52Z");
    assert_eq!(to_the_second("2026-11-23T15:31:52Z"), "2026-11-23T15:31:52Z");
}

/// Logs a line of one place.
fn log_one() {
    tracing::info!("again");
}

#[test]
fn what_callers_cause_is_logged_a_few_times_and_then_counted() {
    let lines = Lines::default();
    let control = LogControl::new(LogLevel::Info, None);
    let json = tracing_subscriber::fmt::layer().with_writer(lines.clone()).json().flatten_event(true);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(control).with(json), || {
        (0..10_000).for_each(|_| log_one());
        tracing::info!("another place");
    });
    let text = String::from_utf8(lines.0.lock().clone()).expect("UTF-8");
    let count = |message: &str| text.lines().filter(|line| line.contains(message)).count();
    assert!((1..1_000).contains(&count("again")), "{}", count("again"));
    assert_eq!(count("another place"), 1);
}

#[test]
fn lines_that_wait_are_bounded_in_number_and_bytes() {
    let (release, stuck) = std::sync::mpsc::channel::<()>();
    let stream = StuckUntil(stuck);
    let mut lines = LogLines::start(stream).expect("starts");
    let line = vec![b'x'; 100_000];
    (0..100).for_each(|_| lines.write_all(&line).expect("never fails"));
    assert!(lines.lost() >= 50, "{}", lines.lost());
    (0..20_000).for_each(|_| lines.write_all(b"short\n").expect("never fails"));
    assert!(lines.lost() >= 10_000, "{}", lines.lost());
    drop(release);
}

/// Takes nothing until the other end is dropped.
struct StuckUntil(std::sync::mpsc::Receiver<()>);

impl Write for StuckUntil {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
