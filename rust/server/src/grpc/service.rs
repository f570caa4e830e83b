//! The unary RPCs besides `ModelInfer`: is it live, is it ready, what is it; and the protocol's extensions.
//!
//! Most are answered at once, so they need no task and no thread; [`Slow`] ones get a task, and those that
//! [take time](Unary::takes_time) a thread.

use std::sync::Arc;

use mlserve_core::error::{Error, Result};
use mlserve_core::model::TensorSpec;
use mlserve_core::plan::Found;
use mlserve_core::version::Version;

use super::decode::model_version;
use super::encode::{self, Message};
use super::frame::Pieces;
use super::health;
use super::reader::Reader;
use super::reply::off_loop;
use crate::event_loop::LoopContext;
use crate::extensions::statistics::{Form, Statistics, model_statistics};
use crate::extensions::{config, logging, repository, shared_memory, trace};
use crate::process::Process;
use crate::proto::model_metadata_response::TensorMetadata;
use crate::proto::{
    ModelConfigRequest, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse,
    ModelStatisticsRequest, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse,
    ServerReadyRequest, ServerReadyResponse,
};

/// Requests of these RPCs hold a name and a version; more than this is a mistake.
pub(super) const MAX_REQUEST_BYTES: usize = 64 << 10;

/// The extensions of the protocol that this server has.
pub(crate) const EXTENSIONS: &[&str] = &[
    "classification",
    "sequence",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "cuda_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
];

/// A unary RPC that is answered from the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unary {
    ServerLive,
    ServerReady,
    ModelReady,
    ServerMetadata,
    ModelMetadata,
    ModelConfig,
    SystemSharedMemoryStatus,
    SystemSharedMemoryRegister,
    SystemSharedMemoryUnregister,
    CudaSharedMemoryStatus,
    CudaSharedMemoryRegister,
    CudaSharedMemoryUnregister,
    TraceSetting,
    LogSettings,
    HealthCheck,
}

impl Slow {
    /// Whether it may change something.
    pub(super) fn changes(self) -> bool {
        matches!(self, Slow::Load | Slow::Unload)
    }
}

impl Unary {
    /// Whether it does more than tell what models there are.
    pub(super) fn is_guarded(self) -> bool {
        match self {
            Unary::SystemSharedMemoryStatus
            | Unary::SystemSharedMemoryRegister
            | Unary::SystemSharedMemoryUnregister
            | Unary::CudaSharedMemoryStatus
            | Unary::CudaSharedMemoryRegister
            | Unary::CudaSharedMemoryUnregister
            | Unary::TraceSetting
            | Unary::LogSettings => true,
            Unary::ServerLive
            | Unary::ServerReady
            | Unary::ModelReady
            | Unary::ServerMetadata
            | Unary::ModelMetadata
            | Unary::ModelConfig
            | Unary::HealthCheck => false,
        }
    }

    /// Whether the answer asks the system for memory or files.
    pub(super) fn takes_time(self) -> bool {
        matches!(
            self,
            Unary::SystemSharedMemoryStatus
                | Unary::SystemSharedMemoryRegister
                | Unary::SystemSharedMemoryUnregister
                | Unary::TraceSetting
        )
    }
}

/// A unary RPC whose answer takes time: it goes through all models, or changes some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slow {
    Statistics,
    Index,
    Load,
    Unload,
}

/// The model that `rpc` asks about, if that is loaded on demand and has to be waited for.
pub(super) fn awaited(context: &LoopContext, rpc: Unary, request: &Pieces) -> Option<(String, Option<u64>)> {
    let (name, version) = match rpc {
        Unary::ModelMetadata => parsed::<ModelMetadataRequest>(request).map(|request| (request.name, request.version)),
        Unary::ModelConfig => parsed::<ModelConfigRequest>(request).map(|request| (request.name, request.version)),
        _ => return None,
    }
    .ok()?;
    let number = model_version(&version).ok()?;
    let plan = context.process().plan.load();
    matches!(plan.look_up(&name, number), Ok(Found::OnDemand)).then_some((name, number))
}

/// Answers `rpc`.
///
/// **Errors:** a request that is no such message; an unknown model or version; a model that is not ready.
pub(super) fn answer(process: &Process, rpc: Unary, request: &Pieces) -> Result<Message> {
    Ok(match rpc {
        Unary::ServerLive => {
            parsed::<ServerLiveRequest>(request)?;
            message(&ServerLiveResponse { live: true })
        }
        Unary::ServerReady => {
            parsed::<ServerReadyRequest>(request)?;
            message(&ServerReadyResponse { ready: process.status.is_ready(&process.plan.load()) })
        }
        Unary::ModelReady => message(&model_ready(process, &parsed(request)?)?),
        Unary::ServerMetadata => {
            parsed::<ServerMetadataRequest>(request)?;
            message(&server_metadata())
        }
        Unary::ModelMetadata => message(&model_metadata(process, &parsed(request)?)?),
        Unary::ModelConfig => message(&config::model_config(process, &parsed(request)?)?),
        Unary::SystemSharedMemoryStatus => message(&shared_memory::status(process, &parsed(request)?)?),
        Unary::SystemSharedMemoryRegister => message(&shared_memory::register(process, &parsed(request)?)?),
        Unary::SystemSharedMemoryUnregister => message(&shared_memory::unregister(process, &parsed(request)?)?),
        Unary::CudaSharedMemoryStatus => message(&shared_memory::cuda_status(&parsed(request)?)?),
        Unary::CudaSharedMemoryRegister => message(&shared_memory::cuda_register(&parsed(request)?)?),
        Unary::CudaSharedMemoryUnregister => message(&shared_memory::cuda_unregister(&parsed(request)?)),
        Unary::TraceSetting => message(&trace::settings(process, &parsed(request)?)?),
        Unary::LogSettings => message(&logging::settings(&parsed(request)?)?),
        Unary::HealthCheck => message(&health::check(process, &parsed(request)?)?),
    })
}

/// Answers `rpc` when it is done.
///
/// **Errors:** a request that is no such message; what was asked for was refused or failed.
pub(super) async fn answer_slow(process: &Arc<Process>, rpc: Slow, request: Pieces) -> Result<Message> {
    Ok(match rpc {
        Slow::Statistics => statistics_of(process, parsed(&request)?).await?,
        Slow::Index => message(&repository::index(process, parsed(&request)?).await?),
        Slow::Load => {
            let limit = process.settings.limits.max_body_bytes;
            let request = off_loop(process, move || parsed_within(&request, limit)).await?;
            message(&repository::load(process, request).await?)
        }
        Slow::Unload => message(&repository::unload(process, parsed(&request)?).await?),
    })
}

async fn statistics_of(process: &Arc<Process>, request: ModelStatisticsRequest) -> Result<Message> {
    if request.name.is_empty() {
        model_version(&request.version)?;
        return Ok(encode::framed_bytes(Statistics::of_all(process, Form::Message).await?));
    }
    let shared = Arc::clone(process);
    off_loop(process, move || Ok(message(&model_statistics(&shared, &request)?))).await
}

/// `request` as the message `T`.
pub(super) fn parsed<T: prost::Message + Default>(request: &Pieces) -> Result<T> {
    parsed_within(request, MAX_REQUEST_BYTES)
}

fn parsed_within<T: prost::Message + Default>(request: &Pieces, limit: usize) -> Result<T> {
    let len: usize = request.iter().map(bytes::Bytes::len).sum();
    if len > limit {
        return Err(Error::too_large(format!("a message of {len} bytes; at most {limit} are allowed here")));
    }
    // The generated code keeps a place for each field: they are counted before.
    let mut reader = Reader::new(request);
    while let Some((field, wire)) = reader.key()? {
        reader.skip(field, wire)?;
    }
    let decoded = match &request[..] {
        [piece] => T::decode(&**piece),
        pieces => T::decode(&*pieces.concat()),
    };
    decoded.map_err(|fault| Error::invalid(format!("the bytes are not the RPC's message: {fault}")))
}

/// One of prost's messages with its prefix.
pub(super) fn message(message: &impl prost::Message) -> Message {
    encode::framed(message.encoded_len(), |buffer| {
        // The buffer grows: prost has nothing to complain about.
        let _ = message.encode(buffer);
    })
}

/// An unknown model is not ready, which is an answer; only a version that is no number is an error.
fn model_ready(process: &Process, request: &ModelReadyRequest) -> Result<ModelReadyResponse> {
    let version = model_version(&request.version)?;
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

fn model_metadata(process: &Process, request: &ModelMetadataRequest) -> Result<ModelMetadataResponse> {
    let number = model_version(&request.version)?;
    let plan = process.plan.load();
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
    let batching = version.spec.batching.name();
    let rows =
        version.spec.batching.is_allowed().then(|| ("max_batch_rows", version.settings.max_batch_rows.to_string()));
    let reason = version.spec.batching.reason().map(|reason| ("batching_reason", reason.to_owned()));
    std::iter::once(("batching", batching.to_owned())).chain(rows).chain(reason)
}
