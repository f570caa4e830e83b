//! The pool lane: a version's instances, and the queue they are fed from. Hot path.
//!
//! A loop hands over all of a turn's requests under one lock and wakes at most one instance; an instance that leaves work
//! behind wakes the next. An idle instance takes what is queued at once, so a batch grows only while all are busy.
//! Instances are threads that start when there is work for them and end after a while without.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::entry::{Entry, Outcome};
use crate::failpoint;
use crate::queue::{Next, Queue};
use crate::run::Runner;
use crate::sync::{Condvar, Mutex, MutexGuard, lock, spawn};
use crate::version::{Delivery, Version};

/// How long an instance without work stays. A thread costs some 10 µs to start and some 20 kB to keep.
const LINGER: Duration = Duration::from_secs(10);

/// The queue of a version and the state of its instances.
#[derive(Debug)]
pub struct Pool {
    state: Mutex<State>,
    wake: Condvar,
    waiting: AtomicUsize,
    is_closed: AtomicBool,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    /// Instances that wait for work.
    idle: usize,
    /// Numbers of the instances that do not run.
    stopped: Vec<usize>,
    is_closed: bool,
}

/// What an instance got from the pool.
#[derive(Debug)]
enum Work {
    Batch(Vec<Entry>, Vec<Outcome>),
    End(Vec<Outcome>),
}

impl Pool {
    /// A pool of at most `instances` instances over an empty `queue`.
    pub fn new(queue: Queue, instances: usize) -> Self {
        let state = State { queue, idle: 0, stopped: (0..instances.max(1)).rev().collect(), is_closed: false };
        Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
            waiting: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Entries that wait for an instance.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether an instance could start at once.
    pub fn has_idle(&self) -> bool {
        let state = lock(&self.state);
        state.queue.is_empty() && (state.idle > 0 || !state.stopped.is_empty())
    }

    /// Whether it has been closed: its version is on its way out.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Whether entries of loop `home` wait here.
    pub fn holds(&self, home: usize) -> bool {
        lock(&self.state).queue.holds(home)
    }

    /// Queues `entries`; what does not fit is refused into `refused`.
    pub fn hand_over(&self, version: &Arc<Version>, entries: &mut Vec<Entry>, refused: &mut Vec<Outcome>) {
        failpoint!("push");
        let mut state = lock(&self.state);
        for entry in entries.drain(..) {
            state.queue.push(entry, refused);
        }
        self.waiting.store(state.queue.len(), Ordering::Relaxed);
        self.call_one(version, state);
    }

    /// Drops entries of loop `home` whose time has passed, and tells when the next one's will.
    pub fn expire(&self, home: usize, now: Instant, refused: &mut Vec<Outcome>) -> Option<Instant> {
        let mut state = lock(&self.state);
        state.queue.expire(home, now, refused);
        self.waiting.store(state.queue.len(), Ordering::Relaxed);
        state.queue.next_expiry(home)
    }

    /// Lets the instances finish what is queued and end, instead of lingering. What a loop hands over later, because it
    /// chose this version before the plan changed, is served all the same.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        lock(&self.state).is_closed = true;
        self.wake.notify_all();
    }

    /// Wakes an idle instance for what is queued, or starts one.
    fn call_one(&self, version: &Arc<Version>, mut state: MutexGuard<'_, State>) {
        if state.queue.is_empty() {
            return;
        }
        if state.idle > 0 {
            drop(state);
            self.wake.notify_one();
        } else if let Some(number) = state.stopped.pop() {
            drop(state);
            if let Err(error) = start_instance(Arc::clone(version), number) {
                self.start_failed(number, &error);
            }
        }
    }

    /// The work waits for an instance that is busy now, for the next hand-over, or for its deadline.
    fn start_failed(&self, number: usize, error: &std::io::Error) {
        let mut state = lock(&self.state);
        state.stopped.push(number);
        tracing::error!(%error, "an instance thread could not be started");
    }

    fn take(&self, version: &Arc<Version>, number: usize) -> Work {
        failpoint!("next");
        let mut refused = Vec::new();
        let mut state = lock(&self.state);
        let mut idle_since = None;
        loop {
            let now = version.clock.now();
            let can_finish = |entry: &Entry| can_finish(version, entry, now);
            let next = state.queue.next(now, version.forming(), can_finish, &mut refused);
            self.waiting.store(state.queue.len(), Ordering::Relaxed);
            let wait = match next {
                Next::Run(batch) => {
                    self.call_one(version, state);
                    return Work::Batch(batch, refused);
                }
                Next::Wait(_) if !refused.is_empty() => return Work::Batch(Vec::new(), refused),
                Next::Wait(wait) => wait,
            };
            let idle_since = *idle_since.get_or_insert(now);
            let lingered = now.saturating_duration_since(idle_since) >= LINGER;
            if state.queue.is_empty() && (state.is_closed || lingered) {
                state.stopped.push(number);
                return Work::End(refused);
            }
            state.idle += 1;
            state = self.wait(state, wait.unwrap_or(LINGER));
            state.idle -= 1;
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, at_most: Duration) -> MutexGuard<'a, State> {
        match self.wake.wait_timeout(state, at_most) {
            Ok((state, _)) => state,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }
}

fn start_instance(version: Arc<Version>, number: usize) -> std::io::Result<()> {
    failpoint!("instance_start", error => return Err(std::io::Error::other(error.text().to_owned())));
    let name = format!("run-{}", version.spec.name);
    spawn(name, move || run_instance(&version, number))
}

fn run_instance(version: &Arc<Version>, number: usize) {
    let mut runner = Runner::new(version.clock.clone());
    let slot = &version.stats.instances[number];
    loop {
        failpoint!("instance");
        match version.pool.take(version, number) {
            Work::Batch(batch, mut outcomes) => {
                if !batch.is_empty() {
                    runner.run(version, slot, batch, &mut outcomes);
                }
                send_home(version, outcomes);
                runner.trim();
            }
            Work::End(outcomes) => return send_home(version, outcomes),
        }
    }
}

/// One message per loop.
fn send_home(version: &Arc<Version>, outcomes: Vec<Outcome>) {
    let mut by_home: Vec<Vec<Outcome>> = version.mailboxes.iter().map(|_| Vec::new()).collect();
    for outcome in outcomes {
        by_home[outcome.ticket.home].push(outcome);
    }
    for (mailbox, outcomes) in version.mailboxes.iter().zip(by_home) {
        if !outcomes.is_empty() {
            mailbox.deliver(Delivery { version: Arc::clone(version), outcomes });
        }
    }
}

/// Whether a run that starts now is expected to end before the entry's deadline.
pub(crate) fn can_finish(version: &Version, entry: &Entry, now: Instant) -> bool {
    let Some(deadline) = entry.deadline else { return true };
    let estimate = version.times.predict(entry.rows, entry.bytes / entry.rows.max(1));
    estimate.is_none_or(|estimate| !estimate.is_known || now + estimate.mean <= deadline)
}
