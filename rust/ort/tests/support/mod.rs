//! What the integration tests share: the runtime, tensors in and out, and models.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "a test helper; each test uses a part of it")]

pub mod models;
pub mod onnx;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mlserve_core::backend::{Backend, OutputTensor, RunError, TensorView};
use mlserve_core::tensor::DataType;
use mlserve_ort::{LoadError, LoadOptions, LoadedModel, Runtime, RuntimeOptions};

/// The limit that the tests run with: enough for every test, far below what a bomb asks for.
pub const ARENA_BYTES: usize = 512 << 20;

pub fn library() -> PathBuf {
    std::env::var_os("MLSERVE_ORT_LIB")
        .expect("MLSERVE_ORT_LIB is not set: it names libonnxruntime.so; `make test` sets it")
        .into()
}

pub fn runtime() -> Arc<Runtime> {
    let options = RuntimeOptions { arena_bytes: Some(ARENA_BYTES) };
    Runtime::load(&library(), options).expect("the library at MLSERVE_ORT_LIB loads")
}

/// Resident set of this process, in bytes.
pub fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = text.split(' ').nth(1).and_then(|field| field.parse().ok()).expect("a number");
    pages * 4096
}

/// A directory that is removed at the end of the test.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mlserve-ort-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory can be made");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn options() -> LoadOptions {
    LoadOptions { max_batch_rows: 8, threads: Some(1), cores: 2, ..LoadOptions::default() }
}

pub fn try_load(builder: onnx::Builder) -> Result<LoadedModel, LoadError> {
    load_with(builder, &options())
}

pub fn load_with(builder: onnx::Builder, options: &LoadOptions) -> Result<LoadedModel, LoadError> {
    let scratch = Scratch::new();
    let path = builder.write(scratch.path(), "model");
    mlserve_ort::load(&runtime(), &path, options)
}

pub fn load(builder: onnx::Builder) -> LoadedModel {
    try_load(builder).expect("the model loads")
}

/// A tensor that owns its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Owned {
    pub datatype: DataType,
    pub shape: Vec<i64>,
    pub data: Vec<u8>,
}

impl Owned {
    pub fn floats(shape: &[i64], values: &[f32]) -> Self {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { datatype: DataType::Fp32, shape: shape.to_vec(), data }
    }

    pub fn int64s(shape: &[i64], values: &[i64]) -> Self {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { datatype: DataType::Int64, shape: shape.to_vec(), data }
    }

    pub fn strings(shape: &[i64], values: &[&[u8]]) -> Self {
        let mut data = Vec::new();
        for value in values {
            data.extend_from_slice(&(value.len() as u32).to_le_bytes());
            data.extend_from_slice(value);
        }
        Self { datatype: DataType::Bytes, shape: shape.to_vec(), data }
    }
}

pub fn run(backend: &dyn Backend, inputs: &[Owned], outputs: &[usize]) -> Result<Vec<OutputTensor>, RunError> {
    // Aligned as the batcher aligns, which a `Vec<u8>` need not be.
    let aligned: Vec<Aligned> = inputs.iter().map(|input| Aligned::new(&input.data)).collect();
    let views: Vec<TensorView<'_>> = inputs
        .iter()
        .zip(&aligned)
        .map(|(input, data)| TensorView { datatype: input.datatype, shape: &input.shape, data: data.bytes() })
        .collect();
    backend.run(&views, outputs)
}

/// Bytes at an address that is a multiple of 64.
pub struct Aligned {
    buffer: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub fn new(bytes: &[u8]) -> Self {
        let mut buffer = vec![0; bytes.len() + 64];
        let start = buffer.as_ptr().align_offset(64);
        buffer[start..start + bytes.len()].copy_from_slice(bytes);
        Self { buffer, start, len: bytes.len() }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.len]
    }
}

pub fn as_floats(output: &OutputTensor) -> Vec<f32> {
    assert_eq!(output.datatype, DataType::Fp32);
    output.data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four"))).collect()
}
