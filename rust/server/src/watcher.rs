//! Looks at the event loops from outside, every so often: a run that takes too long on one of them is stopped, and a
//! pause of the whole process is noticed.
//!
//! On a thread of its own, because each of the others may be what has to be looked at. It waits for nobody's lock.

use std::sync::{Arc, Weak};
use std::thread::Thread;

use mlserve_core::clock::Clock;
use mlserve_core::pipeline::Shared;
use mlserve_core::watch::{LOOK_EVERY, Watch};

/// Looks at which one and the same run on a loop was seen before it is stopped. Runs are chosen for a loop because they
/// take well below a millisecond; this one has taken a fifth of a second at least, and two fifths at most.
const LOOKS: u32 = 1;

/// The thread that watches; it ends with this.
#[derive(Debug)]
pub(crate) struct Watcher {
    thread: Thread,
    alive: Option<Arc<()>>,
}

impl Watcher {
    /// Begins to watch the loops that `shared` knows.
    pub(crate) fn start(shared: Arc<Shared>) -> std::io::Result<Self> {
        let alive = Arc::new(());
        let ends = Arc::downgrade(&alive);
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || watch(&shared, &ends))?;
        Ok(Self { thread: thread.thread().clone(), alive: Some(alive) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.alive = None;
        self.thread.unpark();
    }
}

fn watch(shared: &Shared, ends: &Weak<()>) {
    let mut seen = vec![Seen::default(); shared.watch.loops.len()];
    while ends.strong_count() > 0 {
        look(&shared.watch, &mut seen, &shared.clock);
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// The run that a loop was last seen in, and how often.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    run: Option<u64>,
    looks: u32,
}

fn look(watch: &Watch, seen: &mut [Seen], clock: &Clock) {
    let stood = watch.pauses.look(clock.now());
    if let Some(stood) = stood {
        tracing::warn!(
            seconds = stood.as_secs_f32(),
            "the process stood still; what came meanwhile counts from before"
        );
    }
    for (signs, seen) in watch.loops.iter().zip(seen) {
        let run = signs.inline_run();
        seen.looks = if run.is_some() && run == seen.run && stood.is_none() { seen.looks + 1 } else { 0 };
        seen.run = run;
        if let Some(run) = run.filter(|_| seen.looks >= LOOKS) {
            signs.stop_inline(run);
        }
    }
}
