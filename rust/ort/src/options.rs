//! What all sessions have in common: log, threads, memory, optimisation. Reasons with numbers are in
//! docs/decisions/0002-onnx-runtime-sessions.md.

use std::ffi::CStr;
use std::ptr;

use ort_sys::{GraphOptimizationLevel, OrtSessionOptions};

use crate::api::{Api, Status};

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
}

impl Drop for SessionOptions {
    fn drop(&mut self) {
        // SAFETY: ours, released once; sessions have copied what they need.
        unsafe { (self.api.table().ReleaseSessionOptions)(self.raw) };
    }
}

impl SessionOptions {
    /// Options for runs of `threads` threads.
    pub(crate) fn new(api: &Api, threads: usize) -> Result<Self, Status> {
        let table = api.table();
        let mut raw = ptr::null_mut();
        // SAFETY: the options are written by the first call and used by the others; all strings are static.
        unsafe {
            api.check((table.CreateSessionOptions)(&raw mut raw))?;
            let options = Self { api: *api, raw };
            let threads = i32::try_from(threads).unwrap_or(i32::MAX);
            api.check((table.SetIntraOpNumThreads)(raw, threads))?;
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

    pub(crate) fn as_ptr(&self) -> *const OrtSessionOptions {
        self.raw
    }
}
