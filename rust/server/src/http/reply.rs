//! The way back from the pipeline to the request's handler. Hot path.
//!
//! Small answers are encoded where they are sent, while the version can be borrowed; large ones leave the loop first.

use mlserve_core::error::{Error, Result};
use mlserve_core::request::{Answer, Reply};
use tokio::sync::oneshot;

use super::draft::Draft;
use super::encode::{Encoded, encode};
use super::wanted::Wants;
use crate::shared_memory::{Destinations, Writes};

/// How an answer reaches its handler.
#[derive(Debug)]
pub(super) enum Form {
    /// Ready to be written.
    Encoded(Encoded),
    /// Too large to be encoded on the loop.
    Draft(Box<Draft<'static>>),
}

/// An answer, and the version that gave it.
#[derive(Debug)]
pub(super) struct Delivered {
    /// For the access log.
    pub(super) version: u64,
    /// What is to be written.
    pub(super) form: Form,
    /// To be carried out before it is written.
    pub(super) writes: Option<Box<Writes>>,
}

/// How answers are to be encoded.
#[derive(Debug)]
pub(super) struct Manner {
    /// Which outputs are binary.
    pub(super) wants: Wants,
    /// Where outputs go that do not go into the body.
    pub(super) destinations: Option<Box<Destinations>>,
    /// Whether the answer tells which batch it shared.
    pub(super) report_batches: bool,
    /// Bytes of an answer at most.
    pub(super) max_bytes: usize,
    /// Bytes of tensors above which JSON is written off the loop.
    pub(super) max_bytes_on_loop: usize,
}

/// Answers one HTTP request.
pub(super) struct HttpReply {
    sender: oneshot::Sender<Result<Delivered>>,
    manner: Manner,
}

impl HttpReply {
    /// A reply, and where its answer arrives.
    pub(super) fn new(manner: Manner) -> (Box<Self>, oneshot::Receiver<Result<Delivered>>) {
        let (sender, receiver) = oneshot::channel();
        (Box::new(Self { sender, manner }), receiver)
    }
}

impl Reply for HttpReply {
    fn is_gone(&mut self) -> bool {
        // The receiver is dropped with its handler, when the connection closes or the stream is reset.
        self.sender.is_closed()
    }

    fn send(self: Box<Self>, outcome: Result<Answer<'_>, Error>) {
        let Self { sender, manner } = *self;
        let delivered = outcome.and_then(|answer| prepare(answer, manner));
        // If nobody waits any more, the answer and what it holds are dropped here.
        drop(sender.send(delivered));
    }
}

fn prepare(mut answer: Answer<'_>, manner: Manner) -> Result<Delivered> {
    let writes = manner.destinations.map(|destinations| destinations.take(&mut answer)).transpose()?.map(Box::new);
    let draft = Draft::new(answer, &manner.wants, manner.report_batches)?;
    let version = draft.version;
    let form = if draft.json_bytes() > manner.max_bytes_on_loop {
        Form::Draft(Box::new(draft.into_owned()))
    } else {
        Form::Encoded(encode(draft, manner.max_bytes)?)
    };
    Ok(Delivered { version, form, writes })
}
