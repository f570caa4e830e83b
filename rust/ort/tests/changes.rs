//! Files that are replaced or written while a model is loaded, or while it serves.

mod support;

use std::path::Path;

use mlserve_ort::{Fingerprint, LoadError, LoadErrorKind, LoadedModel};
use support::models::mlp;
use support::{Scratch, options, runtime};

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
