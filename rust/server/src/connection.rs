//! Stage 1, after accepting: one connection, whatever it speaks.
//!
//! The first bytes tell HTTP/2 from HTTP/1.1, so that every port answers both. A peer that stops reading is cut off
//! here, for both: what waits for it holds budget that others need. Must not know requests.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::event_loop::LoopContext;
use crate::{http1, http2};

mod watched;

pub(crate) use watched::{Meter, Watched};

/// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves one accepted connection to its end. Dropping the future closes it at once.
pub(crate) async fn serve<S>(context: LoopContext, mut socket: S)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = &context.process().settings.limits;
    let header_timeout = Duration::from_millis(limits.header_timeout_ms);
    let write_timeout = Duration::from_millis(limits.write_timeout_ms);
    let Ok(Some(head)) = tokio::time::timeout(header_timeout, read_head(&mut socket)).await else { return };
    let is_http2 = head.starts_with(HTTP2_PREFACE);
    let socket = Watched::new(head, socket);
    let meter = socket.meter().clone();
    let served = async {
        if is_http2 {
            http2::serve(context, socket).await;
        } else {
            http1::serve(context, socket).await;
        }
    };
    tokio::select! {
        () = served => {}
        () = meter.stalled(write_timeout) => {}
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

    #[tokio::test]
    async fn anything_else_is_put_back_as_it_was_read() {
        assert_eq!(head_of(&[b"GE", b"T / HTTP/1.1"]).await.as_deref(), Some(&b"GE"[..]));
        assert_eq!(head_of(&[b"PR", b"OPFIND / HTTP/1.1"]).await.as_deref(), Some(&b"PROPFIND / HTTP/1.1"[..]));
        assert_eq!(head_of(&[b"PRI * HT"]).await, None);
    }
}
