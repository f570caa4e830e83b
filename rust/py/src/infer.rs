//! A request of the same process: Python's buffers in, Python's bytes out, through the same pipeline as any other.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::Bytes;
use mlserve_core::budget::Reservation;
use mlserve_core::error::{Error, Kind};
use mlserve_core::request::{Answer, BatchPlace, Input, Parameter, Protocol, Reply, Request, Text};
use mlserve_core::tensor::DataType;
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// One input as Python hands it over: name, datatype, shape, and anything with a buffer of bytes.
pub(crate) type PyInput<'py> = (String, String, Vec<i64>, Bound<'py, PyAny>);

/// One output as Python gets it: name, datatype, shape, bytes.
pub(crate) type PyOutput<'py> = (String, &'static str, Vec<i64>, Bound<'py, PyBytes>);

/// A parameter's value as Python writes it.
#[derive(FromPyObject)]
pub(crate) enum PyParameter {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

impl From<PyParameter> for Parameter {
    fn from(value: PyParameter) -> Self {
        match value {
            PyParameter::Bool(value) => Parameter::Bool(value),
            PyParameter::Int(value) => Parameter::Int64(value),
            PyParameter::Float(value) => Parameter::Double(value),
            PyParameter::Text(value) => Parameter::Text(value.into()),
        }
    }
}

/// An answer that has left the loop.
pub(crate) struct Owned {
    pub(crate) model: String,
    pub(crate) version: u64,
    pub(crate) outputs: Vec<(String, &'static str, Vec<i64>, Bytes)>,
    pub(crate) place: BatchPlace,
    /// Held until the caller has its own copy.
    pub(crate) _reservation: Option<Reservation>,
}

/// Hands the answer to the thread that waits for it.
pub(crate) struct ChannelReply {
    sender: Sender<Result<Owned, Error>>,
    caller: Weak<Caller>,
}

/// Held by the thread that waits: dropped early, the request is not run any more.
pub(crate) struct Caller;

impl ChannelReply {
    /// The way back, and what the caller keeps until it is answered.
    pub(crate) fn new() -> (Self, Receiver<Result<Owned, Error>>, Arc<Caller>) {
        let (sender, receiver) = channel();
        let caller = Arc::new(Caller);
        (Self { sender, caller: Arc::downgrade(&caller) }, receiver, caller)
    }
}

impl Reply for ChannelReply {
    fn is_gone(&mut self) -> bool {
        self.caller.strong_count() == 0
    }

    fn send(self: Box<Self>, outcome: Result<Answer<'_>, Error>) {
        // The waiting thread may have been interrupted; then nobody wants the answer.
        drop(self.sender.send(outcome.map(owned)));
    }
}

fn owned(answer: Answer<'_>) -> Owned {
    let spec = &answer.version.spec;
    let output = |output: &mlserve_core::request::Output| {
        let tensor = &spec.outputs[output.index];
        (tensor.name.clone(), output.datatype.name(), output.shape.to_vec(), output.data.clone())
    };
    Owned {
        model: spec.name.to_string(),
        version: spec.version,
        outputs: answer.outputs.iter().map(output).collect(),
        place: answer.place,
        _reservation: answer.reservation,
    }
}

/// The version that a caller names; empty: the server chooses.
///
/// **Errors:** no number.
pub(crate) fn version_number(text: &str) -> Result<Option<u64>, Error> {
    match text {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| Error::invalid(format!("failed to get model version from specified version string '{text}'"))),
    }
}

/// Puts a request together. **Cost:** one copy of the inputs.
pub(crate) fn request(
    model: String,
    version: &str,
    inputs: Vec<PyInput<'_>>,
    outputs: Vec<String>,
    parameters: Vec<(String, PyParameter)>,
    deadline: Option<Instant>,
) -> Result<Request, Error> {
    let mut request = Request {
        protocol: Protocol::InProcess,
        model_name: model.into(),
        model_version: version_number(version)?,
        outputs: outputs.into_iter().map(Text::from).collect(),
        deadline,
        ..Request::default()
    };
    for (name, datatype, shape, data) in inputs {
        let datatype = DataType::from_name(datatype.as_bytes())
            .ok_or_else(|| Error::invalid(format!("input '{name}' has the unknown datatype '{datatype}'")))?;
        let data = copied(&data).map_err(|error| Error::invalid(format!("input '{name}': {error}")))?.into();
        request.inputs.push(Input { name: name.into(), datatype, shape: shape.into(), data });
    }
    for (name, value) in parameters {
        match (name.as_str(), value) {
            ("priority", PyParameter::Int(priority)) if priority >= 0 => request.priority = priority as u64,
            ("priority", _) => return Err(Error::new(Kind::InvalidArgument, "priority must be an integer >= 0")),
            (_, value) => request.parameters.push((name.into(), value.into())),
        }
    }
    Ok(request)
}

/// The bytes of a Python object that has a contiguous buffer. **Cost:** one copy, because Python may change its own.
fn copied(data: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(bytes) = data.cast::<PyBytes>() {
        return Ok(Bytes::copy_from_slice(bytes.as_bytes()));
    }
    Ok(PyBuffer::<u8>::get(data)?.to_vec(data.py())?.into())
}
