//! Files and libraries as they come: damaged, hostile, or not what they seem. All of them are errors with a clear text.

mod support;

use std::os::unix::fs::symlink;
use std::path::Path;

use mlserve_core::model::Batching;
use mlserve_core::tensor::DataType;
use mlserve_ort::{LoadError, LoadErrorKind, LoadOptions, LoadedModel, Runtime, RuntimeOptions};
use prost::Message;
use support::models::{mlp, noise};
use support::onnx::{
    Attribute, BOOL, Builder, Entry, FLOAT, Function, INT64, Kind, MapType, Opset, STRING, Tensor, Type, Wrapped,
    floats, graph, int, int64s, raw, tensor,
};
use support::{Owned, Scratch, as_floats, options, run, runtime, try_load};

fn load_path(path: &Path) -> Result<LoadedModel, LoadError> {
    mlserve_ort::load(&runtime(), path, &options())
}

fn refusal(path: &Path) -> LoadError {
    load_path(path).expect_err("refused")
}

#[test]
fn a_library_that_is_missing_or_something_else_is_named() {
    let load = |path: &Path| Runtime::load(path, RuntimeOptions::default()).expect_err("refused");
    let missing = load(Path::new("/nowhere/libonnxruntime.so"));
    assert_eq!(missing.kind(), LoadErrorKind::LibraryMissing);
    assert!(missing.text().contains("/nowhere/libonnxruntime.so"), "{missing}");
    let scratch = Scratch::new();
    let path = scratch.path().join("libonnxruntime.so");
    std::fs::write(&path, "not a library").expect("writes");
    assert_eq!(load(&path).kind(), LoadErrorKind::LibraryUnusable);
}

#[test]
fn the_runtime_tells_its_version_and_is_one_per_process() {
    let runtime = runtime();
    assert!(runtime.version().starts_with("1."), "{}", runtime.version());
    let again = Runtime::load(&support::library(), RuntimeOptions::default()).expect("loads");
    assert!(std::sync::Arc::ptr_eq(&runtime, &again));
}

#[test]
fn files_that_are_no_models_are_named() {
    let scratch = Scratch::new();
    let write = |name: &str, bytes: &[u8]| {
        let path = scratch.path().join(name);
        std::fs::write(&path, bytes).expect("writes");
        path
    };
    let whole = mlp(8, 16, 3).model().encode_to_vec();
    let cases = [
        (scratch.path().join("missing.onnx"), "No such file"),
        (scratch.path().to_owned(), "is not a file"),
        (write("empty.onnx", b""), "the file is empty"),
        (write("text.onnx", b"import onnx\nprint(1)\n"), "is no ONNX model"),
        (write("zeros.onnx", &[0; 100]), "is no ONNX model"),
        (write("archive.onnx", b"PK\x03\x04 and so on"), "is no ONNX model"),
        (write("cut.onnx", &whole[..whole.len() / 2]), "is no ONNX model"),
    ];
    for (path, text) in cases {
        let error = refusal(&path);
        let is_missing = path.ends_with("missing.onnx");
        let kind = if is_missing { LoadErrorKind::ModelUnreadable } else { LoadErrorKind::ModelBroken };
        assert_eq!((error.kind(), error.may_pass()), (kind, is_missing), "{error}");
        assert!(error.text().contains(text), "{error}");
    }
}

#[test]
fn every_truncation_of_a_model_is_an_error_or_a_model() {
    let scratch = Scratch::new();
    let whole = mlp(2, 2, 2).model().encode_to_vec();
    let path = scratch.path().join("cut.onnx");
    for length in (0..whole.len()).step_by(7) {
        std::fs::write(&path, &whole[..length]).expect("writes");
        let _ = load_path(&path);
    }
}

#[test]
fn weights_that_contradict_their_dimensions_are_refused() {
    let broken = |dims: &[i64], change: fn(&mut Tensor)| {
        let mut weights = floats("w", &[2, 2], &[1.0; 4]);
        weights.dims = dims.to_vec();
        change(&mut weights);
        let builder = Builder::new().input("x", FLOAT, &[-1, 2]).initial(weights);
        let builder = builder.node("MatMul", &["x", "w"], &["y"], &[]).output("y", FLOAT, &[-1, 2]);
        try_load(builder).expect_err("refused")
    };
    for dims in [&[2, 3][..], &[1], &[-2, -2], &[1 << 40, 1 << 40]] {
        let error = broken(dims, |_| ());
        assert!(error.text().starts_with("tensor 'w' has"), "{error}");
    }
    let error = broken(&[1 << 32], |weights| weights.raw_data = None);
    assert!(error.text().contains("data for fewer"), "{error}");
    let error = broken(&[2, 2], |weights| weights.data_type = 99);
    assert!(error.text().contains("unknown element type"), "{error}");
}

#[test]
fn graphs_nested_too_deeply_are_refused() {
    let mut builder = Builder::new();
    for _ in 0..40 {
        let inner = support::onnx::graph("then_branch", builder.graph);
        builder = Builder::new().node("If", &["c"], &["y"], &[inner]);
    }
    let error = try_load(builder).expect_err("refused");
    assert!(error.text().contains("nested") || error.text().contains("recursion"), "{error}");
}

#[test]
fn operations_of_other_domains_are_refused_unless_the_model_defines_them() {
    let builder = || {
        let builder = Builder::new().input("x", FLOAT, &[-1, 2]).domain("my.company", 1);
        builder.node_of("my.company", "Double", &["x"], &["y"], &[]).output("y", FLOAT, &[-1, 2])
    };
    let error = try_load(builder()).expect_err("refused");
    assert_eq!(error.kind(), LoadErrorKind::ModelUnsupported);
    assert!(error.text().contains("Double 'double_0' is of domain 'my.company'"), "{error}");
    let mut defined = builder();
    let body = Builder::new().node("Add", &["a", "a"], &["b"], &[]);
    defined.functions.push(support::onnx::Function {
        name: "Double".to_owned(),
        input: vec!["a".to_owned()],
        output: vec!["b".to_owned()],
        node: body.graph.node,
        opset_import: vec![support::onnx::Opset { domain: String::new(), version: 17 }],
        domain: "my.company".to_owned(),
        ..support::onnx::Function::default()
    });
    let model = try_load(defined).expect("loads");
    let outputs = run(&*model.backend, &[Owned::floats(&[1, 2], &[1.0, 2.0])], &[0]).expect("runs");
    assert_eq!(as_floats(&outputs[0]), [2.0, 4.0]);
    assert_eq!(model.batching, Batching::Rows);
}

#[test]
fn what_the_protocol_cannot_carry_is_refused_with_the_way_out() {
    let map = Type { kind: Some(Kind::Map(Box::new(MapType { key: INT64, value: Some(tensor(FLOAT, &[])) }))) };
    let maps = Type { kind: Some(Kind::Sequence(Box::new(Wrapped { element: Some(map) }))) };
    let sequence = Type { kind: Some(Kind::Sequence(Box::new(Wrapped { element: Some(tensor(FLOAT, &[-1])) }))) };
    let cases = [
        (
            Some(maps),
            "output 'y' is a sequence of maps, which the protocol cannot carry; export with options={'zipmap': False}",
        ),
        (Some(sequence), "ConcatFromSequence"),
        (Some(tensor(14, &[-1])), "output 'y' is of type COMPLEX64"),
        (Some(tensor(17, &[-1])), "FLOAT8E4M3FN"),
        (Some(tensor(22, &[-1])), "INT4"),
    ];
    for (r#type, text) in cases {
        let builder = Builder::new().input("x", FLOAT, &[-1]).node("Identity", &["x"], &["y"], &[]);
        let error = try_load(builder.output_of("y", r#type)).expect_err("refused");
        assert_eq!(error.kind(), LoadErrorKind::ModelUnsupported);
        assert!(error.text().contains(text), "{error}");
    }
}

#[test]
fn specs_are_the_graphs_and_initialisers_are_no_inputs() {
    let model = try_load(
        Builder::new()
            .input("x", FLOAT, &[-1, 3])
            .input("w", FLOAT, &[3])
            .initial(floats("w", &[3], &noise(3)))
            .input("s", STRING, &[-1])
            .node("Mul", &["x", "w"], &["y"], &[])
            .node("Identity", &["s"], &["t"], &[])
            .output("y", FLOAT, &[-1, 3])
            .output("t", STRING, &[-1]),
    )
    .expect("loads");
    let names: Vec<_> = model.inputs.iter().map(|spec| (&spec.name[..], spec.datatype, &spec.shape[..])).collect();
    assert_eq!(names, [("x", DataType::Fp32, &[-1, 3][..]), ("s", DataType::Bytes, &[-1])]);
    assert_eq!(model.outputs[0].shape.as_slice(), [-1, 3]);
    assert_eq!(model.facts.opsets, [("ai.onnx".to_owned(), 17)]);
    assert_eq!((model.facts.producer.as_str(), model.facts.operations["Mul"]), ("mlserve tests", 1));
}

#[test]
fn an_output_without_a_type_is_told_by_a_run() {
    let builder = Builder::new().input("x", FLOAT, &[-1, 3]).node("Shape", &["x"], &["n"], &[]);
    let builder = builder.node("Neg", &["x"], &["y"], &[]).output_of("n", None).output_of("y", None);
    let model = try_load(builder).expect("loads");
    assert_eq!((model.outputs[0].datatype, &model.outputs[0].shape[..]), (DataType::Int64, &[-1][..]));
    assert_eq!((model.outputs[1].datatype, &model.outputs[1].shape[..]), (DataType::Fp32, &[-1, -1][..]));
    assert!(matches!(model.batching, Batching::Fixed { .. }), "the shape's length counts no rows");
}

/// A model whose weights lie at `location`.
fn external(directory: &Path, location: &str, entries: &[(&str, &str)]) -> std::path::PathBuf {
    let mut weights = floats("w", &[2, 2], &[]);
    weights.raw_data = None;
    weights.data_location = 1;
    let entry = |key: &str, value: &str| Entry { key: key.to_owned(), value: value.to_owned() };
    weights.external_data = vec![entry("location", location)];
    weights.external_data.extend(entries.iter().map(|(key, value)| entry(key, value)));
    let builder = Builder::new().input("x", FLOAT, &[-1, 2]).initial(weights);
    let builder = builder.node("MatMul", &["x", "w"], &["y"], &[]).output("y", FLOAT, &[-1, 2]);
    builder.write(directory, "model")
}

fn write_weights(path: &Path) {
    let bytes: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(path, bytes).expect("writes");
}

#[test]
fn weights_beside_the_model_are_used() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path().join("data")).expect("makes");
    for location in ["weights.bin", "data/weights.bin", "./weights.bin"] {
        write_weights(&scratch.path().join(location));
        let path = external(scratch.path(), location, &[("offset", "0"), ("length", "16")]);
        let model = load_path(&path).expect("loads");
        let outputs = run(&*model.backend, &[Owned::floats(&[1, 2], &[1.0, 10.0])], &[0]).expect("runs");
        assert_eq!(as_floats(&outputs[0]), [31.0, 42.0]);
        assert_eq!(model.file_bytes, 16 + path.metadata().expect("is there").len());
    }
}

#[test]
fn weights_behind_a_link_inside_the_directory_are_used() {
    let scratch = Scratch::new();
    write_weights(&scratch.path().join("blob"));
    symlink("blob", scratch.path().join("weights.bin")).expect("links");
    assert!(load_path(&external(scratch.path(), "weights.bin", &[])).is_ok());
}

#[test]
fn weights_outside_the_directory_are_refused_however_named() {
    let outside = Scratch::new();
    let scratch = Scratch::new();
    let secret = outside.path().join("secret");
    write_weights(&secret);
    symlink(&secret, scratch.path().join("link")).expect("links");
    symlink(outside.path(), scratch.path().join("parent")).expect("links");
    let name = outside.path().file_name().and_then(|name| name.to_str()).expect("text");
    let absolute = secret.to_str().expect("text").to_owned();
    let up = format!("../{name}/secret");
    let cases = [
        (up.as_str(), "leaves the model's directory"),
        ("a/../../secret", "leaves the model's directory"),
        (absolute.as_str(), "leaves the model's directory"),
        ("link", "is a link that leaves"),
        ("parent/secret", "is a link that leaves"),
        ("", "names no file"),
        ("*/_ORT_MEM_ADDR_/*", "names no file"),
        (".", "is not a file"),
        ("missing", "No such file"),
    ];
    for (location, text) in cases {
        let error = refusal(&external(scratch.path(), location, &[]));
        assert!(error.text().contains(text), "{location}: {error}");
    }
}

#[test]
fn weights_behind_a_link_into_an_allowed_root_are_used() {
    let (store, scratch) = (Scratch::new(), Scratch::new());
    write_weights(&store.path().join("blob"));
    symlink(store.path().join("blob"), scratch.path().join("weights.bin")).expect("links");
    let path = external(scratch.path(), "weights.bin", &[]);
    assert!(refusal(&path).text().contains("server.trusted_roots"));
    let root = store.path().canonicalize().expect("is there");
    let options = LoadOptions { data_roots: vec![root], ..options() };
    let model = mlserve_ort::load(&runtime(), &path, &options).expect("loads");
    let outputs = run(&*model.backend, &[Owned::floats(&[1, 2], &[1.0, 10.0])], &[0]).expect("runs");
    assert_eq!(as_floats(&outputs[0]), [31.0, 42.0]);
}

#[test]
fn weights_beside_the_file_that_the_model_is_a_link_to_are_used() {
    let (store, scratch) = (Scratch::new(), Scratch::new());
    write_weights(&store.path().join("weights.bin"));
    let named = scratch.path().join("named.onnx");
    symlink(external(store.path(), "weights.bin", &[]), &named).expect("links");
    assert!(load_path(&named).is_ok());
    // A link beside the name comes first, as a cache of contents has them.
    write_weights(&store.path().join("blob"));
    std::fs::remove_file(store.path().join("weights.bin")).expect("removed");
    symlink(store.path().join("blob"), scratch.path().join("weights.bin")).expect("links");
    assert!(load_path(&named).is_ok());
}

#[test]
fn a_hard_link_is_used_if_it_belongs_to_the_owner_of_the_model() {
    let (outside, scratch) = (Scratch::new(), Scratch::new());
    let file = outside.path().join("weights");
    write_weights(&file);
    std::fs::hard_link(&file, scratch.path().join("hard")).expect("links");
    let path = external(scratch.path(), "hard", &[]);
    assert!(load_path(&path).is_ok());
    // Only root can give files away.
    if std::os::unix::fs::chown(&file, Some(65_534), None).is_ok() {
        let error = refusal(&path);
        assert!(error.text().contains("is a hard link to a file of another user"), "{error}");
    }
}

#[test]
fn weights_beyond_the_end_of_their_file_are_refused() {
    let scratch = Scratch::new();
    write_weights(&scratch.path().join("weights.bin"));
    for entries in [
        [("offset", "4"), ("length", "16")],
        [("offset", "18446744073709551615"), ("length", "16")],
        [("offset", "0"), ("length", "8")],
        [("offset", "-1"), ("length", "16")],
        [("offset", "x"), ("length", "16")],
    ] {
        let error = refusal(&external(scratch.path(), "weights.bin", &entries));
        assert_eq!(error.kind(), LoadErrorKind::ModelBroken, "{error}");
    }
}

/// A function of domain `own` that calls others.
fn function(name: &str, calls: &[&str]) -> Function {
    let mut body = Builder::new();
    for (at, call) in calls.iter().enumerate() {
        let (from, to) = (format!("v{at}"), format!("v{}", at + 1));
        let domain = if *call == "Relu" { "" } else { "own" };
        body = body.node_of(domain, call, &[&from], &[&to], &[]);
    }
    let opset = |domain: &str, version| Opset { domain: domain.to_owned(), version };
    Function {
        name: name.to_owned(),
        domain: "own".to_owned(),
        input: vec!["v0".to_owned()],
        output: vec![format!("v{}", calls.len())],
        node: body.graph.node,
        opset_import: vec![opset("", 17), opset("own", 1)],
        ..Function::default()
    }
}

fn calling(functions: Vec<Function>) -> Builder {
    let mut builder = Builder::new()
        .domain("own", 1)
        .input("x", FLOAT, &[-1, 2])
        .node_of("own", "f0", &["x"], &["y"], &[])
        .output("y", FLOAT, &[-1, 2]);
    builder.functions = functions;
    builder
}

#[test]
fn functions_that_call_themselves_or_multiply_are_refused() {
    let refused = |functions| try_load(calling(functions)).expect_err("refused").text().to_owned();
    assert!(refused(vec![function("f0", &["f0"])]).contains("'f0' of the model calls itself"));
    assert!(refused(vec![function("f0", &["f1"]), function("f1", &["f0"])]).contains("calls itself"));
    let name = |number: usize| if number == 40 { "Relu".to_owned() } else { format!("f{number}") };
    let doubling = |number| function(&name(number), &[&name(number + 1), &name(number + 1)]);
    assert!(refused((0..40).map(doubling).collect()).contains("become 1099511627776 operations"));
    let chain = |number: usize| function(&format!("f{number}"), &[&format!("f{}", number + 1)]);
    assert!(refused((0..10_000).map(chain).collect()).contains("nested deeper than 64"));
    try_load(calling(vec![function("f0", &["f1", "f1"]), function("f1", &["Relu"])])).expect("loads");
}

#[test]
fn graphs_inside_that_do_not_fit_their_operation_are_refused() {
    let refused = |op_type: &str, attributes: &[Attribute]| {
        let builder = Builder::new()
            .input("x", FLOAT, &[-1, 2])
            .initial(int64s("three", &[], &[3]))
            .initial(raw("yes", BOOL, &[], &[1]))
            .node(op_type, &["three", "yes", "x"], &["y"], attributes)
            .output("y", FLOAT, &[-1, 2]);
        try_load(builder).expect_err("refused").text().to_owned()
    };
    let empty = || graph("body", Builder::new().graph);
    let hollow = Attribute { g: None, ..empty() };
    assert!(refused("Loop", &[]).contains("Loop 'loop_0' lacks its body"));
    assert!(
        refused("Loop", &[empty()]).contains("has a body of 0 inputs and 0 outputs; it needs 3 inputs and 2 outputs")
    );
    assert!(refused("Loop", &[hollow]).contains("has an attribute 'body' without content"));
    assert!(refused("Scan", &[empty(), int("num_scan_inputs", 9)]).contains("scans 9 inputs with a body of 0"));
    assert!(refused("If", &[]).contains("If 'if_0' lacks a branch"));
}
