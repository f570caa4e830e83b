//! Faults on order, for tests: a named stage panics, fails, sleeps or blocks when the environment says so.
//!
//! Only with the feature `failpoints`, which development builds have and wheels have not; without it
//! [`failpoint!`](crate::failpoint!) is nothing at all. The orders are in the variable `FAILPOINTS`, one per `;`:
//!
//! ```text
//! STAGE ACTION [@N | @N+] [on THREAD] [while FILE]
//! ```
//!
//! `ACTION` is `panic`, `error`, `sleep MILLISECONDS` or `block`. `@3` means the third time only, `@3+` from the third
//! time on. `on loop-1` counts only on threads whose name begins so. `while FILE` counts only as long as the file
//! exists; `block` needs it, and goes on when the file is gone. Each time that an order is carried out is logged.

#[cfg(feature = "failpoints")]
mod orders;

#[cfg(feature = "failpoints")]
pub use orders::{Order, reach};

/// Every stage that has a failpoint.
pub const STAGES: [&str; 29] = [
    "accept",
    "connection",
    "turn",
    "mailbox",
    "recover",
    "probe",
    "scrape",
    "admit",
    "plan",
    "validate",
    "flush",
    "inline",
    "push",
    "next",
    "instance_start",
    "instance",
    "gather",
    "run",
    "scatter",
    "deliver",
    "expire",
    "decode",
    "grpc_reply",
    "http_reply",
    "load",
    "warm_up",
    "install",
    "poll",
    "drain",
];

/// Carries out what is ordered for a stage. `failpoint!("run")` can panic and wait; an order of `error` panics too.
/// `failpoint!("run", error => Err(error)?)` says what to do with the error.
#[cfg(feature = "failpoints")]
#[macro_export]
macro_rules! failpoint {
    ($stage:literal) => {
        if let Err(error) = $crate::failpoint::reach($stage) {
            panic!("{}", error.text());
        }
    };
    ($stage:literal, $error:ident => $fail:expr) => {
        #[allow(clippy::question_mark, reason = "what is done with the error is the caller's")]
        if let Err($error) = $crate::failpoint::reach($stage) {
            $fail
        }
    };
}

/// Nothing: the build has no failpoints.
#[cfg(not(feature = "failpoints"))]
#[macro_export]
macro_rules! failpoint {
    ($stage:literal) => {};
    ($stage:literal, $error:ident => $fail:expr) => {};
}
