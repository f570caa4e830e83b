//! Gives memory back that a burst has left behind: the runtime's arena and the allocator keep what they once needed.
//!
//! Looks at the resident memory now and then, on the front thread. Giving back takes milliseconds and locks the
//! allocator, so it waits until the memory in use has come down. What did not come back then is asked for again when more
//! has gathered, or some time later: what one lasting piece of memory held down may be free by then.

use std::sync::Arc;
use std::time::Duration;

use crate::listen::Acceptor;
use crate::process::Process;
use crate::resources;
use crate::status::Phase;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// Growth since the last time that is worth the milliseconds.
const WORTH_BYTES: usize = 24 << 20;
/// Connections that leave about as much behind when they have closed (24 kB each, measured).
const CROWD: usize = 1_000;

/// Looks until the next try after one that freed everything, and at most: about three hours.
const FIRST_PATIENCE: u32 = 4;
const MOST_PATIENCE: u32 = 1 << 12;

/// Looks after the memory of `process` until dropped.
///
/// What is resident once every model has settled is the floor: loading has just given back what it needed, and a burst
/// that comes right after does not pass for memory that was always there.
pub(crate) async fn run(process: Arc<Process>, acceptor: Arc<Acceptor>) {
    // Fails only if nobody can change the phase any more.
    drop(process.status.subscribe().wait_for(|phase| *phase >= Phase::Serving).await);
    let use_now = || Use {
        resident: resources::resident_bytes(),
        held: process.bytes.drawn(),
        connections: acceptor.connections(),
    };
    let mut keeper = Keeper::new(use_now());
    loop {
        tokio::time::sleep(INTERVAL).await;
        if keeper.look(use_now()) {
            // On a thread of its own: this one accepts.
            let freed = tokio::task::spawn_blocking(mlserve_ort::release_memory).await;
            if freed.is_ok() {
                keeper.gave_back(use_now());
            }
        }
    }
}

/// What is in use at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    /// Resident bytes.
    resident: usize,
    /// Bytes of requests and answers.
    held: usize,
    connections: usize,
}

/// Decides when to give back.
#[derive(Debug)]
struct Keeper {
    /// Resident bytes that could not be given back, or were there from the start. Connections that were open then have
    /// their part in it.
    floor: usize,
    /// Resident bytes at the start, or the least since.
    least: usize,
    /// Most connections since.
    crowd: usize,
    /// Looks since something was given back, and how many to wait before trying again.
    looks: u32,
    patience: u32,
    /// The last look.
    last: Use,
}

impl Keeper {
    /// Begins with what is resident now, less what requests and answers hold of it: they may have come already.
    fn new(now: Use) -> Self {
        let floor = now.resident.saturating_sub(now.held);
        Self { floor, least: floor, crowd: now.connections, looks: 0, patience: FIRST_PATIENCE, last: now }
    }

    /// Whether to give back now: enough has gathered, or many connections have closed; and neither what requests and
    /// answers hold grows any more, nor do more close.
    fn look(&mut self, now: Use) -> bool {
        let last = std::mem::replace(&mut self.last, now);
        let floor = self.floor;
        self.floor = floor.min(now.resident);
        self.least = self.least.min(self.floor);
        self.looks = self.looks.saturating_add(1);
        self.crowd = self.crowd.max(now.connections);
        let is_worth = |above: usize| now.resident >= above.saturating_add(now.held).saturating_add(WORTH_BYTES);
        let may_be_free_by_now = self.looks > self.patience && is_worth(self.least);
        let has_thinned = now.connections + CROWD <= self.crowd && now.connections >= last.connections;
        now.held <= last.held && (is_worth(floor) || has_thinned || may_be_free_by_now)
    }

    fn gave_back(&mut self, now: Use) {
        // What requests hold now is theirs; it must not count as memory that cannot be given back.
        self.floor = now.resident.saturating_sub(now.held);
        self.crowd = now.connections;
        let is_all = self.floor < self.least.saturating_add(WORTH_BYTES);
        self.patience = if is_all { FIRST_PATIENCE } else { (self.patience * 2).min(MOST_PATIENCE) };
        self.looks = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1 << 20;

    fn with(resident: usize, held: usize) -> Use {
        Use { resident: resident * MB, held: held * MB, connections: 0 }
    }

    fn crowd(resident: usize, connections: usize) -> Use {
        Use { resident: resident * MB, held: 0, connections }
    }

    #[test]
    fn memory_goes_back_after_a_burst_and_once() {
        let mut keeper = Keeper::new(with(50, 0));
        assert!(!keeper.look(with(50, 0)));
        assert!(!keeper.look(with(600, 500)), "in use");
        assert!(keeper.look(with(600, 1)));
        keeper.gave_back(with(60, 1));
        assert!(!keeper.look(with(60, 0)));
        assert!(keeper.look(with(200, 0)));
        keeper.gave_back(with(190, 0));
        assert!(!keeper.look(with(200, 0)), "what did not come back is not asked for again");
        keeper.gave_back(with(190, 100));
        assert!(keeper.look(with(200, 0)), "what was in use then comes back later");
    }

    #[test]
    fn what_did_not_come_back_is_asked_for_again_later_and_ever_less_often() {
        let mut keeper = Keeper::new(with(50, 0));
        assert!(keeper.look(with(300, 0)));
        let mut waits = Vec::new();
        for _ in 0..4 {
            keeper.gave_back(with(120, 0));
            waits.push((1..1_000).find(|_| keeper.look(with(120, 0))).expect("it tries again"));
        }
        assert!(waits.is_sorted_by(|one, next| 2 * one - 1 == *next), "{waits:?}");
        keeper.gave_back(with(60, 0));
        assert!((0..1_000).all(|_| !keeper.look(with(60, 0))), "nothing is left to ask for");
    }

    #[test]
    fn a_burst_before_the_first_look_goes_back() {
        let mut keeper = Keeper::new(with(50, 0));
        assert!(!keeper.look(with(600, 500)), "in use");
        assert!(keeper.look(with(600, 0)));
    }

    #[test]
    fn what_requests_hold_when_loading_settles_is_no_floor() {
        let mut keeper = Keeper::new(with(300, 250));
        assert!(!keeper.look(with(300, 250)), "in use");
        assert!(keeper.look(with(300, 0)));
    }

    #[test]
    fn what_a_crowd_of_connections_needed_goes_back_when_it_has_left() {
        let mut keeper = Keeper::new(crowd(45, 0));
        assert!(keeper.look(crowd(258, 9_000)));
        keeper.gave_back(crowd(250, 9_000));
        assert!(!keeper.look(crowd(258, 9_000)), "it is in use");
        assert!(!keeper.look(crowd(258, 3_000)), "they are still leaving");
        assert!(keeper.look(crowd(258, 3_000)));
        keeper.gave_back(crowd(120, 3_000));
        assert!(!keeper.look(crowd(120, 2_500)), "a few more or less are worth nothing");
        assert!(!keeper.look(crowd(120, 10)));
        assert!(keeper.look(crowd(120, 10)));
        keeper.gave_back(crowd(50, 10));
        assert!(!keeper.look(crowd(50, 10)), "once");
    }
}
