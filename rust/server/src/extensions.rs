//! Triton's extensions of the protocol: what the RPCs and routes besides inference, health and metadata answer.
//!
//! One function per RPC, from its request message to its response message. gRPC sends them as they are; HTTP builds the
//! request from path and body and renders the response with [`json`]. No transport here, and no hot path.

pub(crate) mod config;
pub(crate) mod json;
pub(crate) mod logging;
pub(crate) mod repository;
pub(crate) mod shared_memory;
pub(crate) mod statistics;
pub(crate) mod trace;
