//! The table of routes. A request that is in no row is refused before its body is read.

use std::borrow::Cow;

use http::header::{ALLOW, HeaderValue};
use http::{Method, Uri};
use mlserve_core::error::{Error, Kind, Result, quoted};
use mlserve_core::request::{Protocol, Text};

use super::access::Trail;
use super::status::Refusal;
use super::{HttpRequest, HttpResponse, health, infer, metadata};
use crate::event_loop::LoopContext;

/// What answers a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Infer,
    ModelMetadata,
    ModelReady,
    ServerMetadata,
    Live,
    Ready,
}

/// One row: `{model}` stands for any segment, `{version}` for digits.
#[derive(Debug)]
struct Route {
    is_post: bool,
    path: &'static str,
    action: Action,
}

/// Answers GET and HEAD.
const fn get(path: &'static str, action: Action) -> Route {
    Route { is_post: false, path, action }
}

/// Answers POST.
const fn post(path: &'static str, action: Action) -> Route {
    Route { is_post: true, path, action }
}

/// Every route of the data ports, the most frequent first.
const ROUTES: [Route; 9] = [
    post("/v2/models/{model}/infer", Action::Infer),
    post("/v2/models/{model}/versions/{version}/infer", Action::Infer),
    get("/v2/health/live", Action::Live),
    get("/v2/health/ready", Action::Ready),
    get("/v2/models/{model}/ready", Action::ModelReady),
    get("/v2/models/{model}/versions/{version}/ready", Action::ModelReady),
    get("/v2/models/{model}", Action::ModelMetadata),
    get("/v2/models/{model}/versions/{version}", Action::ModelMetadata),
    get("/v2", Action::ServerMetadata),
];

/// What a path names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// The endpoint; empty where the route has none.
    pub(super) model: Text,
    /// `None`: the server chooses.
    pub(super) version: Option<u64>,
}

/// Answers `request` by its route.
pub(super) async fn dispatch(context: &LoopContext, request: HttpRequest, trail: &mut Trail) -> HttpResponse {
    let outcome = match find(&request.method, &request.uri) {
        Ok((route, target)) => {
            trail.route_is(route.path, &target.model);
            act(context, route.action, request, target, trail).await
        }
        Err(refusal) => Err(refusal),
    };
    outcome.unwrap_or_else(|refusal| {
        context.count_refused(Protocol::Http, refusal.error());
        trail.failed(refusal.error());
        refusal.into_response()
    })
}

async fn act(
    context: &LoopContext,
    action: Action,
    request: HttpRequest,
    target: Target,
    trail: &mut Trail,
) -> Result<HttpResponse, Refusal> {
    let process = context.process();
    Ok(match action {
        Action::Infer => infer::infer(context, request, target, trail).await?,
        Action::ModelMetadata => metadata::model(process, &target)?,
        Action::ModelReady => health::model_ready(process, &target),
        Action::ServerMetadata => metadata::server(),
        Action::Live => health::live(),
        Action::Ready => health::ready(process),
    })
}

fn find(method: &Method, uri: &Uri) -> Result<(&'static Route, Target), Refusal> {
    let mut allowed = None;
    for route in &ROUTES {
        let Some(captures) = Captures::of(route.path, uri.path()) else { continue };
        let is_allowed =
            if route.is_post { method == Method::POST } else { method == Method::GET || method == Method::HEAD };
        if is_allowed {
            return Ok((route, captures.target()?));
        }
        allowed = Some(if route.is_post { "POST" } else { "GET, HEAD" });
    }
    Err(match allowed {
        Some(methods) => {
            let error = Error::new(Kind::MethodNotAllowed, "Method Not Allowed");
            Refusal::with_field(error, ALLOW, HeaderValue::from_static(methods))
        }
        None => Error::new(Kind::UnknownRoute, "Not Found").into(),
    })
}

/// The segments of a path that a route leaves open, as sent.
#[derive(Default)]
struct Captures<'a> {
    model: &'a str,
    version: Option<&'a str>,
}

impl<'a> Captures<'a> {
    /// `None` if `path` is not of the form `route`.
    fn of(route: &str, path: &'a str) -> Option<Self> {
        let mut captures = Self::default();
        let mut segments = path.split('/');
        for wanted in route.split('/') {
            let segment = segments.next()?;
            let fits = match wanted {
                "{model}" => {
                    captures.model = segment;
                    !segment.is_empty()
                }
                "{version}" => {
                    captures.version = Some(segment);
                    !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit())
                }
                literal => segment == literal,
            };
            if !fits {
                return None;
            }
        }
        segments.next().is_none().then_some(captures)
    }

    fn target(self) -> Result<Target> {
        let model = percent_decoded(self.model)?;
        let version = match self.version {
            // More digits than any version has: there is none of that number.
            Some(digits) => Some(digits.parse().map_err(|_| unknown_version(&model, digits))?),
            None => None,
        };
        Ok(Target { model: Text::from(model.into_owned()), version })
    }
}

/// Decodes once, and only what stands between two slashes: what comes out is a name, never a path.
fn percent_decoded(segment: &str) -> Result<Cow<'_, str>> {
    if !segment.contains('%') {
        return Ok(Cow::Borrowed(segment));
    }
    let mut decoded = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>().ok_or_else(bad_escape)?;
        let digit = |digit: u8| char::from(digit).to_digit(16).ok_or_else(bad_escape);
        decoded.push((digit(digits[0])? << 4 | digit(digits[1])?) as u8);
        rest = after;
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| bad_escape())
}

#[cold]
fn bad_escape() -> Error {
    Error::invalid("the model name in the path is not UTF-8 in percent-encoding: '%' and two hexadecimal digits a byte")
}

#[cold]
fn unknown_version(model: &str, digits: &str) -> Error {
    let shown = digits.get(..40).unwrap_or(digits);
    Error::new(Kind::NotFound, format!("Request for unknown model: '{}' version {shown} is not found", quoted(model)))
}

#[cfg(test)]
mod tests;
