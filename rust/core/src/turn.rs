//! When a turn of an event loop ends: a state machine over arrivals and looks. Hot path.
//!
//! A turn is one round of a loop: it reads all ready sockets and advances all ready requests. What arrives in a turn is
//! flushed together and so batches naturally; nobody waits for it. Pure: the caller brings the time, and looks again at
//! its sockets when told to.

use std::time::{Duration, Instant};

/// Longest that a turn goes on while new requests keep arriving. Some ten looks at the sockets; more would make the first
/// request of the turn pay for the last.
pub const MAX_TURN: Duration = Duration::from_micros(100);

/// Where a turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing has arrived.
    Idle,
    /// Requests have arrived; `seen` of them before the last look.
    Collecting { since: Instant, arrived: usize, seen: usize },
}

/// What to do after a look at the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Let everything that is ready go on, then look again.
    LookAgain,
    /// Flush what has arrived: the turn is over.
    Flush,
    /// Nothing has arrived.
    Rest,
}

/// One loop's turn.
#[derive(Debug)]
pub struct Turn(State);

impl Turn {
    /// A turn in which nothing has arrived.
    pub const fn new() -> Self {
        Self(State::Idle)
    }

    /// A request has arrived.
    pub fn arrived(&mut self, now: Instant) {
        self.0 = match self.0 {
            State::Idle => State::Collecting { since: now, arrived: 1, seen: 0 },
            State::Collecting { since, arrived, seen } => State::Collecting { since, arrived: arrived + 1, seen },
        };
    }

    /// Everything that was ready has gone on. `is_full`: some batch has reached its maximum.
    pub fn look(&mut self, now: Instant, is_full: bool) -> Decision {
        match self.0 {
            State::Idle => Decision::Rest,
            // # Collecting ⇒ Collecting
            // New requests arrived since the last look, so more may be on their way.
            State::Collecting { since, arrived, seen }
                if arrived > seen && !is_full && now.saturating_duration_since(since) < MAX_TURN =>
            {
                self.0 = State::Collecting { since, arrived, seen: arrived };
                Decision::LookAgain
            }
            // # Collecting ⇒ Idle
            // Nothing new came, a batch is full, or the first request has waited long enough.
            State::Collecting { .. } => {
                self.0 = State::Idle;
                Decision::Flush
            }
        }
    }
}

impl Default for Turn {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_lone_request_is_flushed_after_one_more_look() {
        let clock = ManualClock::new();
        let mut turn = Turn::new();
        assert_eq!(turn.look(clock.now(), false), Decision::Rest);
        turn.arrived(clock.now());
        assert_eq!(turn.look(clock.now(), false), Decision::LookAgain);
        assert_eq!(turn.look(clock.now(), false), Decision::Flush);
        assert_eq!(turn.look(clock.now(), false), Decision::Rest);
    }

    #[test]
    fn a_turn_goes_on_while_requests_arrive_but_not_past_its_end() {
        let clock = ManualClock::new();
        let mut turn = Turn::new();
        let mut looks = 0;
        loop {
            turn.arrived(clock.now());
            clock.advance(Duration::from_micros(9));
            looks += 1;
            if turn.look(clock.now(), false) == Decision::Flush {
                break;
            }
        }
        assert_eq!(looks, 12);
    }

    #[test]
    fn a_full_batch_ends_the_turn_at_once() {
        let clock = ManualClock::new();
        let mut turn = Turn::new();
        turn.arrived(clock.now());
        assert_eq!(turn.look(clock.now(), true), Decision::Flush);
    }
}
