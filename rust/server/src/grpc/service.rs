//! The unary RPCs besides `ModelInfer`: is it live, is it ready, what is it.
//!
//! Answers come from the plan and the status alone, at once, so they need no task and no thread.

use mlserve_core::error::{Error, Result};
use mlserve_core::model::{Batching, TensorSpec};
use mlserve_core::version::Version;

use super::decode::model_version;
use super::encode::{self, Message};
use super::frame::Pieces;
use super::health;
use crate::event_loop::LoopContext;
use crate::proto::model_metadata_response::TensorMetadata;
use crate::proto::{
    ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ServerLiveResponse,
    ServerMetadataResponse, ServerReadyResponse,
};

/// Requests of these RPCs hold a name and a version; more than this is a mistake.
pub(super) const MAX_REQUEST_BYTES: usize = 64 << 10;

/// The extensions of the protocol that this server has.
pub(crate) const EXTENSIONS: &[&str] = &["schedule_policy", "binary_tensor_data", "parameters"];

/// A unary RPC that is answered from the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unary {
    ServerLive,
    ServerReady,
    ModelReady,
    ServerMetadata,
    ModelMetadata,
    HealthCheck,
}

/// Answers `rpc`.
///
/// **Errors:** a request that is no such message; an unknown model or version; a model that is not ready.
pub(super) fn answer(context: &LoopContext, rpc: Unary, request: &Pieces) -> Result<Message> {
    Ok(match rpc {
        Unary::ServerLive => message(&ServerLiveResponse { live: true }),
        Unary::ServerReady => {
            let process = context.process();
            message(&ServerReadyResponse { ready: process.status.is_ready(&process.plan.load()) })
        }
        Unary::ModelReady => message(&model_ready(context, &parsed(request)?)?),
        Unary::ServerMetadata => message(&server_metadata()),
        Unary::ModelMetadata => message(&model_metadata(context, &parsed(request)?)?),
        Unary::HealthCheck => message(&health::check(context, &parsed(request)?)?),
    })
}

/// `request` as the message `T`.
pub(super) fn parsed<T: prost::Message + Default>(request: &Pieces) -> Result<T> {
    let len: usize = request.iter().map(bytes::Bytes::len).sum();
    if len > MAX_REQUEST_BYTES {
        return Err(Error::too_large(format!(
            "a message of {len} bytes; at most {MAX_REQUEST_BYTES} are allowed here"
        )));
    }
    T::decode(&*request.concat())
        .map_err(|fault| Error::invalid(format!("the bytes are not the RPC's message: {fault}")))
}

/// One of prost's messages with its prefix.
pub(super) fn message(message: &impl prost::Message) -> Message {
    encode::framed(message.encoded_len(), |buffer| {
        // The buffer grows: prost has nothing to complain about.
        let _ = message.encode(buffer);
    })
}

/// An unknown model is not ready, which is an answer; only a version that is no number is an error.
fn model_ready(context: &LoopContext, request: &ModelReadyRequest) -> Result<ModelReadyResponse> {
    let version = model_version(&request.version)?;
    let process = context.process();
    let plan = process.plan.load_full();
    Ok(ModelReadyResponse { ready: process.status.is_model_ready(&plan, &request.name, version) })
}

fn server_metadata() -> ServerMetadataResponse {
    ServerMetadataResponse {
        name: "mlserve".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: EXTENSIONS.iter().map(|&name| name.to_owned()).collect(),
    }
}

fn model_metadata(context: &LoopContext, request: &ModelMetadataRequest) -> Result<ModelMetadataResponse> {
    let number = model_version(&request.version)?;
    let plan = context.process().plan.load();
    let version = plan.find(&request.name, number)?;
    let versions = match (number, plan.endpoint(&request.name)) {
        (None, Some(endpoint)) => endpoint.ready().map(|(number, _)| number.to_string()).collect(),
        _ => vec![version.spec.version.to_string()],
    };
    Ok(ModelMetadataResponse {
        name: request.name.clone(),
        versions,
        platform: version.spec.platform.to_owned(),
        inputs: version.spec.inputs.iter().map(tensor_metadata).collect(),
        outputs: version.spec.outputs.iter().map(tensor_metadata).collect(),
        properties: properties(version).map(|(key, value)| (key.to_owned(), value)).collect(),
    })
}

fn tensor_metadata(spec: &TensorSpec) -> TensorMetadata {
    TensorMetadata { name: spec.name.clone(), datatype: spec.datatype.name().to_owned(), shape: spec.shape.to_vec() }
}

/// What a caller may want to know about how the model is run.
pub(crate) fn properties(version: &Version) -> impl Iterator<Item = (&'static str, String)> {
    let batching = match version.spec.batching {
        Batching::Rows => "rows",
        Batching::Unsafe { .. } => "unsafe",
        Batching::Fixed { .. } => "fixed",
    };
    let rows =
        version.spec.batching.is_allowed().then(|| ("max_batch_rows", version.settings.max_batch_rows.to_string()));
    let reason = version.spec.batching.reason().map(|reason| ("batching_reason", reason.to_owned()));
    std::iter::once(("batching", batching.to_owned())).chain(rows).chain(reason)
}
