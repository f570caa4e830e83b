//! What an HTTP/1.1 connection is doing, and until when it may: sending a header, waiting for answers, idling.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::Duration;

use mlserve_core::config::LimitSettings;
use tokio::time::Instant;

use super::heads::{Fault, Heads};

/// When the server closes: how long an idle connection stays, so that a request that is under way still arrives.
const LINGER: Duration = Duration::from_secs(1);

/// How often a peer that says no more is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where "never" lies: far enough, and still safe to add to.
const NEVER: Duration = Duration::from_hours(365 * 24);

/// What a connection is doing, noted by those who do it.
#[derive(Debug)]
pub(super) struct Activity {
    in_flight: Cell<usize>,
    /// When the first byte of the header that is coming was read (the first of a connection: when it began).
    header_since: Cell<Option<Instant>>,
    idle_since: Cell<Instant>,
    /// Whether the answer to the request in flight is still being made.
    is_worked_on: Cell<bool>,
    /// Whether its sender knows HTTP/1.1.
    knows_interim_answers: Cell<bool>,
    /// Whether the next answer is the last.
    is_ending: Cell<bool>,
    /// When a peer that says no more is next looked for.
    look_at: Cell<Option<Instant>>,
    heads: RefCell<Heads>,
}

impl Activity {
    /// A connection that begins, and owes a header.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            in_flight: Cell::new(0),
            header_since: Cell::new(Some(now)),
            idle_since: Cell::new(now),
            is_worked_on: Cell::new(false),
            knows_interim_answers: Cell::new(false),
            is_ending: Cell::new(false),
            look_at: Cell::new(None),
            heads: RefCell::new(Heads::new()),
        }
    }

    /// A header is complete.
    pub(super) fn request_begins(self: &Rc<Self>, knows_interim_answers: bool) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        self.header_since.set(None);
        self.is_worked_on.set(true);
        self.knows_interim_answers.set(knows_interim_answers);
        InFlight(Rc::clone(self))
    }

    /// What hyper forgave in the header that is complete now.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.heads.borrow_mut().next()
    }

    /// The answer is made; what is left is to write it.
    pub(super) fn answer_is_made(&self) {
        self.is_worked_on.set(false);
        self.look_at.set(None);
    }

    /// Whether nothing is left to do but to make the answer.
    pub(super) fn is_worked_on(&self) -> bool {
        self.is_worked_on.get() && self.heads.borrow().is_between()
    }

    /// Whether the sender of the request in flight has to pass over interim answers.
    pub(super) fn knows_interim_answers(&self) -> bool {
        self.knows_interim_answers.get()
    }

    /// The next answer is the last, and says so.
    pub(super) fn end_soon(&self) {
        self.is_ending.set(true);
    }

    /// Whether answers say that they are the last.
    pub(super) fn is_ending(&self) -> bool {
        self.is_ending.get()
    }

    /// Nothing more will be read for now, so that nobody sees whether the peer leaves; the answer is still due.
    pub(super) fn peer_says_no_more(&self) {
        if self.look_at.get().is_none() {
            self.look_at.set(Some(Instant::now() + LOOK_EVERY));
        }
    }

    /// Whether no request is on its way.
    pub(super) fn is_quiet(&self) -> bool {
        self.in_flight.get() == 0
    }

    /// Bytes were read.
    pub(super) fn bytes_came(&self, bytes: &[u8]) {
        self.heads.borrow_mut().read(bytes);
        if self.is_quiet() && self.header_since.get().is_none() {
            self.header_since.set(Some(Instant::now()));
        }
    }
}

/// A request on its way, until its answer has been given to the socket.
#[derive(Debug)]
pub(super) struct InFlight(Rc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
        self.0.idle_since.set(Instant::now());
    }
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The header took too long.
    Header,
    /// Nothing came for too long.
    Idle,
    /// The connection is old enough.
    Age,
    /// A peer that says no more is to be looked for.
    Look,
}

/// When things are due.
#[derive(Debug)]
pub(super) struct Schedule {
    header_timeout: Duration,
    idle_timeout: Duration,
    /// `None` once it is over, or if there is none.
    old_at: Option<Instant>,
    /// Since the server closes.
    closing_since: Option<Instant>,
    /// Once a graceful end has begun, idling is over: the answer in flight is the last.
    is_ending: bool,
}

impl Schedule {
    /// The schedule of a connection that begins now. Ages differ by a tenth either way, so that the connections of a
    /// client that opened many at once do not end at once.
    pub(super) fn new(limits: &LimitSettings, now: Instant) -> Self {
        let age = Duration::from_secs(limits.max_connection_age_s);
        let tenths = 90 + (RandomState::new().hash_one(0) % 21) as u32;
        Self {
            header_timeout: Duration::from_millis(limits.header_timeout_ms).min(NEVER),
            idle_timeout: Duration::from_millis(limits.idle_timeout_ms).min(NEVER),
            old_at: (!age.is_zero()).then(|| now + (age / 100).saturating_mul(tenths).min(NEVER)),
            closing_since: None,
            is_ending: false,
        }
    }

    /// The server closes.
    pub(super) fn close(&mut self, now: Instant) {
        self.closing_since = Some(now);
    }

    /// When to look again.
    pub(super) fn next(&self, activity: &Activity) -> Instant {
        let quiet = self.quiet(activity).map(|(at, _)| at);
        let never = activity.idle_since.get() + NEVER;
        [quiet, self.old_at, activity.look_at.get()].into_iter().flatten().min().unwrap_or(never)
    }

    /// What is due at `now`; age is told once.
    pub(super) fn due(&mut self, activity: &Activity, now: Instant) -> Option<Due> {
        let quiet = self.quiet(activity).filter(|&(at, _)| at <= now).map(|(_, due)| due);
        self.is_ending |= quiet == Some(Due::Idle);
        if activity.look_at.get().is_some_and(|at| at <= now) {
            activity.look_at.set(Some(now + LOOK_EVERY));
            return Some(Due::Look);
        }
        quiet.or_else(|| self.old_at.take_if(|at| *at <= now).map(|_| Due::Age))
    }

    fn quiet(&self, activity: &Activity) -> Option<(Instant, Due)> {
        if !activity.is_quiet() {
            return None;
        }
        let idle_since = activity.idle_since.get();
        let closed_at = self.closing_since.map(|since| since.max(idle_since) + LINGER);
        let sooner = |at: Instant| closed_at.map_or(at, |closed_at| at.min(closed_at));
        match activity.header_since.get() {
            Some(since) => Some((sooner(since + self.header_timeout), Due::Header)),
            None if self.is_ending => None,
            None => Some((sooner(idle_since + self.idle_timeout), Due::Idle)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> LimitSettings {
        LimitSettings {
            header_timeout_ms: 10,
            idle_timeout_ms: 100,
            max_connection_age_s: 1,
            ..LimitSettings::default()
        }
    }

    fn after(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_has_its_time_and_a_request_has_all() {
        let start = Instant::now();
        let mut schedule = Schedule::new(&limits(), start);
        let activity = Rc::new(Activity::new(start));
        assert_eq!(schedule.next(&activity), after(start, 10));
        let request = activity.request_begins(true);
        assert_eq!(schedule.due(&activity, after(start, 500)), None);
        tokio::time::advance(Duration::from_millis(500)).await;
        drop(request);
        assert_eq!(schedule.next(&activity), after(start, 600));
        activity.bytes_came(b"G");
        assert_eq!(schedule.next(&activity), after(start, 510));
        assert_eq!(schedule.due(&activity, after(start, 509)), None);
        assert_eq!(schedule.due(&activity, after(start, 510)), Some(Due::Header));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_and_an_old_one_once() {
        let start = Instant::now();
        let mut schedule = Schedule::new(&limits(), start);
        let activity = Rc::new(Activity::new(start));
        drop(activity.request_begins(true));
        assert_eq!(schedule.due(&activity, after(start, 99)), None);
        assert_eq!(schedule.due(&activity, after(start, 100)), Some(Due::Idle));
        assert_eq!(schedule.due(&activity, after(start, 200)), None, "told once");
        assert_eq!(schedule.due(&activity, after(start, 1_100)), Some(Due::Age));
        assert_eq!(schedule.due(&activity, after(start, 9_000)), None, "told once");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_stays_a_while_when_the_server_closes() {
        let start = Instant::now();
        let mut schedule = Schedule::new(&LimitSettings { idle_timeout_ms: 60_000, ..limits() }, start);
        schedule.old_at = None;
        let activity = Rc::new(Activity::new(start));
        drop(activity.request_begins(true));
        schedule.close(after(start, 5_000));
        assert_eq!(schedule.due(&activity, after(start, 5_999)), None);
        assert_eq!(schedule.due(&activity, after(start, 6_000)), Some(Due::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_no_more_is_looked_for_until_its_answer_is_made() {
        let start = Instant::now();
        let mut schedule = Schedule::new(&limits(), start);
        let activity = Rc::new(Activity::new(start));
        let _request = activity.request_begins(true);
        activity.peer_says_no_more();
        assert_eq!(schedule.next(&activity), after(start, 100));
        assert_eq!(schedule.due(&activity, after(start, 100)), Some(Due::Look));
        assert_eq!(schedule.due(&activity, after(start, 150)), None);
        assert_eq!(schedule.due(&activity, after(start, 200)), Some(Due::Look));
        activity.answer_is_made();
        assert_eq!(schedule.due(&activity, after(start, 300)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn ages_differ_by_a_tenth_at_most() {
        let now = Instant::now();
        for _ in 0..100 {
            let old_at = Schedule::new(&limits(), now).old_at.expect("a limit");
            assert!((after(now, 900)..=after(now, 1_100)).contains(&old_at));
        }
    }
}
