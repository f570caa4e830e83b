//! A request and its answer, the same for every transport. Hot path.

use std::fmt;
use std::ops::Deref;
use std::time::{Duration, Instant};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::budget::Reservation;
use crate::error::Error;
use crate::tensor::{DataType, Shape, TensorBytes};
use crate::version::Version;

/// A string that is a view of received bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Text(Bytes);

impl Text {
    /// The bytes as text, or `None` if they are not UTF-8. **Cost:** one pass, no copy.
    pub fn from_utf8(bytes: Bytes) -> Option<Self> {
        std::str::from_utf8(&bytes).is_ok().then_some(Self(bytes))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        // Checked at construction; a broken invariant shows as an empty name, never as a panic.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// The value of a request parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// True or false.
    Bool(bool),
    /// A signed integer.
    Int64(i64),
    /// An unsigned integer.
    Uint64(u64),
    /// A float.
    Double(f64),
    /// A string.
    Text(Text),
}

/// Parameters of one request, or of one of its tensors, at most. Triton knows eight; the rest are the caller's own.
pub const MAX_PARAMETERS: usize = 256;

/// The refusal of a request with more.
#[cold]
pub fn too_many_parameters() -> Error {
    Error::too_large(format!("the request has more than {MAX_PARAMETERS} parameters, which is the limit"))
}

/// One input as it was sent.
#[derive(Clone, Debug)]
pub struct Input {
    /// The name the caller gave.
    pub name: Text,
    /// The type the caller gave.
    pub datatype: DataType,
    /// The shape the caller gave; not checked yet.
    pub shape: Shape,
    /// The bytes; their count is not checked yet.
    pub data: TensorBytes,
}

/// How a request came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// gRPC.
    #[default]
    Grpc,
    /// HTTP/1.1 or HTTP/2, JSON or binary.
    Http,
    /// A call in the same process.
    InProcess,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Protocol; 3] = [Protocol::Grpc, Protocol::Http, Protocol::InProcess];

    /// The word in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Grpc => "grpc",
            Protocol::Http => "http",
            Protocol::InProcess => "in_process",
        }
    }
}

/// What few requests ask for. Boxed, so that the others pay a null check.
#[derive(Debug, Default)]
pub struct RequestOptions {
    /// Wanted outputs that are answered as their highest values: the name, and how many at most.
    pub classifications: Vec<(Text, usize)>,
    /// The sequence that it belongs to, empty if there is none: what is to stay together when traffic is split.
    pub routing_key: Text,
}

/// One inference request, decoded and not yet checked against a model.
#[derive(Debug, Default)]
pub struct Request {
    /// How it came in.
    pub protocol: Protocol,
    /// When its first byte was read; `None`: when it is submitted.
    pub arrived: Option<Instant>,
    /// The endpoint.
    pub model_name: Text,
    /// `None`: the server chooses.
    pub model_version: Option<u64>,
    /// The caller's id; empty if there is none.
    pub id: Text,
    /// In the order sent; [`crate::validate`] brings them into the model's order.
    pub inputs: SmallVec<[Input; 2]>,
    /// Names of the outputs wanted, in the caller's order; empty: all.
    pub outputs: SmallVec<[Text; 2]>,
    /// Parameters that mean nothing to the server itself.
    pub parameters: Vec<(Text, Parameter)>,
    /// 1 is the highest; 0: the default level.
    pub priority: u64,
    /// How long it may wait in the queue, from the `timeout` parameter.
    pub queue_timeout: Option<Duration>,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// The bytes it holds of the process's budget, until its answer is written.
    pub reservation: Option<Reservation>,
    /// What few requests ask for.
    pub options: Option<Box<RequestOptions>>,
}

impl Request {
    /// Its options, to be changed.
    pub fn options_mut(&mut self) -> &mut RequestOptions {
        self.options.get_or_insert_default()
    }

    /// Whether checking it takes long: it has large tensors whose elements are to be looked at one by one.
    pub fn has_to_be_walked(&self) -> bool {
        self.inputs.iter().any(|input| input.data.has_to_be_walked(input.datatype))
    }

    /// Looks at the elements of such tensors. To be called where it holds up nobody.
    pub fn walk(&mut self) {
        self.inputs.iter_mut().for_each(|input| input.data.walk(input.datatype));
    }

    /// The sequence that it belongs to; empty if there is none.
    pub fn routing_key(&self) -> &str {
        self.options.as_ref().map_or("", |options| &options.routing_key)
    }
}

/// One output for one request.
#[derive(Clone, Debug)]
pub struct Output {
    /// Index in the model's outputs.
    pub index: usize,
    /// Element type; not the model's where the output was classified.
    pub datatype: DataType,
    /// Dimensions for this request's rows.
    pub shape: Shape,
    /// The bytes of its rows; the runtime's own memory where the request ran alone.
    pub data: Bytes,
}

/// Where a request ran, for the test mode `server.report_batches`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlace {
    /// Number of the run in this version.
    pub batch: u64,
    /// Rows of the whole batch.
    pub rows: usize,
    /// First row of this request in it.
    pub offset: usize,
}

/// What a request is answered with.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The version that ran; names and types of the outputs are in its spec.
    pub version: &'a Version,
    /// The caller's id.
    pub id: Text,
    /// In the caller's order.
    pub outputs: SmallVec<[Output; 2]>,
    /// Where it ran.
    pub place: BatchPlace,
    /// To be held until the answer is written: request bytes plus answer bytes.
    pub reservation: Option<Reservation>,
}

/// The way back to the caller. Travels with the request, whatever thread runs it.
pub trait Reply: Send {
    /// Whether nobody waits for the answer any more. Asked before a batch is formed.
    fn is_gone(&mut self) -> bool;

    /// Answers. Called once, on the loop the request came from.
    fn send(self: Box<Self>, outcome: Result<Answer<'_>, Error>);
}

impl fmt::Debug for dyn Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}
