//! What a model's configuration may ask of its session, beyond threads.
//!
//! Two switches are missing on purpose. Memory patterns are kept for every shape ever seen, and shapes are the caller's;
//! an arena of the session's own would escape the limit that holds for all of them.

/// How far the runtime rewrites the graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Optimization {
    /// Not at all.
    Disabled,
    /// Rewrites that every provider understands: constants folded, redundant nodes removed.
    Basic,
    /// Basic, and operations fused for the CPU.
    Extended,
    /// Everything.
    #[default]
    All,
}

/// In what order a run goes through the graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Execution {
    /// One operation after the other.
    #[default]
    Sequential,
    /// Branches of the graph side by side.
    Parallel,
}

/// A session's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionSettings {
    /// How far the graph is rewritten.
    pub optimization: Optimization,
    /// Whether branches run side by side.
    pub execution: Execution,
    /// Threads that branches are shared among; of use only with [`Execution::Parallel`]. `None`: as many as cores.
    pub inter_op_threads: Option<usize>,
    /// Entries (key, value) of the runtime's own session configuration. It ignores keys that it does not know.
    pub entries: Vec<(String, String)>,
}

/// Keys that would undo what the server relies on, each with what that is.
const RESERVED: [(&str, &str); 4] = [
    ("session.use_env_allocators", "all models share one arena, which has a limit"),
    ("session.use_device_allocator_for_initializers", "weights count towards the limit of the arena"),
    ("session.load_model_format", "only ONNX files are checked before they are loaded"),
    ("session.model_external_initializers_file_folder_path", "weights lie beneath the model's own directory"),
];

/// Why an entry with this key is refused before the runtime sees it.
pub(crate) fn reserved(key: &str) -> Option<&'static str> {
    RESERVED.iter().find(|(reserved, _)| *reserved == key).map(|(_, reason)| *reason)
}
