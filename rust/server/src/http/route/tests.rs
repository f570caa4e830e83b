use super::*;

fn routed(method: &str, path: &str) -> Result<(Action, String, Option<u64>), (u16, String)> {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    match find(&method, &path.parse().expect("a path")) {
        Ok((route, target)) => Ok((route.action, target.model.to_string(), target.version)),
        Err(refusal) => {
            let response = refusal.into_response();
            Err((response.status.as_u16(), String::from_utf8(response.body.concat()).expect("UTF-8")))
        }
    }
}

#[test]
fn paths_lead_to_their_actions() {
    for (method, path, action, model, version) in [
        ("POST", "/v2/models/tiny/infer", Action::Infer, "tiny", None),
        ("POST", "/v2/models/tiny/versions/3/infer", Action::Infer, "tiny", Some(3)),
        ("POST", "/v2/models/tiny/infer?x=/y", Action::Infer, "tiny", None),
        ("GET", "/v2/models/tiny", Action::ModelMetadata, "tiny", None),
        ("HEAD", "/v2/models/tiny/versions/007", Action::ModelMetadata, "tiny", Some(7)),
        ("GET", "/v2/models/tiny/ready", Action::ModelReady, "tiny", None),
        ("GET", "/v2/models/ready/ready", Action::ModelReady, "ready", None),
        ("GET", "/v2/models/versions", Action::ModelMetadata, "versions", None),
        ("GET", "/v2", Action::ServerMetadata, "", None),
        ("HEAD", "/v2/health/live", Action::Live, "", None),
        ("GET", "/v2/health/ready", Action::Ready, "", None),
        ("GET", "/v2/models/a%2Fb%20%C3%A9%25", Action::ModelMetadata, "a/b é%", None),
        ("GET", "/v2/models/%2e%2e", Action::ModelMetadata, "..", None),
        ("GET", "/v2/models/%252e", Action::ModelMetadata, "%2e", None),
        ("GET", "/v2/models/a:predict", Action::ModelMetadata, "a:predict", None),
        ("GET", "/v1/models", Action::V1Models, "", None),
        ("GET", "/v1/models/tiny", Action::V1Model, "tiny", None),
        ("GET", "/v1/models/a%3Ab", Action::V1Model, "a:b", None),
        ("POST", "/v1/models/tiny:predict", Action::Plain(Dialect::V1), "tiny", None),
        ("POST", "/v1/models/a%3Ab:predict", Action::Plain(Dialect::V1), "a:b", None),
        ("POST", "/v1/models/tiny/versions/2:predict", Action::Plain(Dialect::V1), "tiny", Some(2)),
        ("POST", "/v2/models/tiny/generate", Action::Plain(Dialect::Generate), "tiny", None),
        ("POST", "/v2/models/tiny/versions/2/generate_stream", Action::Plain(Dialect::GenerateStream), "tiny", Some(2)),
        ("POST", "/predict/tiny", Action::Plain(Dialect::Predict), "tiny", None),
        ("GET", "/", Action::Root, "", None),
    ] {
        assert_eq!(routed(method, path), Ok((action, model.to_owned(), version)), "{method} {path}");
    }
}

#[test]
fn everything_else_is_refused() {
    let not_found = (404, r#"{"error":"Not Found"}"#.to_owned());
    for path in [
        "/v2/",
        "/v1/models/",
        "/v1/models/x:explain",
        "/v1/models/:predict",
        "/v1/models/x/versions/:predict",
        "/v1/models/x/versions/a:predict",
        "/v1/models/x:predict/",
        "/predict/",
        "/predict",
        "/docs/",
        "/v2/models",
        "/v2/models/",
        "/v2/models//infer",
        "/v2/models/x/",
        "/v2//health/live",
        "/v2/models/x/versions",
        "/v2/models/x/versions/",
        "/v2/models/x/versions/abc",
        "/v2/models/x/versions/-1",
        "/v2/models/x/versions/1/infer/y",
        "/V2",
        "/v2/health",
        "/%76%32",
        "/v2/models/x/infer;y",
        "//v2",
    ] {
        assert_eq!(routed("GET", path), Err(not_found.clone()), "{path}");
        assert_eq!(routed("POST", path), Err(not_found.clone()), "{path}");
    }
    let not_allowed = (405, r#"{"error":"Method Not Allowed"}"#.to_owned());
    for (method, path) in [
        ("GET", "/v2/models/x/infer"),
        ("GET", "/v1/models/x:predict"),
        ("GET", "/v1/models/x/versions/1:predict"),
        ("POST", "/v1/models/x"),
        ("POST", "/health"),
        ("PUT", "/v2/models/x/infer"),
        ("DELETE", "/v2/models/x"),
        ("POST", "/v2"),
        ("OPTIONS", "/v2/health/live"),
        ("HEAD", "/v2/models/x/versions/1/infer"),
    ] {
        assert_eq!(routed(method, path), Err(not_allowed.clone()), "{method} {path}");
    }
}

#[test]
fn versions_beyond_all_numbers_are_not_found() {
    let (status, body) = routed("GET", "/v2/models/tiny/versions/18446744073709551616").expect_err("no such version");
    assert_eq!(status, 404);
    assert_eq!(body, r#"{"error":"Request for unknown model: 'tiny' version 18446744073709551616 is not found"}"#);
}

#[test]
fn broken_escapes_are_bad_requests() {
    for path in ["/v2/models/%", "/v2/models/%4", "/v2/models/%zz", "/v2/models/a%ff", "/v2/models/%c3"] {
        assert_eq!(routed("GET", path).expect_err(path).0, 400, "{path}");
    }
}

#[test]
fn refused_methods_are_told_which_are_allowed() {
    let refusal = find(&Method::DELETE, &Uri::from_static("/v2/models/x")).expect_err("refused");
    assert_eq!(refusal.into_response().headers[ALLOW], "GET, HEAD, OPTIONS");
    let refusal = find(&Method::GET, &Uri::from_static("/v2/models/x/infer")).expect_err("refused");
    assert_eq!(refusal.into_response().headers[ALLOW], "POST, OPTIONS");
}
