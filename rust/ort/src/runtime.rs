//! The loaded runtime: the process's one ONNX Runtime environment, its log and its shared arena.
//!
//! ONNX Runtime has one environment for a process, whatever an application does, so this is the one static of the
//! crate: every [`Runtime::load`] of a process answers with the same runtime. It is never torn down.

use std::ffi::c_void;
use std::fmt;
use std::os::raw::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;

use ort_sys::{OrtAllocator, OrtAllocatorType, OrtEnv, OrtLoggingFunction, OrtLoggingLevel, OrtMemType, OrtMemoryInfo};
use parking_lot::Mutex;

use crate::allocator::Behind;
use crate::api::{Api, Status, text_of};
use crate::arena::Arena;
use crate::error::{LoadError, LoadErrorKind};
use crate::telemetry::disable_telemetry;
use crate::threads::Spawner;

/// The oldest ONNX Runtime that has all functions we call (the last to come reads an output's shape without a copy).
pub const MINIMUM_VERSION: &str = "1.24.0";

/// The runtime of this process, once loaded.
static LOADED: Mutex<Option<Arc<Runtime>>> = Mutex::new(None);

/// What is fixed when the runtime is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// Most bytes that all tensors of all models may have together, weights included; `None`: no limit.
    pub arena_bytes: Option<usize>,
}

/// The shared library and the environment in it.
pub struct Runtime {
    api: Api,
    version: String,
    path: PathBuf,
    options: RuntimeOptions,
    env: *mut OrtEnv,
    memory: *mut OrtMemoryInfo,
    arena: &'static Arena,
    /// What sessions have their tensors from, with the arena behind it.
    allocator: *mut OrtAllocator,
    /// Where sessions get threads from; they hold its address, and the runtime is moved after the arena's is made.
    spawner: Box<Spawner>,
}

// SAFETY: the pointers are to the environment, which locks itself, and a memory description that is never written again.
unsafe impl Send for Runtime {}
// SAFETY: as above.
unsafe impl Sync for Runtime {}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("version", &self.version).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Opens the library at `path`. A second call in a process returns the runtime of the first one; its options stay.
    ///
    /// Sessions' threads get the priority that the calling thread has now: whoever wants to load models at a lower one
    /// calls this first.
    ///
    /// **Errors:** missing, not ONNX Runtime, too old, or it did not start. A later call may succeed.
    pub fn load(path: &Path, options: RuntimeOptions) -> Result<Arc<Self>, LoadError> {
        disable_telemetry();
        let mut loaded = LOADED.lock();
        if let Some(runtime) = loaded.as_ref() {
            // A wrong path is an error whether or not another server of this process has a runtime already.
            if path != runtime.path {
                Api::open(path)?;
            }
            if path != runtime.path || options != runtime.options {
                tracing::warn!(path = %runtime.path.display(), options = ?runtime.options,
                    "the process has an ONNX Runtime already; its path and options stay");
            }
            return Ok(Arc::clone(runtime));
        }
        let (api, version) = Api::open(path)?;
        let runtime = Self::start(api, version.clone(), path, options).map_err(|status| {
            let text = format!("ONNX Runtime {version} at {} did not start: {}", path.display(), status.message);
            LoadError::new(LoadErrorKind::LibraryUnusable, text)
        })?;
        let runtime = Arc::new(runtime);
        *loaded = Some(Arc::clone(&runtime));
        Ok(runtime)
    }

    /// The runtime of this process, if one was loaded.
    pub(crate) fn loaded() -> Option<Arc<Self>> {
        LOADED.lock().clone()
    }

    /// Version of the library, `1.32.0` for example.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Most bytes of all tensors, if there is a limit.
    pub(crate) fn arena_bytes(&self) -> Option<usize> {
        self.options.arena_bytes
    }

    pub(crate) fn api(&self) -> &Api {
        &self.api
    }

    pub(crate) fn env(&self) -> *mut OrtEnv {
        self.env
    }

    pub(crate) fn memory(&self) -> *const OrtMemoryInfo {
        self.memory
    }

    /// Makes the threads of sessions.
    pub(crate) fn spawner(&self) -> &Spawner {
        &self.spawner
    }

    /// Where sessions have their tensors from.
    pub(crate) fn allocator(&self) -> *mut OrtAllocator {
        self.allocator
    }

    /// Gives unused memory of the arena back to the C allocator.
    pub(crate) fn shrink(&self) {
        self.arena.shrink();
    }

    /// Bytes that the arena holds and the limit, if it holds more than that.
    ///
    /// The arena sets weights aside without a look at the limit, also beside what it keeps for later, and once all that
    /// exceeds it, its check of runs (what is left, unsigned) lets everything through: so whoever makes a session has to
    /// ask.
    pub(crate) fn excess(&self) -> Option<(usize, usize)> {
        let limit = self.options.arena_bytes?;
        if self.arena.held_bytes() > limit {
            self.shrink();
        }
        Some((self.arena.held_bytes(), limit)).filter(|(held, limit)| held > limit)
    }

    fn start(api: Api, version: String, path: &Path, options: RuntimeOptions) -> Result<Self, Status> {
        let table = api.table();
        let mut env = ptr::null_mut();
        let mut memory = ptr::null_mut();
        // SAFETY: the outputs are written by the calls, in this order, before they are read; the logger is a static
        // function without a parameter; the names are static C strings.
        unsafe {
            let log = std::mem::transmute::<Log, OrtLoggingFunction>(log);
            let level = OrtLoggingLevel::ORT_LOGGING_LEVEL_WARNING;
            api.check((table.CreateEnvWithCustomLogger)(
                log,
                ptr::null_mut(),
                level,
                c"mlserve".as_ptr(),
                &raw mut env,
            ))?;
            api.check((table.DisableTelemetryEvents)(env))?;
            let kind = OrtAllocatorType::OrtArenaAllocator;
            api.check((table.CreateCpuMemoryInfo)(kind, OrtMemType::OrtMemTypeDefault, &raw mut memory))?;
        }
        let path = path.to_owned();
        // SAFETY: environment and memory description were just made and are never released.
        let (arena, allocator) = unsafe {
            let arena = Arena::new(api, env, memory, options.arena_bytes)?;
            (arena, arena.register(env, options.arena_bytes)?)
        };
        let unstarted =
            |error: std::io::Error| Status { code: 0, message: format!("no thread can be started: {error}") };
        let spawner = Box::new(Spawner::start().map_err(unstarted)?);
        Ok(Self { api, version, path, options, env, memory, arena, allocator, spawner })
    }
}

/// `OrtLoggingFunction` with the severity as a number, so that an unknown one is no undefined behaviour.
type Log = unsafe extern "system" fn(*mut c_void, i32, *const c_char, *const c_char, *const c_char, *const c_char);

/// Hands the runtime's log on to `tracing`.
unsafe extern "system" fn log(
    _parameter: *mut c_void,
    severity: i32,
    category: *const c_char,
    _id: *const c_char,
    location: *const c_char,
    message: *const c_char,
) {
    let write = || {
        // SAFETY: ONNX Runtime passes C strings that live during the call.
        let (category, location, message) = unsafe { (text_of(category), text_of(location), text_of(message)) };
        if severity >= OrtLoggingLevel::ORT_LOGGING_LEVEL_ERROR as i32 {
            tracing::warn!(target: "onnxruntime", category, location, "{message}");
        } else {
            tracing::debug!(target: "onnxruntime", category, location, "{message}");
        }
    };
    // A subscriber that panics must not unwind into C++; there is nobody left to tell.
    let _ = catch_unwind(AssertUnwindSafe(write));
}
