//! The life of a data plane in this process: one state machine under one lock.
//!
//! ```text
//! new ──► starting ──► running ──► stopping ──► ended
//!  └──────────┴─────────────────────────────────►┘
//! ```
//!
//! The steps that take time are made by threads of their own; whoever asked for one waits without the interpreter and
//! looks for signals meanwhile. The lock is held for moments only, and never while anything is waited for.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mlserve_core::config::Settings;
use mlserve_server::front::Stop;
use mlserve_server::server::{Server as DataPlane, has_failed};
use pyo3::prelude::*;

use crate::error::{LifecycleError, ModelLoadError};
use crate::gil::{SIGNALS_EVERY, released};

/// How long the end of the interpreter waits for a run that does not end.
const EXIT_LIMIT: Duration = Duration::from_secs(5);

/// One server, from its making to its end.
#[derive(Debug)]
pub(crate) struct Life {
    /// The process that made it. In a fork of it there are no threads to wait for, and the lock may be held for ever.
    owner: u32,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
enum State {
    New,
    /// The data plane is there as soon as it listens; it may have been told to stop already.
    Starting {
        server: Option<Arc<DataPlane>>,
        is_stopped: bool,
    },
    Running(Arc<DataPlane>),
    Stopping(Arc<DataPlane>),
    /// Stopped, or why it did not start.
    Ended(Result<(), String>),
}

impl Life {
    /// One that has not begun.
    pub(crate) fn new() -> Self {
        let shared = Shared { state: Mutex::new(State::New), changed: Condvar::new() };
        Self { owner: std::process::id(), shared: Arc::new(shared) }
    }

    /// New ⇒ starting ⇒ running. Returns when every model is ready or has failed.
    ///
    /// **Errors:** it was started before, or stopped meanwhile; it cannot start; a signal's handler raised, and then the
    /// server stops.
    pub(crate) fn start(&self, py: Python<'_>, settings: Settings) -> PyResult<()> {
        self.check_process()?;
        {
            let mut state = self.shared.lock();
            if !matches!(*state, State::New) {
                return Err(LifecycleError::new_err("the server was started before; make a new one"));
            }
            *state = State::Starting { server: None, is_stopped: false };
        }
        let shared = Arc::clone(&self.shared);
        if let Err(error) = spawn("start", move || Starter(shared).start(settings)) {
            self.shared.change(State::Ended(Err(error.to_string())));
        }
        self.wait(py, |state| !matches!(state, State::Starting { .. })).inspect_err(|_| self.ask_to_stop(false))?;
        match &*self.shared.lock() {
            State::Running(_) => Ok(()),
            State::Ended(Err(text)) => Err(ModelLoadError::new_err(text.clone())),
            _ => Err(LifecycleError::new_err("the server was stopped while it started")),
        }
    }

    /// Whatever it is ⇒ ended. With `drain`, what is in flight is finished first; a second call can hasten the first.
    /// Returns when it has ended.
    ///
    /// **Errors:** a signal's handler raised; the server goes on to stop.
    pub(crate) fn stop(&self, py: Python<'_>, drain: bool) -> PyResult<()> {
        self.check_process()?;
        self.ask_to_stop(drain);
        self.wait(py, |state| matches!(state, State::Ended(_)))
    }

    /// As [`Self::stop`] at once, for the end of the interpreter: waits for a moment only, and looks for no signals.
    pub(crate) fn leave(&self, py: Python<'_>) {
        if self.check_process().is_err() {
            return;
        }
        let server = self.running().ok();
        self.ask_to_stop(false);
        let has_ended = released(py, || self.shared.wait(EXIT_LIMIT, |state| matches!(state, State::Ended(_))));
        if !has_ended || server.is_some_and(|server| server.left_behind() > 0) {
            // The runtime would be torn down under the hands of what still runs in it.
            mlserve_server::end_without_destructors();
        }
    }

    /// The data plane, if it is running.
    ///
    /// **Errors:** it is not, and in what state it is.
    pub(crate) fn running(&self) -> PyResult<Arc<DataPlane>> {
        self.check_process()?;
        let text = match &*self.shared.lock() {
            State::Running(server) => return Ok(Arc::clone(server)),
            State::New => "the server was not started",
            State::Starting { .. } => "the server is starting",
            State::Stopping(_) | State::Ended(Ok(())) => "the server is stopped",
            State::Ended(Err(_)) => "the server did not start",
        };
        Err(LifecycleError::new_err(text))
    }

    /// Whether nothing that was asked of it can be answered any more.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(&*self.shared.lock(), State::Ended(_))
    }

    fn check_process(&self) -> PyResult<()> {
        if self.owner == std::process::id() {
            return Ok(());
        }
        Err(LifecycleError::new_err(
            "an mlserve server was made before this process was forked, and its threads did not come along; start child \
             processes with the 'spawn' method",
        ))
    }

    fn ask_to_stop(&self, drain: bool) {
        let mut state = self.shared.lock();
        match &mut *state {
            State::New => *state = State::Ended(Ok(())),
            State::Starting { server, is_stopped } => {
                // Whoever starts it finds this, and ends it.
                *is_stopped = true;
                if let Some(server) = server {
                    server.stop(Stop::Now);
                }
            }
            State::Running(server) => {
                let server = Arc::clone(server);
                server.stop(if drain { Stop::Drain } else { Stop::Now });
                *state = State::Stopping(Arc::clone(&server));
                drop(state);
                self.shared.end(server);
                return;
            }
            State::Stopping(server) if !drain => server.stop(Stop::Now),
            State::Stopping(_) | State::Ended(_) => {}
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Waits until `reached`, without the interpreter, and looks for signals.
    fn wait(&self, py: Python<'_>, reached: impl Fn(&State) -> bool + Sync) -> PyResult<()> {
        while !released(py, || self.shared.wait(SIGNALS_EVERY, &reached)) {
            py.check_signals()?;
        }
        Ok(())
    }
}

/// The interpreter holds its lock here: nothing may be waited for.
impl Drop for Life {
    fn drop(&mut self) {
        if self.check_process().is_ok() {
            self.ask_to_stop(false);
        } else {
            // What it would free belongs to threads that are not here.
            std::mem::forget(Arc::clone(&self.shared));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves on; what is left behind is dropped outside the lock.
    fn change(&self, next: State) {
        let past = std::mem::replace(&mut *self.lock(), next);
        self.changed.notify_all();
        drop(past);
    }

    fn wait(&self, limit: Duration, reached: impl Fn(&State) -> bool) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), limit, |state| !reached(state));
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        reached(&state)
    }

    /// Stopping ⇒ ended, on a thread of its own.
    fn end(self: &Arc<Self>, server: Arc<DataPlane>) {
        let shared = Arc::clone(self);
        let join = move || {
            server.join();
            drop(server);
            shared.change(State::Ended(Ok(())));
        };
        if spawn("stop", join).is_err() {
            // It was told to stop; nobody is left to wait for it.
            self.change(State::Ended(Ok(())));
        }
    }
}

/// Starts a data plane; whatever happens, the state moves on.
struct Starter(Arc<Shared>);

impl Starter {
    fn start(self, settings: Settings) {
        let (server, failure) = match DataPlane::start(settings) {
            Ok(server) => {
                let server = Arc::new(server);
                let failure = self.settle(&server).err();
                (Some(server), failure)
            }
            Err(text) => (None, Some(text)),
        };
        let mut state = self.0.lock();
        let is_stopped = !matches!(*state, State::Starting { is_stopped: false, .. });
        match server {
            Some(server) if !is_stopped && failure.is_none() => {
                *state = State::Running(server);
                drop(state);
                self.0.changed.notify_all();
            }
            server => {
                drop(state);
                if let Some(server) = server {
                    server.stop(Stop::Now);
                    server.join();
                }
                self.0.change(State::Ended(if is_stopped { Ok(()) } else { failure.map_or(Ok(()), Err) }));
            }
        }
    }

    /// Waits for the models, so that the server can be stopped meanwhile.
    fn settle(&self, server: &Arc<DataPlane>) -> Result<(), String> {
        if let State::Starting { server: listening, is_stopped: false } = &mut *self.0.lock() {
            *listening = Some(Arc::clone(server));
        } else {
            return Ok(());
        }
        let Some(startup) = server.wait_until_settled() else { return Ok(()) };
        if has_failed(&startup.reports) {
            let reasons = startup.reports.iter().filter_map(|report| report.result.as_ref().err().cloned());
            return Err(reasons.collect::<Vec<_>>().join("; "));
        }
        Ok(())
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.change(State::Ended(Err("the start panicked; this is a bug".to_owned())));
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}
