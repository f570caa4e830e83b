//! Stops a run from another thread. Hot path.
//!
//! Each thread that runs batches has one [`Stop`]. A backend that can be stopped puts its own switch into it with its first
//! run; others look at [`Stop::is_asked`], or run to their end.

use std::any::Any;
use std::fmt::Debug;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// A backend's own way to stop what a thread runs.
pub trait Switch: Any + Send + Sync + Debug {
    /// The run that goes on ends soon, and so does any other until [`Switch::reset`]. Called on any thread.
    fn stop(&self);

    /// Runs go on to their end again.
    fn reset(&self);
}

/// Whether a thread's run is to end, and the switch that ends it.
#[derive(Debug, Default)]
pub struct Stop {
    is_asked: AtomicBool,
    switch: OnceLock<Box<dyn Switch>>,
}

impl Stop {
    /// Ends the run that goes on, and every other until [`Stop::reset`]. On any thread.
    pub fn ask(&self) {
        self.is_asked.store(true, Ordering::SeqCst);
        if let Some(switch) = self.switch.get() {
            switch.stop();
        }
    }

    /// Whether the run is to end.
    pub fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::SeqCst)
    }

    /// Lets runs go on to their end again. On the thread that runs, between runs.
    pub fn reset(&self) {
        if let Some(switch) = self.switch.get() {
            switch.reset();
        }
        self.is_asked.store(false, Ordering::SeqCst);
    }

    /// The thread's switch of type `T`, made by `make` if there is none yet; `None` if there is one of another backend.
    pub fn switch<T: Switch>(&self, make: impl FnOnce() -> T) -> Option<&T> {
        let switch = self.switch.get_or_init(|| {
            let switch = Box::new(make());
            // Asked before there was a switch.
            if self.is_asked() {
                switch.stop();
            }
            switch
        });
        (&**switch as &dyn Any).downcast_ref()
    }
}
