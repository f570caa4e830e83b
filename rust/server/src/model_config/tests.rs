//! Configurations as users write them, read and checked.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use mlserve_core::config::VersionPolicy;
use mlserve_core::model::TensorSpec;
use mlserve_core::tensor::DataType;
use serde_json::json;

use super::runtime::GraphLevel;
use super::*;

mod described;
mod files;
mod reader;
mod rules;
mod tensors;

/// A configuration as Triton's users write them.
const TINY: &str = r#"
    # what it is
    name: "tiny"
    backend: "onnxruntime"
    max_batch_size: 32
    input [ { name: "input" data_type: TYPE_FP32 dims: [ 8 ] } ]
    output [ { name: "output" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "labels.txt" } ]
    dynamic_batching {
      max_queue_delay_microseconds: 100
      priority_levels: 3
      default_priority_level: 2
      default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 5000 max_queue_size: 64 }
      priority_queue_policy { key: 1 value { default_timeout_microseconds: 70 allow_timeout_override: true } }
    }
    instance_group [ { kind: KIND_CPU count: 2 }, { count: 1 } ]
    version_policy: { specific { versions: [ 1, 3 ] } }
    optimization { graph : { level : 1 } }
    parameters [
      { key: "intra_op_thread_count" value: { string_value: "4" } },
      { key: "execution_mode" value: { string_value: "1" } }
    ]
"#;

/// A folder of a model, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(files: &[(&str, &[u8])]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("mlserve-config-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&root).expect("made");
        for (file, content) in files {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().expect("has a parent")).expect("made");
            std::fs::write(path, content).expect("written");
        }
        Self(root)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("removed");
    }
}

/// A text as the file of the model `tiny`.
fn read(text: &str) -> Result<ConfigFile, String> {
    let folder = Folder::new(&[(FILE, text.as_bytes())]);
    ConfigFile::read(&folder.0, "tiny").map(|config| config.expect("there is a file"))
}

fn spec(name: &str, datatype: DataType, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), datatype, shape: shape.iter().copied().collect(), labels: None }
}

#[test]
fn a_whole_configuration_becomes_settings() {
    let config = read(TINY).expect("valid");
    let settings = json!({
        "max_batch_rows": 32, "max_delay_us": 100, "priority_levels": 3, "default_priority": 2,
        "queue_timeout_us": 5000, "timeout_action": "delay", "allow_timeout_override": false, "queue_capacity": 64,
        "queue_policies": {"1": {"timeout_us": 70, "timeout_action": "reject", "allow_timeout_override": true}},
        "instances": 3, "threads": 4,
    });
    assert_eq!(Value::Object(config.settings()), settings);
    assert_eq!(config.version_policy(), Some(VersionPolicy::Specific(vec![1, 3])));
    assert_eq!((config.model_file_name(), config.whole_requests()), ("model.onnx", None));
    assert_eq!(config.warnings(), [] as [&str; 0]);
    let options = SessionOptions {
        graph_level: GraphLevel::Extended,
        is_parallel: true,
        intra_op_threads: Some(4),
        ..SessionOptions::default()
    };
    assert_eq!(*config.runtime_options(), options);
}

#[test]
fn scheduling_becomes_settings_and_comes_back() {
    let config = read(TINY).expect("valid");
    let back = settings::batching_in(&Value::Object(config.settings()));
    assert_eq!(Some(&back), settings::dynamic_batching(config.proto()));
}

#[test]
fn an_empty_configuration_sets_nothing() {
    let config = read("").expect("valid");
    assert_eq!((config.settings(), config.version_policy()), (Map::new(), None));
    assert_eq!((config.whole_requests(), config.warnings().len()), (None, 0));
    assert_eq!(*config.runtime_options(), SessionOptions::default());
}

#[test]
fn requests_are_whole_only_if_the_configuration_is_complete_and_has_no_batch_size() {
    let (input, output) = ("input { name: \"x\" dims: 1 }", "output { name: \"y\" dims: 1 }");
    let reason = |text: &str| read(text).expect("valid").whole_requests();
    assert_eq!(
        reason(&format!("{input} {output}")),
        Some("max_batch_size is 0 in the model's configuration".to_owned())
    );
    assert_eq!(reason(&format!("{input} {output} max_batch_size: 1")), None);
    assert_eq!(reason(input), None);
}

#[test]
fn values_out_of_range_name_their_field() {
    for (text, fault) in [
        ("max_batch_size: -1", "max_batch_size = -1: allowed: 0 and above"),
        ("max_batch_size: 2000000", "max_batch_size = 2000000: allowed: 1 to 1048576"),
        ("dynamic_batching { priority_levels: 65 }", "dynamic_batching.priority_levels = 65: allowed: 0 to 64"),
        (
            "dynamic_batching { priority_levels: 2 default_priority_level: 3 }",
            "dynamic_batching.default_priority_level = 3: allowed: 0 to 2",
        ),
        (
            "dynamic_batching { priority_levels: 1 priority_queue_policy { key: 2 value {} } }",
            "dynamic_batching.priority_queue_policy[2]: there is no such level; allowed: 1 to \
             dynamic_batching.priority_levels (1)",
        ),
        (
            "dynamic_batching { max_queue_delay_microseconds: 99000000 }",
            "dynamic_batching.max_queue_delay_microseconds = 99000000: allowed: 0 to 60000000",
        ),
        ("instance_group { count: -2 }", "instance_group.count = -2: allowed: 0 and above"),
        ("instance_group { count: 2000 }", "instance_group.count = 2000: allowed: 0 to 1024"),
        ("version_policy { latest {} }", "version_policy.latest.num_versions = 0: allowed: 1 and above"),
        ("version_policy { specific {} }", "version_policy.specific.versions is empty; allowed: at least one version"),
        ("version_policy { specific { versions: 0 } }", "version_policy.specific.versions: 0; allowed: 1 and above"),
        ("name: \"other\"", "name = \"other\": the folder is 'tiny'; allowed is its name"),
        (
            "parameters { key: \"intra_op_thread_count\" value { string_value: \"-1\" } }",
            "parameters[\"intra_op_thread_count\"] = \"-1\" is no number of threads; allowed: 0 to 1024",
        ),
    ] {
        let error = read(text).expect_err(text);
        assert_eq!(error, format!("config.pbtxt of model 'tiny': {fault}"));
    }
}

#[test]
fn a_queue_without_a_bound_keeps_the_default_one() {
    let config = read("dynamic_batching { default_queue_policy { } }").expect("valid");
    assert_eq!(config.settings().get("queue_capacity"), None);
    let config = read("dynamic_batching { default_queue_policy { max_queue_size: 4294967295 } }");
    assert_eq!(config.expect("valid").settings().get("queue_capacity"), Some(&json!(10_000_000)));
}

#[test]
fn a_model_file_stays_in_its_version_folder() {
    let name = |text: &str| {
        let config = read(&format!("default_model_filename: \"{text}\""))?;
        Ok::<_, String>(config.model_file_name().to_owned())
    };
    assert_eq!(name("net.onnx"), Ok("net.onnx".to_owned()));
    for bad in ["../secret.onnx", "/etc/passwd", "a/../../b", "a\\nb", "./x"] {
        let error = name(bad).expect_err(bad);
        assert!(error.contains("default_model_filename"), "{error}");
    }
}

#[test]
fn the_registry_keeps_configurations_by_model_and_version() {
    let (configs, config) = (Configs::default(), Arc::new(read(TINY).expect("valid")));
    configs.set("tiny", 3, Some(Arc::clone(&config)));
    assert!(configs.get("tiny", 3).is_some_and(|found| Arc::ptr_eq(&found, &config)));
    assert!(configs.get("tiny", 1).is_none());
    configs.set("tiny", 3, None);
    assert!(configs.get("tiny", 3).is_none());
}
