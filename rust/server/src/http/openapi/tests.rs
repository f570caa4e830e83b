use std::collections::BTreeSet;

use mlserve_core::tensor::DataType;

use super::super::fixture::{model as tiny, plan, tensor};
use super::*;

fn tiny_plan() -> Arc<Plan> {
    plan(vec![tiny(vec![tensor("x", DataType::Fp32, &[-1, 2])])])
}

#[test]
fn every_route_and_every_error_is_in_the_document() {
    let document = document(&tiny_plan(), None);
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
    let document = document(&tiny_plan(), None);
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
    let document = document(&tiny_plan(), None);
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

#[test]
fn of_many_models_only_the_one_that_is_asked_for_is_described() {
    let named = |number: usize| {
        let mut spec = tiny(vec![tensor("x", DataType::Fp32, &[-1, 2])]);
        spec.name = format!("m{number}").as_str().into();
        spec
    };
    let plan = plan((0..=MAX_MODELS).map(named).collect());
    let models = |document: &Value| {
        let paths = document["paths"].as_object().expect("paths");
        paths.keys().filter(|path| path.starts_with("/v2/models/m")).count()
    };
    let all = document(&plan, None);
    assert_eq!(models(&all), 0);
    let text = all["info"]["description"].to_string();
    assert!(text.contains(" models; /openapi.json?model=NAME describes one"), "{text}");
    let one = document(&plan, Some("m7"));
    assert!(one["paths"]["/v2/models/m7/infer"].is_object() && models(&one) == 2, "{:?}", one["paths"]);
}

#[test]
fn a_query_names_a_model_and_nothing_else() {
    assert_eq!(asked_model(None).expect("none"), None);
    assert_eq!(asked_model(Some("model=a%2Db")).expect("one").as_deref(), Some("a-b"));
    for query in ["modell=a", "model=a&x=1", "a"] {
        assert!(asked_model(Some(query)).expect_err(query).text().contains("allowed is 'model=NAME'"));
    }
}

#[test]
fn the_document_is_made_once_for_a_plan() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (kept, plan) = (Document::default(), tiny_plan());
    let make = async |plan: Arc<Plan>| Ok(document(&plan, None).to_string());
    let of = |plan: &Arc<Plan>| runtime.block_on(kept.of(Arc::clone(plan), make)).expect("made");
    let (first, second) = (of(&plan), of(&plan));
    assert_eq!(first.as_ptr(), second.as_ptr());
    assert_ne!(of(&Arc::new(plan.next([]))).as_ptr(), first.as_ptr(), "another plan");
}
