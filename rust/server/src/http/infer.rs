//! `POST …/infer`: reads and decodes a body, submits it, and writes what comes back. Hot path.
//!
//! Whatever could keep the loop from its other requests (parsing, inflating or writing much) runs on another thread.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use mlserve_core::error::{Error, Kind, Result};
use mlserve_core::failpoint;
use mlserve_core::request::{Protocol, Text};
use smallvec::smallvec;

use super::access::Trail;
use super::decode::{Decoded, Source, decode};
use super::encode::{Encoded, encode};
use super::find::find;
use super::headers::{Fields, JSON_LENGTH, Layout};
use super::reply::{Delivered, Form, HttpReply, Manner};
use super::route::Target;
use super::split::Blobs;
use super::status::{Refusal, error_response};
use super::texts::text_bytes;
use super::{HttpRequest, HttpResponse, raw};
use crate::body::Collected;
use crate::event_loop::LoopContext;
use crate::inflate::{Encoding, deflate, inflate_reserved};
use crate::panics::{self, Place};
use crate::process::Process;
use crate::shared_memory::attach;

/// Bytes that are parsed, inflated or written as JSON on the loop at most: about half a millisecond.
pub(super) const MAX_BYTES_ON_LOOP: usize = 128 << 10;

/// Bytes of an answer that are deflated on the loop at most: about as long.
const MAX_DEFLATED_ON_LOOP: usize = 32 << 10;

/// Answers below this size are not deflated: the header field and the dictionary eat the gain.
const MIN_DEFLATED: usize = 1 << 10;

/// Answers an inference request.
///
/// **Errors:** what was refused before it was submitted; later failures are answers.
pub(super) async fn infer(
    context: &LoopContext,
    request: HttpRequest,
    target: Target,
    trail: &mut Trail,
) -> Result<HttpResponse, Refusal> {
    let settings = &context.process().settings;
    let fields = Fields::read(&request.headers, context.arrival())?;
    let body = request.body.collect(context, settings.limits.max_body_bytes, fields.content_length).await?;
    trail.body_was(body.len);
    let body = inflated(context, fields.encoding, body).await?;
    let Decoded { request: mut inference, wants, shared } = decoded(context, &fields, &target, body).await?;
    inference.protocol = Protocol::Http;
    inference.arrived = Some(request.arrived);
    inference.model_name = target.model;
    inference.model_version = target.version;
    inference.deadline = fields.deadline;
    trail.request_is(&inference);
    let mut destinations = None;
    if let Some(shared) = shared {
        (inference, destinations) = attach(context.process(), shared, inference).await?;
    }
    if inference.has_to_be_walked() {
        let work = move || {
            inference.walk();
            inference
        };
        inference = off_loop(context.process(), work).await?;
    }
    let (reply, answer) = HttpReply::new(Manner {
        wants,
        destinations,
        report_batches: settings.server.report_batches,
        max_bytes: settings.limits.max_response_bytes,
        max_bytes_on_loop: MAX_BYTES_ON_LOOP,
    });
    context.submit(inference, reply);
    let delivered = answer.await.unwrap_or_else(|_| Err(Error::internal("the request was lost")));
    let written = match delivered {
        Ok(delivered) => written(context, delivered, fields.accepts, trail).await,
        Err(error) => Err(error),
    };
    // The pipeline has counted this one.
    Ok(written.unwrap_or_else(|error| {
        trail.failed(&error);
        error_response(&error)
    }))
}

/// The body without its encoding.
pub(super) async fn inflated(context: &LoopContext, encoding: Encoding, mut body: Collected) -> Result<Collected> {
    if encoding == Encoding::Identity {
        return Ok(body);
    }
    let limit = context.process().settings.limits.max_body_bytes;
    let quick = if body.len > MAX_BYTES_ON_LOOP {
        None
    } else {
        let attempt = inflate_reserved(encoding, &body.pieces, limit.min(MAX_BYTES_ON_LOOP), &mut body.reservation);
        // How much comes out is known only afterwards; if it is much, another thread starts again.
        match attempt {
            Err(error) if error.kind() == Kind::TooLarge && limit > MAX_BYTES_ON_LOOP => None,
            finished => Some(finished?),
        }
    };
    body.reservation.shrink_to(body.reservation.units().min(body.len + quick.as_ref().map_or(0, Vec::len)));
    let (output, mut reservation) = match quick {
        Some(output) => (output, body.reservation),
        None => {
            off_loop(context.process(), move || {
                let Collected { pieces, mut reservation, .. } = body;
                inflate_reserved(encoding, &pieces, limit, &mut reservation).map(|output| (output, reservation))
            })
            .await??
        }
    };
    // What the buffer grew to, not what is in it: that is what the memory is.
    reservation.shrink_to(output.capacity());
    Ok(Collected { len: output.len(), pieces: smallvec![output.into()], reservation })
}

/// The request that the body holds.
async fn decoded(context: &LoopContext, fields: &Fields, target: &Target, body: Collected) -> Result<Decoded> {
    match fields.layout(body.len)? {
        Layout::Raw => {
            let version = find(context, target, fields.deadline).await?;
            let mut blobs = Blobs::new(body.pieces);
            let bytes = blobs.take(body.len).unwrap_or_default();
            let mut decoded = raw::decode(bytes, &version.spec)?;
            decoded.request.reservation = Some(body.reservation);
            Ok(decoded)
        }
        Layout::Json(length) => {
            let job = Job { process: Arc::clone(context.process()), model: target.model.clone(), length, body };
            if length > MAX_BYTES_ON_LOOP { off_loop(context.process(), move || job.run()).await? } else { job.run() }
        }
    }
}

/// Decoding, ready to be done on any thread.
struct Job {
    process: Arc<Process>,
    model: Text,
    length: usize,
    body: Collected,
}

impl Job {
    fn run(self) -> Result<Decoded> {
        failpoint!("decode", error => return Err(error));
        let Collected { pieces, len, mut reservation } = self.body;
        let held = reservation.units();
        let mut blobs = Blobs::new(pieces);
        let json = blobs.take_joined(self.length).unwrap_or_default();
        let limits = &self.process.settings.limits;
        let mut source = Source { model: &self.model, limits, reservation: &mut reservation, blobs };
        let mut decoded = decode(&json, &mut source)?;
        if self.length == len {
            // Nothing points into the text any more; only what was read from it is left.
            drop(json);
            let spent = held.saturating_sub(text_bytes(&decoded.request));
            reservation.shrink_to(reservation.units().saturating_sub(spent));
        }
        decoded.request.reservation = Some(reservation);
        Ok(decoded)
    }
}

/// The response for an answer.
async fn written(
    context: &LoopContext,
    delivered: Delivered,
    accepts: Encoding,
    trail: &mut Trail,
) -> Result<HttpResponse> {
    trail.version_was(delivered.version);
    let limit = context.process().settings.limits.max_response_bytes;
    let mut encoded = match delivered.form {
        Form::Encoded(encoded) => encoded,
        Form::Draft(draft) => off_loop(context.process(), move || encode(*draft, limit)).await??,
    };
    if let Some(writes) = delivered.writes {
        let bytes = writes.bytes();
        writes.finish().await?;
        if let Some(reservation) = &mut encoded.reservation {
            reservation.shrink_to(reservation.units().saturating_sub(bytes));
        }
    }
    let mut headers = HeaderMap::with_capacity(8);
    let content_type = match encoded.json_length {
        Some(length) => {
            headers.insert(JSON_LENGTH, HeaderValue::from(length));
            "application/octet-stream"
        }
        None => "application/json",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    finished(context, encoded, accepts, headers).await
}

/// The response that carries `encoded`, deflated if the caller likes that and it pays.
pub(super) async fn finished(
    context: &LoopContext,
    encoded: Encoded,
    accepts: Encoding,
    mut headers: HeaderMap,
) -> Result<HttpResponse> {
    let encoded = if accepts == Encoding::Identity || encoded.len() < MIN_DEFLATED {
        encoded
    } else {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(accepts.name()));
        deflated(context, encoded, accepts).await?
    };
    Ok(HttpResponse { status: StatusCode::OK, headers, body: encoded.pieces, reservation: encoded.reservation })
}

async fn deflated(context: &LoopContext, encoded: Encoded, encoding: Encoding) -> Result<Encoded> {
    let len = encoded.len();
    let job = move || {
        let deflated: Bytes = deflate(encoding, &encoded.pieces).into();
        let mut reservation = encoded.reservation;
        if let Some(reservation) = &mut reservation {
            reservation.shrink_to(deflated.len());
        }
        Encoded { pieces: vec![deflated], json_length: encoded.json_length, reservation }
    };
    if len > MAX_DEFLATED_ON_LOOP { off_loop(context.process(), job).await } else { Ok(job()) }
}

/// Runs `job` on a thread where it may take its time. A panic there ends this request alone.
pub(super) async fn off_loop<Output: Send + 'static>(
    process: &Process,
    job: impl FnOnce() -> Output + Send + 'static,
) -> Result<Output> {
    tokio::task::spawn_blocking(job).await.map_err(|error| {
        // If it is none, the end of the server has cut the job off.
        if let Ok(payload) = error.try_into_panic() {
            process.panics.note(Place::Decoder, &panics::text(&*payload));
        }
        Error::internal("the request could not be worked on")
    })
}
