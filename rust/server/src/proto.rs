//! The protocol's messages as prost makes them from protos/, and their descriptors for reflection.
//!
//! `ModelInfer` does not pass here on the hot path: [`crate::grpc`] has its own codec, which tests hold against these.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]

include!(concat!(env!("OUT_DIR"), "/inference.rs"));

/// The encoded `FileDescriptorSet` of protos/.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
