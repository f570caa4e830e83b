//! Locks and threads, from the standard library or, under `--cfg loom`, from loom's model of it.

use std::sync::PoisonError;

#[cfg(loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

/// The lock, also after another holder panicked: every critical section here leaves whole data behind.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a thread of this name.
pub(crate) fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    #[cfg(loom)]
    return loom::thread::Builder::new().name(name).spawn(run).map(drop);
    #[cfg(not(loom))]
    std::thread::Builder::new().name(name).spawn(run).map(drop)
}
