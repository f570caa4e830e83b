//! A model file as it is read without ONNX Runtime: its structure, whether it is sane and stays inside its directory,
//! what it takes and gives, and what its operations do across rows.

pub(crate) mod check;
pub(crate) mod constants;
pub(crate) mod driven;
pub(crate) mod external;
pub(crate) mod file;
pub(crate) mod flow;
pub(crate) mod proto;
pub(crate) mod spec;
pub(crate) mod structure;
pub(crate) mod tensor;
pub(crate) mod undefined;
