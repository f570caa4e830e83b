//! Keeps ONNX Runtime from telling anybody about its use.
//!
//! Its Linux wheels since 1.29 write a device identifier into the user's cache folder and connect to a collector as soon as
//! the environment is made; the C API can stop later events only. What stops all of it is the process's environment,
//! which is read when the library starts.

use std::ffi::OsStr;
use std::sync::Once;

/// Variables that releases of the runtime look at.
const VARIABLES: [&str; 2] = ["ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"];

/// Turns the runtime's telemetry off for this process and those that it starts. Before the library is opened; a program
/// calls it first thing, while it has one thread.
pub fn disable_telemetry() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        for name in VARIABLES {
            if std::env::var_os(name).as_deref() != Some(OsStr::new("1")) {
                // SAFETY: whoever starts a server has no other thread that reads the environment: the binary calls this
                // first, and the Python package has set the variables already, under the interpreter's lock.
                unsafe { std::env::set_var(name, "1") };
            }
        }
    });
}
