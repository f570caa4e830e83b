//! A model that is being loaded, after it was checked: makes the sessions that proof and warm-up run.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use mlserve_core::model::TensorSpec;

use crate::allocator;
use crate::api::Status;
use crate::error::LoadError;
use crate::fault::requested_bytes;
use crate::limit::Limiter;
use crate::load::{LoadOptions, now};
use crate::model::external::DataFile;
use crate::model::proto::Model;
use crate::model::spec::{self, Port};
use crate::model::undefined;
use crate::options::SessionOptions;
use crate::runtime::Runtime;
use crate::session::Session;
use crate::weights::Weights;

/// What helps where tensors would take more than they may.
const HINT: &str = "raise the limit or load fewer models";

/// What is being loaded: the parts that proof and warm-up work on.
pub(crate) struct Candidate<'a> {
    pub(crate) runtime: &'a Arc<Runtime>,
    pub(crate) path: &'a Path,
    pub(crate) options: &'a LoadOptions,
    pub(crate) model: &'a Model,
    pub(crate) data_files: &'a [DataFile],
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    /// Ends its trial runs.
    pub(crate) limiter: Limiter,
    /// When its load began, but for the reading of the file.
    pub(crate) begun: Instant,
}

impl<'a> Candidate<'a> {
    /// **Errors:** an input or output that the protocol cannot carry.
    pub(crate) fn new(
        runtime: &'a Arc<Runtime>,
        path: &'a Path,
        options: &'a LoadOptions,
        model: &'a Model,
        data_files: &'a [DataFile],
    ) -> Result<Self, LoadError> {
        let graph = model.graph.as_ref().ok_or_else(|| LoadError::broken("the model has no graph"))?;
        let (inputs, outputs) = (spec::inputs(graph)?, spec::outputs(graph)?);
        let limiter = Limiter::new(options.longest_run);
        Ok(Self { runtime, path, options, model, data_files, inputs, outputs, limiter, begun: now() })
    }

    /// What the model takes and gives.
    pub(crate) fn into_specs(self) -> (Vec<TensorSpec>, Vec<TensorSpec>) {
        let specs = |ports: Vec<Port>| ports.into_iter().map(|port| port.spec).collect();
        (specs(self.inputs), specs(self.outputs))
    }

    /// A session for runs of `threads` threads.
    pub(crate) fn session(&self, threads: usize) -> Result<Arc<Session>, LoadError> {
        let names = |ports: &'_ [Port]| ports.iter().map(|port| port.spec.name.clone()).collect::<Vec<_>>();
        let (inputs, outputs) = (names(&self.inputs), names(&self.outputs));
        let (inputs, outputs) = (inputs.iter().map(String::as_str), outputs.iter().map(String::as_str));
        let mut options = SessionOptions::of_model(self.runtime, threads, self.options.cores, &self.options.session)?;
        options.give(Weights::read(self.runtime, self.data_files)?)?;
        let session =
            Session::new(self.runtime, self.path, &options, inputs, outputs, undefined::not_on_empty(self.model));
        let session = session.map(Arc::new).map_err(|status| self.refused(&status))?;
        if let Some((held, limit)) = self.runtime.excess() {
            let path = self.path.display();
            let text = format!("{path}: with its weights tensors take {held} bytes, the limit is {limit}: {HINT}");
            return Err(LoadError::unsupported(text));
        }
        Ok(session)
    }

    /// What a failed allocation while the session was made comes to.
    fn too_large(&self, message: &str) -> Option<LoadError> {
        let limit = self.runtime.arena_bytes()?;
        let bytes = requested_bytes(message, Some(limit))?;
        let (path, held) = (self.path.display(), allocator::bytes_in_use());
        Some(LoadError::unsupported(format!(
            "{path}: it asks for a tensor of {bytes} bytes beside {held} that are in use, the limit is {limit}: {HINT}"
        )))
    }

    fn refused(&self, status: &Status) -> LoadError {
        /// `OrtErrorCode`: not implemented.
        const NOT_IMPLEMENTED: i32 = 9;
        if let Some(error) = self.too_large(&status.message) {
            return error;
        }
        let line = status.message.lines().next().unwrap_or_default();
        let (path, version) = (self.path.display(), self.runtime.version());
        let is_unsupported = status.code == NOT_IMPLEMENTED
            || ["is under development", "Unsupported"].iter().any(|words| line.contains(words));
        let keys: Vec<&str> = self.options.session.entries.iter().map(|(key, _)| key.as_str()).collect();
        // An entry's value is looked at when the session is made, and not every refusal names it.
        let with = if keys.is_empty() { String::new() } else { format!(" with session entries {}", keys.join(", ")) };
        let text = format!("{path}: ONNX Runtime {version} refuses the model{with}: {line}");
        if is_unsupported { LoadError::unsupported(text) } else { LoadError::broken(text) }
    }
}
