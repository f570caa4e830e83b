//! The queue of one version: bounded, by priority, and rid of what nobody waits for any more. Hot path.
//!
//! Each level has two ranks: what is on time, and behind it what has waited longer than its policy allows and is delayed
//! instead of refused. A request with more rows than one run takes stays one entry, gives rows to one batch after the
//! other, and goes behind the others of its rank after each. Pure: no lock, no thread, no clock. [`crate::pool`] puts it
//! behind a lock and feeds the instances from it; whether a caller is gone is asked without that lock, by [`drop_gone`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::entry::{Entry, Outcome};
use crate::error::{Error, Kind};
use crate::queue_policy::QueuePolicy;

/// How far a batch is looked for past entries of another shape, as a multiple of the rows wanted: bounds the work of
/// forming a batch when shapes alternate, without giving up when two or three kinds mix.
const LOOK_AHEAD: usize = 4;

/// Ranks of one level: on time, and delayed.
const RANKS: usize = 2;

/// Entries that wait, by level and rank.
#[derive(Debug)]
pub struct Queue {
    /// On time and delayed of the highest level, then those of the next.
    ranks: Box<[VecDeque<Entry>]>,
    /// Entries that each level may hold.
    level_capacities: Box<[usize]>,
    len: usize,
    capacity: usize,
}

/// What an idle instance should do.
#[derive(Debug)]
pub enum Next {
    /// Run these together. Never empty.
    Run(Vec<Entry>),
    /// Nothing yet; ask again after this long at the latest.
    Wait(Option<Duration>),
}

/// Whether an entry is expected to be answered before its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chance {
    /// It is, or it has none.
    Good,
    /// It is not, and runs all the same, to see whether that is still true.
    Tried,
    /// It is not.
    None,
}

/// How batches are formed.
#[derive(Clone, Copy, Debug)]
pub struct Forming {
    /// Rows that are worth running together.
    pub max_rows: usize,
    /// Rows of one run at most: what larger requests are cut to.
    pub part_rows: usize,
    /// How long the oldest entry may wait for more.
    pub max_delay: Duration,
    /// Whether entries may share a run at all.
    pub shared: bool,
}

impl Queue {
    /// An empty queue with a level for each of `policies` that takes `capacity` entries.
    pub fn new(policies: &[QueuePolicy], capacity: usize) -> Self {
        let level_capacities = policies.iter().map(|policy| policy.capacity.unwrap_or(usize::MAX));
        Self::with_levels(level_capacities.collect(), capacity)
    }

    /// An empty queue of one level that takes everything.
    pub fn unbounded() -> Self {
        Self::with_levels(Box::new([usize::MAX]), usize::MAX)
    }

    fn with_levels(level_capacities: Box<[usize]>, capacity: usize) -> Self {
        let ranks = (0..level_capacities.len() * RANKS).map(|_| VecDeque::new()).collect();
        Self { ranks, level_capacities, len: 0, capacity }
    }

    /// Entries that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes an entry in, unless its level is full. A full queue makes room for a higher priority by refusing the youngest
    /// entry of the lowest one; `refused` gets that entry, or the new one.
    pub fn push(&mut self, entry: Entry, refused: &mut Vec<Outcome>) {
        let level = entry.level.min(self.level_capacities.len() - 1);
        let first = level * RANKS;
        let waiting: usize = self.ranks[first..first + RANKS].iter().map(VecDeque::len).sum();
        if waiting >= self.level_capacities[level] {
            refused.push(entry.refuse(queue_full(self.level_capacities[level])));
            return;
        }
        if self.len >= self.capacity {
            let lowest = self.ranks.iter().rposition(|entries| !entries.is_empty());
            let victim =
                lowest.filter(|&lowest| lowest / RANKS > level).and_then(|lowest| self.ranks[lowest].pop_back());
            let Some(victim) = victim else {
                refused.push(entry.refuse(queue_full(self.capacity)));
                return;
            };
            refused.push(victim.refuse(queue_full(self.capacity)));
            self.len -= 1;
        }
        self.ranks[first].push_back(entry);
        self.len += 1;
    }

    /// Forms the next batch from the oldest entry of the highest level and those that may share its run. What has expired
    /// on the way lands in `refused`; `can_finish` says whether a run that starts now can meet a deadline.
    pub fn next(
        &mut self,
        now: Instant,
        forming: Forming,
        can_finish: impl Fn(&Entry) -> Chance,
        refused: &mut Vec<Outcome>,
    ) -> Next {
        self.settle_heads(now, &can_finish, refused);
        let Some(head) = self.ranks.iter().find_map(VecDeque::front) else { return Next::Wait(None) };
        let key = head.key;
        let rows = self.rows_with(key, forming);
        if rows < forming.max_rows && !forming.max_delay.is_zero() && forming.shared {
            let oldest = self.ranks.iter().flatten().filter(|entry| entry.key == key);
            let arrived = oldest.map(|entry| entry.ticket.arrived).min().unwrap_or(now);
            let left = forming.max_delay.saturating_sub(now.saturating_duration_since(arrived));
            if !left.is_zero() {
                return Next::Wait(Some(left));
            }
        }
        Next::Run(self.take(key, now, forming, can_finish, refused))
    }

    /// Drops every entry of loop `home` whose time has passed.
    pub fn expire(&mut self, home: usize, now: Instant, refused: &mut Vec<Outcome>) {
        for rank in &mut self.ranks {
            let expired =
                |entry: &Entry| entry.ticket.home == home && expiry(entry).is_some_and(|expiry| expiry <= now);
            if !rank.iter().any(expired) {
                continue;
            }
            for entry in std::mem::take(rank) {
                if expired(&entry) {
                    self.len -= 1;
                    refused.push(refuse_expired(entry, now));
                } else {
                    rank.push_back(entry);
                }
            }
        }
    }

    /// When the first entry of loop `home` expires.
    pub fn next_expiry(&self, home: usize) -> Option<Instant> {
        self.ranks.iter().flatten().filter(|entry| entry.ticket.home == home).filter_map(expiry).min()
    }

    /// Takes everything out.
    pub fn drain(&mut self) -> impl Iterator<Item = Entry> {
        self.len = 0;
        self.ranks.iter_mut().flat_map(std::mem::take)
    }

    /// Leaves entries that can run at the head of each rank: drops the hopeless ones, and delays the late ones.
    fn settle_heads(&mut self, now: Instant, can_finish: &impl Fn(&Entry) -> Chance, refused: &mut Vec<Outcome>) {
        for rank in 0..self.ranks.len() {
            while let Some(mut entry) = self.ranks[rank].pop_front() {
                if let Some(error) = reason_to_drop(&mut entry, now, can_finish) {
                    self.len -= 1;
                    refused.push(entry.refuse(error));
                } else if is_late(&entry, now) {
                    self.delay(rank, entry);
                } else {
                    self.ranks[rank].push_front(entry);
                    break;
                }
            }
        }
    }

    /// Puts a late entry of `rank` behind the others of its level, for good.
    fn delay(&mut self, rank: usize, mut entry: Entry) {
        entry.delayed_from = None;
        self.ranks[rank - rank % RANKS + 1].push_back(entry);
    }

    fn rows_with(&self, key: u64, forming: Forming) -> usize {
        let mut rows = 0;
        for entry in self.ranks.iter().flatten().take(forming.max_rows.saturating_mul(LOOK_AHEAD)) {
            if entry.key == key {
                rows = usize::saturating_add(rows, entry.rows);
            }
            if rows >= forming.max_rows {
                break;
            }
        }
        rows
    }

    fn take(
        &mut self,
        key: u64,
        now: Instant,
        forming: Forming,
        can_finish: impl Fn(&Entry) -> Chance,
        refused: &mut Vec<Outcome>,
    ) -> Vec<Entry> {
        let mut batch: Vec<Entry> = Vec::new();
        let mut rows = 0_usize;
        for rank in 0..self.ranks.len() {
            let mut passed_over = Vec::new();
            let mut looks = forming.max_rows.saturating_mul(LOOK_AHEAD);
            let mut is_full = false;
            while let Some(mut entry) = self.ranks[rank].pop_front() {
                looks = looks.saturating_sub(1);
                let fits = entry.key == key
                    && (batch.is_empty() || (forming.shared && rows.saturating_add(entry.rows) <= forming.max_rows));
                if !fits {
                    is_full |= entry.key == key;
                    passed_over.push(entry);
                } else if let Some(error) = reason_to_drop(&mut entry, now, &can_finish) {
                    self.len -= 1;
                    refused.push(entry.refuse(error));
                } else if is_late(&entry, now) {
                    self.delay(rank, entry);
                } else if let Some(part) = entry.take_rows(forming.part_rows) {
                    rows = rows.saturating_add(part.rows);
                    batch.push(part);
                    if entry.rows > 0 {
                        is_full = true;
                        self.ranks[rank].push_back(entry);
                    } else {
                        self.len -= 1;
                    }
                } else {
                    self.len -= 1;
                    rows = rows.saturating_add(entry.rows);
                    batch.push(entry);
                }
                is_full |= rows >= forming.max_rows || (!forming.shared && !batch.is_empty());
                if is_full || looks == 0 {
                    break;
                }
            }
            for entry in passed_over.into_iter().rev() {
                self.ranks[rank].push_front(entry);
            }
            if is_full {
                break;
            }
        }
        batch
    }
}

/// Whether an entry has waited longer than its level's policy allows, and goes behind the others.
fn is_late(entry: &Entry, now: Instant) -> bool {
    entry.delayed_from.is_some_and(|from| from <= now)
}

/// Takes entries whose callers are gone out of `batch`. Asks the connections, so no lock may be held.
pub(crate) fn drop_gone(batch: &mut Vec<Entry>, refused: &mut Vec<Outcome>) {
    let mut index = 0;
    while index < batch.len() {
        if batch[index].is_gone() {
            refused.push(batch.remove(index).refuse(cancelled()));
        } else {
            index += 1;
        }
    }
}

/// Why an entry that runs is to be answered before its run has ended: its caller is gone, or its deadline has passed.
pub(crate) fn reason_to_answer(entry: &mut Entry, now: Instant) -> Option<Error> {
    if entry.is_gone() {
        return Some(cancelled());
    }
    let text = "the deadline passed while the request was running";
    entry.deadline.filter(|&deadline| deadline <= now).map(|_| Error::new(Kind::DeadlineExceeded, text))
}

/// Why an entry should not run: its time has passed or is too short.
pub(crate) fn reason_to_drop(entry: &mut Entry, now: Instant, can_finish: &impl Fn(&Entry) -> Chance) -> Option<Error> {
    if expiry(entry).is_some_and(|expiry| expiry <= now) {
        return Some(expired_error(entry, now));
    }
    if entry.is_tried {
        return None;
    }
    match can_finish(entry) {
        Chance::Good => None,
        Chance::Tried => {
            entry.is_tried = true;
            None
        }
        Chance::None => {
            Some(Error::new(Kind::DeadlineExceeded, "the deadline is too near: a run takes longer than what is left"))
        }
    }
}

fn expiry(entry: &Entry) -> Option<Instant> {
    match (entry.deadline, entry.queue_deadline) {
        (Some(deadline), Some(queue_deadline)) => Some(deadline.min(queue_deadline)),
        (one, other) => one.or(other),
    }
}

fn refuse_expired(entry: Entry, now: Instant) -> Outcome {
    let error = expired_error(&entry, now);
    entry.refuse(error)
}

fn expired_error(entry: &Entry, now: Instant) -> Error {
    if entry.deadline.is_some_and(|deadline| deadline <= now) {
        deadline_exceeded()
    } else {
        // Triton's text; its clients match on it.
        Error::new(Kind::QueueTimeout, "Request timeout expired")
    }
}

#[cold]
fn cancelled() -> Error {
    Error::new(Kind::Cancelled, "the caller cancelled the request")
}

pub(crate) fn deadline_exceeded() -> Error {
    Error::new(Kind::DeadlineExceeded, "the deadline passed before the request could run")
}

#[cold]
fn queue_full(capacity: usize) -> Error {
    // Begins with Triton's text; its clients match on it.
    Error::new(Kind::QueueFull, format!("Exceeds maximum queue size: {capacity} requests wait already"))
}
