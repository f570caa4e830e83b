//! The pool lane: a version's instances, and the queue they are fed from. Hot path.
//!
//! A loop hands over all of a turn's requests under one lock and wakes at most one instance; an instance that leaves work
//! behind wakes the next. An idle instance takes what is queued at once, so a batch grows only while all are busy.
//! Instances are threads that start when there is work for them and end after a while without. One that panics refuses
//! what it had taken, and another takes its place.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::entry::{Entry, Outcome};
use crate::error::Error;
use crate::failpoint;
use crate::queue::{Chance, Next, Queue, drop_gone};
use crate::run::{Job, Place, Runner, panicked};
use crate::running::Running;
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
    /// What each instance runs.
    running: Box<[Running]>,
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
        let instances = instances.max(1);
        let state = State { queue, idle: 0, stopped: (0..instances).rev().collect(), is_closed: false };
        Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
            waiting: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
            running: (0..instances).map(|_| Running::default()).collect(),
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

    /// Stops every run that goes on; its requests are refused.
    pub fn stop_runs(&self) {
        self.running.iter().for_each(Running::stop);
    }

    /// Runs that go on although nobody waits for their end any more: they were told to stop and could not yet.
    pub fn abandoned(&self) -> usize {
        self.running.iter().filter(|running| running.is_abandoned()).count()
    }

    /// Queues `entries` of loop `home`; what does not fit is refused into `refused`. What has to make room and came from
    /// another loop is refused there.
    pub fn hand_over(&self, version: &Arc<Version>, home: usize, entries: &mut Vec<Entry>, refused: &mut Vec<Outcome>) {
        failpoint!("push");
        let mut state = lock(&self.state);
        for entry in entries.drain(..) {
            state.queue.push(entry, refused);
        }
        self.waiting.store(state.queue.len(), Ordering::Relaxed);
        self.call_one(version, state);
        if refused.iter().any(|outcome| outcome.ticket.home != home) {
            let (own, others) = std::mem::take(refused).into_iter().partition(|outcome| outcome.ticket.home == home);
            *refused = own;
            send_home(version, others);
        }
    }

    /// Drops entries of loop `home` whose time has passed, in the queue and in the runs that go on, and those in runs
    /// whose callers are gone. Tells when the next one's time passes.
    pub fn expire(&self, home: usize, now: Instant, refused: &mut Vec<Outcome>) -> Option<Instant> {
        let mut state = lock(&self.state);
        state.queue.expire(home, now, refused);
        self.waiting.store(state.queue.len(), Ordering::Relaxed);
        let queued = state.queue.next_expiry(home);
        drop(state);
        let running = self.running.iter().filter_map(|running| running.expire(home, now, refused));
        queued.into_iter().chain(running).min()
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
                self.start_failed(version, number, &error);
            }
        }
    }

    /// The work waits for an instance that is busy now; if there is none, it is refused.
    #[cold]
    fn start_failed(&self, version: &Arc<Version>, number: usize, error: &std::io::Error) {
        tracing::error!(%error, model = &*version.spec.name, "an instance thread could not be started");
        self.give_back(version, number, &Error::internal("no thread could be started to run the request"));
    }

    /// Instance `number` has ended without being asked to. If it was the only one, what waits is refused with `error`.
    #[cold]
    fn give_back(&self, version: &Arc<Version>, number: usize, error: &Error) {
        let mut state = lock(&self.state);
        state.stopped.push(number);
        if state.stopped.len() < self.running.len() {
            return;
        }
        let waiting: Vec<Entry> = state.queue.drain().collect();
        self.waiting.store(0, Ordering::Relaxed);
        drop(state);
        send_home(version, waiting.into_iter().map(|entry| entry.refuse(error.clone())).collect());
    }

    /// Instance `number` has panicked: what it had taken is refused, and another instance goes on with what waits.
    #[cold]
    fn panicked(&self, version: &Arc<Version>, number: usize, has_run: bool) {
        version.stats.instances[number].panics.add(1);
        tracing::error!(model = &*version.spec.name, version = version.spec.version, "an instance panicked");
        let (mut taken, _) = self.running[number].end();
        while let Some(aside) = self.running[number].take_aside() {
            taken.extend(aside);
        }
        send_home(version, taken.into_iter().map(|entry| entry.refuse(panicked())).collect());
        if !has_run {
            // Another would do no better.
            return self.give_back(version, number, &panicked());
        }
        let mut state = lock(&self.state);
        state.stopped.push(number);
        self.call_one(version, state);
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
                Next::Run(mut batch) => {
                    self.call_one(version, state);
                    drop_gone(&mut batch, &mut refused);
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
    let mut has_run = false;
    if catch_unwind(AssertUnwindSafe(|| serve(version, number, &mut has_run))).is_err() {
        version.pool.panicked(version, number, has_run);
    }
}

fn serve(version: &Arc<Version>, number: usize, has_run: &mut bool) {
    let mut runner = Runner::new(version.clock.clone());
    let slot = &version.stats.instances[number];
    let job = Job { version, slot, place: Place::Instance(&version.pool.running[number]) };
    loop {
        failpoint!("instance");
        match version.pool.take(version, number) {
            Work::Batch(batch, mut outcomes) => {
                *has_run = true;
                if !batch.is_empty() {
                    // What is stopped here is refused, so nothing comes back.
                    drop(runner.run(job, batch, &mut outcomes));
                }
                send_home(version, outcomes);
                runner.trim();
            }
            Work::End(outcomes) => return send_home(version, outcomes),
        }
    }
}

/// One message per loop. Parts of a request meet here; the last one is sent.
fn send_home(version: &Arc<Version>, outcomes: Vec<Outcome>) {
    let mut by_home: Vec<Vec<Outcome>> = version.mailboxes.iter().map(|_| Vec::new()).collect();
    for outcome in outcomes {
        if !outcome.is_part() {
            by_home[outcome.ticket.home].push(outcome);
        } else if let Some(whole) = outcome.whole() {
            by_home[whole.ticket.home].push(whole);
        }
    }
    for (mailbox, outcomes) in version.mailboxes.iter().zip(by_home) {
        if !outcomes.is_empty() {
            mailbox.deliver(Delivery { version: Arc::clone(version), outcomes });
        }
    }
}

/// Whether a run that starts now is expected to end before the entry's deadline.
pub(crate) fn can_finish(version: &Version, entry: &Entry, now: Instant) -> Chance {
    let Some(deadline) = entry.deadline else { return Chance::Good };
    let rows = entry.rows.min(version.max_rows());
    let estimate = version.times.predict(rows, entry.bytes / entry.rows.max(1));
    let is_too_slow = estimate.is_some_and(|estimate| estimate.is_calm() && now + estimate.mean > deadline);
    match is_too_slow {
        false => Chance::Good,
        true if version.times.lets_try() => Chance::Tried,
        true => Chance::None,
    }
}
