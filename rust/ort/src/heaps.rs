//! The heaps of glibc's allocator: how many there are, and that what lies free at their ends goes back to the system.
//!
//! `malloc_trim` gives back all that is free but the ends of heaps, the main one's apart. An end is trimmed by `free`, on a
//! thread of its heap, above a threshold that grows with the largest block ever freed, to 64 MiB: after large bodies each
//! heap keeps what it once needed. With a low threshold each large answer would ask the kernel for its pages again. So it
//! is low only while each heap frees one block.
//!
//! **Source:** docs/decisions/0006-few-heaps.md.

use std::ffi::c_int;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

/// Variables of the environment that decide what this file would.
const DECIDED: [&str; 6] = [
    "GLIBC_TUNABLES",
    "MALLOC_ARENA_MAX",
    "MALLOC_MMAP_MAX_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TOP_PAD_",
    "MALLOC_TRIM_THRESHOLD_",
];
/// Who sets one of glibc's thresholds ends that they grow. The one for trimming is what it comes to; from this size on a block
/// is the kernel's, and goes back when it is freed: a large body would stay beside what is made of it.
const MAPPED_FROM_BYTES: c_int = 8 << 20;
const TRIMMED_FROM_BYTES: c_int = 64 << 20;
/// What a heap may keep at its end while ends go back: too little to ask the kernel for it again.
const LITTLE_BYTES: c_int = 1 << 20;
/// From 64 KiB on `free` looks at the end of the heap.
const BLOCK_BYTES: usize = 96 << 10;
const STACK_BYTES: usize = 64 << 10;

/// How many heaps there are at most; 0: the allocator is not ours.
static HEAPS: AtomicUsize = AtomicUsize::new(0);

/// See [`crate::share_heaps`].
pub(crate) fn share(heaps: usize) {
    if DECIDED.iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let heaps = heaps.max(1);
    let is_ours = set(libc::M_ARENA_MAX, c_int::try_from(heaps).unwrap_or(c_int::MAX))
        && set(libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)
        && set(libc::M_TRIM_THRESHOLD, TRIMMED_FROM_BYTES);
    HEAPS.store(if is_ours { heaps } else { 0 }, Ordering::Relaxed);
}

/// Gives back what is free inside heaps and, in a process that shares them, at their ends.
pub(crate) fn trim() {
    /// One at a time: the first to end would raise the threshold for all.
    static TURN: Mutex<()> = Mutex::new(());
    // SAFETY: takes no pointers, is thread safe, and only touches memory that nobody uses.
    unsafe { libc::malloc_trim(0) };
    let heaps = HEAPS.load(Ordering::Relaxed);
    if heaps > 1 {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        set(libc::M_TRIM_THRESHOLD, LITTLE_BYTES);
        on_each_heap(heaps, || drop(std::hint::black_box(Vec::<u8>::with_capacity(BLOCK_BYTES))));
        set(libc::M_TRIM_THRESHOLD, TRIMMED_FROM_BYTES);
    }
}

fn set(parameter: c_int, value: c_int) -> bool {
    // SAFETY: takes no pointers, and locks the allocator. `free` reads a threshold without that lock, as one number; it
    // also writes it so, as long as thresholds grow.
    unsafe { libc::mallopt(parameter, value) == 1 }
}

/// Does `work` on threads of all heaps, one after the other.
///
/// When it first allocates a thread gets a heap that no other thread has or, if there is none, the next in a circle of all.
/// So those that are done stay for the others, and are twice as many as heaps: the circle begins when the first have taken
/// what nobody had. A heap that is locked at that moment may be passed over.
fn on_each_heap(heaps: usize, work: fn()) {
    let leave = Mutex::new(());
    thread::scope(|scope| {
        let stay = leave.lock();
        let (done, is_done) = mpsc::channel();
        for _ in 0..2 * heaps {
            let (done, leave) = (done.clone(), &leave);
            let run = move || {
                work();
                // Fails only if nobody waits.
                let _ = done.send(());
                drop(leave.lock());
            };
            let started =
                thread::Builder::new().name("heap".to_owned()).stack_size(STACK_BYTES).spawn_scoped(scope, run);
            // Without threads the ends stay until the next time.
            if started.is_err() || is_done.recv().is_err() {
                break;
            }
        }
        drop(stay);
    });
}
