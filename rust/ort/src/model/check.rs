//! Checks a model before ONNX Runtime's parser sees it: nesting, operations' domains, sizes and structures that contradict
//! themselves, and where external data lies.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::external::{DataFile, DataFiles};
use super::proto::{Attribute, Graph, Model, Node, SparseTensor};
use super::structure;
use super::tensor::Tensor;
use super::undefined;
use crate::error::LoadError;
use crate::fingerprint::Fingerprint;

/// Deepest nesting of graphs in graphs. Real models have two or three (a loop in a branch); prost stops at about 30.
const MAX_DEPTH: usize = 16;

/// Depth of what is no weight of the graph itself.
const INNER: usize = 2;

/// Domains whose operations the ONNX Runtime wheel implements. Others need libraries that we do not load.
const DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];

/// Bits of an element by `TensorProto.DataType` number; 0 where there is no fixed size.
const ELEMENT_BITS: [u64; 27] =
    [0, 32, 8, 8, 16, 16, 32, 64, 0, 8, 16, 64, 32, 64, 64, 128, 16, 8, 8, 8, 8, 4, 4, 4, 8, 2, 2];

/// What the walk over a model found.
pub(crate) struct Findings {
    /// How many nodes of each operation type there are, subgraphs and functions included.
    pub(crate) operations: BTreeMap<String, usize>,
    /// The data files beside the model.
    pub(crate) data_files: Vec<DataFile>,
    /// Those files as they were.
    pub(crate) fingerprint: Fingerprint,
    /// A tensor in such a file that is no weight of the graph itself, but inside an operation.
    pub(crate) inner_external: Option<String>,
}

/// Walks the whole model at `path`, whose data files may be links into `roots`.
///
/// **Errors:** the first thing that is wrong, with its name.
pub(crate) fn check(model: &Model, path: &Path, roots: &[PathBuf]) -> Result<Findings, LoadError> {
    let Some(graph) = &model.graph else {
        return Err(LoadError::broken(format!("{} is no ONNX model: it has no graph", path.display())));
    };
    if model.opset_import.is_empty() || model.ir_version < 1 {
        let text = format!("{} is no ONNX model: it has no operator set or format version", path.display());
        return Err(LoadError::broken(text));
    }
    if let Some(why) = undefined::undefined(model) {
        return Err(LoadError::broken(format!("{}: {why}", path.display())));
    }
    structure::check_functions(model)?;
    let functions = model.functions.iter().map(|function| (function.domain.as_str(), function.name.as_str())).collect();
    let mut walk =
        Walk { functions, files: DataFiles::beside(path, roots)?, operations: BTreeMap::new(), inner_external: None };
    walk.graph(graph, 1)?;
    for function in &model.functions {
        walk.attributes(&function.attribute, 1)?;
        walk.nodes(&function.node, 1)?;
    }
    let (data_files, fingerprint) = walk.files.into_parts();
    Ok(Findings { operations: walk.operations, data_files, fingerprint, inner_external: walk.inner_external })
}

struct Walk<'a> {
    /// Operations that the model defines itself.
    functions: HashSet<(&'a str, &'a str)>,
    files: DataFiles,
    operations: BTreeMap<String, usize>,
    inner_external: Option<String>,
}

impl Walk<'_> {
    fn graph(&mut self, graph: &Graph, depth: usize) -> Result<(), LoadError> {
        if depth > MAX_DEPTH {
            return Err(LoadError::unsupported(format!("the graph is nested deeper than {MAX_DEPTH} levels")));
        }
        graph.initializer.iter().try_for_each(|tensor| self.tensor(tensor, depth))?;
        graph.sparse_initializer.iter().try_for_each(|sparse| self.sparse(sparse))?;
        self.nodes(&graph.node, depth)
    }

    fn nodes(&mut self, nodes: &[Node], depth: usize) -> Result<(), LoadError> {
        for node in nodes {
            let is_own = self.functions.contains(&(node.domain.as_str(), node.op_type.as_str()));
            if !is_own && !DOMAINS.contains(&node.domain.as_str()) {
                let (label, domain) = (node.label(), &node.domain);
                let known = "only ai.onnx, ai.onnx.ml and com.microsoft are served; export without custom operations";
                return Err(LoadError::unsupported(format!("operation {label} is of domain '{domain}': {known}")));
            }
            if !is_own {
                structure::check_node(node)?;
            }
            *self.operations.entry(node.op_type.clone()).or_default() += 1;
            self.attributes(&node.attribute, depth)?;
        }
        Ok(())
    }

    fn attributes(&mut self, attributes: &[Attribute], depth: usize) -> Result<(), LoadError> {
        for attribute in attributes {
            attribute.t.iter().chain(&attribute.tensors).try_for_each(|tensor| self.tensor(tensor, depth + 1))?;
            let mut sparse = attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors);
            sparse.try_for_each(|sparse| self.sparse(sparse))?;
            attribute.subgraphs().try_for_each(|graph| self.graph(graph, depth + 1))?;
        }
        Ok(())
    }

    fn sparse(&mut self, sparse: &SparseTensor) -> Result<(), LoadError> {
        count(&sparse.dims).ok_or_else(|| LoadError::broken("a sparse tensor has impossible dimensions"))?;
        structure::check_sparse(sparse)?;
        sparse.values.iter().chain(&sparse.indices).try_for_each(|tensor| self.tensor(tensor, INNER))
    }

    /// Holds the dimensions that a tensor declares against the data that is there.
    fn tensor(&mut self, tensor: &Tensor, depth: usize) -> Result<(), LoadError> {
        let broken = |text: &str| LoadError::broken(format!("tensor '{}' {text}", tensor.name));
        let elements = count(&tensor.dims).ok_or_else(|| broken("has impossible dimensions"))?;
        let bits = usize::try_from(tensor.element).ok().and_then(|number| ELEMENT_BITS.get(number)).copied();
        let bytes = bits.and_then(|bits| elements.checked_mul(bits)).map(|bits| bits.div_ceil(8));
        let bytes = bytes.ok_or_else(|| broken("has an unknown element type or impossible dimensions"))?;
        if tensor.is_external() {
            if bits == Some(0) {
                return Err(broken("keeps elements without a fixed size in another file"));
            }
            if depth > 1 {
                self.inner_external = Some(tensor.name.clone());
            }
            return self.files.check(tensor, bytes);
        }
        match tensor.raw_bytes {
            Some(raw) if raw as u64 != bytes => {
                Err(broken(&format!("has {raw} bytes of data, its shape and type say {bytes}")))
            }
            // The smallest elements are packed four to a byte.
            None if elements > (tensor.typed_bytes as u64).saturating_mul(4) => {
                Err(broken(&format!("has {elements} elements, but data for fewer")))
            }
            _ => Ok(()),
        }
    }
}

/// Elements of these dimensions; `None` if one is negative or the product does not fit.
fn count(dims: &[i64]) -> Option<u64> {
    let sizes = dims.iter().map(|&dimension| u64::try_from(dimension).ok()).collect::<Option<Vec<_>>>()?;
    if sizes.contains(&0) {
        return Some(0);
    }
    sizes.into_iter().try_fold(1_u64, u64::checked_mul)
}
