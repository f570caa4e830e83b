//! The ONNX Runtime backend: the one place with foreign code, fenced in behind [`mlserve_core::backend::Backend`].
//!
//! [`Runtime`] is the shared library, opened at run time. [`load`] joins the steps of a model's way in: the file is read
//! without ONNX Runtime and checked, a session is made, and the model is warmed up and its batching proven. What may be
//! unsafe is in `allocator`, `api`, `arena`, `exit`, `fork`, `heaps`, `options`, `runtime`, `session`, `slices`, `stop`,
//! `telemetry`, `threads` and `value`; nothing else here may.

// Whoever prints waits for the reader; the server's `output` does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod allocator;
mod api;
mod arena;
mod backend;
mod candidate;
mod error;
mod exit;
mod fault;
mod fingerprint;
mod fork;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod heaps;
mod limit;
mod load;
mod memory;
mod model;
mod number;
mod options;
mod probe;
mod proof;
mod runtime;
mod session;
mod settings;
mod slices;
mod stop;
mod telemetry;
mod threads;
mod value;
mod warmup;
mod weights;

pub use error::{LoadError, LoadErrorKind};
pub use exit::exit_at_once;
pub use fingerprint::Fingerprint;
pub use fork::end_without_destructors;
pub use limit::{Endless, Limiter};
pub use load::{GraphFacts, LoadOptions, LoadTimes, LoadedModel, load, load_watched};
pub use memory::{release_memory, share_heaps};
pub use runtime::{MINIMUM_VERSION, Runtime, RuntimeOptions};
pub use settings::{Execution, Optimization, SessionSettings};
pub use slices::take_short_slices;
pub use telemetry::disable_telemetry;
