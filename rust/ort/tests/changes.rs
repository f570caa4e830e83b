//! Files that are replaced or written while a model is loaded, or while it serves.

mod support;

use std::path::Path;

use mlserve_core::tensor::DataType;
use mlserve_ort::{Fingerprint, LoadError, LoadErrorKind, LoadedModel};
use support::models::{adding, adding_in_a_branch, mlp};
use support::{Owned, Scratch, as_floats, options, run, runtime};

/// Loads the model at `path`; `meddle` comes between the first look at its files and the last.
fn load_while(path: &Path, meddle: impl FnOnce()) -> Result<LoadedModel, LoadError> {
    let mut meddle = Some(meddle);
    mlserve_ort::load_watched(&runtime(), path, &options(), &mut || {
        if let Some(meddle) = meddle.take() {
            meddle();
        }
    })
}

#[test]
fn a_model_that_is_replaced_while_it_is_loaded_is_not_served() {
    let scratch = Scratch::new();
    let path = mlp(8, 16, 3).write(scratch.path(), "model");
    let other = mlp(8, 32, 3).write(scratch.path(), "other");
    let error = load_while(&path, || std::fs::rename(&other, &path).expect("moves")).expect_err("changed");
    assert_eq!(error.kind(), LoadErrorKind::ModelChanged);
    assert!(error.text().ends_with("model.onnx was replaced"), "{error}");
    assert!(mlserve_ort::load(&runtime(), &path, &options()).is_ok(), "the next attempt serves the new one");
}

#[test]
fn a_model_that_is_written_with_equal_length_while_it_is_loaded_is_not_served() {
    let scratch = Scratch::new();
    let path = mlp(8, 16, 3).write(scratch.path(), "model");
    let bytes = std::fs::read(&path).expect("reads");
    let error = load_while(&path, || std::fs::write(&path, &bytes).expect("writes")).expect_err("changed");
    assert_eq!(error.kind(), LoadErrorKind::ModelChanged);
    assert!(error.text().ends_with("model.onnx was changed"), "{error}");
}

#[test]
fn a_failure_of_a_model_that_is_being_removed_says_so() {
    let scratch = Scratch::new();
    let path = mlp(8, 16, 3).write(scratch.path(), "model");
    let error = load_while(&path, || std::fs::remove_file(&path).expect("removes")).expect_err("changed");
    assert!(error.text().ends_with("model.onnx is gone"), "{error}");
}

/// Floats of more than a page, so that a file with so many can be cut short.
const COLUMNS: i64 = 4096;

fn write_floats(path: &Path, value: f32) {
    let bytes: Vec<u8> = (0..COLUMNS).flat_map(|_| value.to_le_bytes()).collect();
    std::fs::write(path, bytes).expect("writes");
}

/// The first number of the answer, which is a small whole one.
fn first_sum(model: &LoadedModel, inputs: &[Owned]) -> i64 {
    as_floats(&run(&*model.backend, inputs, &[0]).expect("runs")[0])[0] as i64
}

#[test]
fn weights_that_are_replaced_while_a_model_is_loaded_are_not_served() {
    let scratch = Scratch::new();
    let (weights, other) = (scratch.path().join("weights.bin"), scratch.path().join("other.bin"));
    write_floats(&weights, 1.0);
    write_floats(&other, 2.0);
    let path = adding(COLUMNS, "weights.bin").write(scratch.path(), "model");
    let error = load_while(&path, || std::fs::rename(&other, &weights).expect("moves")).expect_err("changed");
    assert_eq!(error.kind(), LoadErrorKind::ModelChanged);
    assert!(error.text().ends_with("weights.bin was replaced"), "{error}");
}

#[test]
fn what_is_written_to_the_files_of_a_loaded_model_is_not_served_and_does_no_harm() {
    for location in ["weights.bin", "data/weights.bin"] {
        let scratch = Scratch::new();
        std::fs::create_dir(scratch.path().join("data")).expect("makes");
        let weights = scratch.path().join(location);
        write_floats(&weights, 1.0);
        let path = adding(COLUMNS, location).write(scratch.path(), "model");
        let model = mlserve_ort::load(&runtime(), &path, &options()).expect("loads");
        let row = [Owned::floats(&[1, COLUMNS], &vec![10.0; COLUMNS as usize])];
        assert_eq!(first_sum(&model, &row), 11);
        write_floats(&weights, 2.0);
        assert_eq!(first_sum(&model, &row), 11, "{location}");
        // Memory that is mapped from a file ends with the file: touching it would end the process.
        std::fs::write(&weights, "").expect("writes");
        std::fs::write(&path, "").expect("writes");
        assert_eq!(first_sum(&model, &row), 11);
    }
}

#[test]
fn weights_of_a_branch_beside_the_model_are_used() {
    let scratch = Scratch::new();
    write_floats(&scratch.path().join("weights.bin"), 1.0);
    let path = adding_in_a_branch(COLUMNS, "weights.bin").write(scratch.path(), "model");
    let model = mlserve_ort::load(&runtime(), &path, &options()).expect("loads");
    let row = Owned::floats(&[1, COLUMNS], &vec![10.0; COLUMNS as usize]);
    let truth = Owned { datatype: DataType::Bool, shape: vec![1], data: vec![1] };
    assert_eq!(first_sum(&model, &[row, truth]), 11);
}

#[test]
fn a_loaded_model_knows_its_files_as_they_were() {
    let scratch = Scratch::new();
    let path = mlp(8, 16, 3).write(scratch.path(), "model");
    let model = mlserve_ort::load(&runtime(), &path, &options()).expect("loads");
    assert_eq!(model.files.paths().collect::<Vec<_>>(), [path.as_path()]);
    assert_eq!(model.files, Fingerprint::of([&path]));
    let bytes = std::fs::read(&path).expect("reads");
    std::fs::write(&path, bytes).expect("writes");
    assert_ne!(model.files, model.files.again());
}

#[test]
fn a_fingerprint_tells_every_kind_of_change() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path().join(name);
    std::fs::write(path("a"), "one").expect("writes");
    std::fs::write(path("b"), "one").expect("writes");
    let files = Fingerprint::of([path("a"), path("b"), path("c")]);
    let change = |files: &Fingerprint| files.change(&files.again());
    assert_eq!(change(&files), None);
    std::fs::write(path("c"), "").expect("writes");
    assert_eq!(change(&files), Some(format!("{} is new", path("c").display())));
    // Written at once after the look: even within one tick of the file system's clock.
    std::fs::write(path("b"), "two").expect("writes");
    assert_eq!(change(&files), Some(format!("{} was changed", path("b").display())));
    std::fs::rename(path("b"), path("a")).expect("moves");
    assert_eq!(change(&files), Some(format!("{} was replaced", path("a").display())));
    std::fs::remove_file(path("a")).expect("removes");
    assert_eq!(change(&files), Some(format!("{} is gone", path("a").display())));
    assert_eq!(files.change(&Fingerprint::default()).as_deref(), Some("it has other files"));
}

#[test]
fn writes_without_a_pause_are_all_told_apart() {
    let scratch = Scratch::new();
    let path = scratch.path().join("a");
    for round in 0..20_u8 {
        std::fs::write(&path, [round]).expect("writes");
        let before = Fingerprint::of([&path]);
        std::fs::write(&path, [round + 100]).expect("writes");
        assert_ne!(before, Fingerprint::of([&path]), "round {round}");
    }
}
