//! `ModelConfig` of versions, as gRPC and HTTP answer it.

use mlserve_core::config::{ModelSettings, Settings};
use mlserve_core::error::Kind;
use mlserve_core::model::{Batching, ModelSpec};
use mlserve_core::version::{NewVersion, Version};

use super::*;
use crate::extensions::config::model_config;
use crate::extensions::json::{Members, to_json};
use crate::grpc::fixture::{Doubler, Served};
use crate::proto::ModelConfigRequest;
use crate::proto::model_config::SchedulingChoice;

fn version(batching: Batching, settings: ModelSettings) -> Arc<Version> {
    let new = NewVersion {
        spec: ModelSpec {
            name: Arc::from("tiny"),
            version: 3,
            platform: "onnxruntime_onnx",
            inputs: vec![spec("input", DataType::Fp32, &[-1, 8])],
            outputs: vec![spec("output", DataType::Bytes, &[-1, 3, -1])],
            batching,
            time_follows_values: None,
        },
        settings,
        backend: Arc::new(Doubler),
        instances: 2,
        warmup: Vec::new(),
        model_bytes: 0,
        load_duration: std::time::Duration::ZERO,
        earlier: None,
    };
    Version::new(new, Arc::from([]), mlserve_core::clock::Clock::Monotonic)
}

fn batching(config: &ModelConfig) -> Option<&crate::proto::ModelDynamicBatching> {
    match &config.scheduling_choice {
        Some(SchedulingChoice::DynamicBatching(batching)) => Some(batching),
        None => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_file_the_graph_and_the_settings_speak() {
    let described = describe(&version(Batching::Rows, ModelSettings::default()), None);
    let json = to_json(&described, "ModelConfig", Members::All).expect("written");
    assert_eq!(json["name"], "tiny");
    assert_eq!((&json["platform"], &json["backend"]), (&json!("onnxruntime_onnx"), &json!("onnxruntime")));
    assert_eq!(json["max_batch_size"], 64);
    assert_eq!(
        json["input"],
        json!([{"name": "input", "data_type": "TYPE_FP32", "format": "FORMAT_NONE", "dims": [8],
                "is_shape_tensor": false, "allow_ragged_batch": false, "optional": false,
                "is_non_linear_format_io": false}])
    );
    assert_eq!(
        json["output"],
        json!([{"name": "output", "data_type": "TYPE_STRING", "dims": [3, -1], "label_filename": "",
                "is_shape_tensor": false, "is_non_linear_format_io": false}])
    );
    assert_eq!(json["version_policy"], json!({"latest": {"num_versions": 1}}));
    assert_eq!(json["instance_group"][0]["count"], 2);
    assert_eq!(json["instance_group"][0]["kind"], "KIND_CPU");
    assert_eq!(json["default_model_filename"], "model.onnx");
    assert_eq!(json["model_transaction_policy"], json!({"decoupled": false}));
    assert_eq!(json["response_cache"], json!({"enable": false}));
    // Members with their default are there, in Triton's form.
    for (member, value) in [
        ("runtime", json!("")),
        ("batch_input", json!([])),
        ("batch_output", json!([])),
        ("model_warmup", json!([])),
        ("metric_tags", json!({})),
        ("parameters", json!({})),
        ("cc_model_filenames", json!({})),
    ] {
        assert_eq!(json[member], value, "{member}");
    }
    assert!(json.get("sequence_batching").is_none() && json.get("ensemble_scheduling").is_none());
}

#[test]
fn dynamic_batching_is_there_exactly_if_requests_share_runs() {
    let reason = || "a reason".to_owned();
    let one = ModelSettings { max_batch_rows: 1, ..ModelSettings::default() };
    for (how, settings, rows, shares) in [
        (Batching::Rows, ModelSettings::default(), 64, true),
        (Batching::Rows, one, 1, false),
        (Batching::Unsafe { reason: reason() }, ModelSettings::default(), 64, false),
        (Batching::Fixed { reason: reason() }, ModelSettings::default(), 0, false),
    ] {
        let described = describe(&version(how.clone(), settings), None);
        assert_eq!((described.max_batch_size, batching(&described).is_some()), (rows, shares), "{how:?}");
        let whole = rows == 0;
        assert_eq!(described.input[0].dims.len(), if whole { 2 } else { 1 }, "{how:?}");
    }
}

#[test]
fn scheduling_is_what_is_in_force() {
    let settings = ModelSettings {
        max_delay_us: 250,
        queue_capacity: 10,
        queue_timeout_us: 7_000,
        priority_levels: 4,
        versions: VersionPolicy::Specific(vec![2, 3]),
        ..ModelSettings::default()
    };
    // The file asks for something else: the settings have the last word.
    let file = read(TINY).expect("valid");
    let described = describe(&version(Batching::Rows, settings), Some(&file));
    let batching = batching(&described).expect("shares runs");
    assert_eq!(batching.max_queue_delay_microseconds, 250);
    assert_eq!((batching.priority_levels, batching.default_priority_level), (4, 2));
    let policy = batching.default_queue_policy.expect("there is one");
    assert_eq!((policy.max_queue_size, policy.default_timeout_microseconds), (10, 7_000));
    assert_eq!(batching.preferred_batch_size, [] as [i32; 0]);
    let json = to_json(&described, "ModelConfig", Members::All).expect("written");
    assert_eq!(json["version_policy"], json!({"specific": {"versions": [2, 3]}}));
    // Only a file knows these.
    assert_eq!(json["output"][0]["label_filename"], "labels.txt");
    assert_eq!(json["optimization"]["graph"], json!({"level": 1}));
    assert_eq!(json["parameters"]["intra_op_thread_count"], json!({"string_value": "4"}));
}

#[test]
fn what_is_described_can_be_read_again() {
    let file = read(TINY).expect("valid");
    let described = describe(&version(Batching::Rows, ModelSettings::default()), Some(&file));
    let json = to_json(&described, "ModelConfig", Members::All).expect("written").to_string();
    let again = ConfigFile::from_json(&json, "tiny").expect("valid");
    assert_eq!((again.proto(), again.warnings()), (&described, &[] as &[String]));
}

#[test]
fn the_rpc_finds_the_file_behind_a_version() {
    let served = Served::start(Settings::default(), 2);
    let ask = |name: &str, version: &str| {
        let request = ModelConfigRequest { name: name.to_owned(), version: version.to_owned() };
        model_config(&served.process, &request).map(|response| response.config.expect("always there"))
    };
    assert_eq!(ask("double", "").expect("served").default_model_filename, "model.onnx");
    let file = ConfigFile::from_json("{\"default_model_filename\": \"net.onnx\"}", "double").expect("valid");
    served.process.configs.set("double", 7, Some(Arc::new(file)));
    assert_eq!(ask("double", "7").expect("served").default_model_filename, "net.onnx");
    for (name, version, kind) in [
        ("nobody", "", Kind::NotFound),
        ("double", "8", Kind::NotFound),
        ("broken", "", Kind::NotReady),
        ("double", "x", Kind::InvalidArgument),
    ] {
        assert_eq!(ask(name, version).expect_err(name).kind(), kind, "{name} {version}");
    }
}
