//! Memory that a burst or a dropped version leaves behind goes back to the system.

use crate::runtime::Runtime;

/// Gives unused memory of the shared arena and of the C allocator back to the system.
///
/// To be called after the last `Arc` of a version's backend is dropped, off the serving threads.
///
/// **Cost:** milliseconds; runs that allocate meanwhile wait.
pub fn release_memory() {
    if let Some(runtime) = Runtime::loaded() {
        runtime.shrink();
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes no pointers, is thread safe, and only touches memory that nobody uses.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lets all threads share `heaps` heaps of the C allocator, which otherwise makes eight for each core.
///
/// What lies free at the end of a heap stays with it ([`release_memory`] only reaches the main one's), so each that a
/// burst has used keeps megabytes. For the process as a whole: to be called by a program, not by a library, and before
/// it has started threads. What the environment says about the allocator stays.
///
/// **Source:** docs/decisions/0006-few-heaps.md.
pub fn share_heaps(heaps: usize) {
    /// Variables that decide the number of heaps.
    const DECIDED: [&str; 2] = ["GLIBC_TUNABLES", "MALLOC_ARENA_MAX"];
    if DECIDED.iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes no pointers; it locks the allocator while it changes the number.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, i32::try_from(heaps.max(1)).unwrap_or(i32::MAX));
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = heaps;
}
