//! Compiles protos/ in pure Rust, so that no `protoc` is needed: messages, and the descriptors that reflection serves.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../protos");
    let output = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    println!("cargo:rerun-if-changed={}", protos.display());

    let mut compiler = protox::Compiler::new([&protos])?;
    compiler.include_imports(true).open_files(["inference.proto", "model_config.proto"])?;
    // With source info left out: comments would double the size for nobody's use at run time.
    fs::write(output.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    prost_build::Config::new().compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
