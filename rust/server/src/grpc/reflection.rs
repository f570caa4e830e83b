//! Server reflection, v1 and v1alpha: tonic's service, carried over our own HTTP/2 streams.
//!
//! Off the hot path. A connection makes the service when it first asks, and keeps it: most never ask, and making it
//! reads every descriptor.

use std::cell::OnceCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::{Body as _, Frame};
use mlserve_core::error::{Error, Kind};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic_reflection::server::Builder;

use super::health::closing;
use super::reply::Responder;
use super::status;
use crate::event_loop::LoopContext;
use crate::http2::writer::{Gone, Writer};
use crate::proto;
use crate::status::Phase;

/// Bytes of one reflection request; they hold a name.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// Streams of one connection at once: each takes some 20 KB as long as it is open, and a tool needs one.
const MAX_STREAMS: usize = 4;

/// Version 1 of the protocol.
pub(super) const V1_PATH: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
/// The version before it, which most tools still ask for.
pub(super) const V1ALPHA_PATH: &str = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;
type Handler = Box<dyn Fn(Request<Inbound>) -> Answering>;

/// A stream that has begun, until it is dropped.
pub(super) struct Begun {
    answering: Answering,
    _open: Rc<()>,
}

/// A connection's reflection services.
#[derive(Default)]
pub(crate) struct Reflection {
    /// Held by each stream that is open.
    open: Rc<()>,
    v1: OnceCell<Option<Handler>>,
    v1alpha: OnceCell<Option<Handler>>,
}

impl Reflection {
    /// Begins to answer a call of `path` (one of the two).
    ///
    /// **Errors:** too many of the connection's streams are open.
    pub(super) fn call(&self, path: &'static str, body: RecvStream) -> Result<Begun, Error> {
        let open = Rc::clone(&self.open);
        // One is our own, one the new stream's.
        if Rc::strong_count(&open) - 1 > MAX_STREAMS {
            let text = format!("a connection may have {MAX_STREAMS} streams of reflection open at once");
            return Err(Error::new(Kind::TooManyRequests, text));
        }
        let handler = match path {
            V1_PATH => self.v1.get_or_init(v1),
            _ => self.v1alpha.get_or_init(v1alpha),
        };
        let Some(handler) = handler else { return Err(Error::internal("reflection is not available")) };
        let mut request = Request::new(Inbound(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(path);
        request.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
        Ok(Begun { answering: handler(request), _open: open })
    }
}

fn builder() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// `None` only if the descriptors were broken, which a test excludes.
fn v1() -> Option<Handler> {
    let server = builder().build_v1().ok()?.max_decoding_message_size(MAX_MESSAGE_BYTES);
    Some(Box::new(move |request| server.clone().call(request)))
}

fn v1alpha() -> Option<Handler> {
    let server = builder().build_v1alpha().ok()?.max_decoding_message_size(MAX_MESSAGE_BYTES);
    Some(Box::new(move |request| server.clone().call(request)))
}

/// Carries tonic's answer into the stream, until either side or the server ends it.
pub(super) async fn answer(context: LoopContext, begun: Begun, responder: Responder) {
    let Begun { answering, _open } = begun;
    let Ok(response) = answering.await;
    let (mut respond, patience) = responder.into_raw();
    let (parts, mut body) = response.into_parts();
    let is_end = body.is_end_stream();
    let Ok(stream) = respond.send_response(Response::from_parts(parts, ()), is_end) else { return };
    if is_end {
        return;
    }
    let mut writer = Writer::new(stream, patience);
    let mut phases = context.process().status.subscribe();
    let is_closing = phases.wait_for(|phase| *phase >= Phase::Closing);
    let ended = tokio::select! {
        ended = pump(&mut body, &mut writer) => ended,
        _ = is_closing => Ok(Some(status::trailers(Some(&closing())))),
    };
    match ended {
        Ok(Some(trailers)) => writer.finish(trailers),
        Ok(None) => writer.end(),
        Err(Gone) => {}
    }
}

/// Writes the body's data; its trailers, if any, come back.
async fn pump(body: &mut Body, writer: &mut Writer) -> Result<Option<HeaderMap>, Gone> {
    loop {
        let frame = tokio::select! {
            frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)) => frame,
            () = writer.gone() => return Err(Gone),
        };
        let Some(frame) = frame else { return Ok(None) };
        match frame.map_err(|_| Gone)?.into_data() {
            Ok(data) => {
                writer.push([data], None);
                writer.flush().await?;
            }
            Err(frame) => return Ok(frame.into_trailers().ok()),
        }
    }
}

/// A request's body as tonic reads it.
struct Inbound(RecvStream);

impl http_body::Body for Inbound {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        match ready!(self.0.poll_data(cx)) {
            Some(Ok(data)) => {
                // tonic stops reading at the largest message it takes, so what it has read may be made room for.
                let _ = self.0.flow_control().release_capacity(data.len());
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_are_sound() {
        assert!(v1().is_some() && v1alpha().is_some());
    }
}
