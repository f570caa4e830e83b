//! Requests over HTTP/2 that are not gRPC: the REST side answers, here the answer is written.

use std::future::poll_fn;
use std::rc::Rc;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Method, Request, Response};
use mlserve_core::error::Error;

use super::writer::{COUNTED_BYTES, Writer};
use super::{Connected, drained};
use crate::body::{Lent, RequestBody};
use crate::http::{self as rest, HttpRequest, HttpResponse};
use crate::share::Held;

/// Serves one stream in a task of its own; refuses it if its header did not fit.
pub(crate) fn accept(
    connected: &Rc<Connected>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    header_fits: Result<(), Error>,
) {
    let connected = Rc::clone(connected);
    connected.context.clone().serve_stream(async move {
        match header_fits {
            Ok(()) => answer(connected, request, respond).await,
            Err(error) => {
                rest::unreadable(&connected.context, &error);
                drained(request.into_body()).await;
                let waiting = connected.context.share().hold();
                write(&connected, rest::error_response(&error), waiting, &mut respond).await;
            }
        }
    });
}

async fn answer(connected: Rc<Connected>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let context = &connected.context;
    let arrived = context.now();
    let (parts, body) = request.into_parts();
    let has_ended = body.is_end_stream();
    let (lent, lender) = Lent::new(body);
    let body = if has_ended { RequestBody::Empty } else { RequestBody::Lent(lent) };
    let is_head = parts.method == Method::HEAD;
    let mut waiting = context.share().hold();
    let may_wait = |len| if is_head || len <= COUNTED_BYTES { Ok(()) } else { waiting.take_answer(len) };
    let request = HttpRequest { method: parts.method, uri: parts.uri, headers: parts.headers, body, arrived };
    let response = tokio::select! {
        response = rest::handle_if(context, request, may_wait) => response,
        // Dropping the handler tells the pipeline that nobody waits.
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    // What refused the request may not have read it; an answer before its end would hide what else is wrong with it.
    let unread = lender.take().filter(|body| !body.is_end_stream());
    if let Some(body) = unread {
        drained(body).await;
    }
    write(&connected, response, waiting, &mut respond).await;
}

async fn write(connected: &Connected, response: HttpResponse, waiting: Held, respond: &mut SendResponse<Bytes>) {
    let HttpResponse { status, headers, body, reservation } = response;
    let mut head = Response::new(());
    *head.status_mut() = status;
    *head.headers_mut() = headers;
    let is_empty = body.iter().all(Bytes::is_empty);
    // An error here means that the stream is gone.
    let Ok(stream) = respond.send_response(head, is_empty) else { return };
    if is_empty {
        return;
    }
    let mut writer = Writer::new(stream, connected.reply.patience);
    writer.hold(waiting);
    writer.push(body, reservation);
    if writer.flush().await.is_ok() {
        writer.end();
    }
}
