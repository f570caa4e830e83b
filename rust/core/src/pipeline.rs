//! Joins the stages of a request, in the order it meets them. Hot path.
//!
//! One pipeline per event loop. The loop submits decoded requests, looks for the turn's end, flushes, and brings home
//! what the pool sends; both transports and the in-process call go through here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};

use crate::admit::Admission;
use crate::budget::LocalBudget;
use crate::cut::uncut;
use crate::entry::{Entry, Outcome, Ticket, Waiter};
use crate::error::Error;
use crate::failpoint;
use crate::lane::{self, Lane};
use crate::outstanding::Outstanding;
use crate::park::{Admitted, Park, Parked};
use crate::plan::{Found, Plan};
use crate::request::{Protocol, Reply, Request};
use crate::run::{Runner, panicked};
use crate::running;
use crate::turn::{Decision, Turn};
use crate::validate::{EMPTY_RUNS, TensorLimits, validate};
use crate::version::{Delivery, Version};

mod inline;
mod shared;

pub use shared::{Refused, Shared};

/// Requests in flight that a loop draws from the process's count at a time.
const IN_FLIGHT_CHUNK: usize = 64;

/// One loop's way from decoded requests to answers.
#[derive(Debug)]
pub struct Pipeline {
    home: usize,
    shared: Arc<Shared>,
    plan: Cache<Arc<ArcSwap<Plan>>, Arc<Plan>>,
    admission: Admission,
    turn: Turn,
    groups: Vec<Group>,
    runner: Runner,
    outcomes: Vec<Outcome>,
    /// What pools owe this loop.
    outstanding: Outstanding,
    /// Requests for versions that are not loaded yet.
    park: Park,
    next_expiry: Option<Instant>,
}

/// Why an admitted request did not join the turn.
enum Stopped {
    Refused(Error),
    Waits,
}

/// A turn's requests for one version.
#[derive(Debug)]
struct Group {
    version: Arc<Version>,
    entries: Vec<Entry>,
    rows: usize,
    bytes: usize,
}

impl Pipeline {
    /// The pipeline of loop number `home`.
    pub fn new(home: usize, shared: Arc<Shared>) -> Self {
        let in_flight = LocalBudget::new(Arc::clone(&shared.requests), IN_FLIGHT_CHUNK);
        Self {
            home,
            plan: Cache::new(Arc::clone(&shared.plan)),
            admission: Admission::new(&shared.limits, in_flight),
            turn: Turn::new(),
            groups: Vec::new(),
            runner: Runner::new(shared.clock.clone()),
            outcomes: Vec::new(),
            outstanding: Outstanding::default(),
            park: Park::default(),
            next_expiry: None,
            shared,
        }
    }

    /// Takes a decoded request as far as the turn; a refusal is answered at once.
    pub fn submit(&mut self, mut request: Request, reply: Box<dyn Reply>) {
        let now = self.shared.clock.now();
        let arrived = request.arrived.unwrap_or(now);
        match self.guarded(|pipeline| pipeline.admission.admit(&mut request, arrived, now)) {
            Ok(in_flight) => self.go_on(request, Admitted { reply, arrived, in_flight }, now),
            Err(error) => {
                self.count_refused(request.protocol, &error);
                reply.send(Err(error));
            }
        }
    }

    /// The plan has changed: requests that waited for it go on, and versions that are gone from it are let go.
    ///
    /// To be called on every loop after each change, also on idle ones: otherwise their copy of the old plan would keep
    /// a version alive.
    pub fn plan_changed(&mut self) {
        self.plan.load();
        let now = self.shared.clock.now();
        for Parked { request, place } in self.park.take() {
            self.go_on(request, place, now);
        }
    }

    /// Counts a request that was refused before it could be submitted.
    pub fn count_refused(&self, protocol: Protocol, error: &Error) {
        self.shared.refused[self.home].0[protocol as usize][error.kind() as usize].add(1);
    }

    /// Everything that was ready has gone on: whether to look again, flush, or rest.
    pub fn look(&mut self) -> Decision {
        let is_full = self.groups.iter().any(|group| group.rows >= group.version.max_rows());
        self.turn.look(self.shared.clock.now(), is_full)
    }

    /// Ends the turn: every version's requests run inline or go to its pool. What is left for the next turn counts as
    /// having arrived in it.
    pub fn flush(&mut self) {
        let give_away = self.shared.occupancy.should_give_away(self.home);
        let mut spent = Duration::ZERO;
        let mut groups = std::mem::take(&mut self.groups);
        let mut left = Vec::new();
        for mut group in groups.drain(..) {
            let flushed = self.guarded(|pipeline| {
                failpoint!("flush", error => return Err(error));
                let Group { version, entries, rows, bytes } = &mut group;
                let row_bytes = *bytes / (*rows).max(1);
                match lane::choose(version, *rows, row_bytes, spent, give_away, &pipeline.shared.clock) {
                    Lane::Inline(expected) => {
                        spent += expected;
                        pipeline.run_inline(version, entries);
                    }
                    Lane::NextTurn => return Ok(true),
                    Lane::Pool => pipeline.hand_over(version, entries),
                }
                Ok(false)
            });
            match flushed {
                Ok(true) => left.push(group),
                Ok(false) => {}
                Err(error) => self.refuse(&group.version, group.entries, &error),
            }
        }
        if left.is_empty() {
            self.groups = groups;
        } else {
            self.groups = left;
            self.turn.arrived(self.shared.clock.now());
        }
    }

    /// Brings home what an instance has finished.
    pub fn receive(&mut self, delivery: Delivery) {
        self.outcomes.extend(delivery.outcomes);
        self.deliver_owed(&delivery.version);
    }

    /// When [`Pipeline::expire`] is next worth calling.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.next_expiry
    }

    /// Answers what has waited too long in a queue.
    pub fn expire(&mut self) {
        failpoint!("expire");
        let now = self.shared.clock.now();
        self.next_expiry = None;
        for (parked, error) in self.park.expire(now) {
            self.count_refused(parked.request.protocol, &error);
            parked.place.reply.send(Err(error));
        }
        if let Some(expiry) = self.park.next_expiry() {
            self.note_expiry(expiry);
        }
        for version in self.outstanding.versions() {
            let expiry = version.pool.expire(self.home, now, &mut self.outcomes);
            self.deliver_owed(&version);
            if let Some(expiry) = expiry {
                self.note_expiry(expiry);
            }
        }
        if !self.outstanding.is_empty() {
            self.note_expiry(now + running::LOOK_EVERY);
        }
    }

    /// Something in here panicked: what is in the turn is answered as failed, what waits elsewhere waits on. What was taken
    /// out when it happened has been dropped.
    #[cold]
    pub fn recover(&mut self) {
        self.turn = Turn::new();
        self.runner = Runner::new(self.shared.clock.clone());
        self.outcomes = Vec::new();
        for Group { version, entries, .. } in std::mem::take(&mut self.groups) {
            let refused = entries.into_iter().map(|entry| entry.refuse(Error::internal("the server failed")));
            self.outcomes.extend(refused);
            self.deliver(&version);
        }
        self.note_expiry(self.shared.clock.now());
    }

    /// How busy this loop has been, in thousandths of its time.
    pub fn set_occupancy(&self, thousandths: u32) {
        self.shared.occupancy.set(self.home, thousandths);
    }

    /// Takes an admitted request on: to the turn of its version, or to wait for one.
    fn go_on(&mut self, mut request: Request, place: Admitted, now: Instant) {
        let mut place = Some(place);
        let entered = self.guarded(|pipeline| Ok(pipeline.enter(&mut request, &mut place, now)));
        let stopped = entered.unwrap_or_else(|error| Err(Stopped::Refused(error)));
        match (stopped, place) {
            (Err(Stopped::Refused(error)), Some(place)) => place.reply.send(Err(error)),
            (Err(Stopped::Waits), Some(place)) => self.park(Parked { request, place }),
            // It is on its way.
            _ => {}
        }
    }

    /// Does `work`, in which a panic costs only what it works on.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        catch_unwind(AssertUnwindSafe(|| work(self))).unwrap_or_else(|_| {
            self.shared.watch.panics.fetch_add(1, Ordering::Relaxed);
            Err(panicked())
        })
    }

    #[cold]
    fn refuse(&mut self, version: &Arc<Version>, entries: Vec<Entry>, error: &Error) {
        self.outcomes.extend(entries.into_iter().map(|entry| entry.refuse(error.clone())));
        self.deliver(version);
    }

    fn park(&mut self, parked: Parked) {
        if let Some(deadline) = parked.request.deadline {
            self.note_expiry(deadline);
        }
        let (model, number) = (parked.request.model_name.clone(), parked.request.model_version);
        if self.park.push(parked) {
            self.shared.demand.wanted(&model, number);
        }
    }

    /// Choose the version, validate, and join the turn.
    fn enter(&mut self, request: &mut Request, place: &mut Option<Admitted>, now: Instant) -> Result<(), Stopped> {
        let protocol = request.protocol;
        let found = self.plan.load().look_up(&request.model_name, request.model_version);
        let version = match found {
            Ok(Found::Ready(version)) => version,
            Ok(Found::OnDemand) => return Err(Stopped::Waits),
            Err(error) => {
                self.shared.refused[self.home].0[protocol as usize][error.kind() as usize].add(1);
                return Err(Stopped::Refused(error));
            }
        };
        let Some(arrived) = place.as_ref().map(|place| place.arrived) else { return Ok(()) };
        version.stats.loops[self.home].submitted.add(1);
        let max_string_bytes = self.shared.limits.max_string_bytes;
        let limits = TensorLimits { max_string_bytes, max_empty_rows: version.max_rows().saturating_mul(EMPTY_RUNS) };
        let checked = match validate(request, &version.spec, limits) {
            Ok(checked) => checked,
            Err(error) => {
                version.stats.loops[self.home].failed(protocol, &error);
                return Err(Stopped::Refused(error));
            }
        };
        // Before the run, so that what cannot be held is not computed either.
        let row_bytes = checked.bytes / checked.rows.max(1);
        let most = self.shared.limits.max_response_bytes;
        let held = checked.hold_texts(request.reservation.as_mut()).and_then(|texts| {
            let held = version.answers.hold(request.reservation.as_mut(), checked.rows, row_bytes, most);
            held.map(|(expected, trial)| (expected + texts, trial))
        });
        let (expected, trial) = match held {
            Ok(held) => held,
            Err(error) => {
                version.stats.loops[self.home].failed(protocol, &error);
                return Err(Stopped::Refused(error));
            }
        };
        let Some(Admitted { reply, in_flight, .. }) = place.take() else { return Ok(()) };
        let level = version.level(request.priority);
        let (queue_deadline, delayed_from) = version.queue_policy(level).limits(request.queue_timeout, arrived);
        let entry = Entry {
            inputs: checked.inputs,
            uncut: None,
            outputs: checked.outputs,
            classes: checked.classes,
            rows: checked.rows,
            offset: 0,
            key: checked.key,
            bytes: checked.bytes,
            level,
            deadline: request.deadline,
            queue_deadline,
            delayed_from,
            is_tried: false,
            ticket: Ticket {
                trace: self.shared.tracer.sample(version, request, arrived, now),
                waiter: Waiter::Caller(reply),
                id: std::mem::take(&mut request.id),
                protocol,
                arrived,
                home: self.home,
                reservation: request.reservation.take(),
                expected,
                most,
                trial,
                in_flight: Some(in_flight),
            },
        };
        if entry.rows > version.max_rows() && version.spec.batching.is_allowed() {
            join_turn(&mut self.groups, version, uncut(entry, &version.spec));
        } else {
            join_turn(&mut self.groups, version, entry);
        }
        self.turn.arrived(now);
        Ok(())
    }

    fn hand_over(&mut self, version: &Arc<Version>, entries: &mut Vec<Entry>) {
        for entry in entries.iter() {
            if let Some(expiry) = [entry.deadline, entry.queue_deadline].into_iter().flatten().min() {
                self.note_expiry(expiry);
            }
        }
        // Also without deadlines: callers may go while they run.
        self.note_expiry(self.shared.clock.now() + running::LOOK_EVERY);
        self.outstanding.add(version, entries);
        version.pool.hand_over(version, self.home, entries, &mut self.outcomes);
        self.deliver_owed(version);
    }

    fn note_expiry(&mut self, expiry: Instant) {
        self.next_expiry = Some(self.next_expiry.map_or(expiry, |next| next.min(expiry)));
    }

    /// Answers what a pool was handed.
    fn deliver_owed(&mut self, version: &Arc<Version>) {
        let answers = self.deliver(version);
        self.outstanding.answered(version, answers);
    }

    /// Answers what has an outcome. Returns how many requests that were.
    fn deliver(&mut self, version: &Arc<Version>) -> usize {
        if self.outcomes.is_empty() {
            return 0;
        }
        let now = self.shared.clock.now();
        let slot = &version.stats.loops[self.home];
        let mut answers = 0;
        let mut outcomes = self.outcomes.drain(..);
        loop {
            let deliver = AssertUnwindSafe(|| {
                for outcome in outcomes.by_ref() {
                    answers += usize::from(outcome.deliver(version, slot, now));
                }
            });
            // A panic drops the reply, and with it the caller's stream: the others' answers are still handed over.
            match catch_unwind(deliver) {
                Ok(()) => return answers,
                Err(_) => slot.panics.add(1),
            }
        }
    }
}

/// Adds `entry` to the turn's group for `version`.
fn join_turn(groups: &mut Vec<Group>, version: &Arc<Version>, entry: Entry) {
    let index = groups.iter().position(|group| Arc::ptr_eq(&group.version, version)).unwrap_or_else(|| {
        groups.push(Group { version: Arc::clone(version), entries: Vec::new(), rows: 0, bytes: 0 });
        groups.len() - 1
    });
    let group = &mut groups[index];
    group.rows = group.rows.saturating_add(entry.rows);
    group.bytes = group.bytes.saturating_add(entry.bytes);
    group.entries.push(entry);
}
