//! The one error table: every refusal anywhere in mlserve is a row of it.
//!
//! The domain knows no transport: `grpc/status` and `http/status` in the server and `error` in the Python extension
//! each read their column from here. Adding a [`Kind`] without a row does not compile; a parity test provokes every row
//! on both transports.

use std::borrow::Cow;
use std::fmt;

/// The HTTP header, gRPC trailer and stream parameter that names an error's row by its code: several rows share a
/// status, and this tells them apart.
pub const CODE_HEADER: &str = "mlserve-code";

/// What went wrong, as the caller may act on it. One row of the error table each; see [`Kind::row`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is malformed: name, type, shape, bytes, JSON, or values that the model's operations refuse.
    InvalidArgument,
    /// No such model, version or shared memory region.
    NotFound,
    /// No such HTTP route or RPC.
    UnknownRoute,
    /// The route exists, but not with this HTTP method.
    MethodNotAllowed,
    /// Web pages of another origin, and names that may be anybody's, may not do this.
    NotAllowed,
    /// A body, message, tensor count, rank or nesting above its limit.
    TooLarge,
    /// Header fields above their limit.
    HeadersTooLarge,
    /// The client sent its body too slowly.
    SlowClient,
    /// The version's queue is at its bound.
    QueueFull,
    /// The server has as many requests in flight as it may have.
    TooManyRequests,
    /// The byte budget of the process is spent.
    OutOfBudget,
    /// The model is known but cannot answer now.
    NotReady,
    /// Models are loaded and unloaded by whoever asks only if the server was started so.
    ModelControl,
    /// The server is shutting down.
    Draining,
    /// The request waited longer than the `timeout` parameter or the queue's policy allows.
    QueueTimeout,
    /// The request's deadline passed, or cannot be met any more.
    DeadlineExceeded,
    /// The caller is gone: nobody reads the answer.
    Cancelled,
    /// The server does not offer this.
    NotOffered,
    /// The model or the runtime failed.
    Internal,
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller has to change something.
    Client,
    /// The server, the model or their load.
    Server,
    /// Neither: time ran out.
    Neither,
}

/// Whether sending the same request again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same request will fail again.
    No,
    /// Later it may succeed; HTTP answers carry `Retry-After`.
    Yes,
    /// Once, in case the failure was transient.
    Once,
    /// The caller knows whether it still wants the answer.
    ByCaller,
}

/// One row of the error table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Stable word for logs, metrics (`reason`, `code`) and Python.
    pub code: &'static str,
    /// HTTP status.
    pub http: u16,
    /// gRPC status code number.
    pub grpc: u8,
    /// Whose fault.
    pub fault: Fault,
    /// Whether a retry can help.
    pub retry: Retry,
    /// One sentence for docs/reference/errors.md.
    pub meaning: &'static str,
}

/// gRPC status code numbers used by the table.
mod grpc {
    pub(super) const CANCELLED: u8 = 1;
    pub(super) const INVALID_ARGUMENT: u8 = 3;
    pub(super) const DEADLINE_EXCEEDED: u8 = 4;
    pub(super) const NOT_FOUND: u8 = 5;
    pub(super) const PERMISSION_DENIED: u8 = 7;
    pub(super) const RESOURCE_EXHAUSTED: u8 = 8;
    pub(super) const UNIMPLEMENTED: u8 = 12;
    pub(super) const INTERNAL: u8 = 13;
    pub(super) const UNAVAILABLE: u8 = 14;
}

impl Kind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Kind; 19] = [
        Kind::InvalidArgument,
        Kind::NotFound,
        Kind::UnknownRoute,
        Kind::MethodNotAllowed,
        Kind::NotAllowed,
        Kind::TooLarge,
        Kind::HeadersTooLarge,
        Kind::SlowClient,
        Kind::QueueFull,
        Kind::TooManyRequests,
        Kind::OutOfBudget,
        Kind::NotReady,
        Kind::ModelControl,
        Kind::Draining,
        Kind::QueueTimeout,
        Kind::DeadlineExceeded,
        Kind::Cancelled,
        Kind::NotOffered,
        Kind::Internal,
    ];

    /// The table itself.
    pub const fn row(self) -> Row {
        use Fault::{Client, Neither, Server};
        use Retry::{ByCaller, No, Once, Yes};
        match self {
            Kind::InvalidArgument => row(
                "invalid_argument",
                400,
                grpc::INVALID_ARGUMENT,
                Client,
                No,
                "the request is malformed: a name, type, shape, byte count, JSON, or a value that the model refuses",
            ),
            Kind::NotFound => {
                row("not_found", 404, grpc::NOT_FOUND, Client, No, "no such model, version or shared memory region")
            }
            Kind::UnknownRoute => row("unknown_route", 404, grpc::UNIMPLEMENTED, Client, No, "no such route or RPC"),
            Kind::MethodNotAllowed => row(
                "method_not_allowed",
                405,
                grpc::UNIMPLEMENTED,
                Client,
                No,
                "the route exists, but not with this HTTP method",
            ),
            Kind::NotAllowed => {
                row("not_allowed", 403, grpc::PERMISSION_DENIED, Client, No, "not for this web page or host name")
            }
            Kind::TooLarge => row(
                "too_large",
                413,
                grpc::RESOURCE_EXHAUSTED,
                Client,
                No,
                "a body, message, tensor count, rank or nesting is above its limit",
            ),
            Kind::HeadersTooLarge => row(
                "headers_too_large",
                431,
                grpc::RESOURCE_EXHAUSTED,
                Client,
                No,
                "the header fields are above their limit",
            ),
            Kind::SlowClient => row(
                "slow_client",
                408,
                grpc::DEADLINE_EXCEEDED,
                Client,
                No,
                "the body arrived more slowly than the limits allow",
            ),
            Kind::QueueFull => row("queue_full", 503, grpc::UNAVAILABLE, Server, Yes, "the model's queue is full"),
            Kind::TooManyRequests => row(
                "too_many_requests",
                503,
                grpc::UNAVAILABLE,
                Server,
                Yes,
                "the server has as many requests in flight as it may have",
            ),
            Kind::OutOfBudget => {
                row("out_of_budget", 503, grpc::UNAVAILABLE, Server, Yes, "the byte budget of the process is spent")
            }
            Kind::NotReady => {
                row("not_ready", 503, grpc::UNAVAILABLE, Server, Yes, "the model is known but cannot answer now")
            }
            Kind::ModelControl => row(
                "model_control",
                503,
                grpc::UNAVAILABLE,
                Server,
                No,
                "models are loaded and unloaded by request only in model control mode explicit",
            ),
            Kind::Draining => row("draining", 503, grpc::UNAVAILABLE, Server, Yes, "the server is shutting down"),
            Kind::QueueTimeout => row(
                "queue_timeout",
                503,
                grpc::UNAVAILABLE,
                Server,
                Yes,
                "the request waited longer than its timeout or the queue's policy allows",
            ),
            Kind::DeadlineExceeded => row(
                "deadline_exceeded",
                504,
                grpc::DEADLINE_EXCEEDED,
                Neither,
                ByCaller,
                "the deadline passed, or cannot be met any more",
            ),
            Kind::Cancelled => row("cancelled", 499, grpc::CANCELLED, Client, No, "the caller is gone"),
            Kind::NotOffered => {
                row("not_offered", 501, grpc::UNIMPLEMENTED, Client, No, "the server does not offer this")
            }
            Kind::Internal => row("internal", 500, grpc::INTERNAL, Server, Once, "the model or the runtime failed"),
        }
    }
}

const fn row(code: &'static str, http: u16, grpc: u8, fault: Fault, retry: Retry, meaning: &'static str) -> Row {
    Row { code, http, grpc, fault, retry, meaning }
}

/// An error as the caller sees it: a row of the table, and a text that says what was wrong, the value, and what is
/// allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    text: Cow<'static, str>,
}

impl Error {
    /// An error of `kind`; `text` is for the caller: no internals, no paths, no secrets.
    pub fn new(kind: Kind, text: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, text: text.into() }
    }

    /// A malformed request.
    pub fn invalid(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::InvalidArgument, text)
    }

    /// Something above its limit.
    pub fn too_large(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::TooLarge, text)
    }

    /// A failure of the model or the runtime.
    pub fn internal(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Internal, text)
    }

    /// Which row of the table.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The text for the caller.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

/// Characters of a caller's text that an error repeats: enough to recognise it, too few to make an answer large.
const QUOTED_CHARACTERS: usize = 128;

/// A caller's text for an error: short, and printable.
pub fn quoted(text: &str) -> String {
    let mut quoted: String = text.chars().take(QUOTED_CHARACTERS).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTED_CHARACTERS).is_some() {
        quoted.push('…');
    }
    quoted
}

/// What most functions of the core return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_statuses_agree_about_the_fault() {
        let mut codes: Vec<_> = Kind::ALL.iter().map(|kind| kind.row().code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            let row = kind.row();
            match row.fault {
                Fault::Client => assert!((400..500).contains(&row.http) || row.http == 501, "{kind:?}"),
                Fault::Server | Fault::Neither => assert!(row.http >= 500, "{kind:?}"),
            }
        }
    }
}
