//! How long the kernel lets a thread run while others wait: threads that answer ask for short slices.
//!
//! Of two threads that want a core, the one with the shorter slice is due earlier, and takes the core at once when it
//! wakes up. Shares of time stay as they are. Linux does so from 6.12 on; older kernels ignore it.
//!
//! **Source:** docs/decisions/0012-short-slices.md.

/// Lets the calling thread have short slices, if its kernel gives them; the threads that it starts have the usual ones.
/// A thread whose scheduling somebody has chosen keeps it.
pub fn take_short_slices() {
    #[cfg(target_os = "linux")]
    linux::take();
}

#[cfg(target_os = "linux")]
mod linux {
    use std::mem::size_of;

    /// The shortest that Linux gives.
    const SLICE_NANOSECONDS: u64 = 100_000;
    /// Threads that this one starts have slices as usual, and no priority above the usual one.
    const RESET_ON_FORK: u64 = 1;
    const SCHED_OTHER: u32 = libc::SCHED_OTHER.cast_unsigned();

    /// `struct sched_attr` of Linux, in its first version.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, Default)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }

    const SIZE: u32 = size_of::<Attributes>() as u32;

    pub(super) fn take() {
        let Some(present) = attributes() else { return };
        if present.policy != SCHED_OTHER {
            return;
        }
        // Those whose priority was raised would be reset to the usual one: for them, short slices are the smaller loss.
        let reset = if present.nice < 0 { 0 } else { RESET_ON_FORK };
        let wanted = Attributes { size: SIZE, runtime: SLICE_NANOSECONDS, flags: present.flags | reset, ..present };
        // SAFETY: reads the attributes, of the size that they say; 0 is the calling thread. A refusal changes nothing.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wanted, 0) };
    }

    fn attributes() -> Option<Attributes> {
        let mut present = Attributes::default();
        // SAFETY: writes at most as many bytes as it is told; 0 is the calling thread.
        let status = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut present, SIZE, 0) };
        (status == 0).then_some(present)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_thread_gets_short_slices_and_those_that_it_starts_do_not() {
            std::thread::spawn(|| {
                let before = attributes().expect("the kernel tells");
                take();
                let after = attributes().expect("the kernel tells");
                assert_eq!((after.policy, after.nice), (before.policy, before.nice));
                // An older kernel tells 0 all the time.
                if before.runtime > 0 && before.nice >= 0 && before.policy == SCHED_OTHER {
                    assert_eq!(after.runtime, SLICE_NANOSECONDS);
                    let child = std::thread::spawn(attributes).join().expect("it ends").expect("the kernel tells");
                    assert_eq!((child.runtime, child.nice), (before.runtime, before.nice));
                }
            })
            .join()
            .expect("it ends");
        }
    }
}
