//! How many connections each address has: one that opens many must leave room for the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use mlserve_core::config::LimitSettings;
use mlserve_core::network::{Network, site};
use parking_lot::Mutex;

/// The connections by address.
#[derive(Debug)]
pub(crate) struct Addresses {
    limit: usize,
    /// Those that bring many clients.
    trusted: Vec<Network>,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection's place among those of its address.
#[derive(Debug)]
pub(crate) struct AddressGuard {
    addresses: Arc<Addresses>,
    site: IpAddr,
}

impl Addresses {
    pub(super) fn new(limits: &LimitSettings) -> Arc<Self> {
        // The settings have been checked.
        let trusted = Network::list(&limits.trusted_proxies).unwrap_or_default();
        Arc::new(Self { limit: limits.max_connections_per_address, trusted, counts: Mutex::default() })
    }

    /// A place for a connection from `address`, if it needs one. This machine's own clients all have the same address.
    ///
    /// **Errors:** it has as many as it may have.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Option<AddressGuard>, ()> {
        let address = address.to_canonical();
        if address.is_loopback() || self.trusted.iter().any(|network| network.contains(address)) {
            return Ok(None);
        }
        let site = site(address);
        let mut counts = self.counts.lock();
        let count = counts.entry(site).or_insert(0);
        if *count >= self.limit {
            return Err(());
        }
        *count += 1;
        Ok(Some(AddressGuard { addresses: Arc::clone(self), site }))
    }
}

impl Drop for AddressGuard {
    fn drop(&mut self) {
        let mut counts = self.addresses.counts.lock();
        if let Some(count) = counts.get_mut(&self.site) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.site);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Arc<Addresses> {
        Addresses::new(&LimitSettings {
            max_connections_per_address: 2,
            trusted_proxies: "192.0.2.0/24".to_owned(),
            ..LimitSettings::default()
        })
    }

    #[test]
    fn one_address_has_its_share_and_others_have_theirs() {
        let addresses = addresses();
        let enter = |text: &str| addresses.enter(text.parse().expect("an address"));
        let (first, second) = (enter("203.0.113.1"), enter("203.0.113.1"));
        assert!(first.is_ok() && second.is_ok());
        assert!(enter("203.0.113.1").is_err() && enter("::ffff:203.0.113.1").is_err());
        assert!(enter("203.0.113.2").is_ok());
        drop(first);
        assert!(enter("203.0.113.1").is_ok(), "there is room again");
        drop(second);
        assert!(addresses.counts.lock().is_empty(), "nothing is kept of who has gone");
    }

    #[test]
    fn proxies_and_this_machine_have_no_limit() {
        let addresses = addresses();
        for text in ["192.0.2.9", "127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
            let held: Vec<_> = (0..5).map(|_| addresses.enter(text.parse().expect("an address"))).collect();
            assert!(held.iter().all(|entered| matches!(entered, Ok(None))), "{text}");
        }
    }
}
