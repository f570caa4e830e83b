//! Texts: what a backend takes for them is held of the byte budget before it is made, going in and coming out.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use mlserve_core::backend::{Backend, OutputTensor, RunError, TensorView, TextRoom};
use mlserve_core::budget::{Budget, LocalBudget};
use mlserve_core::clock::Clock;
use mlserve_core::config::{LimitSettings, ModelSettings};
use mlserve_core::error::Kind;
use mlserve_core::model::Batching;
use mlserve_core::plan::Slot;
use mlserve_core::stop::Stop;
use mlserve_core::tensor::{BytesElements, DataType, push_bytes_element};
use mlserve_core::version::{Mailbox, Version};
use support::{Bench, Caller, Got};

/// Answers each text with as many bytes as it says in decimal. What it made without room for it is counted.
#[derive(Debug, Default)]
struct Writer {
    runs: AtomicUsize,
    made_bytes: AtomicUsize,
    /// Where the texts of the last run were.
    read_from: AtomicUsize,
}

impl Backend for Writer {
    fn run(&self, inputs: &[TensorView<'_>], outputs: &[usize]) -> Result<Vec<OutputTensor>, RunError> {
        self.run_until(inputs, outputs, &Stop::default(), &mut TextRoom::unbounded())
    }

    fn run_until(
        &self,
        inputs: &[TensorView<'_>],
        _outputs: &[usize],
        _stop: &Stop,
        room: &mut TextRoom,
    ) -> Result<Vec<OutputTensor>, RunError> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        self.read_from.store(inputs[0].data.as_ptr() as usize, Ordering::SeqCst);
        let lengths: Vec<usize> = BytesElements::new(inputs[0].data)
            .map(|text| std::str::from_utf8(text.expect("fits")).expect("digits").parse().unwrap_or(0))
            .collect();
        let bytes = lengths.iter().map(|length| length + 4).sum();
        room.take(lengths.len(), bytes)?;
        self.made_bytes.fetch_add(bytes, Ordering::SeqCst);
        let mut data = Vec::with_capacity(bytes);
        for length in lengths {
            push_bytes_element(&mut data, &vec![b'y'; length]).expect("short");
        }
        Ok(vec![OutputTensor { datatype: DataType::Bytes, shape: inputs[0].shape.into(), data: data.into() }])
    }
}

struct Texts {
    bench: Bench,
    writer: Arc<Writer>,
    budget: Arc<Budget>,
    local: Arc<LocalBudget>,
}

impl Texts {
    fn new(budget: usize, max_response_bytes: usize) -> Self {
        let limits = LimitSettings { max_response_bytes, ..LimitSettings::default() };
        let settings = ModelSettings { inline: false, instances: 1, ..ModelSettings::default() };
        let mut bench = Bench::new(settings, limits, Batching::Rows);
        let writer = Arc::new(Writer::default());
        let mut new = bench.new_version(Vec::new());
        new.backend = writer.clone();
        new.spec.inputs[0].datatype = DataType::Bytes;
        new.spec.outputs[0].datatype = DataType::Bytes;
        let mailboxes: Arc<[Arc<dyn Mailbox>]> = Arc::new([bench.mailbox.clone() as Arc<dyn Mailbox>]);
        bench.set_slot(Slot::serving(Version::new(new, mailboxes, Clock::Manual(bench.clock.clone()))));
        let budget = Budget::new(budget);
        let local = LocalBudget::new(Arc::clone(&budget), 0);
        Self { bench, writer, budget, local }
    }

    /// Sends one column of texts, one in each row.
    fn send(&mut self, texts: &[&str]) -> Caller {
        let mut data = Vec::new();
        for text in texts {
            push_bytes_element(&mut data, text.as_bytes()).expect("short");
        }
        self.send_bytes(texts.len(), data.into())
    }

    fn send_bytes(&mut self, rows: usize, data: Bytes) -> Caller {
        let mut request = Bench::request(&[&[0.0]]);
        request.reservation = Some(self.local.reserve(data.len()).expect("what is sent fits"));
        request.inputs[0].datatype = DataType::Bytes;
        request.inputs[0].shape = [rows as i64, 1].as_slice().into();
        request.inputs[0].data = data.into();
        self.bench.send_request(request)
    }

    fn answered(&mut self, callers: &[&Caller]) -> Vec<Got> {
        self.bench.flush();
        self.bench.receive_until(|| callers.iter().all(|caller| caller.is_answered()));
        callers.iter().map(|caller| caller.only()).collect()
    }

    fn ask(&mut self, texts: &[&str]) -> Got {
        let caller = self.send(texts);
        self.answered(&[&caller]).remove(0)
    }

    #[track_caller]
    fn refusal(&mut self, texts: &[&str], setting: &str) -> Kind {
        let Got::Refused(kind, text) = self.ask(texts) else { panic!("{} texts were answered", texts.len()) };
        assert!(text.contains(setting), "{text}");
        kind
    }
}

#[test]
fn texts_of_a_request_are_held_before_they_run() {
    let mut texts = Texts::new(16 << 10, 1 << 20);
    // 2,400 bytes, of which a backend makes 600 objects.
    assert_eq!(texts.refusal(&[""; 600], "limits.byte_budget"), Kind::OutOfBudget);
    assert_eq!(texts.writer.runs.load(Ordering::SeqCst), 0, "nothing ran");
    assert_eq!(texts.budget.drawn(), 0);
    assert!(!texts.ask(&[""; 60]).is_refused());
    assert_eq!(texts.budget.drawn(), 0, "all of it is given back");
}

#[test]
fn texts_of_an_answer_are_refused_before_they_are_copied() {
    let mut texts = Texts::new(64 << 10, 10_000);
    assert!(!texts.ask(&["9000"]).is_refused());
    assert_eq!(texts.writer.made_bytes.swap(0, Ordering::SeqCst), 9_004);
    assert_eq!(texts.refusal(&["10000"], "limits.max_response_bytes"), Kind::TooLarge);
    // The part of a request that is cut has no more room than the whole.
    assert_eq!(texts.refusal(&["200"; 128], "limits.max_response_bytes"), Kind::TooLarge);
    assert_eq!(texts.writer.made_bytes.load(Ordering::SeqCst), 0, "refused, not made");
    let mut texts = Texts::new(64 << 10, 1 << 20);
    assert_eq!(texts.refusal(&["60000"], "limits.byte_budget"), Kind::OutOfBudget);
    assert_eq!(texts.refusal(&["3000"; 128], "limits.byte_budget"), Kind::OutOfBudget);
    assert_eq!(texts.writer.made_bytes.load(Ordering::SeqCst), 0, "refused, not made");
    assert!(!texts.ask(&["5"]).is_refused(), "and the next is answered");
    assert_eq!(texts.budget.drawn(), 0);
}

#[test]
fn a_batch_whose_texts_have_no_room_together_is_answered_one_by_one() {
    let mut texts = Texts::new(64 << 10, 1 << 20);
    let callers: Vec<Caller> = ["16000", "17000", "18000"].map(|text| texts.send(&[text])).into();
    let answers = texts.answered(&callers.iter().collect::<Vec<_>>());
    assert!(texts.writer.runs.load(Ordering::SeqCst) > 1, "the batch was refused");
    assert!(!answers.iter().any(Got::is_refused), "{answers:?}");
}

/// A request's bytes, with a sign that they are gone.
struct Watched(Vec<u8>, Arc<AtomicBool>);

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.1.store(true, Ordering::SeqCst);
    }
}

#[test]
fn texts_that_run_alone_are_read_where_they_are_and_let_go() {
    let mut texts = Texts::new(1 << 20, 1 << 20);
    let is_gone = Arc::new(AtomicBool::new(false));
    let data = Bytes::from_owner(Watched(vec![0; 40], Arc::clone(&is_gone)));
    let place = data.as_ptr() as usize;
    let caller = texts.send_bytes(10, data);
    let answers = texts.answered(&[&caller]);
    assert_eq!(answers[0].values().len(), 10);
    assert_eq!(texts.writer.read_from.load(Ordering::SeqCst), place);
    assert!(is_gone.load(Ordering::SeqCst), "a thread that rests keeps no request's bytes");
    // The memory of a batch says nothing of the next, which has no bytes at all.
    let caller = texts.send_bytes(0, Bytes::new());
    assert_eq!(texts.answered(&[&caller])[0].values().len(), 0);
}
