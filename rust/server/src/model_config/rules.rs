//! What becomes of each field of a model's configuration: one table, which the check and the reference page are made from.
//!
//! A field may be supported, ignored with a warning where that changes no answer, or refused by its name. A rule speaks
//! only about values that ask for something: `decoupled: false` is no wish. A rule that is not `Supported` covers what
//! lies below it.

use std::fmt;

/// What becomes of a field, or of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does what it says.
    Supported,
    /// It is left aside, with a warning.
    Ignored,
    /// The model is not loaded.
    Refused,
}

/// Which values the verdict is about; all others are supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Every value that is not the default, anywhere below.
    Asks,
    /// The field's presence, empty or not.
    Given,
    /// All but these.
    Other(&'static [&'static str]),
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Path below `ModelConfig`, or the key of a parameter.
    pub field: &'static str,
    /// What becomes of it.
    pub verdict: Verdict,
    /// For which values.
    pub when: When,
    /// What it does here, or why it does nothing: for the page and for whoever reads the warning.
    pub says: &'static str,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Supported => "supported",
            Verdict::Ignored => "ignored, with a warning",
            Verdict::Refused => "refused",
        })
    }
}

/// The rule of a field.
pub(super) fn field_rule(path: &str) -> Option<&'static Rule> {
    FIELDS.iter().find(|rule| rule.field == path)
}

/// The rule of a key of `parameters`.
pub(super) fn parameter_rule(key: &str) -> &'static Rule {
    PARAMETERS.iter().find(|rule| rule.field == key).unwrap_or(&OTHER_PARAMETERS)
}

const fn supported(field: &'static str, says: &'static str) -> Rule {
    Rule { field, verdict: Verdict::Supported, when: When::Asks, says }
}

const fn ignored(field: &'static str, says: &'static str) -> Rule {
    Rule { field, verdict: Verdict::Ignored, when: When::Asks, says }
}

const fn refused(field: &'static str, when: When, says: &'static str) -> Rule {
    Rule { field, verdict: Verdict::Refused, when, says }
}

const NO_GPU: &str = "models run on the CPU";
const OWN_SHAPE: &str = "tensors travel in the graph's own shape; remove `reshape`, and `dims` with it";
const TENSORRT_ONLY: &str = "it is for TensorRT, which is not offered";

/// Every field of `ModelConfig`.
pub static FIELDS: &[Rule] = &[
    supported("name", "The model's folder must have this name."),
    refused("platform", When::Other(&["onnxruntime_onnx"]), "ONNX models are served, by ONNX Runtime"),
    refused("backend", When::Other(&["onnxruntime"]), "ONNX models are served, by ONNX Runtime"),
    refused("runtime", When::Other(&["libtriton_onnxruntime.so"]), "ONNX models are served, by ONNX Runtime"),
    supported("version_policy", "Which versions are served; the setting `versions`."),
    supported("version_policy.latest", "The highest versions."),
    supported("version_policy.latest.num_versions", "How many of them, at least 1."),
    supported("version_policy.all", "Every version."),
    supported("version_policy.specific", "Certain versions."),
    supported("version_policy.specific.versions", "Their numbers, at least one."),
    supported(
        "max_batch_size",
        "Rows of one run at most, the setting `max_batch_rows`; larger requests are split and joined again. With inputs \
         and outputs listed, 0 means that each request is run whole, by itself; otherwise the graph decides.",
    ),
    supported("input", "The model's inputs. Either all of them are listed or none."),
    supported("input.name", "The graph's name."),
    supported("input.data_type", "Must be the graph's; taken from the graph if it is left out."),
    supported("input.format", "Told to clients; it changes nothing."),
    supported(
        "input.dims",
        "Without the batch dimension if `max_batch_size` is not 0. Where the graph leaves a dimension open, a number \
         here narrows it: requests must have it.",
    ),
    refused("input.reshape", When::Given, OWN_SHAPE),
    refused("input.is_shape_tensor", When::Asks, TENSORRT_ONLY),
    refused("input.allow_ragged_batch", When::Asks, "requests share a run only if their rows have one shape"),
    refused("input.optional", When::Asks, "every input of the graph must be sent"),
    refused("input.is_non_linear_format_io", When::Asks, TENSORRT_ONLY),
    supported("output", "The model's outputs, or some of them; the others are served too."),
    supported("output.name", "The graph's name."),
    supported("output.data_type", "Must be the graph's; taken from the graph if it is left out."),
    supported("output.dims", "As for inputs; -1 fits any size."),
    refused("output.reshape", When::Given, OWN_SHAPE),
    supported("output.label_filename", "File in the model's folder with one label per line, for classification."),
    refused("output.is_shape_tensor", When::Asks, TENSORRT_ONLY),
    refused("output.is_non_linear_format_io", When::Asks, TENSORRT_ONLY),
    refused("batch_input", When::Asks, "inputs are made by clients, not from the batch"),
    refused("batch_output", When::Asks, "outputs are cut by rows"),
    supported("optimization", "How the runtime prepares the graph."),
    supported("optimization.graph", "Which optimisations it makes."),
    supported("optimization.graph.level", "-1: basic ones; 1: basic and extended ones; 2: none; any other: all."),
    ignored("optimization.priority", "all models have one priority"),
    ignored("optimization.cuda", NO_GPU),
    ignored("optimization.execution_accelerators", "models run on the runtime's CPU provider"),
    ignored("optimization.input_pinned_memory", NO_GPU),
    ignored("optimization.output_pinned_memory", NO_GPU),
    ignored("optimization.gather_kernel_buffer_threshold", NO_GPU),
    ignored("optimization.eager_batching", "a batch is gathered when it starts, which takes microseconds"),
    supported(
        "dynamic_batching",
        "How requests share runs. They do so without it too, if the rows of the model have been shown to be independent.",
    ),
    ignored("dynamic_batching.preferred_batch_size", "sizes that pay are measured when the model is loaded"),
    supported(
        "dynamic_batching.max_queue_delay_microseconds",
        "The setting `max_delay_us`. Without it a batch does not wait.",
    ),
    ignored("dynamic_batching.preserve_ordering", "answers of one stream keep their order, those of others have none"),
    supported("dynamic_batching.priority_levels", "The setting `priority_levels`."),
    supported(
        "dynamic_batching.default_priority_level",
        "The setting `default_priority`: the level of requests that ask for none; 0: the middle one.",
    ),
    supported("dynamic_batching.default_queue_policy", "What happens to requests that wait."),
    supported("dynamic_batching.default_queue_policy.timeout_action", "The setting `timeout_action`."),
    supported("dynamic_batching.default_queue_policy.default_timeout_microseconds", "The setting `queue_timeout_us`."),
    supported("dynamic_batching.default_queue_policy.allow_timeout_override", "The setting `allow_timeout_override`."),
    supported(
        "dynamic_batching.default_queue_policy.max_queue_size",
        "The setting `queue_capacity`; 0 leaves it at its default, since every queue has a bound.",
    ),
    supported("dynamic_batching.priority_queue_policy", "The same by level of priority; the setting `queue_policies`."),
    supported("dynamic_batching.priority_queue_policy.timeout_action", "As above, `timeout_action`."),
    supported("dynamic_batching.priority_queue_policy.default_timeout_microseconds", "As above, `timeout_us`."),
    supported("dynamic_batching.priority_queue_policy.allow_timeout_override", "As above."),
    supported("dynamic_batching.priority_queue_policy.max_queue_size", "As above, `capacity`."),
    refused("sequence_batching", When::Given, "models have no state between requests; keep it in the client"),
    refused("ensemble_scheduling", When::Given, "models are not chained; join them into one graph, or in the client"),
    supported("instance_group", "How many runs happen at once: the setting `instances`, the sum over all groups."),
    supported("instance_group.name", "A label."),
    Rule {
        field: "instance_group.kind",
        verdict: Verdict::Ignored,
        when: When::Other(&["KIND_AUTO", "KIND_CPU"]),
        says: NO_GPU,
    },
    supported("instance_group.count", "0 leaves it to cores and threads. Weights are held once, whatever the count."),
    ignored("instance_group.rate_limiter", "runs are limited by `instances` alone"),
    ignored("instance_group.gpus", NO_GPU),
    ignored("instance_group.secondary_devices", NO_GPU),
    ignored("instance_group.profile", TENSORRT_ONLY),
    ignored("instance_group.passive", "every instance runs batches"),
    ignored("instance_group.host_policy", "instances run on any core that the process may use"),
    supported("default_model_filename", "The file in each version's folder; `model.onnx` unless set."),
    ignored("cc_model_filenames", NO_GPU),
    ignored("metric_tags", "metrics are labelled with model and version"),
    supported("parameters", "Options of the runtime: see below."),
    supported("parameters.string_value", "The option's value."),
    supported("model_warmup", "Runs before the model is ready, beside those that mlserve makes by itself."),
    supported("model_warmup.name", "For messages."),
    supported("model_warmup.batch_size", "Rows of the run; 0 leaves the sample out."),
    supported("model_warmup.inputs", "Every input of the model."),
    supported("model_warmup.inputs.data_type", "Must be the graph's."),
    supported("model_warmup.inputs.dims", "Without the batch dimension; no dimension may be open."),
    supported("model_warmup.inputs.zero_data", "Zeros; empty strings."),
    supported("model_warmup.inputs.random_data", "Random bytes; floats lie between 1 and 2; empty strings."),
    supported("model_warmup.inputs.input_data_file", "File in the model's folder `warmup`, the bytes of one row."),
    supported("model_warmup.count", "How often; 0 means once."),
    supported("model_operations", "Libraries of operations."),
    refused("model_operations.op_library_filename", When::Asks, "code from a model repository is not loaded"),
    supported("model_transaction_policy", "How many answers a request has: one."),
    refused("model_transaction_policy.decoupled", When::Asks, "every request has one answer"),
    supported("model_repository_agents", "What changes a model before it is loaded."),
    refused("model_repository_agents.agents", When::Asks, "code from a model repository is not loaded"),
    supported("response_cache", "Whether answers are kept."),
    ignored("response_cache.enable", "there is no cache of answers"),
    ignored("model_metrics", "histograms have fixed buckets"),
];

/// Keys of `parameters` that Triton's backend for ONNX Runtime knows.
pub static PARAMETERS: &[Rule] = &[
    supported("intra_op_thread_count", "The setting `threads`; 0: measured when the model is warmed up."),
    supported("inter_op_thread_count", "Threads for branches of the graph, if `execution_mode` is 1."),
    refused(
        "execution_mode",
        When::Other(&["0", "1"]),
        "0 runs the graph's nodes one after the other, 1 runs branches at once",
    ),
    supported("session.set_denormal_as_zero", "1 treats numbers next to nothing as nothing; ONNX Runtime's own entry."),
    supported("session.disable_prepacking", "1 keeps weights as they are stored; ONNX Runtime's own entry."),
    supported("optimization.enable_gelu_approximation", "1 takes a faster formula for Gelu; ONNX Runtime's own entry."),
    Rule {
        field: "session.use_device_allocator_for_initializers",
        verdict: Verdict::Ignored,
        when: When::Other(&["0"]),
        says: "weights count towards the limit of the arena, `limits.arena_bytes`",
    },
    Rule {
        field: "enable_mem_arena",
        verdict: Verdict::Ignored,
        when: When::Other(&["1", "true"]),
        says: "all models share one arena, bounded by `limits.arena_bytes`",
    },
    Rule {
        field: "enable_mem_pattern",
        verdict: Verdict::Ignored,
        when: When::Other(&["0", "false"]),
        says: "memory patterns are off, since batches vary in size",
    },
    ignored("memory.enable_memory_arena_shrinkage", "what a burst leaves in the arena goes back by itself"),
    ignored("cudnn_conv_algo_search", NO_GPU),
    ignored("gpu_mem_limit", NO_GPU),
    ignored("arena_extend_strategy", NO_GPU),
    ignored("do_copy_in_default_stream", NO_GPU),
];

/// The rule of every other key.
pub static OTHER_PARAMETERS: Rule = ignored("any other key", "it is no option that is known here");
