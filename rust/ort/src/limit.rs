//! Ends trial runs that take too long: a thread looks at the run that goes on, and stops it once its time is over.
//!
//! A model may run for hours on values that nobody would send, and whoever loads it must not wait for that. After a run that
//! was stopped there is no other: a load waits for one such run at most.

use std::cell::Cell;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mlserve_core::stop::Stop;
use parking_lot::{Condvar, Mutex};

use crate::load::now;

/// How often the run is looked at. Being woken for each would cost more than most runs take.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs of one load, one after the other, each of which ends.
#[derive(Debug)]
pub struct Limiter {
    shared: Arc<Shared>,
    longest: Cell<Duration>,
    stopped: Cell<Option<Duration>>,
    watcher: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    over: Condvar,
    stop: Stop,
}

#[derive(Debug, Default)]
struct State {
    /// When the run that goes on has to have ended.
    until: Option<Instant>,
    is_over: bool,
}

/// A run was stopped after this time, or was not made because another one had been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endless(pub Duration);

impl Limiter {
    /// Runs may take `longest` each.
    ///
    /// **Cost:** a thread that lives as long as this.
    pub fn new(longest: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let watcher = std::thread::Builder::new().name("trials".to_owned()).spawn(move || seen.watch());
        if let Err(error) = &watcher {
            tracing::warn!(%error, "trial runs cannot be stopped: there is no thread to look at them");
        }
        Self { shared, longest: Cell::new(longest), stopped: Cell::new(None), watcher: watcher.ok() }
    }

    /// The runs that come may take no longer than this.
    pub(crate) fn shorten(&self, longest: Duration) {
        self.longest.set(self.longest.get().min(longest));
    }

    /// What `run` gives, which has to end once it is asked to.
    ///
    /// **Errors:** it was asked to, or an earlier one was.
    pub fn run<T>(&self, run: impl FnOnce(&Stop) -> T) -> Result<T, Endless> {
        if let Some(after) = self.stopped.get() {
            return Err(Endless(after));
        }
        self.shared.state.lock().until = Some(now() + self.longest.get());
        let given = run(&self.shared.stop);
        // Under the lock, so that nobody stops what has ended.
        let mut state = self.shared.state.lock();
        state.until = None;
        if self.shared.stop.is_asked() {
            self.stopped.set(Some(self.longest.get()));
            return Err(Endless(self.longest.get()));
        }
        Ok(given)
    }

    /// After which time a run was stopped, if one was.
    pub(crate) fn stopped(&self) -> Option<Duration> {
        self.stopped.get()
    }
}

impl Shared {
    fn watch(&self) {
        let mut state = self.state.lock();
        while !state.is_over {
            if state.until.is_some_and(|until| until <= now()) {
                self.stop.ask();
            }
            self.over.wait_for(&mut state, LOOK_EVERY);
        }
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.shared.state.lock().is_over = true;
        self.shared.over.notify_all();
        if let Some(watcher) = self.watcher.take() {
            // It cannot panic, and nothing depends on it any more.
            let _ = watcher.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until_asked(stop: &Stop) {
        while !stop.is_asked() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_run_that_does_not_end_is_stopped_and_the_last_one() {
        let limiter = Limiter::new(Duration::from_secs(600));
        assert_eq!(limiter.run(|_| 1), Ok(1));
        limiter.shorten(Duration::from_millis(1));
        assert_eq!(limiter.run(until_asked), Err(Endless(Duration::from_millis(1))));
        let mut is_run = false;
        assert_eq!(limiter.run(|_| is_run = true), Err(Endless(Duration::from_millis(1))));
        assert!(!is_run);
    }
}
