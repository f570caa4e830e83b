//! The end of a server: nothing outlives it but what cannot be stopped, and that does not hold it up.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mlserve_core::version::Version;

use crate::event_loop::LoopHandle;
use crate::process::Process;

/// How long the end waits for loops and runs that are going on, after their time to finish is over already. What takes
/// longer gives its memory back when it ends.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// Ends the loops, then the instances of every version. Returns how many could not be ended.
pub(super) fn end(process: &Process, loops: &[LoopHandle], threads: Vec<JoinHandle<()>>) -> usize {
    let deadline = process.clock.now() + GRACE;
    loops.iter().for_each(LoopHandle::end);
    for signs in &process.shared.watch.loops {
        // Nobody is left who could be answered with it.
        signs.stop_inline_now();
    }
    let stuck = wait(process, deadline, threads, JoinHandle::is_finished);
    // One that has not turned keeps what it was given; nothing new may wait for it.
    for handle in loops {
        handle.mailbox().close();
    }
    let held = close_versions(process, deadline);
    if stuck + held > 0 {
        tracing::error!(
            loops = stuck,
            versions = held,
            "the server ends while something still runs that cannot be stopped"
        );
    }
    stuck + held
}

/// Ends the instances of every version and gives their memory back. Returns how many versions are still held by a run.
pub(super) fn close_versions(process: &Process, deadline: Instant) -> usize {
    process.models.end();
    let versions = process.models.take_all();
    for version in &versions {
        version.close();
        // What is in flight has had its time, or is answered: a run that goes on has nobody left.
        version.pool.stop_runs();
    }
    // Each instance holds its version.
    let held = wait(process, deadline, versions, |version: &Arc<Version>| Arc::strong_count(version) == 1);
    mlserve_ort::release_memory();
    held
}

/// Waits until all of `things` are `done`, or until `deadline`. Returns how many are not.
pub(super) fn wait<T>(process: &Process, deadline: Instant, mut things: Vec<T>, done: impl Fn(&T) -> bool) -> usize {
    loop {
        things.retain(|thing| !done(thing));
        if things.is_empty() || process.clock.now() >= deadline {
            return things.len();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use mlserve_core::config::Settings;

    use super::*;
    use crate::grpc::fixture::Served;

    #[test]
    fn the_end_does_not_wait_for_a_loop_that_is_stuck() {
        let served = Served::start(Settings::default(), 1);
        let (release, released) = channel::<()>();
        let stuck = std::thread::spawn(move || {
            let _ = released.recv();
        });
        let ended = std::thread::spawn(|| ());
        assert_eq!(end(&served.process, &[], vec![ended, stuck]), 1, "and says that it is left");
        drop(release);
    }
}
