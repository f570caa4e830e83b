use std::collections::BTreeSet;

use mlserve_core::tensor::DataType;

use super::super::fixture::{model as tiny, plan, tensor};
use super::*;

fn tiny_plan() -> Arc<Plan> {
    plan(vec![tiny(vec![tensor("x", DataType::Fp32, &[-1, 2])])])
}

#[test]
fn every_route_and_every_error_is_in_the_document() {
    let document = document(&tiny_plan());
    for route in &super::super::route::ROUTES {
        let method = if route.is_post { "post" } else { "get" };
        assert!(document["paths"][route.path][method].is_object(), "{method} {}", route.path);
    }
    for kind in Kind::ALL {
        let row = kind.row();
        let text = document["components"]["responses"][format!("Error{}", row.http)]["description"].to_string();
        assert!(text.contains(row.code), "{}", row.code);
    }
}

#[test]
fn operations_are_told_apart() {
    let document = document(&tiny_plan());
    let paths = document["paths"].as_object().expect("paths");
    let operations: Vec<&str> = paths
        .values()
        .flat_map(|methods| methods.as_object().expect("methods").values())
        .map(|operation| operation["operationId"].as_str().expect("an identifier"))
        .collect();
    let distinct: BTreeSet<&str> = operations.iter().copied().collect();
    assert_eq!(distinct.len(), operations.len());
}

#[test]
fn a_model_has_its_own_schema_and_an_example() {
    let document = document(&tiny_plan());
    let post = &document["paths"]["/v2/models/tiny/infer"]["post"]["requestBody"]["content"]["application/json"];
    let input = &post["schema"]["properties"]["inputs"]["items"]["oneOf"][0]["properties"];
    assert_eq!(input["name"]["const"], "x");
    assert_eq!(input["datatype"]["const"], "FP32");
    assert_eq!(input["shape"]["prefixItems"], json!([{ "type": "integer", "minimum": 0 }, { "const": 2 }]));
    assert_eq!(
        post["example"],
        json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 0.5] }] })
    );
    let body =
        |path: &str| document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"].clone();
    assert_eq!(body("/v1/models/tiny:predict"), json!({ "instances": [[0.5, 0.5]] }));
    assert_eq!(body("/predict/tiny"), json!({ "features": [0.5, 0.5] }));
    assert_eq!(body("/v2/models/tiny/generate"), json!({ "x": [0.5, 0.5] }));
}
