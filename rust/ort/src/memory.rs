//! Memory that a dropped version leaves behind goes back to the system.

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
