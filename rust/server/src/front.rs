//! The front thread: accepts connections, answers metrics and health, and leads the server through its end.
//!
//! It carries no request, so neither a long run nor a full loop can make a healthy server look dead.

use std::convert::Infallible;
use std::net::TcpListener as StdTcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::listen::Acceptor;
use crate::metrics;
use crate::process::Process;
use crate::status::Phase;

/// Connections to the metrics port at once; scrapers and probes need a handful.
const MAX_CONNECTIONS: usize = 64;
/// Time for a scraper's header, and between its requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the end of the last connections is looked for.
const POLL: Duration = Duration::from_millis(10);

/// How far the server was asked to stop. Each step hastens the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Not at all.
    #[default]
    No,
    /// Give notice, then drain.
    Notice,
    /// Drain without notice.
    Drain,
    /// At once.
    Now,
}

/// Answers `/metrics` and health on a port of its own until dropped.
pub(crate) async fn serve_metrics(listener: StdTcpListener, process: Arc<Process>, acceptor: Rc<Acceptor>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(POLL).await;
            continue;
        };
        if open.load(Ordering::Relaxed) >= MAX_CONNECTIONS {
            continue;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let (process, acceptor, open) = (Arc::clone(&process), Rc::clone(&acceptor), Arc::clone(&open));
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| {
                let response = answer(&request, &process, &acceptor);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            let served = builder.serve_connection(TokioIo::new(stream), service).await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the metrics port ended");
            }
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn answer(
    request: &http::Request<Incoming>,
    process: &Process,
    acceptor: &Acceptor,
) -> Response<http_body_util::Full<Bytes>> {
    let phase = process.status.phase();
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics::render(process, acceptor))
        }
        (&Method::GET, "/v2/health/live" | "/livez") => health("live", true),
        (&Method::GET, "/v2/health/ready" | "/readyz") => {
            health("ready", process.status.is_ready(&process.plan.load()))
        }
        (&Method::GET, "/startupz") => health("started", phase >= Phase::Serving),
        (_, "/metrics" | "/v2/health/live" | "/v2/health/ready" | "/livez" | "/readyz" | "/startupz") => {
            (StatusCode::METHOD_NOT_ALLOWED, "application/json", r#"{"error":"Method Not Allowed"}"#.to_owned())
        }
        _ => (StatusCode::NOT_FOUND, "application/json", r#"{"error":"Not Found"}"#.to_owned()),
    };
    let mut response = Response::new(http_body_util::Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

fn health(what: &str, holds: bool) -> (StatusCode, &'static str, String) {
    let status = if holds { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    (status, "application/json", format!(r#"{{"{what}":{holds}}}"#))
}

/// Waits until told to stop, then ends the server: notice, closing, and at the latest the timeout.
///
/// Returns once connections may be cut. `accepting` is the task that accepts; it ends when notice does.
pub(crate) async fn wait_for_the_end(
    process: &Process,
    mut asked: watch::Receiver<Stop>,
    acceptor: &Acceptor,
    accepting: Vec<tokio::task::JoinHandle<()>>,
) {
    at_least(&mut asked, Stop::Notice).await;
    let settings = &process.settings.server;
    if *asked.borrow() == Stop::Now {
        // It never served, or whoever started it in this process has no use for it any more.
        process.status.advance(Phase::Closing);
        return;
    }
    process.status.advance(Phase::Notice);
    tracing::info!(connections = acceptor.connections(), "told to stop: not ready any more, still accepting");
    let notice = Duration::from_millis(settings.drain_notice_ms);
    // Whoever asks again does not want to wait for balancers to notice.
    drop(tokio::time::timeout(notice, at_least(&mut asked, Stop::Drain)).await);
    process.status.advance(Phase::Closing);
    accepting.iter().for_each(tokio::task::JoinHandle::abort);
    let timeout = Duration::from_millis(settings.drain_timeout_ms);
    let drained = async {
        while acceptor.connections() > 0 {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::select! {
        () = drained => tracing::info!("drained: every request in flight was answered"),
        () = tokio::time::sleep(timeout) => {
            tracing::warn!(connections = acceptor.connections(), "the drain timeout is over: connections are cut");
        }
        () = at_least(&mut asked, Stop::Now) => {
            tracing::warn!(connections = acceptor.connections(), "told to stop at once: connections are cut");
        }
    }
}

async fn at_least(asked: &mut watch::Receiver<Stop>, step: Stop) {
    if asked.wait_for(|present| *present >= step).await.is_err() {
        // Nobody is left who could ask; then nobody asks.
        std::future::pending::<()>().await;
    }
}
