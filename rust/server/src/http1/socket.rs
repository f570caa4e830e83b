//! The socket as hyper sees it: reads are noted, and hyper's own refusals get the body that clients expect.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use mlserve_core::error::{Error, Kind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use crate::http;

/// How hyper ends the head of an answer without a body.
const NO_BODY: &str = "content-length: 0\r\n";

/// hyper answers heads that it cannot read with a status alone; this is the rest of the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusals {
    /// Bytes of a head at most.
    pub(super) max_header_bytes: usize,
    /// Fields of a head at most.
    pub(super) max_headers: usize,
}

impl Refusals {
    /// The error that hyper found.
    pub(super) fn error(&self, is_too_large: bool) -> Error {
        if !is_too_large {
            return Error::invalid(
                "the request is not HTTP/1.1: its first line, a header field or its framing is malformed",
            );
        }
        let text = format!(
            "the request's header has more than {} bytes or more than {} fields, which are the limits",
            self.max_header_bytes, self.max_headers
        );
        Error::new(Kind::HeadersTooLarge, text)
    }

    /// `answer` with its body, if it is one of hyper's own. A connection ends with it, so nothing follows.
    fn completed(&self, answer: &[u8]) -> Option<Bytes> {
        let is_too_large = answer.starts_with(b"HTTP/1.1 431 ");
        if !is_too_large && !answer.starts_with(b"HTTP/1.1 400 ") {
            return None;
        }
        let head = std::str::from_utf8(answer).ok().filter(|head| head.ends_with("\r\n\r\n"))?;
        let (before, after) = head.split_once(NO_BODY)?;
        let refusal = http::error_response(&self.error(is_too_large));
        let body = refusal.body.concat();
        let mut completed = before.as_bytes().to_vec();
        for (name, value) in &refusal.headers {
            completed.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        completed.extend_from_slice(format!("content-length: {}\r\n{after}", body.len()).as_bytes());
        completed.extend_from_slice(&body);
        Some(completed.into())
    }
}

/// A socket between hyper and the connection.
#[derive(Debug)]
pub(super) struct Observed<Io> {
    io: Io,
    activity: Rc<Activity>,
    refusals: Refusals,
    /// What is left to write of a completed refusal.
    refusal: Option<Bytes>,
}

impl<Io> Observed<Io> {
    /// Notes reads from `io` in `activity`, and completes refusals from `refusals`.
    pub(super) fn new(io: Io, activity: Rc<Activity>, refusals: Refusals) -> Self {
        Self { io, activity, refusals, refusal: None }
    }
}

impl<Io: AsyncWrite + Unpin> Observed<Io> {
    /// Takes `bytes` over if they are a refusal to be completed; `None` if they are to be written as they are.
    fn poll_refusal(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.refusal.is_none() && self.activity.is_quiet() {
            self.refusal = self.refusals.completed(bytes);
        }
        let left = self.refusal.as_mut()?;
        while left.has_remaining() {
            match Pin::new(&mut self.io).poll_write(cx, left) {
                Poll::Ready(Ok(0)) => return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(written)) => left.advance(written),
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => return Some(Poll::Pending),
            }
        }
        Some(Poll::Ready(Ok(bytes.len())))
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Observed<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.activity.bytes_came();
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Observed<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.poll_refusal(cx, bytes) {
            Some(written) => written,
            None => Pin::new(&mut self.io).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A refusal has no body, so its head is the only slice that is not empty.
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        match self.poll_refusal(cx, first) {
            Some(written) => written,
            None => Pin::new(&mut self.io).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
