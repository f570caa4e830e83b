//! The socket as hyper sees it: reads are noted, and hyper's own refusals get the body that clients expect.

use std::cell::RefCell;
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

/// Tells a peer that has closed its side that its request is being worked on, and finds out whether it is there at all: one
/// that is gone answers with a reset. Every client has to pass over it (RFC 9110, section 15.2).
const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Bytes that are read ahead to see whether their sender is there. Whoever sends more without an answer is asked as one who
/// has closed its side is.
const AHEAD_BYTES: usize = 4 << 10;

/// A socket between hyper and the connection, which keeps a look at it while hyper has none.
#[derive(Debug)]
pub(super) struct Observed<Io>(Rc<RefCell<Inner<Io>>>);

#[derive(Debug)]
struct Inner<Io> {
    io: Io,
    activity: Rc<Activity>,
    refusals: Refusals,
    /// What is left to write of a completed refusal.
    refusal: Option<Bytes>,
    /// What was read to see whether the peer is there: a later request, while one is worked on.
    ahead: Vec<u8>,
    /// The peer has closed its side: it is gone, or waits for its answer.
    has_ended: bool,
    /// hyper has something to write and no room for it.
    is_blocked: bool,
    is_told: bool,
}

impl<Io> Clone for Observed<Io> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<Io> Observed<Io> {
    /// Notes reads from `io` in `activity`, and completes refusals from `refusals`.
    pub(super) fn new(io: Io, activity: Rc<Activity>, refusals: Refusals) -> Self {
        let inner = Inner {
            io,
            activity,
            refusals,
            refusal: None,
            ahead: Vec::new(),
            has_ended: false,
            is_blocked: false,
            is_told: false,
        };
        Self(Rc::new(RefCell::new(inner)))
    }
}

impl<Io: AsyncRead + Unpin> Observed<Io> {
    /// Looks whether the peer is there while its request is worked on, when hyper does not. Ready: it is gone.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.0.borrow_mut();
        if !inner.activity.is_worked_on() {
            return Poll::Pending;
        }
        while !inner.has_ended && inner.ahead.len() < AHEAD_BYTES {
            let mut bytes = [0; 256];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut inner.io).poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => inner.has_ended = true,
                Poll::Ready(Ok(())) => {
                    inner.ahead.extend_from_slice(buffer.filled());
                    // hyper may be the one who waits for it.
                    cx.waker().wake_by_ref();
                }
            }
        }
        inner.activity.peer_says_no_more();
        Poll::Pending
    }
}

impl<Io: AsyncWrite + Unpin> Observed<Io> {
    /// Whether a peer that says no more is gone altogether, as far as can be told.
    pub(super) fn is_gone(&self, cx: &mut Context<'_>) -> bool {
        let mut inner = self.0.borrow_mut();
        if inner.is_blocked {
            return false;
        }
        // Writing nothing fails on a connection that was reset.
        if let Poll::Ready(Err(_)) = Pin::new(&mut inner.io).poll_write(cx, &[]) {
            return true;
        }
        if inner.is_told || !inner.activity.knows_interim_answers() {
            return false;
        }
        inner.is_told = true;
        match Pin::new(&mut inner.io).poll_write(cx, INTERIM) {
            Poll::Ready(Ok(written)) => written < INTERIM.len(),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }
}

impl<Io: AsyncWrite + Unpin> Inner<Io> {
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

    fn note<T>(&mut self, written: Poll<T>) -> Poll<T> {
        self.is_blocked = written.is_pending();
        written
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Observed<Io> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        let before = buffer.filled().len();
        if !inner.ahead.is_empty() {
            let count = inner.ahead.len().min(buffer.remaining());
            buffer.put_slice(&inner.ahead[..count]);
            inner.ahead.drain(..count);
        } else if !inner.has_ended {
            ready!(Pin::new(&mut inner.io).poll_read(cx, buffer))?;
        }
        let read = &buffer.filled()[before..];
        if !read.is_empty() {
            inner.activity.bytes_came(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Observed<Io> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0.borrow_mut();
        let written = match inner.poll_refusal(cx, bytes) {
            Some(written) => written,
            None => Pin::new(&mut inner.io).poll_write(cx, bytes),
        };
        inner.note(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0.borrow_mut();
        // A refusal has no body, so its head is the only slice that is not empty.
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        let written = match inner.poll_refusal(cx, first) {
            Some(written) => written,
            None => Pin::new(&mut inner.io).poll_write_vectored(cx, slices),
        };
        inner.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_shutdown(cx)
    }
}
