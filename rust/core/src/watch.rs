//! What a thread outside can see of the event loops, and of the process as a whole: signs of life, and pauses. Hot path.
//!
//! A loop writes its [`LoopSigns`] alone, on a cache line of its own, and without reading a clock. Somebody else looks every
//! [`LOOK_EVERY`] and compares with the look before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::stop::Stop;

/// How often the watcher looks.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A look that comes so much later than it should means that the process stood still: stopped, frozen or suspended. A
/// busy machine does not keep a thread waiting so long.
const STOOD_STILL: Duration = Duration::from_secs(2);
/// How long after a pause requests may still be read that came during it. Each loop turns at once after a pause, so this
/// bounds mistakes only.
const AFTER_PAUSE: Duration = Duration::from_secs(1);

/// What can be seen of all loops.
#[derive(Debug)]
pub struct Watch {
    /// Of each loop, by number.
    pub loops: Box<[LoopSigns]>,
    /// When the process stood still.
    pub pauses: Pauses,
    /// Panics on loops, outside of a batch. Whatever they touched has been answered or cut.
    pub panics: AtomicU64,
}

impl Watch {
    /// Nothing seen yet of `loops` loops; `now` is when watching begins.
    pub fn new(loops: usize, now: Instant) -> Self {
        Self {
            loops: (0..loops).map(|_| LoopSigns::default()).collect(),
            pauses: Pauses::new(now),
            panics: AtomicU64::new(0),
        }
    }
}

/// Signs of life of one event loop, written by it alone.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct LoopSigns {
    /// Rises each time the loop has done all that was to do, and looks at its sockets.
    turns: AtomicU64,
    /// Odd while the loop runs a batch itself; rises with the beginning and the end of each.
    inline: AtomicU64,
    /// Ends what the loop runs itself.
    pub(crate) stop: Stop,
}

impl LoopSigns {
    /// The loop turns.
    pub fn turned(&self) {
        self.turns.store(self.turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// How often it has turned. A loop without work does not turn until it is woken.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// The number of the batch that the loop runs itself at this moment.
    pub fn inline_run(&self) -> Option<u64> {
        Some(self.inline.load(Ordering::Acquire)).filter(|inline| inline % 2 == 1)
    }

    /// Stops the batch that the loop runs itself, if it is still number `run`. Its requests go to the pool.
    pub fn stop_inline(&self, run: u64) {
        if self.inline_run() == Some(run) {
            self.stop.ask();
        }
    }

    /// Stops whatever batch the loop runs itself.
    pub fn stop_inline_now(&self) {
        if let Some(run) = self.inline_run() {
            self.stop_inline(run);
        }
    }

    /// A batch begins or ends on the loop.
    pub(crate) fn turn_inline(&self) {
        self.inline.store(self.inline.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }
}

/// When the process stood still, as seen by a watcher that looks every [`LOOK_EVERY`].
#[derive(Debug)]
pub struct Pauses {
    base: Instant,
    /// The last look, in nanoseconds from `base`.
    looked: AtomicU64,
    /// The last pause; 0: none yet. The beginning is written first.
    began: AtomicU64,
    ended: AtomicU64,
}

impl Pauses {
    fn new(now: Instant) -> Self {
        Self { base: now, looked: AtomicU64::new(0), began: AtomicU64::new(0), ended: AtomicU64::new(0) }
    }

    /// The watcher looks. Returns how long the process has stood still since the last look, if it has.
    pub fn look(&self, now: Instant) -> Option<Duration> {
        let now = self.since_base(now);
        let before = self.looked.load(Ordering::Relaxed);
        let stood = Duration::from_nanos(now.saturating_sub(before)).saturating_sub(LOOK_EVERY);
        let has_stood = stood > STOOD_STILL;
        if has_stood {
            self.began.store(before.max(1), Ordering::Relaxed);
            self.ended.store(now, Ordering::Release);
        }
        self.looked.store(now, Ordering::Release);
        has_stood.then_some(stood)
    }

    /// The beginning of the pause after which the process comes to itself at this moment, if there was one.
    fn just_over(&self, now: Instant) -> Option<u64> {
        let now = self.since_base(now);
        let looked = self.looked.load(Ordering::Acquire);
        if now.saturating_sub(looked) > (STOOD_STILL + LOOK_EVERY).as_nanos() as u64 {
            // Not seen by the watcher yet.
            return Some(looked.max(1));
        }
        let ended = self.ended.load(Ordering::Acquire);
        (ended > 0 && now.saturating_sub(ended) < AFTER_PAUSE.as_nanos() as u64)
            .then(|| self.began.load(Ordering::Relaxed))
    }

    fn since_base(&self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.base).as_nanos() as u64
    }
}

/// Tells when the requests of one loop were sent, as far as that can be known.
///
/// What a loop reads in its first turns after a pause was in its sockets before, and is taken to have come when the pause
/// began: its caller has been waiting, nobody knows since when. The first turn may be that of the call that the pause
/// interrupted, which brings nothing; with the second, all sockets that were ready have been read.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// The last pause that this loop knows of.
    began: u64,
    /// How often it had turned when it came to know.
    turns: u64,
}

/// Turns in which a loop reads what came during a pause.
const TURNS_AFTER_PAUSE: u64 = 2;

impl Arrivals {
    /// When a request came whose first bytes are read `now`.
    pub fn arrival(&mut self, watch: &Watch, home: usize, now: Instant) -> Instant {
        let Some(began) = watch.pauses.just_over(now) else { return now };
        let turns = watch.loops[home].turns();
        if self.began != began {
            *self = Self { began, turns };
        }
        let is_old = turns.wrapping_sub(self.turns) < TURNS_AFTER_PAUSE;
        if is_old { watch.pauses.base + Duration::from_nanos(began) } else { now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn watched() -> (ManualClock, Watch) {
        let clock = ManualClock::new();
        let watch = Watch::new(1, clock.now());
        for _ in 0..3 {
            clock.advance(LOOK_EVERY);
            assert_eq!(watch.pauses.look(clock.now()), None);
        }
        (clock, watch)
    }

    #[test]
    fn what_is_read_first_after_a_pause_came_when_it_began() {
        for watcher_is_first in [false, true] {
            let (clock, watch) = watched();
            let mut arrivals = Arrivals::default();
            let before = clock.now();
            assert_eq!(arrivals.arrival(&watch, 0, clock.now()), before);
            clock.advance(Duration::from_secs(5));
            if watcher_is_first {
                assert!(watch.pauses.look(clock.now()).is_some());
            }
            assert_eq!(arrivals.arrival(&watch, 0, clock.now()), before);
            watch.pauses.look(clock.now());
            clock.advance(Duration::from_millis(1));
            assert_eq!(arrivals.arrival(&watch, 0, clock.now()), before, "the same turn");
            watch.loops[0].turned();
            assert_eq!(arrivals.arrival(&watch, 0, clock.now()), before, "the first was that of the interrupted wait");
            watch.loops[0].turned();
            assert_eq!(arrivals.arrival(&watch, 0, clock.now()), clock.now(), "it has read all that was there");
        }
    }

    #[test]
    fn a_late_look_is_no_pause() {
        let (clock, watch) = watched();
        clock.advance(Duration::from_millis(1_900));
        assert_eq!(Arrivals::default().arrival(&watch, 0, clock.now()), clock.now());
        assert_eq!(watch.pauses.look(clock.now()), None);
        assert_eq!(Arrivals::default().arrival(&watch, 0, clock.now()), clock.now());
    }

    #[test]
    fn a_pause_is_over_some_time_after_it() {
        let (clock, watch) = watched();
        clock.advance(Duration::from_secs(5));
        assert!(watch.pauses.look(clock.now()).is_some());
        clock.advance(AFTER_PAUSE);
        assert_eq!(Arrivals::default().arrival(&watch, 0, clock.now()), clock.now());
    }

    #[test]
    fn only_the_batch_that_was_seen_is_stopped() {
        let signs = LoopSigns::default();
        assert_eq!(signs.inline_run(), None);
        signs.turn_inline();
        let run = signs.inline_run().expect("one goes on");
        signs.turn_inline();
        signs.turn_inline();
        signs.stop_inline(run);
        assert!(!signs.stop.is_asked());
        signs.stop_inline(run + 2);
        assert!(signs.stop.is_asked());
    }
}
