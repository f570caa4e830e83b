//! The hot path of mlserve: what happens to a request between the wire and the runtime.
//!
//! This crate knows no Python, no socket, no global and no clock of its own, and has no unsafe code. The files are the
//! stages of a request in the order it meets them; [`pipeline`] joins them. See docs/architecture.md.

#![forbid(unsafe_code)]

pub mod backend;
pub mod error;
pub mod model;
pub mod tensor;
