//! How many heaps the C allocator has, and what stays at their ends. A process of its own, because both are the process's.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod support;

use std::ffi::CStr;
use std::hint::black_box;
use std::ptr;
use std::sync::{Barrier, Mutex, PoisonError};

use mlserve_ort::{release_memory, share_heaps};
use support::resident_bytes;

const HEAPS: usize = 3;
/// Threads that allocate at the same moment: without a bound each would get a heap, up to eight for each core.
const THREADS: usize = 8;
const MB: usize = 1 << 20;
/// What each of them frees at the end of its heap, in blocks of a megabyte.
const BLOCKS: usize = 8;

/// The tests of this file take turns: heaps belong to the whole process.
static TURN: Mutex<()> = Mutex::new(());

fn heaps() -> usize {
    let (mut text, mut length) = (ptr::null_mut(), 0);
    // SAFETY: the stream is made, written and closed before its text is read; the text ends with a NUL and is freed once.
    unsafe {
        let stream = libc::open_memstream(&raw mut text, &raw mut length);
        assert!(!stream.is_null() && libc::malloc_info(0, stream) == 0);
        libc::fclose(stream);
        let count = CStr::from_ptr(text).to_str().expect("ASCII").matches("<heap nr=").count();
        libc::free(text.cast());
        count
    }
}

#[test]
fn threads_share_as_many_heaps_as_are_allowed() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    share_heaps(HEAPS);
    let together = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                together.wait();
                // Too large for a cache of the thread's own.
                black_box(vec![1_u8; 100_000]);
                together.wait();
            });
        }
    });
    assert!(heaps() <= HEAPS, "{} heaps", heaps());
}

#[test]
fn what_lies_free_at_the_ends_of_heaps_goes_back_while_their_threads_live_and_later() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    share_heaps(HEAPS);
    let (rest, together) = (resident_bytes(), Barrier::new(THREADS + 1));
    let grow_and_free = || {
        let blocks = black_box([(); BLOCKS].map(|()| vec![1_u8; MB]));
        together.wait();
        drop(blocks);
        together.wait();
    };
    // Bytes that lie free, and what is kept of them. Nothing is asserted while threads wait for this one.
    let look = || {
        let free = resident_bytes();
        release_memory();
        (free.saturating_sub(rest), resident_bytes().saturating_sub(rest))
    };
    let alive = std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                grow_and_free();
                together.wait();
                grow_and_free();
            });
        }
        let freed = || {
            together.wait();
            together.wait();
        };
        freed();
        let alive = look();
        together.wait();
        freed();
        alive
    });
    for (free, kept) in [alive, look()] {
        assert!(free > 24 * MB, "only {free} bytes stayed to be given back");
        // The end of the main heap has gone back when it was freed; each of the others may keep a megabyte.
        assert!(kept < (HEAPS + 2) * MB, "{kept} of {free} bytes stay");
    }
}
