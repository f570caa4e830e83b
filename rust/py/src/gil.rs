//! Where the interpreter is let go: every wait of this crate goes through here.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use pyo3::marker::Ungil;
use pyo3::{PyResult, Python};

/// How often a wait looks for signals: nobody notices a tenth of a second after Ctrl-C, and it costs nothing.
pub(crate) const SIGNALS_EVERY: Duration = Duration::from_millis(100);

/// Runs `work` without holding the interpreter, so that other Python threads go on.
pub(crate) fn released<T: Ungil>(py: Python<'_>, work: impl FnOnce() -> T + Ungil) -> T {
    py.detach(work)
}

/// Waits without holding the interpreter for what comes through `receiver`; `None` if nothing can come any more, for
/// which `has_ended` is asked now and then.
///
/// **Errors:** what a signal's handler raised meanwhile, `KeyboardInterrupt` after Ctrl-C. The receiver is dropped then.
pub(crate) fn received<T: Send>(
    py: Python<'_>,
    mut receiver: Receiver<T>,
    has_ended: impl Fn() -> bool,
) -> PyResult<Option<T>> {
    loop {
        // What comes last comes before the end.
        let is_last = has_ended();
        let waited = released(py, move || {
            let outcome = receiver.recv_timeout(SIGNALS_EVERY);
            (receiver, outcome)
        });
        match waited {
            (_, Ok(value)) => return Ok(Some(value)),
            (_, Err(RecvTimeoutError::Disconnected)) => return Ok(None),
            (_, Err(RecvTimeoutError::Timeout)) if is_last => return Ok(None),
            (still_open, Err(RecvTimeoutError::Timeout)) => receiver = still_open,
        }
        py.check_signals()?;
    }
}
