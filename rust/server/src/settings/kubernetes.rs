//! Variables that Kubernetes sets in every pod beside a Service: for one called `mlserve` they have our prefix.
//!
//! They are known by their form alone (<https://kubernetes.io/docs/concepts/services-networking/service/>, environment
//! variables; the `_PORT_` family is Docker's links'): a Service may have any name that begins with ours.

use super::PREFIX;

/// Schemes of the addresses that are values of such variables; no setting has such a value.
const SCHEMES: [&str; 3] = ["tcp://", "udp://", "sctp://"];
/// What stands in the name of such a variable, after the port's number.
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Names of the variables that are passed over, for the log.
pub fn service_variables(environment: &[(String, String)]) -> Vec<&str> {
    let found = environment.iter().filter(|(name, value)| name.starts_with(PREFIX) && is_of_a_service(name, value));
    found.map(|(name, _)| name.as_str()).collect()
}

/// Whether a variable has the form of those of a Service.
pub(super) fn is_of_a_service(name: &str, value: &str) -> bool {
    let is_address = SCHEMES.iter().any(|scheme| value.starts_with(scheme));
    is_address || name.ends_with("_SERVICE_HOST") || is_service_port(name) || is_port_part(name)
}

/// `…_SERVICE_PORT`, `…_SERVICE_PORT_HTTP`.
fn is_service_port(name: &str) -> bool {
    name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_")
}

/// `…_PORT_8000_TCP`, and with `_PROTO`, `_PORT` or `_ADDR` behind it.
fn is_port_part(name: &str) -> bool {
    let name = ["_PROTO", "_PORT", "_ADDR"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let Some((name, protocol)) = name.rsplit_once('_') else { return false };
    let Some((name, port)) = name.rsplit_once('_') else { return false };
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    PROTOCOLS.contains(&protocol) && is_port && name.ends_with("_PORT")
}

#[cfg(test)]
mod tests {
    use super::super::{Sources, keys, merge};
    use super::*;

    /// What Kubernetes 1.33 sets for a Service `NAME` with the named ports `http` and `metrics`, and an unnamed one.
    fn service(name: &str) -> Vec<(String, String)> {
        let mut variables = vec![
            (format!("{name}_SERVICE_HOST"), "10.96.7.1".to_owned()),
            (format!("{name}_SERVICE_PORT"), "8000".to_owned()),
            (format!("{name}_SERVICE_PORT_HTTP"), "8000".to_owned()),
            (format!("{name}_SERVICE_PORT_METRICS"), "8002".to_owned()),
            (format!("{name}_PORT"), "tcp://10.96.7.1:8000".to_owned()),
        ];
        for (port, protocol) in [("8000", "TCP"), ("8002", "TCP"), ("53", "UDP"), ("9", "SCTP")] {
            let scheme = protocol.to_lowercase();
            let stem = format!("{name}_PORT_{port}_{protocol}");
            variables.push((stem.clone(), format!("{scheme}://10.96.7.1:{port}")));
            variables.push((format!("{stem}_PROTO"), scheme));
            variables.push((format!("{stem}_PORT"), port.to_owned()));
            variables.push((format!("{stem}_ADDR"), "10.96.7.1".to_owned()));
        }
        variables
    }

    #[test]
    fn a_service_of_our_name_or_of_one_that_begins_with_it_sets_nothing() {
        let keys = keys();
        for name in ["MLSERVE", "MLSERVE_HTTP", "MLSERVE_GRPC", "MLSERVE_METRICS", "MLSERVE_UDS", "MLSERVE_2"] {
            let environment = service(name);
            assert_eq!(service_variables(&environment).len(), environment.len(), "{name}");
            let sources = Sources { environment, ..Sources::default() };
            assert_eq!(merge(&sources, &keys).expect(name), merge(&Sources::default(), &keys).expect("defaults"));
        }
    }

    #[test]
    fn no_setting_has_the_form() {
        for key in keys() {
            assert!(!is_of_a_service(&key.variable(), "8000"), "{}", key.variable());
        }
    }

    #[test]
    fn a_misspelt_setting_is_still_refused() {
        for name in
            ["MLSERVE_SERVICE", "MLSERVE_HTTP_PROT", "MLSERVE_PORT", "MLSERVE_PORT_HTTP_TCP", "MLSERVE_PORT_8_TPC"]
        {
            let sources = Sources { environment: vec![(name.into(), "1".into())], ..Sources::default() };
            merge(&sources, &keys()).expect_err(name);
        }
    }
}
