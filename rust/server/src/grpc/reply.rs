//! Stage 10 for gRPC: one answer, or one error, into its HTTP/2 stream. Hot path.
//!
//! An answer that the reader has room for is handed to the connection at once, with its header and trailers; only a
//! lagging reader costs a task. Must not block, and must not touch the pipeline: replies are given from inside it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;
use h2::SendStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response, header};
use mlserve_core::budget::Reservation;
use mlserve_core::error::{Error, Kind};
use mlserve_core::failpoint;
use mlserve_core::request::{Answer, Reply};
use smallvec::SmallVec;

use super::asker::Asker;
use super::encode::{self, Extras, Message};
use super::frame;
use super::status;
use super::trail::Trail;
use crate::http2::Connected;
use crate::http2::writer::{COUNTED_BYTES, Patience, Writer, write_now};
use crate::inflate::Encoding;
use crate::metadata::Echo;
use crate::panics::{self, Place};
use crate::process::Process;
use crate::share::Share;
use crate::shared_memory::Destinations;

/// Answers below this size are not compressed: the stream's own header is as large.
const LEAST_COMPRESSED: usize = 256;

/// Answers above this size are compressed off the event loop.
const MOST_COMPRESSED_HERE: usize = 128 << 10;

/// What is the same for all answers of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplySettings {
    /// How slow a reader may be.
    pub(crate) patience: Patience,
    /// Tell in the answer which batch it shared (test mode).
    pub(crate) reports_batches: bool,
}

/// The way back to one call.
pub(crate) struct Responder {
    respond: SendResponse<Bytes>,
    settings: ReplySettings,
    encoding: Encoding,
    echo: Option<Box<Echo>>,
    share: Arc<Share>,
    /// For the access log; `None` while it is off.
    pub(crate) trail: Option<Box<Trail>>,
    /// For the log.
    pub(super) asker: Asker,
}

impl Responder {
    /// A way back over `respond`, compressing as `encoding` says.
    pub(super) fn new(
        respond: SendResponse<Bytes>,
        connected: &Connected,
        encoding: Encoding,
        echo: Echo,
        trail: Option<Box<Trail>>,
        asker: Asker,
    ) -> Self {
        let echo = if echo.is_empty() { None } else { Some(Box::new(echo)) };
        let share = Arc::clone(connected.context.share());
        Self { respond, settings: connected.reply, encoding, echo, share, trail, asker }
    }

    /// What is the same for all answers of the connection.
    pub(crate) fn settings(&self) -> ReplySettings {
        self.settings
    }

    /// Whether the caller has reset the stream or lost the connection.
    pub(crate) fn is_gone(&mut self) -> bool {
        self.respond.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Carries out `work` while the caller is there; `None` once it has left, and with it goes the work.
    pub(super) async fn unless_gone<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            _ = poll_fn(|cx| self.respond.poll_reset(cx)) => None,
            done = work => Some(done),
        }
    }

    fn head(&self) -> Response<()> {
        // Most answers carry nothing but their type.
        let mut headers = HeaderMap::with_capacity(1);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        if self.encoding != Encoding::Identity {
            headers.insert("grpc-encoding", HeaderValue::from_static(self.encoding.name()));
        }
        if let Some(echo) = &self.echo {
            echo.insert(&mut headers);
        }
        let mut head = Response::new(());
        *head.headers_mut() = headers;
        head
    }

    /// Answers with an error and nothing else ("Trailers-Only").
    pub(crate) fn refuse(mut self, error: &Error) {
        self.encoding = Encoding::Identity;
        let mut head = self.head();
        status::insert(head.headers_mut(), error);
        if error.kind() == Kind::NotOffered {
            // So that a caller with another encoding learns what it may use.
            head.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static("identity,deflate,gzip"));
        }
        self.asker.failed(error);
        self.ended(Some(error.kind()), 0);
        // Fails only if the stream is gone, and then nobody wants the error.
        let _ = self.respond.send_response(head, true);
    }

    /// Answers with one message. `reservation` is held until its bytes have been written.
    pub(crate) fn send(self, message: Message, reservation: Option<Reservation>) {
        let len = message.len();
        let pieces = message.into_pieces();
        if is_worth_compressing(self.encoding, len) {
            tokio::spawn(async move {
                let pieces = compressed(self.encoding, pieces).await;
                let len = pieces.iter().map(Bytes::len).sum();
                self.write(pieces, len, reservation);
            });
        } else {
            self.write(pieces, len, reservation);
        }
    }

    fn write(mut self, pieces: SmallVec<[Bytes; 2]>, len: usize, mut reservation: Option<Reservation>) {
        let head = self.head();
        // Errors here mean that the stream is gone: dropping everything is all there is to do.
        let Ok(mut stream) = self.respond.send_response(head, false) else { return self.ended(None, len) };
        let mut pieces = pieces.into_iter();
        match write_now(&mut stream, &mut pieces, len, &mut reservation) {
            Ok(true) => {
                let _ = stream.send_trailers(status::ok_trailers());
            }
            Ok(false) => {
                let mut waiting = self.share.hold();
                if len > COUNTED_BYTES
                    && let Err(error) = waiting.take_answer(len)
                {
                    self.asker.failed(&error);
                    // Its header is on its way, so the error comes in the trailers.
                    let _ = stream.send_trailers(status::trailers(Some(&error)));
                    return self.ended(Some(error.kind()), 0);
                }
                let mut writer = Writer::new(stream, self.settings.patience);
                writer.hold(waiting);
                writer.push(pieces, reservation);
                tokio::spawn(async move {
                    if writer.flush().await.is_ok() {
                        writer.finish(status::ok_trailers());
                    }
                });
            }
            Err(_) => {}
        }
        self.ended(None, len);
    }

    /// Ends the access log's line.
    fn ended(&mut self, failed: Option<Kind>, bytes_out: usize) {
        if let Some(trail) = self.trail.take() {
            trail.finish(failed, bytes_out);
        }
    }

    /// The stream itself, for an answer that comes with its own header.
    pub(crate) fn into_raw(self) -> (SendResponse<Bytes>, Patience) {
        (self.respond, self.settings.patience)
    }

    /// Begins an answer of many messages, and ends the access log's line unless it has been taken.
    pub(crate) fn open(mut self) -> Option<SendStream<Bytes>> {
        self.ended(None, 0);
        let head = self.head();
        self.respond.send_response(head, false).ok()
    }
}

fn is_worth_compressing(encoding: Encoding, len: usize) -> bool {
    encoding != Encoding::Identity && len >= LEAST_COMPRESSED
}

/// A message as the stream's encoding wants it, compressed off the loop where that takes long.
pub(crate) async fn compressed(encoding: Encoding, pieces: SmallVec<[Bytes; 2]>) -> SmallVec<[Bytes; 2]> {
    let len = pieces.iter().map(Bytes::len).sum();
    if !is_worth_compressing(encoding, len) {
        return pieces;
    }
    let framed = if len <= MOST_COMPRESSED_HERE {
        frame::compress(encoding, &pieces)
    } else {
        let copies = pieces.clone();
        match tokio::task::spawn_blocking(move || frame::compress(encoding, &copies)).await {
            Ok(framed) => framed,
            // A panic in the compressor is a bug; the message may go out as it is.
            Err(_) => return pieces,
        }
    };
    SmallVec::from_iter([framed.into()])
}

/// Runs `work` on a thread that may take its time. A panic there ends this call alone.
///
/// **Errors:** it panicked, or the server ended.
pub(crate) async fn off_loop<T: Send + 'static>(
    process: &Process,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        if let Ok(payload) = error.try_into_panic() {
            process.panics.note(Place::Decoder, &panics::text(&*payload));
        }
        Err(Error::internal("the request could not be worked on"))
    })
}

/// The way back to one `ModelInfer`.
pub(crate) struct InferReply {
    /// Its stream, until it is answered.
    responder: Option<Responder>,
    /// Where outputs go that do not go into the message.
    destinations: Option<Box<Destinations>>,
}

impl InferReply {
    /// A reply over `responder`.
    pub(crate) fn new(responder: Responder, destinations: Option<Box<Destinations>>) -> Self {
        Self { responder: Some(responder), destinations }
    }
}

impl Drop for InferReply {
    /// A request that was lost on its way, by a fault of the server, is answered all the same.
    fn drop(&mut self) {
        if let Some(responder) = self.responder.take() {
            responder.refuse(&Error::internal("the request was lost"));
        }
    }
}

impl Reply for InferReply {
    fn is_gone(&mut self) -> bool {
        self.responder.as_mut().is_none_or(Responder::is_gone)
    }

    fn send(mut self: Box<Self>, outcome: Result<Answer<'_>, Error>) {
        failpoint!("grpc_reply");
        let Some(mut responder) = self.responder.take() else { return };
        let destinations = self.destinations.take();
        match outcome {
            Ok(mut answer) => {
                let writes = destinations.map(|destinations| destinations.take(&mut answer)).transpose();
                let writes = match writes {
                    Ok(writes) => writes,
                    Err(error) => return responder.refuse(&error),
                };
                let extras = Extras { reports_batch: responder.settings.reports_batches, is_streamed: false };
                let reservation = answer.reservation.take();
                let message = encode::encode(&answer, extras);
                if let Some(trail) = &mut responder.trail {
                    trail.answered_by(answer.version.spec.version);
                }
                match writes {
                    None => responder.send(message, reservation),
                    Some(writes) => writes.then(reservation, |written, reservation| match written {
                        Ok(()) => responder.send(message, reservation),
                        Err(error) => responder.refuse(&error),
                    }),
                }
            }
            Err(error) => responder.refuse(&error),
        }
    }
}
