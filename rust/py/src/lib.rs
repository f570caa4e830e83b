//! The Python extension `mlserve._core`: settings and buffers down, answers and one snapshot up.
//!
//! Python threads never carry an ONNX request of a socket; only a call of the same process comes through here.

// Whoever prints waits for the reader; the server's `output` does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod error;
mod gil;
mod infer;
mod life;
mod server;

use pyo3::prelude::*;

/// The Rust side of mlserve.
#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::error::error_table;
    #[pymodule_export]
    use crate::server::{Server, forked, run_cli};

    use super::{Bound, PyModule, PyModuleMethods, PyResult};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
