//! Where the interpreter is let go: every wait of this crate goes through here.

use pyo3::Python;
use pyo3::marker::Ungil;

/// Runs `work` without holding the interpreter, so that other Python threads go on.
pub(crate) fn released<T: Ungil>(py: Python<'_>, work: impl FnOnce() -> T + Ungil) -> T {
    py.detach(work)
}
