//! The data plane of mlserve: sockets, HTTP, gRPC, health and drain; and the plain binary's command line.
//!
//! The files are the stages that the core does not have: [`listen`](self) accepts, `connection` tells the protocols
//! apart, `http2`/`grpc` and `http1`/`http` decode and answer, `health_port` serves metrics and health, `front` leads through the
//! end.
//! This crate knows no Python. See docs/architecture.md.

#![forbid(unsafe_code)]
// Whoever prints waits for the reader; the server's `output` does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub use mlserve_ort::end_without_destructors;

mod access;
mod body;
pub mod cli;
mod connection;
mod descriptors;
mod event_loop;
mod extensions;
pub mod front;
mod grpc;
mod health_port;
mod housekeeping;
mod http;
mod http1;
mod http2;
mod in_process;
mod inflate;
mod inspect;
pub mod lifecycle;
mod listen;
mod metadata;
pub mod metrics;
pub mod model_config;
mod origin;
mod output;
mod panics;
mod process;
mod proto;
mod renderer;
mod resources;
pub mod server;
pub mod settings;
mod share;
mod shared_memory;
mod status;
mod telemetry;
pub mod text;
pub mod trace;
mod trust;
mod watcher;
