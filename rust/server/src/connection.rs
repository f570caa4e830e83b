//! Stage 1, after accepting: one connection, whatever it speaks.
//!
//! The first bytes tell HTTP/2 from HTTP/1.1, so that every port answers both. A peer that stops reading, or hardly reads, is cut off
//! here, for both: what waits for it holds budget that others need. Must not know requests.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::event_loop::LoopContext;
use crate::status::Phase;
use crate::{http1, http2};

mod watched;

pub(crate) use watched::{Meter, Watched};

/// When the server closes: how long bytes that are under way may take to arrive.
const CLOSING_GRACE: Duration = Duration::from_millis(500);

/// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
pub(crate) const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves one accepted connection to its end. Dropping the future closes it at once. `meter` is to accompany it.
pub(crate) async fn serve<S>(context: LoopContext, mut socket: S, meter: Rc<Meter>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = &context.process().settings.limits;
    let header_timeout = Duration::from_millis(limits.header_timeout_ms);
    let write_timeout = Duration::from_millis(limits.write_timeout_ms);
    let min_read_rate = limits.min_read_rate;
    let phases = context.process().status.subscribe();
    let head = tokio::select! {
        head = head_in_time(read_head(&mut socket), header_timeout, phases) => head,
        // Nobody has asked for anything yet.
        () = meter.asked_to_leave() => None,
    };
    let Some(head) = head else { return };
    let is_http2 = head.starts_with(HTTP2_PREFACE);
    if !is_http2 && is_no_http(&head) {
        tracing::debug!("a connection is closed: it begins with no kind of HTTP");
        return take_what_came(&mut socket).await;
    }
    let socket = Watched::new(head, socket, Rc::clone(&meter));
    let served = async {
        if is_http2 {
            http2::serve(context, socket).await;
        } else {
            http1::serve(context, socket, &meter).await;
        }
    };
    tokio::select! {
        () = served => {}
        () = meter.too_slow(write_timeout, min_read_rate) => {}
    }
}

/// Reads what lies in the socket: closed with bytes unread, it would be reset instead of ended.
async fn take_what_came(socket: &mut (impl AsyncRead + Unpin)) {
    let mut room = [0; 1 << 10];
    let mut came = ReadBuf::new(&mut room);
    poll_fn(|cx| {
        // Whatever comes of it, the connection ends.
        let _ = Pin::new(&mut *socket).poll_read(cx, &mut came);
        Poll::Ready(())
    })
    .await;
}

/// Whether a connection begins with three words that are neither a request of HTTP/1 nor the preface of HTTP/2. It gets
/// no answer, because none would be understood; what at least resembles a request is told what is wrong with it.
fn is_no_http(head: &[u8]) -> bool {
    let mut words = head.splitn(3, |&byte| byte == b' ');
    let (Some(_method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else { return false };
    let is_target = target.first().is_none_or(|first| b"/*".contains(first)) || target.contains(&b':');
    let is_version = version.starts_with(b"HTTP/") || b"HTTP/".starts_with(version);
    !is_target && !is_version
}

/// The first bytes, if they come before the header timeout, and soon if the server is closing: a connection on which
/// nobody has asked for anything must not hold up the end.
async fn head_in_time(
    head: impl Future<Output = Option<Bytes>>,
    timeout: Duration,
    mut phases: watch::Receiver<Phase>,
) -> Option<Bytes> {
    let mut head = pin!(tokio::time::timeout(timeout, head));
    tokio::select! {
        head = &mut head => head.ok().flatten(),
        _ = phases.wait_for(|phase| *phase >= Phase::Closing) => {
            tokio::time::timeout(CLOSING_GRACE, head).await.ok()?.ok().flatten()
        }
    }
}

/// Reads until it is clear what the peer speaks; `None` if it went away first.
async fn read_head(socket: &mut (impl AsyncRead + Unpin)) -> Option<Bytes> {
    let mut head = BytesMut::with_capacity(HTTP2_PREFACE.len());
    while head.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(&head) {
        let room = HTTP2_PREFACE.len() - head.len();
        let mut rest = socket.take(room as u64);
        if rest.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    Some(head.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_resembles_no_request_is_told_from_bad_requests() {
        for request in
            ["GET / HTTP/1.1\r\n", "GET /a b HTTP/1.1", "GET x HT", "GET x HTTP/9", "CONNECT a:1 x", "GET\r\n\r\n", ""]
        {
            assert!(!is_no_http(request.as_bytes()), "{request}");
        }
        for other in ["INVALID CONNECTION PREFA", "SSH two three", "EHLO a b"] {
            assert!(is_no_http(other.as_bytes()), "{other}");
        }
    }

    async fn head_of(chunks: &[&[u8]]) -> Option<Bytes> {
        let mut socket = tokio_test_socket(chunks);
        read_head(&mut socket).await
    }

    /// Gives one chunk per read.
    fn tokio_test_socket(chunks: &[&[u8]]) -> impl AsyncRead + Unpin {
        let mut joined: Box<dyn AsyncRead + Unpin> = Box::new(tokio::io::empty());
        for chunk in chunks.iter().rev() {
            joined = Box::new(std::io::Cursor::new(chunk.to_vec()).chain(joined));
        }
        joined
    }

    #[tokio::test]
    async fn the_preface_is_recognised_however_it_arrives() {
        for split in 1..HTTP2_PREFACE.len() {
            let (first, second) = HTTP2_PREFACE.split_at(split);
            assert_eq!(head_of(&[first, second, b"frames"]).await.as_deref(), Some(HTTP2_PREFACE));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_does_not_hold_up_the_end() {
        let (phase, phases) = watch::channel(Phase::Serving);
        let begun = tokio::time::Instant::now();
        let waiting = head_in_time(std::future::pending(), Duration::from_secs(10), phases);
        let closing = async { phase.send_replace(Phase::Closing) };
        assert_eq!(tokio::join!(waiting, closing).0, None);
        assert!(begun.elapsed() <= CLOSING_GRACE + Duration::from_millis(1));
    }

    #[tokio::test]
    async fn anything_else_is_put_back_as_it_was_read() {
        assert_eq!(head_of(&[b"GE", b"T / HTTP/1.1"]).await.as_deref(), Some(&b"GE"[..]));
        assert_eq!(head_of(&[b"PR", b"OPFIND / HTTP/1.1"]).await.as_deref(), Some(&b"PROPFIND / HTTP/1.1"[..]));
        assert_eq!(head_of(&[b"PRI * HT"]).await, None);
    }
}
