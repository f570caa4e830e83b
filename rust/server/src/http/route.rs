//! The table of routes. A request that is in no row is refused before its body is read.

use std::borrow::Cow;

use http::header::{ALLOW, HeaderValue};
use http::{Method, Uri};
use mlserve_core::error::{Error, Kind, Result, quoted};
use mlserve_core::request::{Protocol, Text};

use super::access::Trail;
use super::extensions::{self, Extension};
use super::find::find as find_version;
use super::plain::{self, Dialect};
use super::status::Refusal;
use super::{HttpRequest, HttpResponse, cors, health, infer, metadata, models, openapi, page, v1};
use crate::event_loop::LoopContext;
use crate::origin::Asker;

/// What answers a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Infer,
    ModelMetadata,
    ModelReady,
    ServerMetadata,
    Live,
    Ready,
    Extension(Extension),
    Plain(Dialect),
    V1Models,
    V1Model,
    Health,
    Startup,
    ModelStatus,
    OpenApi,
    Page,
    Root,
}

impl Action {
    /// Whether it does more than infer and tell what there is: not for web pages of other origins.
    fn is_guarded(self) -> bool {
        matches!(self, Action::Extension(extension) if extension != Extension::ModelConfig)
    }
}

/// One row: `{model}` and `{region}` stand for any segment, `{version}` for digits.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) is_post: bool,
    pub(super) path: &'static str,
    pub(super) action: Action,
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
pub(super) const ROUTES: [Route; 55] = [
    post("/v2/models/{model}/infer", Action::Infer),
    post("/v2/models/{model}/versions/{version}/infer", Action::Infer),
    get("/v2/health/live", Action::Live),
    get("/v2/health/ready", Action::Ready),
    get("/v2/models/{model}/ready", Action::ModelReady),
    get("/v2/models/{model}/versions/{version}/ready", Action::ModelReady),
    // Before the row in which it would be a model.
    get("/v2/models/stats", Action::Extension(Extension::Statistics)),
    get("/v2/models/{model}", Action::ModelMetadata),
    get("/v2/models/{model}/versions/{version}", Action::ModelMetadata),
    get("/v2", Action::ServerMetadata),
    get("/v2/models/{model}/config", Action::Extension(Extension::ModelConfig)),
    get("/v2/models/{model}/versions/{version}/config", Action::Extension(Extension::ModelConfig)),
    get("/v2/models/{model}/stats", Action::Extension(Extension::Statistics)),
    get("/v2/models/{model}/versions/{version}/stats", Action::Extension(Extension::Statistics)),
    post("/v2/repository/index", Action::Extension(Extension::RepositoryIndex)),
    post("/v2/repository/{repository}/index", Action::Extension(Extension::OtherRepository)),
    post("/v2/repository/models/{model}/load", Action::Extension(Extension::Load)),
    post("/v2/repository/models/{model}/unload", Action::Extension(Extension::Unload)),
    post("/v2/repository/{repository}/models/{model}/load", Action::Extension(Extension::OtherRepository)),
    post("/v2/repository/{repository}/models/{model}/unload", Action::Extension(Extension::OtherRepository)),
    get("/v2/systemsharedmemory/status", Action::Extension(Extension::SharedMemoryStatus)),
    get("/v2/systemsharedmemory/region/{region}/status", Action::Extension(Extension::SharedMemoryStatus)),
    post("/v2/systemsharedmemory/region/{region}/register", Action::Extension(Extension::SharedMemoryRegister)),
    post("/v2/systemsharedmemory/unregister", Action::Extension(Extension::SharedMemoryUnregister)),
    post("/v2/systemsharedmemory/region/{region}/unregister", Action::Extension(Extension::SharedMemoryUnregister)),
    get("/v2/cudasharedmemory/status", Action::Extension(Extension::CudaSharedMemoryStatus)),
    get("/v2/cudasharedmemory/region/{region}/status", Action::Extension(Extension::CudaSharedMemoryStatus)),
    post("/v2/cudasharedmemory/region/{region}/register", Action::Extension(Extension::CudaSharedMemoryRegister)),
    post("/v2/cudasharedmemory/unregister", Action::Extension(Extension::CudaSharedMemoryUnregister)),
    post("/v2/cudasharedmemory/region/{region}/unregister", Action::Extension(Extension::CudaSharedMemoryUnregister)),
    get("/v2/trace/setting", Action::Extension(Extension::TraceSetting)),
    post("/v2/trace/setting", Action::Extension(Extension::TraceSetting)),
    get("/v2/models/{model}/trace/setting", Action::Extension(Extension::TraceSetting)),
    post("/v2/models/{model}/trace/setting", Action::Extension(Extension::TraceSetting)),
    get("/v2/logging", Action::Extension(Extension::Logging)),
    post("/v2/logging", Action::Extension(Extension::Logging)),
    post("/v2/models/{model}/generate", Action::Plain(Dialect::Generate)),
    post("/v2/models/{model}/versions/{version}/generate", Action::Plain(Dialect::Generate)),
    post("/v2/models/{model}/generate_stream", Action::Plain(Dialect::GenerateStream)),
    post("/v2/models/{model}/versions/{version}/generate_stream", Action::Plain(Dialect::GenerateStream)),
    post("/v1/models/{model}:predict", Action::Plain(Dialect::V1)),
    post("/v1/models/{model}/versions/{version}:predict", Action::Plain(Dialect::V1)),
    get("/v1/models", Action::V1Models),
    get("/v1/models/{model}", Action::V1Model),
    get("/v1/models/{model}/versions/{version}", Action::V1Model),
    post("/predict/{model}", Action::Plain(Dialect::Predict)),
    get("/health", Action::Health),
    get("/ready", Action::Ready),
    get("/livez", Action::Live),
    get("/readyz", Action::Ready),
    get("/startupz", Action::Startup),
    get("/model/status", Action::ModelStatus),
    get("/openapi.json", Action::OpenApi),
    get("/docs", Action::Page),
    get("/", Action::Root),
];

/// What a path names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// The endpoint; empty where the route has none.
    pub(super) model: Text,
    /// `None`: the server chooses.
    pub(super) version: Option<u64>,
    /// A shared memory region; empty where the route has none.
    pub(super) region: Text,
}

/// Answers `request` by its route.
pub(super) async fn dispatch(context: &LoopContext, request: HttpRequest, trail: &mut Trail) -> HttpResponse {
    let asker = context.process().origins.asker(&request.headers, &request.uri);
    let outcome = answer(context, request, &asker, trail).await;
    let mut response = outcome.unwrap_or_else(|refusal| {
        context.count_refused(Protocol::Http, refusal.error());
        trail.failed(refusal.error());
        refusal.into_response()
    });
    if let Asker::Allowed(origin) = asker {
        cors::allow(&mut response.headers, origin);
    }
    response
}

async fn answer(
    context: &LoopContext,
    request: HttpRequest,
    asker: &Asker,
    trail: &mut Trail,
) -> Result<HttpResponse, Refusal> {
    if request.method == Method::OPTIONS {
        let allowed = methods(request.uri.path()).ok_or_else(unknown_route)?;
        return Ok(cors::options(&request.headers, asker, allowed));
    }
    let (route, target) = find(&request.method, &request.uri)?;
    trail.route_is(route.path, &target.model);
    if route.action.is_guarded() {
        context.process().origins.check(asker, &request.headers, &request.uri, route.is_post)?;
    }
    act(context, route.action, request, target, trail).await
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
        Action::ModelMetadata => {
            find_version(context, &target, None).await?;
            metadata::model(process, &target)?
        }
        Action::ModelReady => health::model_ready(process, &target),
        Action::ServerMetadata => metadata::server(),
        Action::Live => health::live(),
        Action::Ready => health::ready(process),
        Action::Extension(extension) => extensions::answer(context, extension, request, target, trail).await?,
        Action::Plain(dialect) => plain::answer(context, dialect, request, target, trail).await?,
        Action::V1Models => v1::models(process),
        Action::V1Model => v1::model(process, &target)?,
        Action::Health => health::health(process),
        Action::Startup => health::started(process),
        Action::ModelStatus => models::status(context).await?,
        Action::OpenApi => openapi::answer(context, request.uri.query()).await?,
        Action::Page => page::page(),
        Action::Root => page::root(&request.headers),
    })
}

fn find(method: &Method, uri: &Uri) -> Result<(&'static Route, Target), Refusal> {
    let is_post = match *method {
        Method::POST => Some(true),
        Method::GET | Method::HEAD => Some(false),
        _ => None,
    };
    for route in &ROUTES {
        if Some(route.is_post) == is_post
            && let Some(captures) = Captures::of(route.path, uri.path())
        {
            return Ok((route, captures.target()?));
        }
    }
    Err(match methods(uri.path()) {
        Some(methods) => {
            let error = Error::new(Kind::MethodNotAllowed, "Method Not Allowed");
            Refusal::with_field(error, ALLOW, HeaderValue::from_static(methods))
        }
        None => unknown_route(),
    })
}

/// The methods that a path answers; `*` stands for the server. `None` if it is no route.
fn methods(path: &str) -> Option<&'static str> {
    if path == "*" {
        return Some("GET, HEAD, POST, OPTIONS");
    }
    let mut fitting = ROUTES.iter().filter(|route| Captures::of(route.path, path).is_some());
    let first = fitting.next()?;
    Some(match (fitting.any(|route| route.is_post != first.is_post), first.is_post) {
        (true, _) => "GET, HEAD, POST, OPTIONS",
        (false, true) => "POST, OPTIONS",
        (false, false) => "GET, HEAD, OPTIONS",
    })
}

/// The segments of a path that a route leaves open, as sent.
#[derive(Default)]
struct Captures<'a> {
    model: &'a str,
    version: Option<&'a str>,
    region: &'a str,
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
                    // A verb of V1 belongs to no name: `m:predict` is never asked for as a model.
                    let is_verb = route.starts_with("/v1/") && segment.contains(':');
                    !segment.is_empty() && !is_verb
                }
                "{model}:predict" => {
                    captures.model = segment.strip_suffix(":predict").unwrap_or_default();
                    !captures.model.is_empty()
                }
                "{version}" => {
                    captures.version = Some(segment);
                    is_number(segment)
                }
                "{version}:predict" => {
                    captures.version = segment.strip_suffix(":predict");
                    captures.version.is_some_and(is_number)
                }
                "{region}" => {
                    captures.region = segment;
                    !segment.is_empty()
                }
                "{repository}" => !segment.is_empty(),
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
        let region = percent_decoded(self.region)?;
        let version = match self.version {
            // More digits than any version has: there is none of that number.
            Some(digits) => Some(digits.parse().map_err(|_| unknown_version(&model, digits))?),
            None => None,
        };
        Ok(Target { model: Text::from(model.into_owned()), version, region: Text::from(region.into_owned()) })
    }
}

fn is_number(segment: &str) -> bool {
    !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit())
}

/// Decodes once, and only what stands between two slashes: what comes out is a name, never a path.
pub(super) fn percent_decoded(segment: &str) -> Result<Cow<'_, str>> {
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
fn unknown_route() -> Refusal {
    Error::new(Kind::UnknownRoute, "Not Found").into()
}

#[cold]
fn bad_escape() -> Error {
    Error::invalid("a name in the path is not UTF-8 in percent-encoding: '%' and two hexadecimal digits a byte")
}

#[cold]
fn unknown_version(model: &str, digits: &str) -> Error {
    let shown = digits.get(..40).unwrap_or(digits);
    Error::new(Kind::NotFound, format!("Request for unknown model: '{}' version {shown} is not found", quoted(model)))
}

#[cfg(test)]
mod tests;
