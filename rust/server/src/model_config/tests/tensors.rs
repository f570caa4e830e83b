//! Inputs and outputs against those of a graph: x FP32 [-1, 8], s BYTES [-1, -1], answer y INT64 [-1, 3].

use super::*;

fn graph() -> (Vec<TensorSpec>, Vec<TensorSpec>) {
    let inputs = vec![spec("x", DataType::Fp32, &[-1, 8]), spec("s", DataType::Bytes, &[-1, -1])];
    (inputs, vec![spec("y", DataType::Int64, &[-1, 3]), spec("z", DataType::Bool, &[-1])])
}

fn check(text: &str) -> Result<(), String> {
    let (inputs, outputs) = graph();
    let checked = read(text).expect("valid").check_against(&inputs, &outputs);
    checked.map_err(|fault| fault.strip_prefix("config.pbtxt of model 'tiny': ").expect("names the file").to_owned())
}

const S: &str = "input { name: \"s\" data_type: TYPE_STRING dims: -1 }";
const X: &str = "input { name: \"x\" data_type: TYPE_FP32 dims: 8 }";

#[test]
fn tensors_that_fit_are_taken() {
    for text in [
        "",
        "max_batch_size: 4",
        &format!("max_batch_size: 4 {X} {S}"),
        &format!("max_batch_size: 4 {S} {X} output {{ name: \"y\" data_type: TYPE_INT64 dims: 3 }}"),
        // Nothing but names: the rest comes from the graph.
        "max_batch_size: 4 input { name: \"x\" } input { name: \"s\" } output { name: \"z\" }",
        // An input may be narrower, an output described loosely.
        &format!("max_batch_size: 4 {X} input {{ name: \"s\" dims: 5 }} output {{ name: \"y\" dims: -1 }}"),
        // Without a batch size the shapes are whole.
        "input { name: \"x\" dims: [ -1, 8 ] } input { name: \"s\" dims: [ 1, -1 ] } output { name: \"y\" dims: [ -1, 3 ] }",
        // With the outputs left out, the graph says whether there are rows.
        &format!("{X} {S}"),
        "input { name: \"x\" dims: [ -1, 8 ] } input { name: \"s\" dims: 2 }",
    ] {
        assert_eq!(check(text), Ok(()), "{text}");
    }
}

#[test]
fn what_does_not_fit_is_named_with_what_the_graph_has() {
    for (text, fault) in [
        (format!("max_batch_size: 1 {X} {S} input {{ name: \"q\" }}"), "input: the graph has no 'q'; allowed: x, s"),
        ("output { name: \"q\" }".to_owned(), "output: the graph has no 'q'; allowed: y, z"),
        (X.replace("dims: 8", ""), "input: the graph has these inputs too: s; list all or none"),
        (format!("max_batch_size: 1 {X} {X} {S}"), "input: 'x' is listed twice"),
        (X.replace("FP32", "INT32"), "input 'x': data_type is TYPE_INT32, in the graph it is TYPE_FP32"),
        (
            format!("max_batch_size: 1 {} {S}", X.replace('8', "9")),
            "input 'x': dims are [9] after the batch dimension that max_batch_size adds, but in the graph its shape is [-1,8]",
        ),
        (
            format!("max_batch_size: 1 {} {S}", X.replace("dims: 8", "dims: [ -1, 8 ]")),
            "input 'x': dims are [-1,8] after the batch dimension that max_batch_size adds, but in the graph its shape is \
             [-1,8]",
        ),
        (
            format!("max_batch_size: 1 {} {S}", X.replace('8', "-1")),
            "input 'x': dims are [-1] after the batch dimension that max_batch_size adds, but in the graph its shape is \
             [-1,8]",
        ),
        (X.replace('8', "0"), "input 'x': dims has 0; allowed: -1 and sizes from 1"),
        (format!("{X} {S} output {{ name: \"y\" }}"), "input 'x': dims are [8], but in the graph its shape is [-1,8]"),
    ] {
        assert_eq!(check(&text), Err(fault.to_owned()), "{text}");
    }
}

#[test]
fn a_batch_size_needs_a_graph_with_rows() {
    let (inputs, outputs) = (vec![spec("x", DataType::Fp32, &[1, 8])], vec![spec("y", DataType::Fp32, &[-1])]);
    let config = read("max_batch_size: 2").expect("valid");
    assert_eq!(
        config.check_against(&inputs, &outputs),
        Err("config.pbtxt of model 'tiny': max_batch_size: input 'x' has the shape [1,8] in the graph, whose first dimension does not count rows; \
             allowed here: max_batch_size 0"
            .to_owned())
    );
}

#[test]
fn dimensions_of_the_file_narrow_those_of_the_graph() {
    let (inputs, _) = graph();
    let shapes = |text: &str| {
        let narrowed = read(text).expect("valid").narrowed(&inputs);
        narrowed.iter().map(|spec| spec.shape.to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(shapes(&format!("max_batch_size: 4 {X} input {{ name: \"s\" dims: 5 }}")), [[-1, 8], [-1, 5]]);
    let whole = "input { name: \"x\" dims: [ 2, 8 ] } input { name: \"s\" dims: [ -1, 5 ] }";
    assert_eq!(shapes(whole), [[2, 8], [-1, 5]]);
    assert_eq!(shapes(""), [[-1, 8], [-1, -1]]);
}
