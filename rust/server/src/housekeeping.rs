//! Gives memory back that a burst has left behind: the runtime's arena and the allocator keep what they once needed.
//!
//! Looks at the resident memory now and then, on the front thread. Giving back takes milliseconds and locks the
//! allocator, so it waits until the memory in use has come down, and does not try again before more has gathered.

use std::sync::Arc;
use std::time::Duration;

use crate::process::Process;
use crate::resources;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// Growth since the last time that is worth the milliseconds.
const WORTH_BYTES: usize = 32 << 20;

/// Looks after the memory of `process` until dropped.
pub(crate) async fn run(process: Arc<Process>) {
    let mut keeper = Keeper::default();
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
#[derive(Debug, Default)]
struct Keeper {
    /// Resident bytes that could not be given back, or were there from the start.
    floor: Option<usize>,
    /// Bytes of requests and answers at the last look.
    held: usize,
}

impl Keeper {
    /// Whether to give back now: enough has gathered, and what requests and answers hold does not grow any more.
    fn look(&mut self, resident: usize, held: usize) -> bool {
        let was_held = std::mem::replace(&mut self.held, held);
        let floor = *self.floor.get_or_insert(resident);
        self.floor = Some(floor.min(resident));
        held <= was_held && resident >= floor.saturating_add(held).saturating_add(WORTH_BYTES)
    }

    fn gave_back(&mut self, resident: usize, held: usize) {
        // What requests hold now is theirs; it must not count as memory that cannot be given back.
        self.floor = Some(resident.saturating_sub(held));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1 << 20;

    #[test]
    fn memory_goes_back_after_a_burst_and_once() {
        let mut keeper = Keeper::default();
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
}
