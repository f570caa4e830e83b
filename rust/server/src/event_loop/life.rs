//! The life of a loop's thread: its runtime and its tasks, and what happens when one of them panics.
//!
//! Running ⇒ running: a task panicked. What was in the turn is answered as failed; connections and what waits go on.
//! Running ⇒ starting: that could not be mended. Connections are cut, and the loop begins anew with nothing.
//! Running ⇒ ended: it was told to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use mlserve_core::failpoint;
use mlserve_core::pipeline::Shared;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, LocalSet, spawn_local};

use super::pulse::Pulse;
use super::{Arrival, LoopContext, LoopMailbox};
use crate::access::AccessLog;
use crate::panics::{self, Place, caught};
use crate::process::Process;

/// Pause of a task after a panic, and of a loop before it starts again: a fault that comes back at once must not take the
/// whole core.
const PAUSE: Duration = Duration::from_millis(10);
/// What connections of a loop that cannot go on have for their last answers.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What a loop's thread is started with.
pub(crate) struct LoopSeed {
    pub(crate) home: usize,
    pub(crate) process: Arc<Process>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) mailbox: Arc<LoopMailbox>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) access_log: Option<AccessLog>,
}

/// How a loop ended.
enum End {
    Asked,
    Broken(String),
}

/// Runs a loop on this thread until [`super::LoopHandle::end`].
pub(crate) fn run(seed: &LoopSeed, mut arrivals: mpsc::UnboundedReceiver<Arrival>) {
    mlserve_ort::take_short_slices();
    loop {
        let what = match catch_unwind(AssertUnwindSafe(|| live(seed, &mut arrivals))) {
            Ok(Ok(End::Asked)) => break,
            Ok(Ok(End::Broken(what))) => what,
            Ok(Err(error)) => format!("the loop could not be started: {error}"),
            Err(payload) => panics::text(&*payload),
        };
        // Not ready until it runs again.
        seed.pulse.set_runs(false);
        seed.process.panics.note(Place::Loop, &what);
        std::thread::sleep(PAUSE);
    }
    seed.mailbox.close();
}

fn live(seed: &LoopSeed, arrivals: &mut mpsc::UnboundedReceiver<Arrival>) -> std::io::Result<End> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_keep_alive(Duration::from_secs(10))
        .on_thread_park({
            let (shared, home) = (Arc::clone(&seed.shared), seed.home);
            move || shared.watch.loops[home].turned()
        })
        .build()?;
    let tasks = LocalSet::new();
    let end = tasks.block_on(&runtime, async {
        let LoopSeed { home, process, shared, access_log, .. } = seed;
        let context = LoopContext::new(*home, Arc::clone(process), Arc::clone(shared), access_log.clone());
        let mut kept = start_tasks(&context, seed);
        seed.pulse.set_runs(true);
        tokio::select! {
            biased;
            what = first_to_end(&mut kept) => {
                context.try_to_recover();
                tokio::time::sleep(LAST_WORDS).await;
                End::Broken(what)
            }
            () = receive(&context, arrivals) => End::Asked,
        }
    });
    drop(tasks);
    // What parses a large body off the loop must not hold up the end.
    runtime.shutdown_background();
    Ok(end)
}

fn start_tasks(context: &LoopContext, seed: &LoopSeed) -> [JoinHandle<()>; 3] {
    let (mailbox, pulse) = (Arc::clone(&seed.mailbox), Arc::clone(&seed.pulse));
    [
        spawn_local(context.clone().keep(async |context| context.run_turns().await)),
        spawn_local(context.clone().keep(async move |context| context.run_mailbox(&mailbox, &pulse).await)),
        spawn_local(context.clone().keep(async |context| context.run_expiry().await)),
    ]
}

async fn receive(context: &LoopContext, arrivals: &mut mpsc::UnboundedReceiver<Arrival>) {
    while let Err(what) = caught(context.run_arrivals(arrivals)).await {
        context.process().panics.note(Place::Turn, &what);
        context.try_to_recover();
    }
    #[cfg(test)]
    assert!(!context.0.inner.is_broken.get(), "on purpose");
}

/// A task that is kept ends only if it could not be mended.
async fn first_to_end(tasks: &mut [JoinHandle<()>; 3]) -> String {
    let [turns, mailbox, expiry] = tasks;
    let ended: Result<(), JoinError> = tokio::select! {
        ended = turns => ended,
        ended = mailbox => ended,
        ended = expiry => ended,
    };
    let panicked = ended.err().and_then(|error| error.try_into_panic().ok());
    panicked.map_or_else(|| "a task ended".to_owned(), |payload| panics::text(&*payload))
}

impl LoopContext {
    /// Carries `task` out for as long as the loop lives, also after a panic in it.
    async fn keep(self, task: impl AsyncFn(&Self)) {
        while let Err(what) = caught(task(&self)).await {
            self.process().panics.note(Place::Turn, &what);
            failpoint!("recover");
            self.try_to_recover();
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A panic here leaves less behind for the next attempt: what was taken out to be answered is dropped.
    fn try_to_recover(&self) {
        while let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.recover())) {
            self.process().panics.note(Place::Turn, &panics::text(&*payload));
        }
    }
}
