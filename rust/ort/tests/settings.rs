//! What a model's configuration asks of its session.

mod support;

use mlserve_core::config::BatchingChoice;
use mlserve_core::model::Batching;
use mlserve_ort::{Execution, LoadErrorKind, LoadOptions, Optimization, SessionSettings};
use support::models::{bomb, dynamically_quantised, mixing, mlp, noise};
use support::{Owned, as_floats, load_with, options, run};

fn entries(entries: &[(&str, &str)]) -> LoadOptions {
    let entries = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    LoadOptions { session: SessionSettings { entries, ..SessionSettings::default() }, ..options() }
}

#[test]
fn every_optimization_and_execution_gives_the_same_answer() {
    let input = Owned::floats(&[4, 8], &noise(32));
    let plain = load_with(mlp(8, 16, 3), &options()).expect("loads");
    let expected = as_floats(&run(&*plain.backend, std::slice::from_ref(&input), &[0]).expect("runs")[0]);
    for optimization in [Optimization::Disabled, Optimization::Basic, Optimization::Extended, Optimization::All] {
        for (execution, inter_op_threads) in
            [(Execution::Sequential, None), (Execution::Parallel, None), (Execution::Parallel, Some(3))]
        {
            let session = SessionSettings { optimization, execution, inter_op_threads, ..SessionSettings::default() };
            let model = load_with(mlp(8, 16, 3), &LoadOptions { session, ..options() }).expect("loads");
            assert_eq!(model.batching, Batching::Rows);
            let found = as_floats(&run(&*model.backend, std::slice::from_ref(&input), &[0]).expect("runs")[0]);
            let is_close = |(found, expected): (&f32, &f32)| (found - expected).abs() < 1e-5;
            assert!(found.iter().zip(&expected).all(is_close), "{optimization:?} {execution:?}: {found:?}");
        }
    }
}

#[test]
fn the_runtime_takes_entries_and_judges_their_values() {
    assert!(load_with(mlp(8, 16, 3), &entries(&[("session.disable_prepacking", "1")])).is_ok());
    let affinities = entries(&[("session.intra_op_thread_affinities", "nonsense")]);
    let error = load_with(mlp(8, 16, 3), &LoadOptions { threads: Some(3), ..affinities }).expect_err("refused");
    assert!(error.text().contains("with session entries session.intra_op_thread_affinities: "), "{error}");
}

#[test]
fn an_entry_that_cannot_be_taken_is_refused_by_its_key() {
    let long = "k".repeat(5_000);
    let cases = [
        ("session.use_env_allocators", "0", "all models share one arena"),
        ("session.model_external_initializers_file_folder_path", "/etc", "beneath the model's own directory"),
        ("session.load_model_format", "ORT", "only ONNX files are checked"),
        ("session.use_device_allocator_for_initializers", "1", "weights count towards the limit"),
        ("a\0b", "1", "NUL byte"),
        ("a", "b\0c", "NUL byte"),
        ("", "1", "session entry '' is refused"),
        (long.as_str(), "1", "kkk' is refused"),
    ];
    for (key, value, text) in cases {
        let error = load_with(mlp(8, 16, 3), &entries(&[(key, value)])).expect_err("refused");
        assert_eq!(error.kind(), LoadErrorKind::SettingsRefused, "{error}");
        assert!(error.text().contains(text) && error.text().contains(key), "{error}");
    }
}

#[test]
fn whole_requests_are_not_batched_and_need_no_proof() {
    let whole_requests = Some("its configuration has max_batch_size 0".to_owned());
    let model = load_with(mlp(8, 16, 3), &LoadOptions { whole_requests, ..options() }).expect("loads");
    let Batching::Fixed { reason } = &model.batching else { panic!("{:?}", model.batching) };
    assert_eq!(reason, "its configuration has max_batch_size 0");
    assert_eq!(model.warmup.len(), 1, "one size is measured: {:?}", model.warmup);
    let outputs = run(&*model.backend, &[Owned::floats(&[5, 8], &noise(40))], &[0]).expect("any size of request runs");
    assert_eq!(outputs[0].shape.as_slice(), [5, 3]);
}

#[test]
fn a_model_that_is_trusted_is_batched_and_says_what_speaks_against_it() {
    let trust = LoadOptions { batching: BatchingChoice::Trust, ..options() };
    for builder in [dynamically_quantised(), mixing()] {
        let refused = load_with(builder.clone(), &options()).expect("loads").batching;
        let Batching::Unsafe { reason } = refused else { panic!("{refused:?}") };
        let trusted = load_with(builder, &trust).expect("loads").batching;
        assert!(trusted.is_allowed() && trusted.has_rows());
        assert_eq!(trusted, Batching::Trusted { reason });
    }
    // What is proven needs no trust, and what counts no rows cannot be trusted to.
    assert_eq!(load_with(mlp(8, 16, 3), &trust).expect("loads").batching, Batching::Rows);
    assert!(matches!(load_with(bomb(), &trust).expect("loads").batching, Batching::Fixed { .. }));
}

#[test]
fn a_model_that_is_told_not_to_batch_does_not() {
    let off = LoadOptions { batching: BatchingChoice::Off, ..options() };
    for builder in [mlp(8, 16, 3), mixing()] {
        let found = load_with(builder, &off).expect("loads").batching;
        assert!(!found.is_allowed() && found.has_rows());
        assert_eq!(found.reason(), Some("its settings say batching = \"off\""));
    }
}
