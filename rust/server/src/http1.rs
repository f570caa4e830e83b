//! One HTTP/1.1 connection: its limits, its idle time, its age, and its end.
//!
//! hyper parses and frames; requests go to [`crate::http`]. A peer that stops reading is cut off by
//! [`crate::connection`]. Must not know routes.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use ::http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use ::http::{HeaderValue, Version};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use mlserve_core::config::LimitSettings;
use mlserve_core::error::{Error, Kind, quoted};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use self::activity::{Activity, Due, Schedule};
use self::body::ResponseBody;
use self::heads::Fault;
use self::socket::{Observed, Refusals};
use crate::body::RequestBody;
use crate::connection::Meter;
use crate::event_loop::LoopContext;
use crate::http::{self, HttpRequest};
use crate::status::Phase;

mod activity;
mod body;
mod heads;
mod socket;

/// Bytes that a connection buffers at most, besides its header limit: large bodies come in few pieces, and thousands of
/// connections still cost little.
const MAX_BUFFER_BYTES: usize = 128 << 10;

/// hyper's own count of header fields; keeping it saves an allocation per request.
const HYPER_MAX_HEADERS: usize = 100;

/// What the last answer of a connection says.
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Serves one HTTP/1.1 connection to its end: the peer closes it, it idles too long, it is too old, or the server closes.
pub(crate) async fn serve<Io>(context: LoopContext, io: Io, meter: &Meter)
where
    Io: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = &context.process().settings.limits;
    let builder = builder(limits);
    let schedule = Schedule::new(limits, Instant::now());
    let activity = Rc::new(Activity::new(Instant::now()));
    let service = service_fn(|request| answer(context.clone(), Rc::clone(&activity), request));
    let refusals = Refusals { max_header_bytes: limits.max_header_bytes, max_headers: limits.max_headers };
    let socket = Observed::new(io, Rc::clone(&activity), refusals);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket.clone()), service));
    let closing = pin!(closing(context.process().status.subscribe(), &activity));
    let timer = pin!(sleep_until(schedule.next(&activity)));
    let mut watch = Watch { closing, timer, schedule, activity: &activity, socket: &socket, is_closing: false };
    poll_fn(|cx| {
        if meter.was_asked_to_leave() && activity.is_quiet() {
            return Poll::Ready(());
        }
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                // Other errors are the peer's way of leaving; what it had in flight is dropped with the connection.
                if let Some(fault) = ended.err().filter(hyper::Error::is_parse) {
                    http::unreadable(&context, &refusals.error(fault.is_parse_too_large()));
                }
                return Poll::Ready(());
            }
            match watch.poll(cx) {
                Poll::Ready(End::Graceful) => connection.as_mut().graceful_shutdown(),
                Poll::Ready(End::AtOnce) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}

/// Returns when the server closes; from its notice on, answers say that they are the last of their connection.
async fn closing(mut phases: watch::Receiver<Phase>, activity: &Activity) {
    // An error is a server that is gone altogether.
    if phases.wait_for(|&phase| phase >= Phase::Notice).await.is_ok() {
        activity.end_soon();
        drop(phases.wait_for(|&phase| phase >= Phase::Closing).await);
    }
}

fn builder(limits: &LimitSettings) -> Builder {
    let mut builder = Builder::new();
    builder
        // Its timer would count idle time as header time; `Activity` tells them apart.
        .header_read_timeout(None)
        .max_header_size(limits.max_header_bytes)
        .max_buf_size(MAX_BUFFER_BYTES + limits.max_header_bytes)
        // A peer that closes its side may wait for its answer; `Observed` looks whether it is gone.
        .half_close(true);
    if limits.max_headers != HYPER_MAX_HEADERS {
        builder.max_headers(limits.max_headers);
    }
    builder
}

async fn answer(
    context: LoopContext,
    activity: Rc<Activity>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let in_flight = activity.request_begins(request.version() >= Version::HTTP_11);
    let refused = activity.fault().map(Fault::error).or_else(|| check_head(&request).err());
    let is_refused = refused.is_some();
    let answer = match refused {
        None => http::handle(&context, request_of(&context, request)).await,
        Some(error) => {
            http::unreadable(&context, &error);
            http::error_response(&error)
        }
    };
    activity.answer_is_made();
    let mut response = Response::new(ResponseBody::new(answer.body, answer.reservation, in_flight));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    // Where a request ends that is not framed soundly nobody knows.
    if is_refused || activity.is_ending() {
        response.headers_mut().insert(CONNECTION, CLOSE);
    }
    Ok(response)
}

fn request_of(context: &LoopContext, request: Request<Incoming>) -> HttpRequest {
    let (head, body) = request.into_parts();
    let body = if body.is_end_stream() { RequestBody::Empty } else { RequestBody::Http1(body) };
    HttpRequest { method: head.method, uri: head.uri, headers: head.headers, body, arrived: context.now() }
}

/// Checks what hyper leaves to its user (RFC 9112, sections 3.2 and 6.1).
///
/// **Errors:** no or several hosts; a transfer coding other than chunked.
fn check_head(request: &Request<Incoming>) -> Result<(), Error> {
    let headers = request.headers();
    if request.version() >= Version::HTTP_11 && headers.get_all(HOST).iter().take(2).count() != 1 {
        return Err(Error::invalid("the request must have one host field, and one only"));
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next().map(HeaderValue::as_bytes), codings.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if only.trim_ascii().eq_ignore_ascii_case(b"chunked") => Ok(()),
        (Some(first), _) => Err(other_coding(first)),
    }
}

#[cold]
fn other_coding(codings: &[u8]) -> Error {
    let codings = String::from_utf8_lossy(codings).to_ascii_lowercase();
    let shown = quoted(&codings);
    let known = ["gzip", "x-gzip", "deflate", "compress", "x-compress"];
    if codings.split(',').any(|coding| known.contains(&coding.trim())) {
        let text =
            format!("transfer-encoding '{shown}' is not offered; chunked is, and content-encoding: gzip, deflate");
        return Error::new(Kind::NotOffered, text);
    }
    Error::invalid(format!("transfer-encoding '{shown}' is none; chunked alone is allowed"))
}

/// How a connection is to end.
enum End {
    /// After what is in flight.
    Graceful,
    /// Now.
    AtOnce,
}

/// What ends a connection from our side.
struct Watch<'a, Closing, Io> {
    closing: std::pin::Pin<&'a mut Closing>,
    timer: std::pin::Pin<&'a mut Sleep>,
    schedule: Schedule,
    activity: &'a Activity,
    socket: &'a Observed<Io>,
    is_closing: bool,
}

impl<Closing: Future, Io: AsyncRead + AsyncWrite + Unpin> Watch<'_, Closing, Io> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if !self.is_closing && self.closing.as_mut().poll(cx).is_ready() {
            self.is_closing = true;
            self.schedule.close(Instant::now());
        }
        if self.socket.poll_gone(cx).is_ready() {
            return Poll::Ready(End::AtOnce);
        }
        loop {
            // The timer is only ever moved forward in time here, and back when it fires: most polls leave it alone.
            let next = self.schedule.next(self.activity);
            if next < self.timer.deadline() {
                self.timer.as_mut().reset(next);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let due = self.schedule.due(self.activity, Instant::now());
            self.timer.as_mut().reset(self.schedule.next(self.activity));
            match due {
                Some(Due::Header) => return Poll::Ready(End::AtOnce),
                Some(Due::Idle) => return Poll::Ready(End::Graceful),
                // To close it now could cross a request that is under way.
                Some(Due::Age) => self.activity.end_soon(),
                Some(Due::Look) if self.socket.is_gone(cx) => return Poll::Ready(End::AtOnce),
                Some(Due::Look) | None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
