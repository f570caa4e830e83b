//! The end of a process in which the runtime's destructors must not run: the fork of one that has loaded it, and one in
//! which something still runs.

use std::ffi::{c_int, c_void};

#[cfg(all(target_os = "linux", target_env = "gnu"))]
unsafe extern "C" {
    /// glibc's: as `atexit`, but the function learns the exit status.
    fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
}

/// When the process comes to its end, the runtime's destructors are passed over. In the child of a fork they would wait for
/// ever for threads that only the parent has. So are other functions that libraries left for the end of a process; what
/// stands in the C library's buffers is written, and the exit status stays.
pub fn end_without_destructors() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the function is never unloaded, as no Python extension is; the argument is not read.
    unsafe {
        on_exit(leave, std::ptr::null_mut());
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
extern "C" fn leave(status: c_int, _: *mut c_void) {
    // SAFETY: a null pointer means all streams; `_exit` does not return.
    unsafe {
        libc::fflush(std::ptr::null_mut());
        libc::_exit(status);
    }
}
