use std::collections::VecDeque;
use std::sync::mpsc::Sender;

use parking_lot::Mutex;

use super::*;

const LONG: Duration = Duration::from_secs(60);

/// What the next writes do: take so many bytes, or fail.
type Script = Arc<Mutex<VecDeque<Result<usize, ErrorKind>>>>;

/// Does what the script says, then takes everything.
#[derive(Clone, Default)]
struct Scripted {
    script: Script,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Write for Scripted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = self.script.lock().pop_front().unwrap_or(Ok(bytes.len()))?.min(bytes.len());
        self.written.lock().extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Scripted {
    fn text(&self) -> String {
        String::from_utf8(self.written.lock().clone()).expect("UTF-8")
    }
}

/// A reader that does not read until it is told to.
struct Stuck(Receiver<()>);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Returns when the test drops its end.
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn text(item: &&'static str, buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(item.as_bytes());
}

fn to(stream: impl Write + Send + 'static, waiting: usize) -> Output<&'static str> {
    Output::start("test", waiting, text, stream).expect("starts")
}

fn stuck() -> (Sender<()>, Stuck) {
    let (release, wait) = std::sync::mpsc::channel();
    (release, Stuck(wait))
}

#[test]
fn a_stuck_reader_costs_lines_and_holds_up_neither_sender_nor_end() {
    let (release, stream) = stuck();
    let output = to(stream, 4);
    let taken = (0..100).filter(|_| output.send("line\n")).count();
    // Four that wait, and what the thread had taken before it was stuck.
    assert!((4..=9).contains(&taken), "{taken}");
    assert_eq!(output.lost(), 100 - taken as u64);
    output.flush(Duration::from_millis(20));
    drop(release);
    output.flush(LONG);
    assert_eq!(output.lost(), 100 - taken as u64);
    assert!(output.send("line\n"));
}

#[test]
fn a_full_disk_costs_what_it_does_not_take_and_later_lines_are_written() {
    let stream = Scripted::default();
    let output = to(stream.clone(), 64);
    let send = |line| {
        output.send(line);
        output.flush(LONG);
    };
    send("one\n");
    stream.script.lock().extend([Ok(2), Err(ErrorKind::StorageFull), Err(ErrorKind::StorageFull)]);
    send("two\n");
    send("three\n");
    assert_eq!(output.lost(), 2);
    send("four\n");
    send("five\n");
    assert_eq!((stream.text().as_str(), output.lost()), ("one\ntw\nfour\nfive\n", 2));
}

#[test]
fn a_stream_that_is_not_ready_is_tried_again() {
    let stream = Scripted::default();
    stream.script.lock().extend([Err(ErrorKind::WouldBlock), Ok(1), Err(ErrorKind::Interrupted)]);
    let output = to(stream.clone(), 4);
    output.send("line\n");
    output.flush(LONG);
    assert_eq!((stream.text().as_str(), output.lost()), ("line\n", 0));
}

#[test]
fn a_closed_pipe_loses_every_line_and_ends_nothing() {
    let stream = Scripted::default();
    stream.script.lock().extend([Err(ErrorKind::BrokenPipe); 3]);
    let output = to(stream.clone(), 4);
    for _ in 0..3 {
        output.send("line\n");
        output.flush(LONG);
    }
    assert_eq!((stream.text().as_str(), output.lost()), ("", 3));
}

#[test]
fn a_file_that_was_moved_or_removed_is_made_again_and_one_that_was_cut_goes_on() {
    let folder = tempfile::tempdir().expect("made");
    let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let mut file = WatchedFile::open(path.clone()).expect("opens");
    let mut write = |line: &str| file.write_all(line.as_bytes()).expect("written");
    let read = |path| std::fs::read_to_string(path).expect("read");
    write("one\n");
    std::fs::rename(&path, &moved).expect("moved");
    write("two\n");
    assert_eq!((read(&moved), read(&path)), ("one\n".to_owned(), "two\n".to_owned()));
    std::fs::write(&path, "").expect("cut");
    write("three\n");
    assert_eq!(read(&path), "three\n");
    std::fs::remove_file(&path).expect("removed");
    write("four\n");
    assert_eq!(read(&path), "four\n");
}
