//! What a request keeps of its JSON beside tensors: its texts, which may be as long as its body. Hot path.

use mlserve_core::request::{Parameter, Request};

/// Bytes of a request's id, names, parameters and routing key.
pub(super) fn text_bytes(request: &Request) -> usize {
    let parameters = request.parameters.iter().map(|(key, value)| match value {
        Parameter::Text(text) => key.len() + text.len(),
        _ => key.len(),
    });
    let inputs = request.inputs.iter().map(|input| input.name.len());
    let outputs = request.outputs.iter().map(|name| name.len());
    request.id.len() + request.routing_key().len() + parameters.chain(inputs).chain(outputs).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_counts() {
        let mut request = Request { id: "1234".into(), ..Request::default() };
        request.parameters.push(("ab".into(), Parameter::Text("cde".into())));
        request.parameters.push(("f".into(), Parameter::Int64(7)));
        request.outputs.push("y".into());
        request.options_mut().routing_key = "key".into();
        assert_eq!(text_bytes(&request), 4 + 5 + 1 + 1 + 3);
    }
}
