//! The routes of the metrics port.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use mlserve_core::failpoint;

use crate::listen::Acceptor;
use crate::metrics;
use crate::panics::Place;
use crate::process::Process;
use crate::renderer::Renderer;
use crate::status::Phase;

/// What every route takes.
const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// What the port answers from.
#[derive(Debug)]
pub(super) struct Answers {
    process: Arc<Process>,
    metrics: Renderer,
}

/// The routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Metrics,
    Live,
    Ready,
    Started,
    /// `/` and `*`, which balancers ask for options (`HAProxy`'s plain check).
    Whole,
}

impl Answers {
    pub(super) fn start(process: Arc<Process>, acceptor: Arc<Acceptor>) -> std::io::Result<Self> {
        let rendered = Arc::clone(&process);
        let render = move || {
            failpoint!("scrape");
            metrics::render(&rendered, &acceptor).into_bytes()
        };
        let counted = Arc::clone(&process);
        let metrics = Renderer::start("metrics", render, move |what| counted.panics.note(Place::Health, what))?;
        Ok(Self { process, metrics })
    }

    pub(super) fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// Answers everything; a body is left out for HEAD by the layer below.
    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        failpoint!("probe");
        let Some(route) = Route::of(request.uri().path()) else {
            return json(StatusCode::NOT_FOUND, r#"{"error":"Not Found"}"#.to_owned());
        };
        match *request.method() {
            Method::OPTIONS => allowing(Response::new(Full::default())),
            Method::GET | Method::HEAD => match route {
                Route::Metrics => self.metrics().await,
                Route::Whole => json(StatusCode::NOT_FOUND, r#"{"error":"Not Found"}"#.to_owned()),
                Route::Live => health("live", self.process.status.is_live()),
                Route::Ready => health("ready", self.process.status.is_ready(&self.process.plan.load())),
                Route::Started => health("started", self.process.status.phase() >= Phase::Serving),
            },
            _ => allowing(json(StatusCode::METHOD_NOT_ALLOWED, r#"{"error":"Method Not Allowed"}"#.to_owned())),
        }
    }

    async fn metrics(&self) -> Response<Full<Bytes>> {
        match self.metrics.text().await {
            Some(text) => response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text),
            None => {
                json(StatusCode::INTERNAL_SERVER_ERROR, r#"{"error":"the metrics could not be rendered"}"#.to_owned())
            }
        }
    }
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/metrics" => Self::Metrics,
            "/livez" | "/v2/health/live" => Self::Live,
            "/readyz" | "/v2/health/ready" => Self::Ready,
            "/startupz" => Self::Started,
            "/" | "*" => Self::Whole,
            _ => return None,
        })
    }
}

fn health(what: &str, holds: bool) -> Response<Full<Bytes>> {
    let status = if holds { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    json(status, format!(r#"{{"{what}":{holds}}}"#))
}

fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    response(status, "application/json", Bytes::from(body))
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn allowing(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    response.headers_mut().insert(header::ALLOW, ALLOWED);
    response
}
