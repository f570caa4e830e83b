//! Who asks for what, kept beside a call for the log line that its failure may be worth. Hot path.

use mlserve_core::error::Error;
use mlserve_core::request::Protocol;

use crate::telemetry::{self, Failed, Peer};

/// Bytes of a model's name that are kept: a copy, because the name itself would keep the whole message alive.
const NAME_BYTES: usize = 31;

/// The start of a model's name.
#[derive(Clone, Copy, Debug, Default)]
struct ShortName {
    len: u8,
    bytes: [u8; NAME_BYTES],
}

impl ShortName {
    fn new(name: &str) -> Self {
        let len = name.floor_char_boundary(NAME_BYTES);
        let mut bytes = [0; NAME_BYTES];
        bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
        Self { len: len as u8, bytes }
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

/// The caller of an RPC.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    client: Peer,
    route: &'static str,
    model: ShortName,
}

impl Asker {
    /// A call that begins.
    pub(super) fn new(client: Peer, route: &'static str) -> Self {
        Self { client, route, model: ShortName::default() }
    }

    /// Notes the model that is asked.
    pub(super) fn asks(&mut self, model: &str) {
        self.model = ShortName::new(model);
    }

    /// Logs that the call has failed.
    #[cold]
    pub(super) fn failed(&self, error: &Error) {
        let Self { client, route, model } = self;
        let request = Failed { client: *client, protocol: Protocol::Grpc, route, model: model.text() };
        telemetry::failed(request, error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_at_a_character() {
        for name in ["", "digits", &"m".repeat(NAME_BYTES), &"\u{fc}".repeat(30)] {
            let kept = ShortName::new(name);
            assert!(name.starts_with(kept.text()));
            assert!(kept.text() == name || kept.text().len() >= NAME_BYTES - 3, "{name}");
        }
    }
}
