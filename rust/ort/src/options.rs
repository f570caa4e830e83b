//! Options of a session: what all sessions have in common, and what a model's settings add. The reasons are in
//! docs/decisions/0002-onnx-runtime-sessions.md.

use std::ffi::{CStr, CString};
use std::ptr;

use ort_sys::{ExecutionMode, GraphOptimizationLevel, OrtSessionOptions};

use crate::api::{Api, Status};
use crate::error::LoadError;
use crate::runtime::Runtime;
use crate::settings::{Execution, Optimization, SessionSettings, reserved};
use crate::weights::Weights;

/// Every failure of a session comes back as a status; what it would log besides, a caller could provoke at will.
const LOG_FATAL: i32 = 4;

/// No thread burns a core while it waits for work, and all sessions share the arena of the environment.
const CONFIGURATION: [(&CStr, &CStr); 3] = [
    (c"session.intra_op.allow_spinning", c"0"),
    (c"session.inter_op.allow_spinning", c"0"),
    (c"session.use_env_allocators", c"1"),
];

/// Session options; released when dropped.
pub(crate) struct SessionOptions {
    api: Api,
    raw: *mut OrtSessionOptions,
    /// What sessions copy their weights from; the options point to it.
    weights: Weights,
}

impl Drop for SessionOptions {
    fn drop(&mut self) {
        // SAFETY: ours, released once; sessions have copied what they need.
        unsafe { (self.api.table().ReleaseSessionOptions)(self.raw) };
    }
}

impl SessionOptions {
    /// Options for runs of one thread, the caller's.
    pub(crate) fn new(api: &Api) -> Result<Self, Status> {
        let table = api.table();
        let mut raw = ptr::null_mut();
        // SAFETY: the options are written by the first call and used by the others; all strings are static.
        unsafe {
            api.check((table.CreateSessionOptions)(&raw mut raw))?;
            let options = Self { api: *api, raw, weights: Weights::default() };
            api.check((table.SetIntraOpNumThreads)(raw, 1))?;
            api.check((table.SetInterOpNumThreads)(raw, 1))?;
            api.check((table.SetSessionLogSeverityLevel)(raw, LOG_FATAL))?;
            api.check((table.DisableMemPattern)(raw))?;
            let level = GraphOptimizationLevel::ORT_ENABLE_ALL;
            api.check((table.SetSessionGraphOptimizationLevel)(raw, level))?;
            for (key, value) in CONFIGURATION {
                api.check((table.AddSessionConfigEntry)(raw, key.as_ptr(), value.as_ptr()))?;
            }
            Ok(options)
        }
    }

    /// Options of a model's session, for runs of `threads` threads, on a machine of so many `cores`.
    ///
    /// **Errors:** an entry that is reserved, or that the runtime refuses, by its key.
    pub(crate) fn of_model(
        runtime: &Runtime,
        threads: usize,
        cores: usize,
        settings: &SessionSettings,
    ) -> Result<Self, LoadError> {
        let refused = |status: Status| LoadError::settings(format!("session options are refused: {}", status.message));
        let options = Self::new(runtime.api()).map_err(refused)?;
        options.execute(runtime, threads, cores, settings).map_err(refused)?;
        settings.entries.iter().try_for_each(|(key, value)| options.enter(key, value))?;
        Ok(options)
    }

    pub(crate) fn as_ptr(&self) -> *const OrtSessionOptions {
        self.raw
    }

    /// Lets sessions take the weights that lie in files beside the model from `weights`.
    pub(crate) fn give(&mut self, weights: Weights) -> Result<(), LoadError> {
        self.weights = weights;
        let (mut names, mut contents, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
        for (name, content) in self.weights.files() {
            names.push(name.as_ptr());
            contents.push(content.as_mut_ptr().cast());
            sizes.push(content.len());
        }
        if names.is_empty() {
            return Ok(());
        }
        // SAFETY: the options are alive, names are copied and the arrays are equally long. Sessions copy the contents
        // while they are made, and these live until the options have been released.
        let status = unsafe {
            let add = self.api.table().AddExternalInitializersFromMemory;
            add(self.raw, names.as_ptr(), contents.as_ptr(), sizes.as_ptr(), names.len())
        };
        let refused = |text| LoadError::broken(format!("the weights beside the model are refused: {text}"));
        self.api.check(status).map_err(|status| refused(status.message))
    }

    fn execute(
        &self,
        runtime: &Runtime,
        threads: usize,
        cores: usize,
        settings: &SessionSettings,
    ) -> Result<(), Status> {
        let number = |threads: usize| i32::try_from(threads.max(1)).unwrap_or(i32::MAX);
        let level = match settings.optimization {
            Optimization::Disabled => GraphOptimizationLevel::ORT_DISABLE_ALL,
            Optimization::Basic => GraphOptimizationLevel::ORT_ENABLE_BASIC,
            Optimization::Extended => GraphOptimizationLevel::ORT_ENABLE_EXTENDED,
            Optimization::All => GraphOptimizationLevel::ORT_ENABLE_ALL,
        };
        let (mode, between) = match settings.execution {
            Execution::Sequential => (ExecutionMode::ORT_SEQUENTIAL, 1),
            Execution::Parallel => (ExecutionMode::ORT_PARALLEL, settings.inter_op_threads.unwrap_or(cores)),
        };
        let (api, table) = (&self.api, self.api.table());
        // SAFETY: the options are alive; the runtime of a process is never dropped, so its spawner outlives all sessions.
        unsafe {
            api.check((table.SetIntraOpNumThreads)(self.raw, number(threads)))?;
            api.check((table.SetInterOpNumThreads)(self.raw, number(between)))?;
            api.check((table.SetSessionExecutionMode)(self.raw, mode))?;
            api.check((table.SetSessionGraphOptimizationLevel)(self.raw, level))?;
            runtime.spawner().attach(api, self.raw)
        }
    }

    /// Adds an entry of the runtime's own configuration.
    fn enter(&self, key: &str, value: &str) -> Result<(), LoadError> {
        let refuse = |why: &str| LoadError::settings(format!("the session entry '{key}' is refused: {why}"));
        if let Some(reason) = reserved(key) {
            return Err(refuse(reason));
        }
        let nul = |_| refuse("it has a NUL byte inside");
        let (name, text) = (CString::new(key).map_err(nul)?, CString::new(value).map_err(nul)?);
        // SAFETY: the options are alive; the strings are copied.
        let status = unsafe { (self.api.table().AddSessionConfigEntry)(self.raw, name.as_ptr(), text.as_ptr()) };
        self.api.check(status).map_err(|status| refuse(&status.message))
    }
}
