//! Gives memory back that a burst has left behind: the runtime's arena and the allocator keep what they once needed.
//!
//! Looks at the resident memory now and then, on the front thread. Giving back takes milliseconds and locks the
//! allocator, so it waits until the memory in use has come down, and does not try again before more has gathered.

use std::sync::Arc;
use std::time::Duration;

use crate::process::Process;
use crate::resources;
use crate::status::Phase;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// Growth since the last time that is worth the milliseconds.
const WORTH_BYTES: usize = 32 << 20;

/// Looks after the memory of `process` until dropped.
///
/// What is resident once every model has settled is the floor: loading has just given back what it needed, and a burst
/// that comes right after does not pass for memory that was always there.
pub(crate) async fn run(process: Arc<Process>) {
    // Fails only if nobody can change the phase any more.
    drop(process.status.subscribe().wait_for(|phase| *phase >= Phase::Serving).await);
    let mut keeper = Keeper::new(resources::resident_bytes(), process.bytes.drawn());
    loop {
        tokio::time::sleep(INTERVAL).await;
        if keeper.look(resources::resident_bytes(), process.bytes.drawn()) {
            // On a thread of its own: health answers come from this one.
            let freed = tokio::task::spawn_blocking(mlserve_ort::release_memory).await;
            if freed.is_ok() {
                keeper.gave_back(resources::resident_bytes(), process.bytes.drawn());
            }
        }
    }
}

/// Decides when to give back.
#[derive(Debug)]
struct Keeper {
    /// Resident bytes that could not be given back, or were there from the start.
    floor: usize,
    /// Bytes of requests and answers at the last look.
    held: usize,
}

impl Keeper {
    /// Begins with what is resident now, less what requests and answers hold of it: they may have come already.
    fn new(resident: usize, held: usize) -> Self {
        Self { floor: resident.saturating_sub(held), held }
    }

    /// Whether to give back now: enough has gathered, and what requests and answers hold does not grow any more.
    fn look(&mut self, resident: usize, held: usize) -> bool {
        let was_held = std::mem::replace(&mut self.held, held);
        let floor = self.floor;
        self.floor = floor.min(resident);
        held <= was_held && resident >= floor.saturating_add(held).saturating_add(WORTH_BYTES)
    }

    fn gave_back(&mut self, resident: usize, held: usize) {
        // What requests hold now is theirs; it must not count as memory that cannot be given back.
        self.floor = resident.saturating_sub(held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1 << 20;

    #[test]
    fn memory_goes_back_after_a_burst_and_once() {
        let mut keeper = Keeper::new(50 * MB, 0);
        assert!(!keeper.look(50 * MB, 0));
        assert!(!keeper.look(600 * MB, 500 * MB), "in use");
        assert!(keeper.look(600 * MB, MB));
        keeper.gave_back(60 * MB, MB);
        assert!(!keeper.look(60 * MB, 0));
        assert!(keeper.look(200 * MB, 0));
        keeper.gave_back(190 * MB, 0);
        assert!(!keeper.look(200 * MB, 0), "what did not come back is not asked for again");
        keeper.gave_back(190 * MB, 100 * MB);
        assert!(keeper.look(200 * MB, 0), "what was in use then comes back later");
    }

    #[test]
    fn a_burst_before_the_first_look_goes_back() {
        let mut keeper = Keeper::new(50 * MB, 0);
        assert!(!keeper.look(600 * MB, 500 * MB), "in use");
        assert!(keeper.look(600 * MB, 0));
    }

    #[test]
    fn what_requests_hold_when_loading_settles_is_no_floor() {
        let mut keeper = Keeper::new(300 * MB, 250 * MB);
        assert!(!keeper.look(300 * MB, 250 * MB), "in use");
        assert!(keeper.look(300 * MB, 0));
    }
}
