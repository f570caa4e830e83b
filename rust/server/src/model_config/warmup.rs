//! Warm-up runs that a configuration asks for: its samples as tensors, in the model's order.

use std::path::Path;

use bytes::Bytes;
use mlserve_core::error::quoted;
use mlserve_core::model::TensorSpec;
use mlserve_core::tensor::{DataType, Shape, ShapeText, Texts, byte_count, element_count};

use super::files;
use super::tensors::type_of;
use crate::proto::model_warmup::Input;
use crate::proto::model_warmup::input::InputDataType;
use crate::proto::{self, ModelConfig, ModelWarmup};
use crate::trust::Roots;

/// Where files of samples lie, below the model's folder.
const FOLDER: &str = "warmup";
/// Bytes of all samples together; one request may have a quarter of it unless its limit is raised.
const MAX_BYTES: usize = 256 << 20;
/// Runs of one sample: what takes longer than this many runs would keep the model from serving.
const MAX_COUNT: u32 = 10_000;

/// A run before the model is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warmup {
    /// For messages.
    pub(crate) name: String,
    /// How often.
    pub(crate) count: u32,
    /// One tensor per input, in the model's order.
    pub(crate) inputs: Vec<(DataType, Shape, Bytes)>,
}

/// The samples of `config` for a model with these `inputs`; links of its `folder` may lead to `roots`.
///
/// **Errors:** an input that is missing, unknown, or does not fit the model; a file that cannot be read; too large.
pub(super) fn warmups(
    config: &ModelConfig,
    folder: &Path,
    roots: &Roots,
    inputs: &[TensorSpec],
) -> Result<Vec<Warmup>, String> {
    let mut left = MAX_BYTES;
    let mut warmups = Vec::new();
    // Triton leaves out samples of no rows, too.
    for (index, asked) in config.model_warmup.iter().enumerate().filter(|(_, asked)| asked.batch_size > 0) {
        let warmup = Sample { config, asked, folder, roots }.warmup(inputs, &mut left);
        warmups.push(warmup.map_err(|fault| format!("model_warmup[{index}] '{}': {fault}", quoted(&asked.name)))?);
    }
    Ok(warmups)
}

struct Sample<'a> {
    config: &'a ModelConfig,
    asked: &'a ModelWarmup,
    folder: &'a Path,
    roots: &'a Roots,
}

impl Sample<'_> {
    fn warmup(&self, inputs: &[TensorSpec], left: &mut usize) -> Result<Warmup, String> {
        let (rows, most) = (self.asked.batch_size, self.config.max_batch_size);
        if most > 0 && i64::from(rows) > i64::from(most) {
            return Err(format!("batch_size = {rows}: allowed: 0 to max_batch_size ({most})"));
        }
        if let Some(name) = self.asked.inputs.keys().find(|name| inputs.iter().all(|spec| spec.name != **name)) {
            let names: Vec<&str> = inputs.iter().map(|spec| spec.name.as_str()).collect();
            return Err(format!("the graph has no input '{}'; allowed: {}", quoted(name), names.join(", ")));
        }
        let has_rows = self.has_rows(inputs);
        let mut tensors = Vec::with_capacity(inputs.len());
        for spec in inputs {
            let named = |fault: String| format!("input '{}': {fault}", spec.name);
            let input = self.asked.inputs.get(&spec.name).ok_or_else(|| named("it is missing".to_owned()))?;
            tensors.push(self.tensor(spec, input, has_rows.then_some(rows), left).map_err(named)?);
        }
        // Whole requests cannot share a run, so that as many of them are as many runs.
        let count = self.asked.count.max(1).saturating_mul(if has_rows { 1 } else { rows });
        if count > MAX_COUNT {
            return Err(format!("count and batch_size make {count} runs; allowed: 1 to {MAX_COUNT}"));
        }
        Ok(Warmup { name: self.asked.name.clone(), count, inputs: tensors })
    }

    /// Whether the samples are rows. Where the configuration leaves that to the graph, their rank tells.
    fn has_rows(&self, inputs: &[TensorSpec]) -> bool {
        let is_row = |spec: &TensorSpec| {
            self.asked.inputs.get(&spec.name).is_some_and(|input| input.dims.len() + 1 == spec.shape.len())
        };
        self.config.max_batch_size > 0 || inputs.iter().any(is_row)
    }

    fn tensor(
        &self,
        spec: &TensorSpec,
        input: &Input,
        rows: Option<u32>,
        left: &mut usize,
    ) -> Result<(DataType, Shape, Bytes), String> {
        check_fit(spec, input, rows.is_some())?;
        let shape: Shape = rows.map(i64::from).into_iter().chain(input.dims.iter().copied()).collect();
        let row = self.row(spec.datatype, input, *left)?;
        let too_large = || format!("all samples have more than {MAX_BYTES} bytes together, which is the most");
        let bytes = row.len().checked_mul(rows.unwrap_or(1) as usize).ok_or_else(too_large)?;
        *left = left.checked_sub(bytes).ok_or_else(too_large)?;
        Ok((spec.datatype, shape, Bytes::from(row.repeat(rows.unwrap_or(1) as usize))))
    }

    /// The bytes of one row, at most `limit`.
    fn row(&self, datatype: DataType, input: &Input, limit: usize) -> Result<Vec<u8>, String> {
        let elements = element_count(&input.dims);
        // An empty string is its length alone.
        let size = byte_count(datatype, &input.dims).or_else(|| elements?.checked_mul(4));
        let size = size.filter(|&size| size <= limit).ok_or_else(|| {
            format!("dims are {}, which is too large; all samples may have {MAX_BYTES} bytes", ShapeText(&input.dims))
        })?;
        match &input.input_data_type {
            Some(InputDataType::ZeroData(_)) => Ok(vec![0; size]),
            Some(InputDataType::RandomData(_)) => Ok(random(datatype, size)),
            Some(InputDataType::InputDataFile(name)) => {
                let bytes = files::read(&self.folder.join(FOLDER), name, self.roots, limit)?;
                file_row(datatype, bytes, size, elements.unwrap_or_default())
                    .map_err(|fault| format!("\"{}\": {fault}", quoted(name)))
            }
            None => Err("it says none of zero_data, random_data and input_data_file".to_owned()),
        }
    }
}

fn check_fit(spec: &TensorSpec, input: &Input, has_rows: bool) -> Result<(), String> {
    let wanted = type_of(spec.datatype);
    if ![wanted, proto::DataType::TypeInvalid].contains(&input.data_type()) {
        let said = input.data_type().as_str_name();
        return Err(format!("data_type is {said}, in the graph it is {}", wanted.as_str_name()));
    }
    let graph = spec.shape.get(usize::from(has_rows)..).unwrap_or_default();
    let fits = |(&said, &has): (&i64, &i64)| said >= 0 && (has == -1 || has == said);
    if input.dims.len() == graph.len() && input.dims.iter().zip(graph).all(fits) {
        return Ok(());
    }
    let rows = if has_rows { "without the batch dimension " } else { "" };
    Err(format!("dims are {}; allowed {rows}are sizes that fit {}", ShapeText(&input.dims), ShapeText(graph)))
}

/// One row from a file. More bytes than one row takes are left aside, as Triton does.
fn file_row(datatype: DataType, mut bytes: Vec<u8>, size: usize, elements: usize) -> Result<Vec<u8>, String> {
    if datatype == DataType::Bytes {
        let found = Texts::of(&bytes).map_err(|error| error.text().to_owned())?.count;
        let fault = || format!("the file has {found} elements, dims ask for {elements}");
        return if found == elements { Ok(bytes) } else { Err(fault()) };
    }
    if bytes.len() < size {
        return Err(format!("the file has {} bytes, dims ask for {size}", bytes.len()));
    }
    bytes.truncate(size);
    Ok(bytes)
}

/// Random bytes, the same every time. Floats lie between 1 and 2: no infinities, no subnormal ones, which are slow.
fn random(datatype: DataType, size: usize) -> Vec<u8> {
    let mut state = 0_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    if datatype == DataType::Bytes {
        return vec![0; size];
    }
    while bytes.len() < size {
        // SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&shaped(datatype, word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Eight random bytes as values of `datatype`: floats with the exponent of 1, booleans 0 or 1.
fn shaped(datatype: DataType, word: u64) -> u64 {
    const ONES: u64 = 0x0001_0001_0001_0001;
    match datatype {
        DataType::Bool => word & 0x0101_0101_0101_0101,
        DataType::Fp16 => (word & (0x03ff * ONES)) | (0x3c00 * ONES),
        DataType::Bf16 => (word & (0x007f * ONES)) | (0x3f80 * ONES),
        DataType::Fp32 => (word & 0x007f_ffff_007f_ffff) | 0x3f80_0000_3f80_0000,
        DataType::Fp64 => (word & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000,
        _ => word,
    }
}
