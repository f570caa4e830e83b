//! Metadata of the server and of a model, as JSON.

use http::StatusCode;
use mlserve_core::error::Result;
use mlserve_core::model::TensorSpec;
use mlserve_core::plan::Endpoint;

use super::HttpResponse;
use super::route::Target;
use super::status::json_response;
use super::write::{push_integer, push_string};
use crate::grpc::{EXTENSIONS, properties};
use crate::process::Process;

/// The server's name, version and extensions.
pub(super) fn server() -> HttpResponse {
    let mut body = Vec::with_capacity(128);
    body.extend_from_slice(b"{\"name\":\"mlserve\",\"version\":");
    push_string(&mut body, env!("CARGO_PKG_VERSION"));
    body.extend_from_slice(b",\"extensions\":");
    push_list(&mut body, EXTENSIONS, |body, extension| push_string(body, extension));
    body.push(b'}');
    json_response(StatusCode::OK, body)
}

/// A model's name, ready versions, platform, inputs and outputs.
///
/// **Errors:** not found; not ready.
pub(super) fn model(process: &Process, target: &Target) -> Result<HttpResponse> {
    Ok(json_response(StatusCode::OK, model_json(process, &target.model, target.version)?))
}

/// What [`model`] answers with, as JSON text; `wanted`: the version, `None` for all that are ready.
///
/// **Errors:** not found; not ready.
pub(crate) fn model_json(process: &Process, name: &str, wanted: Option<u64>) -> Result<Vec<u8>> {
    let plan = process.plan.load();
    let version = plan.find(name, wanted)?;
    let spec = &version.spec;
    let versions = plan.endpoint(name).into_iter().flat_map(Endpoint::ready);
    let versions = versions.filter(|&(number, _)| wanted.is_none_or(|wanted| wanted == number));
    let mut body = Vec::with_capacity(512);
    body.extend_from_slice(b"{\"name\":");
    push_string(&mut body, &spec.name);
    body.extend_from_slice(b",\"versions\":");
    push_list(&mut body, versions, |body, (version, _)| push_string(body, &version.to_string()));
    body.extend_from_slice(b",\"platform\":");
    push_string(&mut body, spec.platform);
    body.extend_from_slice(b",\"inputs\":");
    push_list(&mut body, &spec.inputs, push_tensor);
    body.extend_from_slice(b",\"outputs\":");
    push_list(&mut body, &spec.outputs, push_tensor);
    for (index, (key, value)) in properties(version).enumerate() {
        body.extend_from_slice(if index == 0 { b",\"properties\":{" } else { b"," });
        push_string(&mut body, key);
        body.push(b':');
        push_string(&mut body, &value);
    }
    body.extend_from_slice(b"}}");
    Ok(body)
}

fn push_tensor(body: &mut Vec<u8>, tensor: &TensorSpec) {
    body.extend_from_slice(b"{\"name\":");
    push_string(body, &tensor.name);
    body.extend_from_slice(b",\"datatype\":");
    push_string(body, tensor.datatype.name());
    body.extend_from_slice(b",\"shape\":");
    push_list(body, &tensor.shape, |body, &dimension| push_integer(body, dimension));
    body.push(b'}');
}

fn push_list<Item>(body: &mut Vec<u8>, items: impl IntoIterator<Item = Item>, push: impl Fn(&mut Vec<u8>, Item)) {
    body.push(b'[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        push(body, item);
    }
    body.push(b']');
}
