//! What a configuration asks of ONNX Runtime: `optimization.graph.level` and the keys of `parameters` that Triton's backend
//! knows (`onnxruntime_backend/src/onnxruntime.cc`). Other keys are warned about by the rules.

use mlserve_core::error::quoted;

use crate::proto::ModelConfig;

/// Most threads that can be asked for: what the setting `threads` allows.
const MAX_THREADS: usize = 1_024;

/// Options that the runtime takes as they are.
const SESSION_ENTRIES: [&str; 3] =
    ["session.set_denormal_as_zero", "session.disable_prepacking", "optimization.enable_gelu_approximation"];

/// Which optimisations the runtime makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum GraphLevel {
    /// None.
    Off,
    /// Those that keep the graph's operations.
    Basic,
    /// Fusions too.
    Extended,
    /// All.
    #[default]
    All,
}

/// How a session is made and runs. The default is what models without a configuration get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionOptions {
    /// Optimisations of the graph.
    pub(crate) graph_level: GraphLevel,
    /// Whether branches of the graph run at once.
    pub(crate) is_parallel: bool,
    /// Threads of one operation; `None`: measured.
    pub(crate) intra_op_threads: Option<usize>,
    /// Threads for branches; `None`: the runtime's choice. Only if `is_parallel`.
    pub(crate) inter_op_threads: Option<usize>,
    /// Session configuration entries, key and value.
    pub(crate) session_entries: Vec<(String, String)>,
}

/// The runtime's options in `config`.
///
/// **Errors:** a number of threads that is none.
pub(super) fn options_of(config: &ModelConfig) -> Result<SessionOptions, String> {
    let positive = |count: usize| (count > 0).then_some(count);
    let entries =
        SESSION_ENTRIES.iter().filter_map(|key| Some(((*key).to_owned(), parameter(config, key)?.to_owned())));
    Ok(SessionOptions {
        graph_level: graph_level(config),
        is_parallel: parameter(config, "execution_mode") == Some("1"),
        intra_op_threads: positive(count_parameter(config, "intra_op_thread_count")?),
        inter_op_threads: positive(count_parameter(config, "inter_op_thread_count")?),
        session_entries: entries.collect(),
    })
}

fn graph_level(config: &ModelConfig) -> GraphLevel {
    let graph = config.optimization.as_ref().and_then(|optimization| optimization.graph.as_ref());
    match graph.map(|graph| graph.level) {
        Some(-1) => GraphLevel::Basic,
        Some(1) => GraphLevel::Extended,
        Some(2) => GraphLevel::Off,
        Some(_) | None => GraphLevel::All,
    }
}

fn parameter<'a>(config: &'a ModelConfig, key: &str) -> Option<&'a str> {
    config.parameters.get(key).map(|parameter| parameter.string_value.as_str())
}

/// A parameter that counts threads; 0 if it is not there.
pub(super) fn count_parameter(config: &ModelConfig, key: &str) -> Result<usize, String> {
    let Some(text) = parameter(config, key) else { return Ok(0) };
    text.trim().parse().ok().filter(|&count| count <= MAX_THREADS).ok_or_else(|| {
        format!("parameters[\"{key}\"] = \"{}\" is no number of threads; allowed: 0 to {MAX_THREADS}", quoted(text))
    })
}
