//! How many heaps the C allocator has. A process of its own, because the number is the process's.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use std::ffi::CStr;
use std::ptr;
use std::sync::Barrier;

/// Threads that allocate at the same moment: without a bound each would get a heap, up to eight for each core.
const THREADS: usize = 8;

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
    mlserve_ort::share_heaps(2);
    let together = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                together.wait();
                // Too large for a cache of the thread's own.
                std::hint::black_box(vec![1_u8; 100_000]);
                together.wait();
            });
        }
    });
    assert!(heaps() <= 2, "{} heaps", heaps());
}
