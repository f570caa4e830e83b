//! Requests in plain JSON, without names, types or shapes for each tensor: `KServe` V1, `/predict` and `generate`.
//!
//! One way for all of them: the body is read, the version that the path means says what the values are, the request goes
//! through the pipeline like any other, and its answer is written in the form of its route.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, StatusCode};
use mlserve_core::config::LimitSettings;
use mlserve_core::error::{Error, Kind, Result};
use mlserve_core::failpoint;
use mlserve_core::request::{Answer, Protocol, Reply, Request};
use mlserve_core::version::Version;
use tokio::sync::oneshot;

use super::access::Trail;
use super::draft::Draft;
use super::encode::Encoded;
use super::find::find;
use super::generate;
use super::headers::Fields;
use super::infer::{MAX_BYTES_ON_LOOP, finished, inflated, off_loop};
use super::json::Cursor;
use super::route::Target;
use super::rows::Rows;
use super::split::Blobs;
use super::status::{Refusal, error_response};
use super::texts::text_bytes;
use super::values::Reader;
use super::wanted::Wants;
use super::{HttpRequest, HttpResponse, predict, v1};
use crate::body::Collected;
use crate::event_loop::LoopContext;
use crate::process::Process;

/// A way to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `KServe`'s first protocol, which is TensorFlow Serving's.
    V1,
    /// `/predict`.
    Predict,
    /// Triton's generate extension.
    Generate,
    /// The same, answered as server-sent events.
    GenerateStream,
}

/// What an answer is written with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writing {
    /// Bytes of the answer at most.
    pub(super) limit: usize,
    /// Since the request arrived.
    pub(super) elapsed: Duration,
}

/// A request, and the form of its answer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) form: Form,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// V1's `predictions`, one for each row.
    Predictions(Rows),
    /// V1's `outputs`, by name.
    Columns,
    /// `prediction` and `confidence`.
    Prediction(Rows),
    /// Outputs beside the model's name.
    Generated,
    /// The same as one event.
    Event,
}

impl Form {
    fn write(self, draft: &Draft<'_>, writing: Writing) -> Result<Vec<u8>> {
        let json = match self {
            Form::Predictions(rows) => v1::write_rows(draft, rows, writing.limit),
            Form::Columns => v1::write_columns(draft, writing.limit),
            Form::Prediction(rows) => predict::write(draft, rows, writing),
            Form::Generated => generate::write(draft, writing.limit),
            Form::Event => generate::write(draft, writing.limit).map(|json| [b"data: ", &json[..], b"\n\n"].concat()),
        }?;
        if json.len() > writing.limit { Err(super::write::too_large(writing.limit)) } else { Ok(json) }
    }

    fn content_type(self) -> &'static str {
        if self == Form::Event { "text/event-stream; charset=utf-8" } else { "application/json" }
    }
}

/// Answers a request of `dialect`.
///
/// **Errors:** what was refused before it was submitted; later failures are answers.
pub(super) async fn answer(
    context: &LoopContext,
    dialect: Dialect,
    request: HttpRequest,
    target: Target,
    trail: &mut Trail,
) -> Result<HttpResponse, Refusal> {
    let limits = &context.process().settings.limits;
    let fields = Fields::read(&request.headers, context.arrival())?;
    let body = request.body.collect(context, limits.max_body_bytes, fields.content_length).await?;
    trail.body_was(body.len);
    let body = inflated(context, fields.encoding, body).await?;
    let version = find(context, &target, fields.deadline).await?;
    let job = Job { process: Arc::clone(context.process()), version, dialect, body };
    let asked = if job.body.len > MAX_BYTES_ON_LOOP {
        off_loop(context.process(), move || job.run()).await?
    } else {
        job.run()
    };
    let Asked { request: mut inference, form } = asked?;
    inference.protocol = Protocol::Http;
    inference.arrived = Some(request.arrived);
    inference.model_name = target.model;
    inference.model_version = target.version;
    inference.deadline = fields.deadline;
    trail.request_is(&inference);
    let draft = submitted(context, inference).await;
    let elapsed = context.now().saturating_duration_since(request.arrived);
    let writing = Writing { limit: limits.max_response_bytes, elapsed };
    let response = async {
        let draft = draft?;
        trail.version_was(draft.version);
        let encoded = written(context, draft, form, writing).await?;
        finished(context, encoded, fields.accepts, content_type(form)).await
    };
    // The pipeline has counted this one.
    Ok(response.await.unwrap_or_else(|error| {
        trail.failed(&error);
        error_response(&error)
    }))
}

fn content_type(form: Form) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    headers
}

/// Parsing, ready to be done on any thread.
struct Job {
    process: Arc<Process>,
    version: Arc<Version>,
    dialect: Dialect,
    body: Collected,
}

impl Job {
    fn run(self) -> Result<Asked> {
        failpoint!("decode", error => return Err(error));
        let Collected { pieces, len, mut reservation } = self.body;
        let held = reservation.units();
        let body = Blobs::new(pieces).take_joined(len).unwrap_or_default();
        let limits: &LimitSettings = &self.process.settings.limits;
        let mut reader = Reader { spec: &self.version.spec, limits, reservation: &mut reservation };
        let cursor = Cursor::of_body(&body, limits.max_json_depth)?;
        let mut asked = match self.dialect {
            Dialect::V1 => v1::read(cursor, &mut reader),
            Dialect::Predict => predict::read(cursor, &mut reader),
            Dialect::Generate => generate::read(cursor, &mut reader, Form::Generated),
            Dialect::GenerateStream => generate::read(cursor, &mut reader, Form::Event),
        }?;
        // Nothing points into the text any more; only what was read from it is left.
        drop(body);
        let spent = held.saturating_sub(text_bytes(&asked.request));
        reservation.shrink_to(reservation.units().saturating_sub(spent));
        asked.request.reservation = Some(reservation);
        asked.request.walk();
        Ok(asked)
    }
}

/// Sends a request through the pipeline.
async fn submitted(context: &LoopContext, request: Request) -> Result<Draft<'static>> {
    let (sender, answer) = oneshot::channel();
    context.submit(request, Box::new(PlainReply { sender }));
    answer.await.unwrap_or_else(|_| Err(Error::internal("the request was lost")))
}

/// Brings an answer to its handler, to be written there.
struct PlainReply {
    sender: oneshot::Sender<Result<Draft<'static>>>,
}

impl Reply for PlainReply {
    fn is_gone(&mut self) -> bool {
        // The receiver is dropped with its handler, when the connection closes or the stream is reset.
        self.sender.is_closed()
    }

    fn send(self: Box<Self>, outcome: Result<Answer<'_>, Error>) {
        let draft = outcome.and_then(|answer| Draft::new(answer, &Wants::default(), false)).map(Draft::into_owned);
        // If nobody waits any more, the answer and what it holds are dropped here.
        drop(self.sender.send(draft));
    }
}

/// The body of an answer.
async fn written(context: &LoopContext, draft: Draft<'static>, form: Form, writing: Writing) -> Result<Encoded> {
    let bytes = draft.json_bytes();
    let job = move || {
        let mut draft = draft;
        let mut reservation = draft.reservation.take();
        let json = form.write(&draft, writing)?;
        if let Some(reservation) = &mut reservation {
            // The text takes the place of the tensors it was written from.
            if !reservation.grow(json.capacity()) {
                return Err(out_of_budget(json.capacity()));
            }
            reservation.shrink_to(reservation.units().saturating_sub(bytes));
        }
        Ok(Encoded { pieces: vec![json.into()], json_length: None, reservation })
    };
    if bytes > MAX_BYTES_ON_LOOP { off_loop(context.process(), job).await? } else { job() }
}

/// The response for an answer in JSON that was made without the pipeline; it holds budget while it is written.
///
/// **Errors:** out of budget.
pub(super) fn counted(context: &LoopContext, headers: HeaderMap, body: impl Into<Bytes>) -> Result<HttpResponse> {
    let body = body.into();
    let reservation = Some(context.reserve(body.len())?);
    Ok(HttpResponse { status: StatusCode::OK, headers, body: vec![body], reservation })
}

#[cold]
fn out_of_budget(bytes: usize) -> Error {
    Error::new(
        Kind::OutOfBudget,
        format!("an answer of {bytes} bytes would exceed the server's byte budget (limits.byte_budget)"),
    )
}
