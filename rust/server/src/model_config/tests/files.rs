//! Labels and warm-up samples, from the file and from its folder.

use super::*;

fn model(text: &str, files: &[(&str, &[u8])]) -> (Folder, ConfigFile) {
    (Folder::new(files), read(text).expect("valid"))
}

#[test]
fn labels_are_the_lines_of_the_file() {
    let (folder, config) = model(TINY, &[("labels.txt", "cat\ndog\r\n\nführ".as_bytes())]);
    let labels = config.labels(&folder.0, &Roots::default()).expect("read");
    let lines: Vec<&str> = labels[0].1.iter().map(|label| &**label).collect();
    assert_eq!((labels.len(), labels[0].0.as_str(), lines), (1, "output", vec!["cat", "dog", "", "führ"]));
}

#[test]
fn files_outside_the_folder_are_refused() {
    let (outside, _) = model("", &[("secret", b"x")]);
    for (name, fault) in [
        ("../secret", "is no file's name"),
        ("/etc/passwd", "is no file's name"),
        ("link", "leads outside the repository"),
        ("folder", "is no file"),
        ("missing", "No such file"),
    ] {
        let text = format!("output {{ name: \"y\" label_filename: \"{name}\" }}");
        let (folder, config) = model(&text, &[("folder/x", b"")]);
        std::os::unix::fs::symlink(outside.0.join("secret"), folder.0.join("link")).expect("linked");
        let error = config.labels(&folder.0, &Roots::default()).expect_err(name);
        assert!(
            error.starts_with(&format!("config.pbtxt of model 'tiny': output 'y': label_filename \"{name}\": {fault}")),
            "{error}"
        );
    }
}

#[test]
fn links_inside_the_folder_are_followed() {
    let (folder, config) = model(TINY, &[("..data/labels", b"a")]);
    std::os::unix::fs::symlink("..data/labels", folder.0.join("labels.txt")).expect("linked");
    assert_eq!(config.labels(&folder.0, &Roots::default()).expect("read")[0].1.len(), 1);
}

fn inputs() -> Vec<TensorSpec> {
    vec![spec("x", DataType::Fp32, &[-1, 2]), spec("s", DataType::Bytes, &[-1, -1])]
}

fn sample(x: &str, s: &str) -> String {
    format!(
        "max_batch_size: 8 model_warmup {{ name: \"w\" batch_size: 3
         inputs {{ key: \"s\" value {{ data_type: TYPE_STRING {s} }} }}
         inputs {{ key: \"x\" value {{ data_type: TYPE_FP32 {x} }} }} }}"
    )
}

#[test]
fn samples_become_tensors_in_the_order_of_the_model() {
    let text = sample("dims: 2 input_data_file: \"x.bin\"", "dims: 1 zero_data: true");
    // A float more than a row has, as Triton allows.
    let file: Vec<u8> = [1.5_f32, -2.0, 9.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let (folder, config) = model(&text, &[("warmup/x.bin", &file)]);
    let warmups = config.warmups(&folder.0, &Roots::default(), &inputs()).expect("fits");
    let [warmup] = &warmups[..] else { panic!("{warmups:?}") };
    assert_eq!((warmup.name.as_str(), warmup.count), ("w", 1));
    let (x, s) = (&warmup.inputs[0], &warmup.inputs[1]);
    assert_eq!((x.0, x.1.as_slice(), &x.2[..]), (DataType::Fp32, &[3, 2][..], &file[..8].repeat(3)[..]));
    assert_eq!((s.0, s.1.as_slice(), &s.2[..]), (DataType::Bytes, &[3, 1][..], &[0; 12][..]));
}

#[test]
fn random_floats_are_ordinary_numbers() {
    let text = sample("dims: 2 random_data: true", "dims: 1 random_data: true");
    let (folder, config) = model(&text, &[]);
    let warmups = config.warmups(&folder.0, &Roots::default(), &inputs()).expect("fits");
    let values = warmups[0].inputs[0].2.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("4")));
    let values: Vec<f32> = values.collect();
    assert_eq!(values.len(), 6);
    assert!(values.iter().all(|value| (1.0..2.0).contains(value)), "{values:?}");
    assert!(values[0].to_bits() != values[1].to_bits());
}

#[test]
fn samples_of_whole_requests_run_one_by_one() {
    let text = "input { name: \"x\" } output { name: \"y\" }
                model_warmup { batch_size: 2 count: 3
                               inputs { key: \"x\" value { dims: [ 5, 2 ] random_data: true } } }
                model_warmup { name: \"none\" inputs { key: \"q\" value { } } }";
    let (folder, config) = model(text, &[]);
    let warmups = config.warmups(&folder.0, &Roots::default(), &inputs()[..1]).expect("fits");
    // The second has no rows, so it is left out.
    assert_eq!(warmups.iter().map(|warmup| warmup.count).collect::<Vec<_>>(), [6]);
    assert_eq!((warmups[0].inputs[0].1.as_slice(), warmups[0].inputs[0].2.len()), (&[5, 2][..], 40));
}

#[test]
fn samples_that_do_not_fit_are_refused_by_name() {
    let zeros = "dims: 1 zero_data: true";
    for (text, fault) in [
        (sample("dims: 3 zero_data: true", zeros), "input 'x': dims are [3]; allowed without the batch dimension are"),
        (sample("dims: -1 zero_data: true", zeros), "input 'x': dims are [-1]"),
        (sample("dims: 2", zeros), "input 'x': it says none of zero_data, random_data and input_data_file"),
        (
            sample("dims: 2 zero_data: true", "dims: 999999999 zero_data: true"),
            "input 's': dims are [999999999], which is",
        ),
        (sample("dims: 2 zero_data: true", "dims: 30000000 zero_data: true"), "input 's': all samples have more than"),
        (
            sample("dims: 2 input_data_file: \"short\"", zeros),
            "input 'x': \"short\": the file has 3 bytes, dims ask for 8",
        ),
        (sample("dims: 2 input_data_file: \"none\"", zeros), "input 'x': \"none\": No such file"),
        (sample("dims: 2 input_data_file: \"../labels\"", zeros), "input 'x': \"../labels\": is no file's name"),
        (
            sample("dims: 2 zero_data: true", "dims: 2 input_data_file: \"s\""),
            "input 's': \"s\": the file has 1 elements",
        ),
        (sample("dims: 2 zero_data: true", "dims: 2 input_data_file: \"short\""), "input 's': \"short\": element 0"),
        (
            sample("dims: 2 zero_data: true", zeros).replace("\"s\"", "\"t\""),
            "the graph has no input 't'; allowed: x, s",
        ),
        (sample("dims: 2 zero_data: true", zeros).replace("FP32", "FP64"), "input 'x': data_type is TYPE_FP64"),
        (
            sample("dims: 2 zero_data: true", zeros).replace("batch_size: 3", "batch_size: 9"),
            "batch_size = 9: allowed: 0 to",
        ),
        (
            sample("dims: 2 zero_data: true", zeros).replace("size: 3", "size: 3 count: 99999"),
            "count and batch_size make",
        ),
    ] {
        let (folder, config) = model(&text, &[("warmup/short", b"abc"), ("warmup/s", b"\x01\0\0\0a")]);
        let error = config.warmups(&folder.0, &Roots::default(), &inputs()).expect_err(&text);
        assert!(error.starts_with(&format!("config.pbtxt of model 'tiny': model_warmup[0] 'w': {fault}")), "{error}");
    }
    let (folder, config) = model("model_warmup { batch_size: 1 }", &[]);
    let error = config.warmups(&folder.0, &Roots::default(), &inputs()).expect_err("missing");
    assert_eq!(error, "config.pbtxt of model 'tiny': model_warmup[0] '': input 'x': it is missing");
}
