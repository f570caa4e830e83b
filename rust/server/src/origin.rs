//! Which web pages may ask what, and under which names this machine may be reached: a page in somebody's browser reaches
//! servers that no stranger does.
//!
//! Source: the Fetch standard (CORS protocol), and RFC 6454 for origins. Answers to pages of allowed origins carry CORS
//! header fields; pages of other origins may ask for inference and metadata, as any program may, but not read the answers.

use std::net::IpAddr;

use http::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use http::uri::{Authority, Uri};
use mlserve_core::config::ServerSettings;
use mlserve_core::error::{Error, Kind, Result, quoted};

/// What the settings allow.
#[derive(Debug)]
pub(crate) struct Origins {
    /// In lower case, as browsers send them.
    allowed: Vec<String>,
    allows_all: bool,
    /// Names under which a server on a loopback address may be told to change something; `None`: any.
    hosts: Option<Vec<String>>,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A program, or a page of this server.
    Own,
    /// A page of an allowed origin, which is this.
    Allowed(HeaderValue),
    /// Any other page.
    Foreign,
}

impl Origins {
    /// The rules of `settings`.
    pub(crate) fn new(settings: &ServerSettings) -> Self {
        let allowed: Vec<String> = words(&settings.allowed_origins).collect();
        Self {
            allows_all: allowed.iter().any(|origin| origin == "*"),
            allowed,
            hosts: is_loopback(&settings.host).then(|| words(&settings.allowed_hosts).collect()),
        }
    }

    /// Who sends a request with these header fields.
    pub(crate) fn asker(&self, headers: &HeaderMap, uri: &Uri) -> Asker {
        let Some(origin) = headers.get(ORIGIN) else { return Asker::Own };
        let text = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        let is_own = match (text.split_once("://"), authority(headers, uri)) {
            (Some((_, own)), Some(authority)) => authority.eq_ignore_ascii_case(own),
            _ => false,
        };
        if is_own {
            Asker::Own
        } else if self.allows_all || self.allowed.contains(&text) {
            Asker::Allowed(origin.clone())
        } else {
            Asker::Foreign
        }
    }

    /// Checks whether `asker` may do more than infer and look at metadata. `changes`: whether it would change something.
    ///
    /// **Errors:** not allowed: a page of another origin; a name that may be anybody's (DNS rebinding).
    pub(crate) fn check(&self, asker: &Asker, headers: &HeaderMap, uri: &Uri, changes: bool) -> Result<()> {
        if *asker == Asker::Foreign {
            return Err(foreign(headers));
        }
        let Some(hosts) = self.hosts.as_ref().filter(|_| changes) else { return Ok(()) };
        let Some(authority) = authority(headers, uri) else { return Ok(()) };
        let name = name(authority).to_ascii_lowercase();
        let is_known = is_address(&name)
            || name == "localhost"
            || name.ends_with(".localhost")
            || hosts.iter().any(|host| *host == name || host == "*");
        if is_known { Ok(()) } else { Err(foreign_name(&name)) }
    }
}

/// The words of a list with commas, in lower case.
fn words(list: &str) -> impl Iterator<Item = String> {
    list.split(',').map(|word| word.trim().to_ascii_lowercase()).filter(|word| !word.is_empty())
}

/// What the client calls this server: a name or an address, and a port unless it is the usual one.
fn authority<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    let sent = headers.get(HOST).and_then(|host| host.to_str().ok()).filter(|host| !host.is_empty());
    uri.authority().map(Authority::as_str).or(sent)
}

/// An authority without its port.
fn name(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.split_inclusive(']').next().unwrap_or(authority);
    }
    authority.rsplit_once(':').map_or(authority, |(name, _)| name)
}

fn is_address(name: &str) -> bool {
    name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cold]
fn foreign(headers: &HeaderMap) -> Error {
    let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or_default();
    let text = format!(
        "pages of the origin '{}' may only infer and read metadata; others are allowed by server.allowed_origins",
        quoted(origin)
    );
    Error::new(Kind::NotAllowed, text)
}

#[cold]
fn foreign_name(name: &str) -> Error {
    let text = format!(
        "this server listens on a loopback address and changes nothing under the name '{}'; ask by address, or allow the \
         name by server.allowed_hosts",
        quoted(name)
    );
    Error::new(Kind::NotAllowed, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(host: &str, allowed_origins: &str, allowed_hosts: &str) -> Origins {
        Origins::new(&ServerSettings {
            host: host.to_owned(),
            allowed_origins: allowed_origins.to_owned(),
            allowed_hosts: allowed_hosts.to_owned(),
            ..ServerSettings::default()
        })
    }

    fn headers(host: &str, origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).expect("a field"));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_str(origin).expect("a field"));
        }
        headers
    }

    fn asker(origins: &Origins, host: &str, origin: Option<&str>) -> Asker {
        origins.asker(&headers(host, origin), &Uri::from_static("/v2"))
    }

    #[test]
    fn pages_are_told_from_programs_and_from_each_other() {
        let origins = origins("0.0.0.0", "https://app.example, http://other.example:8080", "");
        assert_eq!(asker(&origins, "server:8000", None), Asker::Own);
        assert_eq!(asker(&origins, "server:8000", Some("http://server:8000")), Asker::Own);
        assert_eq!(asker(&origins, "Server", Some("https://server")), Asker::Own, "behind a proxy that speaks TLS");
        for foreign in ["http://server", "http://server:8001", "http://evil.example", "null", "", "server:8000"] {
            assert_eq!(asker(&origins, "server:8000", Some(foreign)), Asker::Foreign, "{foreign:?}");
        }
        for allowed in ["https://app.example", "http://other.example:8080", "HTTPS://APP.example"] {
            let allowed_by = asker(&origins, "server:8000", Some(allowed));
            assert_eq!(allowed_by, Asker::Allowed(HeaderValue::from_static(allowed)));
        }
        assert_eq!(asker(&origins, "server:8000", Some("http://app.example")), Asker::Foreign, "another scheme");
    }

    #[test]
    fn the_authority_of_http2_counts_before_a_host_field() {
        let origins = origins("0.0.0.0", "", "");
        let uri = Uri::from_static("http://server:8000/v2");
        assert_eq!(origins.asker(&headers("evil.example", Some("http://evil.example")), &uri), Asker::Foreign);
    }

    #[test]
    fn a_server_on_loopback_knows_its_names() {
        let check = |origins: &Origins, host: &str, changes: bool| {
            let headers = headers(host, None);
            origins.check(&Asker::Own, &headers, &Uri::from_static("/"), changes).map_err(|error| error.kind())
        };
        for bound in ["127.0.0.1", "::1", "localhost", "[::1]"] {
            let local = origins(bound, "", "Models.internal");
            for known in ["127.0.0.1:8000", "[::1]:8000", "localhost:8000", "LOCALHOST", "192.0.2.1", "a.localhost:1"] {
                assert_eq!(check(&local, known, true), Ok(()), "{known}");
            }
            assert_eq!(check(&local, "models.internal:8000", true), Ok(()));
            for foreign in ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example:1"] {
                assert_eq!(check(&local, foreign, true), Err(Kind::NotAllowed), "{foreign}");
                assert_eq!(check(&local, foreign, false), Ok(()), "{foreign}");
            }
        }
        assert_eq!(check(&origins("0.0.0.0", "", ""), "anything.example", true), Ok(()));
        assert_eq!(check(&origins("127.0.0.1", "", "*"), "anything.example", true), Ok(()));
    }
}
