//! The hot path of mlserve: what happens to a request between the wire and the runtime.
//!
//! This crate knows no Python, no socket, no global (but for [`failpoint`], in builds for tests) and no clock of its own,
//! and has no unsafe code. The files are the
//! stages of a request in the order it meets them; [`pipeline`] joins them. See docs/architecture.md.

#![forbid(unsafe_code)]
// Whoever prints waits for the reader; the server's `output` does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod admit;
pub mod answers;
pub mod backend;
pub mod batch;
pub mod budget;
pub mod classify;
pub mod clock;
pub mod config;
pub mod cut;
pub mod entry;
pub mod error;
pub mod failpoint;
pub mod join;
pub mod lane;
pub mod model;
pub mod network;
mod outstanding;
pub mod park;
pub mod pipeline;
pub mod plan;
pub mod pool;
pub mod queue;
pub mod queue_policy;
pub mod request;
pub mod retry;
pub mod run;
pub mod running;
pub mod scatter;
pub mod shapes;
pub mod stats;
pub mod stop;
mod sync;
pub mod tensor;
pub mod times;
pub mod trace;
pub mod turn;
pub mod validate;
pub mod version;
mod version_policy;
pub mod watch;
