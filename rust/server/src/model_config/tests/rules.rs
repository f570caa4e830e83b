//! The table of rules is complete, and does what it says.

use prost_reflect::{Kind, MessageDescriptor};

use super::super::rules::{FIELDS, Verdict};
use super::*;
use crate::extensions::json::descriptor;

/// Every field below `message`; `is_covered` says which need not be looked into.
fn paths(message: &MessageDescriptor, above: &str, is_covered: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for field in message.fields() {
        let path = if above.is_empty() { field.name().to_owned() } else { format!("{above}.{}", field.name()) };
        found.push(path.clone());
        let below = match field.kind() {
            Kind::Message(entry) if entry.is_map_entry() => entry.map_entry_value_field().kind(),
            kind => kind,
        };
        if let (Kind::Message(below), false) = (below, is_covered(&path)) {
            found.extend(paths(&below, &path, is_covered));
        }
    }
    found
}

#[test]
fn every_field_of_the_message_has_exactly_one_rule() {
    let is_covered = |path: &str| FIELDS.iter().any(|rule| rule.field == path && rule.verdict != Verdict::Supported);
    let mut there = paths(&descriptor("ModelConfig").expect("known"), "", &is_covered);
    let mut ruled: Vec<String> = FIELDS.iter().map(|rule| rule.field.to_owned()).collect();
    there.sort();
    ruled.sort();
    assert_eq!(ruled, there);
}

#[test]
fn what_cannot_be_served_is_refused_by_name() {
    for (text, name) in [
        ("platform: \"tensorflow_savedmodel\"", "platform = \"tensorflow_savedmodel\""),
        ("backend: \"python\"", "backend = \"python\""),
        ("runtime: \"mine.so\"", "runtime = \"mine.so\""),
        ("ensemble_scheduling { }", "ensemble_scheduling"),
        ("sequence_batching { }", "sequence_batching"),
        ("model_transaction_policy { decoupled: true }", "model_transaction_policy.decoupled = true"),
        ("input { name: \"x\" reshape { } }", "input[0].reshape"),
        ("output { name: \"a\" } output { reshape { shape: 1 } }", "output[1].reshape"),
        ("input { optional: true }", "input[0].optional = true"),
        ("input { allow_ragged_batch: true }", "input[0].allow_ragged_batch = true"),
        ("input { is_shape_tensor: true }", "input[0].is_shape_tensor = true"),
        ("input { is_non_linear_format_io: true }", "input[0].is_non_linear_format_io = true"),
        ("output { is_shape_tensor: true }", "output[0].is_shape_tensor = true"),
        ("output { is_non_linear_format_io: true }", "output[0].is_non_linear_format_io = true"),
        ("batch_input { }", "batch_input"),
        ("batch_output { }", "batch_output"),
        ("model_operations { op_library_filename: \"a.so\" }", "model_operations.op_library_filename"),
        ("model_repository_agents { agents { name: \"checksum\" } }", "model_repository_agents.agents"),
        (
            "parameters { key: \"execution_mode\" value { string_value: \"2\" } }",
            "parameters[\"execution_mode\"] = \"2\"",
        ),
    ] {
        let error = read(text).expect_err(text);
        assert!(error.starts_with(&format!("config.pbtxt of model 'tiny': {name} cannot be served: ")), "{error}");
    }
}

#[test]
fn all_that_is_refused_is_said_at_once() {
    let error = read("backend: \"dali\" sequence_batching { }").expect_err("refused");
    assert!(error.contains("; backend = \"dali\"") && error.contains("sequence_batching cannot"), "{error}");
    assert!(error.contains("allowed: onnxruntime"), "{error}");
}

#[test]
fn what_changes_no_answer_is_warned_about() {
    for (text, name) in [
        ("dynamic_batching { preferred_batch_size: [ 4, 8 ] }", "dynamic_batching.preferred_batch_size"),
        ("dynamic_batching { preserve_ordering: true }", "dynamic_batching.preserve_ordering = true"),
        ("instance_group { kind: KIND_GPU }", "instance_group[0].kind = KIND_GPU"),
        ("instance_group { count: 1 } instance_group { gpus: 0 }", "instance_group[1].gpus"),
        ("instance_group { rate_limiter { priority: 2 } }", "instance_group[0].rate_limiter"),
        ("instance_group { passive: true }", "instance_group[0].passive = true"),
        ("instance_group { host_policy: \"numa\" }", "instance_group[0].host_policy = \"numa\""),
        ("response_cache { enable: true }", "response_cache.enable = true"),
        ("optimization { priority: PRIORITY_MAX }", "optimization.priority = PRIORITY_MAX"),
        ("optimization { cuda { graphs: true } }", "optimization.cuda"),
        ("optimization { input_pinned_memory { enable: true } }", "optimization.input_pinned_memory"),
        (
            "optimization { execution_accelerators { gpu_execution_accelerator { name: \"tensorrt\" } } }",
            "optimization.execution_accelerators",
        ),
        ("metric_tags { key: \"a\" value: \"b\" }", "metric_tags"),
        ("cc_model_filenames { key: \"7.5\" value: \"m\" }", "cc_model_filenames"),
        ("model_metrics { metric_control { metric_identifier { family: \"f\" } } }", "model_metrics"),
        (
            "parameters { key: \"gpu_mem_limit\" value { string_value: \"1\" } }",
            "parameters[\"gpu_mem_limit\"] = \"1\"",
        ),
        ("parameters { key: \"mine\" value { string_value: \"1\" } }", "parameters[\"mine\"] = \"1\""),
        (
            "parameters { key: \"enable_mem_arena\" value { string_value: \"0\" } }",
            "parameters[\"enable_mem_arena\"] = \"0\"",
        ),
    ] {
        let config = read(text).expect(text);
        let [warning] = config.warnings() else { panic!("{text}: {:?}", config.warnings()) };
        assert!(warning.starts_with(&format!("{name} has no effect: ")), "{warning}");
    }
}

#[test]
fn values_that_ask_for_nothing_are_passed_over() {
    let text = r#"
        platform: "onnxruntime_onnx" backend: "onnxruntime" runtime: ""
        model_transaction_policy { decoupled: false }
        model_operations { } model_repository_agents { } response_cache { enable: false } model_metrics { }
        input { name: "x" optional: false allow_ragged_batch: false format: FORMAT_NHWC }
        instance_group { kind: KIND_CPU passive: false rate_limiter { } gpus: [ ] }
        optimization { cuda { graphs: false } input_pinned_memory { enable: false } execution_accelerators { } }
        parameters { key: "enable_mem_arena" value { string_value: "1" } }
        parameters { key: "enable_mem_pattern" value { string_value: "0" } }
    "#;
    assert_eq!(read(text).expect("valid").warnings(), [] as [&str; 0]);
}
