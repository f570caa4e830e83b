//! Texts that are no configuration: each is refused with the place and what is allowed there.

use proptest::prelude::*;

use super::*;

fn fault(text: &str) -> String {
    let error = read(text).expect_err(text);
    error.strip_prefix("config.pbtxt of model 'tiny': ").expect("names the file").to_owned()
}

#[test]
fn faults_of_the_text_have_line_and_column() {
    for (text, expected) in [
        ("max_batch_size: \"x\"", "line 1, column 17: expected an integer, but found '\"x\"'"),
        ("name: \"tiny\"\n  max_batch_sise: 8", "line 2, column 3: field 'max_batch_sise' not found"),
        ("input [\n  { name: \"x\" dims: [ 99999999999999999999 ] }\n]", "line 2, column 23: expected value to be"),
        ("input {\n  data_type: TYPE_FLOAT32\n}", "line 2, column 14: value 'TYPE_FLOAT32' was not found for enum"),
        ("max_batch_size: 1\nmax_batch_size: 2", "line 2, column 17: 'max_batch_size' is already set"),
        ("dynamic_batching {\n", "line 1, column 19: expected '}' or a field name, but reached end of input"),
        ("\n$", "line 2, column 1: invalid token"),
        ("input [ { }, {}\n ] output [ { }, { nome: 1 } ]", "line 2, column 20: field 'nome' not found"),
        ("input { data_type: 99 }", "input[0].data_type = 99 is no value; allowed: TYPE_INVALID, TYPE_BOOL"),
        ("input [ {}", "line 1, column 11: expected ',' or ']', but reached end of input"),
    ] {
        let found = fault(text);
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn unknown_names_come_with_those_that_are_allowed() {
    let found = fault("version_policy { newest {} }");
    assert!(found.ends_with("; allowed: latest, all, specific"), "{found}");
    let found = fault("instance_group { kind: KIND_TPU }");
    assert!(found.ends_with("; allowed: KIND_AUTO, KIND_GPU, KIND_CPU, KIND_MODEL"), "{found}");
}

#[test]
fn what_could_exhaust_the_reader_is_refused() {
    let deep = "[a/inference.ModelConfig] {".repeat(100_000);
    assert_eq!(fault(&deep[..deep.len().min(1 << 20)]), "line 1, column 865: more than 32 braces are open");
    let long = "#".repeat((1 << 20) + 1);
    assert_eq!(fault(&long), "it has more than 1048576 bytes, which is the most that is read");
}

#[test]
fn braces_in_strings_and_comments_do_not_count() {
    let text =
        format!("# {}\nmetric_tags {{ key: \"{}\\\"\" value: '{}' }}", "{".repeat(99), "{".repeat(99), "<".repeat(99));
    assert!(read(&text).is_ok());
}

#[test]
fn lists_of_messages_need_no_colon() {
    let text =
        "input[{name:\"a [\"},{name:'b # ['}] # output [\n output # here\n[ { name: \"c\" } ] instance_group: [ { } ]";
    let config = read(text).expect("valid");
    let names: Vec<&str> = config.proto().input.iter().map(|input| input.name.as_str()).collect();
    assert_eq!((names, config.proto().output.len()), (vec!["a [", "b # ["], 1));
    assert_eq!(config.proto().instance_group.len(), 1);
}

#[test]
fn text_that_is_not_utf8_is_refused_with_its_place() {
    let folder = Folder::new(&[(FILE, b"name: \"tiny\"\n# \xff")]);
    let error = ConfigFile::read(&folder.0, "tiny").expect_err("not UTF-8");
    assert_eq!(error, "config.pbtxt of model 'tiny': line 2, column 3: the text is not UTF-8");
}

#[test]
fn a_folder_without_the_file_has_no_configuration() {
    let folder = Folder::new(&[]);
    assert!(ConfigFile::read(&folder.0, "tiny").expect("no fault").is_none());
}

#[test]
fn what_is_no_file_is_refused_and_not_waited_for() {
    let folder = Folder::new(&[("config.pbtxt/x", b"")]);
    let error = ConfigFile::read(&folder.0, "tiny").expect_err("a folder");
    assert_eq!(error, "config.pbtxt of model 'tiny': it is no file");
    let folder = Folder::new(&[]);
    std::os::unix::fs::symlink("nowhere", folder.0.join(FILE)).expect("linked");
    let error = ConfigFile::read(&folder.0, "tiny").expect_err("leads nowhere");
    assert!(error.contains("No such file"), "{error}");
}

proptest! {
    /// Whatever a file holds, it is read or refused.
    #[test]
    fn no_text_breaks_the_reader(words in proptest::collection::vec(prop_oneof![
        prop::sample::select(vec![
            "{", "}", "[", "]", "<", ">", ":", ",", ";", "\"", "'", "#", "\n", "-", "\\", "/", "key", "value", "input", "dims",
            "parameters", "priority_queue_policy", "dynamic_batching", "name", "kind", "99999999999999999999", "0x1f", "07",
            "1.5e9", "inf", "TYPE_FP32", "true", "\"a\"", "model_warmup", "inputs", "max_batch_size", "é", "\u{1F600}",
        ]).prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ], 0..40)) {
        let _ = read(&words.concat());
        let _ = read(&words.join(" "));
        let _ = ConfigFile::from_json(&words.concat(), "tiny");
    }
}

#[test]
fn both_forms_read_as_the_same_message() {
    let json = r#"{
        "name": "tiny", "max_batch_size": 8, "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": 2}},
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["-1", 8]}],
        "dynamic_batching": {"max_queue_delay_microseconds": "100", "priority_levels": 1, "default_priority_level": 1,
                             "priority_queue_policy": {"1": {"timeout_action": "DELAY"}}},
        "parameters": {"execution_mode": {"string_value": "1"}}
    }"#;
    let text = r#"
        name: "tiny" max_batch_size: 8 backend: "onnxruntime" version_policy { latest { num_versions: 2 } }
        input { name: "x" data_type: TYPE_FP32 dims: -1 dims: 8 }
        dynamic_batching { max_queue_delay_microseconds: 100 priority_levels: 1 default_priority_level: 1
                           priority_queue_policy { key: 1 value { timeout_action: DELAY } } }
        parameters { key: "execution_mode" value { string_value: "1" } }
    "#;
    let from_json = ConfigFile::from_json(json, "tiny").expect("valid");
    assert_eq!(from_json.proto(), read(text).expect("valid").proto());
}

#[test]
fn what_triton_answers_can_be_read() {
    // Triton 2.51's ModelConfig of a model with a configuration like `TINY`.
    let json = r#"{"name":"tiny","platform":"onnxruntime_onnx","backend":"onnxruntime","runtime":"",
        "version_policy":{"specific":{"versions":[1,3]}},"max_batch_size":32,
        "input":[{"name":"input","data_type":"TYPE_FP32","format":"FORMAT_NONE","dims":[8],"is_shape_tensor":false,
                  "allow_ragged_batch":false,"optional":false,"is_non_linear_format_io":false}],
        "output":[{"name":"output","data_type":"TYPE_FP32","dims":[3],"label_filename":"labels.txt",
                   "is_shape_tensor":false,"is_non_linear_format_io":false}],
        "batch_input":[],"batch_output":[],
        "optimization":{"graph":{"level":1},"priority":"PRIORITY_DEFAULT","input_pinned_memory":{"enable":true},
                        "output_pinned_memory":{"enable":true},"gather_kernel_buffer_threshold":0,
                        "eager_batching":false},
        "dynamic_batching":{"preferred_batch_size":[8,16],"max_queue_delay_microseconds":100,
            "preserve_ordering":false,"priority_levels":3,"default_priority_level":2,
            "default_queue_policy":{"timeout_action":"REJECT","default_timeout_microseconds":500000,
                                    "allow_timeout_override":true,"max_queue_size":64},
            "priority_queue_policy":{"1":{"timeout_action":"REJECT","default_timeout_microseconds":700000,
                                          "allow_timeout_override":false,"max_queue_size":0}}},
        "instance_group":[{"name":"tiny_0","kind":"KIND_CPU","count":2,"gpus":[],"secondary_devices":[],"profile":[],
                           "passive":false,"host_policy":""}],
        "default_model_filename":"model.onnx","cc_model_filenames":{},"metric_tags":{"team":"a"},
        "parameters":{"inter_op_thread_count":{"string_value":"1"},"intra_op_thread_count":{"string_value":"1"}},
        "model_warmup":[{"name":"file","batch_size":2,"count":3,"inputs":{"input":{"data_type":"TYPE_FP32","dims":[8],
                         "input_data_file":"row.bin"}}}]}"#;
    let config = ConfigFile::from_json(json, "tiny").expect("valid");
    assert_eq!(config.settings()["queue_policies"]["1"]["timeout_us"], 700_000);
    let warned: Vec<&str> = config.warnings().iter().filter_map(|warning| warning.split(' ').next()).collect();
    let expected = [
        "metric_tags",
        "dynamic_batching.preferred_batch_size",
        "optimization.input_pinned_memory",
        "optimization.output_pinned_memory",
    ];
    assert_eq!(warned, expected);
}

#[test]
fn faults_of_the_json_name_their_path() {
    for (text, expected) in [
        ("{\"max_batch_sise\": 8}", "unrecognized field name 'max_batch_sise'"),
        ("{\"input\": [{\"data_type\": \"TYPE_FLOAT\"}]}", "input[0].data_type: unrecognized enum value 'TYPE_FLOAT'"),
        ("{\"input\": [{\"dims\": [\"x\"]}]}", "input[0].dims[0]: "),
        ("{\"max_batch_size\": 8", "EOF while parsing an object at line 1 column 20"),
        ("{} {}", "trailing characters at line 1 column 4"),
        ("[]", "invalid type: sequence"),
    ] {
        let error = ConfigFile::from_json(text, "tiny").expect_err(text);
        let found = error.strip_prefix("config of model 'tiny': ").expect("names the model");
        assert!(found.starts_with(expected), "{found}");
    }
    let error = ConfigFile::from_json("{\"input\": [{\"format\": \"NHWC\"}]}", "tiny").expect_err("unknown");
    assert!(error.contains("allowed: FORMAT_NONE, FORMAT_NHWC, FORMAT_NCHW"), "{error}");
    let deep = format!("{{\"input\": {}", "[".repeat(10_000));
    assert!(ConfigFile::from_json(&deep, "tiny").is_err());
}
