//! One HTTP/1.1 connection: its limits, its idle time, its age, and its end.
//!
//! hyper parses and frames; requests go to [`crate::http`]. A peer that stops reading is cut off by
//! [`crate::connection`]. Must not know routes.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use mlserve_core::config::LimitSettings;
use mlserve_core::request::Protocol;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

use self::activity::{Activity, Due, Schedule};
use self::body::ResponseBody;
use self::socket::{Observed, Refusals};
use crate::body::RequestBody;
use crate::event_loop::LoopContext;
use crate::http::{self, HttpRequest};
use crate::status::Phase;

mod activity;
mod body;
mod socket;

/// Bytes that a connection buffers at most, besides its header limit: large bodies come in few pieces, and thousands of
/// connections still cost little.
const MAX_BUFFER_BYTES: usize = 128 << 10;

/// hyper's own count of header fields; keeping it saves an allocation per request.
const HYPER_MAX_HEADERS: usize = 100;

/// Serves one HTTP/1.1 connection to its end: the peer closes it, it idles too long, it is too old, or the server closes.
pub(crate) async fn serve<Io>(context: LoopContext, io: Io)
where
    Io: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = &context.process().settings.limits;
    let builder = builder(limits);
    let schedule = Schedule::new(limits, Instant::now());
    let activity = Rc::new(Activity::new(Instant::now()));
    let service = service_fn(|request| answer(context.clone(), Rc::clone(&activity), request));
    let refusals = Refusals { max_header_bytes: limits.max_header_bytes, max_headers: limits.max_headers };
    let io = TokioIo::new(Observed::new(io, Rc::clone(&activity), refusals));
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut phase = context.process().status.subscribe();
    let closing = pin!(phase.wait_for(|&phase| phase == Phase::Closing));
    let timer = pin!(sleep_until(schedule.next(&activity)));
    let mut watch = Watch { closing, timer, schedule, activity: &activity, is_closing: false };
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                // Other errors are the peer's way of leaving; what it had in flight is dropped with the connection.
                if let Some(fault) = ended.err().filter(hyper::Error::is_parse) {
                    context.count_refused(Protocol::Http, &refusals.error(fault.is_parse_too_large()));
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

fn builder(limits: &LimitSettings) -> Builder {
    let mut builder = Builder::new();
    builder
        // Its timer would count idle time as header time; `Activity` tells them apart.
        .header_read_timeout(None)
        .max_header_size(limits.max_header_bytes)
        .max_buf_size(MAX_BUFFER_BYTES + limits.max_header_bytes)
        // A peer that closes its side is gone: its request is dropped instead of run for nobody.
        .half_close(false);
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
    let in_flight = activity.request_begins();
    let (head, body) = request.into_parts();
    let body = if body.is_end_stream() { RequestBody::Empty } else { RequestBody::Http1(body) };
    let request =
        HttpRequest { method: head.method, uri: head.uri, headers: head.headers, body, arrived: context.now() };
    let answer = http::handle(&context, request).await;
    let mut response = Response::new(ResponseBody::new(answer.body, answer.reservation, in_flight));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    Ok(response)
}

/// How a connection is to end.
enum End {
    /// After what is in flight.
    Graceful,
    /// Now.
    AtOnce,
}

/// What ends a connection from our side.
struct Watch<'a, Closing> {
    closing: std::pin::Pin<&'a mut Closing>,
    timer: std::pin::Pin<&'a mut Sleep>,
    schedule: Schedule,
    activity: &'a Activity,
    is_closing: bool,
}

impl<Closing: Future> Watch<'_, Closing> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if !self.is_closing && self.closing.as_mut().poll(cx).is_ready() {
            self.is_closing = true;
            return Poll::Ready(End::Graceful);
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
                Some(Due::Idle | Due::Age) => return Poll::Ready(End::Graceful),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
