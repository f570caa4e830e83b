//! What a connection writes, and when.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Request;
use mlserve_core::config::Settings;
use tokio::io::{DuplexStream, ReadBuf};
use tokio::task::LocalSet;

use super::*;
use crate::grpc::fixture::Served;

/// A socket that counts what is written into it.
struct Counted {
    socket: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Writes of a connection on which `calls` come together: calls of `ServerLive`, and of an RPC that there is not.
async fn writes_for(calls: usize) -> usize {
    let served = Served::start(Settings::default(), 2);
    let process = Arc::clone(&served.process);
    let context = LoopContext::new(0, Arc::clone(&process), Arc::clone(&process.shared), None);
    let (near, far) = tokio::io::duplex(1 << 20);
    let writes = Arc::new(AtomicUsize::new(0));
    let socket = Counted { socket: near, writes: Arc::clone(&writes) };
    spawn_local(serve(context, Watched::new(Bytes::new(), socket, Rc::default())));
    let (mut client, connection) = h2::client::handshake(far).await.expect("HTTP/2");
    spawn_local(connection);
    // The first call comes behind the settings of both sides.
    for calls in [1, calls] {
        writes.store(0, Ordering::Relaxed);
        let mut answers = Vec::new();
        for number in 0..calls {
            let call = if number % 2 == 0 { "ServerLive" } else { "Nope" };
            let request = Request::post(format!("http://test/inference.GRPCInferenceService/{call}"));
            let request = request.header("content-type", "application/grpc").body(()).expect("valid");
            let (answer, mut body) = client.send_request(request, false).expect("the connection is open");
            body.send_data(Bytes::from_static(&[0; 5]), true).expect("the connection is open");
            answers.push(answer);
        }
        for answer in answers {
            let mut body = answer.await.expect("an answer").into_body();
            while body.data().await.is_some() {}
        }
    }
    writes.load(Ordering::Relaxed)
}

#[tokio::test]
async fn answers_given_at_once_go_out_together() {
    LocalSet::new().run_until(async { assert_eq!(writes_for(BURST / 2).await, 1) }).await;
}

#[tokio::test]
async fn a_large_burst_goes_out_in_a_few_writes() {
    let writes = LocalSet::new().run_until(writes_for(4 * BURST)).await;
    assert!(writes <= 8, "{writes} writes for {} answers", 4 * BURST);
}
