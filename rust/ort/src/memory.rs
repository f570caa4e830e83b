//! Memory that a burst or a dropped version leaves behind goes back to the system.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use crate::heaps;
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
    heaps::trim();
}

/// Lets all threads share `heaps` heaps of the C allocator, which otherwise makes eight for each core, and lets
/// [`release_memory`] give back what lies free at their ends.
///
/// For the process as a whole: to be called by a program, not by a library, and before it has started threads. What the
/// environment says about the allocator stays, and the ends with it.
///
/// **Source:** docs/decisions/0006-few-heaps.md.
pub fn share_heaps(heaps: usize) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    heaps::share(heaps);
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = heaps;
}
