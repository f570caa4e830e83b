//! What one connection, and all of one address, may hold of the byte budget while the server waits for them.
//!
//! Only what waits is counted: a body that did not come whole, for example. What is worked on ends by itself, so the hot
//! path pays nothing. Must not know what the bytes are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use mlserve_core::config::LimitSettings;
use mlserve_core::error::{Error, Kind, Result};
use mlserve_core::network::{Network, site};
use parking_lot::Mutex;

/// A connection may make others wait for a quarter of the budget, an address for half: one that misbehaves leaves the
/// larger part to the others, and an honest client that sends a few of the largest bodies at once is not hindered.
const CONNECTION_PART: usize = 4;
const ADDRESS_PART: usize = 2;

/// Bytes that a body of the largest size needs beside the body.
const FRAMING: usize = 1 << 10;

/// What waits, by address.
#[derive(Debug)]
pub(crate) struct Shares {
    of_connection: usize,
    of_address: usize,
    /// Behind these are many callers.
    trusted: Vec<Network>,
    addresses: Mutex<HashMap<IpAddr, Arc<AtomicUsize>>>,
}

impl Shares {
    /// Shares of the budget in `limits`; one body of the largest size always fits.
    pub(crate) fn new(limits: &LimitSettings) -> Arc<Self> {
        let least = limits.max_body_bytes.saturating_add(FRAMING);
        Arc::new(Self {
            of_connection: (limits.byte_budget / CONNECTION_PART).max(least),
            of_address: (limits.byte_budget / ADDRESS_PART).max(least),
            // Validated, so none is left out.
            trusted: Network::list(&limits.trusted_proxies).unwrap_or_default(),
            addresses: Mutex::default(),
        })
    }

    /// What `address` is counted as; `None` if it is not: sidecars and proxies speak for many.
    fn counted(&self, address: IpAddr) -> Option<IpAddr> {
        let is_trusted = address.to_canonical().is_loopback() || self.trusted.iter().any(|net| net.contains(address));
        (!is_trusted).then(|| site(address))
    }

    fn enter(&self, address: IpAddr) -> Arc<AtomicUsize> {
        Arc::clone(self.addresses.lock().entry(address).or_default())
    }

    fn leave(&self, address: IpAddr, held: Arc<AtomicUsize>) {
        let mut addresses = self.addresses.lock();
        drop(held);
        if addresses.get(&address).is_some_and(|held| Arc::strong_count(held) == 1) {
            addresses.remove(&address);
        }
    }
}

/// The share of one connection.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Arc<Shares>,
    /// `None` if its address is not counted.
    address: Option<IpAddr>,
    held: Arc<AtomicUsize>,
    /// What its address holds, once that is asked for.
    held_by_address: OnceLock<Arc<AtomicUsize>>,
}

impl Share {
    /// Of a connection from `address`; none for a Unix socket.
    pub(crate) fn new(shares: &Arc<Shares>, address: Option<IpAddr>) -> Self {
        let address = address.and_then(|address| shares.counted(address));
        Self { shares: Arc::clone(shares), address, held: Arc::default(), held_by_address: OnceLock::new() }
    }

    /// Begins to count what waits for this connection.
    pub(crate) fn hold(&self) -> Held {
        let of_address = self.address.map(|address| {
            let held = self.held_by_address.get_or_init(|| self.shares.enter(address));
            (Arc::clone(held), self.shares.of_address)
        });
        Held { of_connection: (Arc::clone(&self.held), self.shares.of_connection), of_address, bytes: 0 }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let (Some(address), Some(held)) = (self.address, self.held_by_address.take()) {
            self.shares.leave(address, held);
        }
    }
}

/// Bytes that wait for a connection, counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    of_connection: (Arc<AtomicUsize>, usize),
    of_address: Option<(Arc<AtomicUsize>, usize)>,
    bytes: usize,
}

impl Held {
    /// Counts `bytes` in all, if they are more than before.
    ///
    /// **Errors:** out of budget, if the connection or its address would hold more than its share.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<()> {
        let more = bytes.saturating_sub(self.bytes);
        if !add(&self.of_connection, more) {
            return Err(above_share("connection", self.of_connection.1));
        }
        if let Some(of_address) = &self.of_address
            && !add(of_address, more)
        {
            self.of_connection.0.fetch_sub(more, Ordering::Relaxed);
            return Err(above_share("address", of_address.1));
        }
        self.bytes += more;
        Ok(())
    }

    /// Counts `bytes` of an answer that waits for its reader. Such answers may have half of the share, so that requests
    /// still come through; one always may wait, since it cannot be sent in parts.
    ///
    /// **Errors:** as [`Self::grow_to`].
    pub(crate) fn take_answer(&mut self, bytes: usize) -> Result<()> {
        for (held, limit) in [&self.of_connection].into_iter().chain(&self.of_address) {
            let present = held.load(Ordering::Relaxed);
            if present > 0 && present.saturating_add(bytes) > limit / 2 {
                return Err(above_share("connection or its address", limit / 2));
            }
        }
        for (held, _) in [&self.of_connection].into_iter().chain(&self.of_address) {
            held.fetch_add(bytes, Ordering::Relaxed);
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let of_address = self.of_address.iter();
        for (held, _) in of_address.chain([&self.of_connection]) {
            held.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

fn add((held, limit): &(Arc<AtomicUsize>, usize), more: usize) -> bool {
    let added = |held: usize| held.checked_add(more).filter(|held| held <= limit);
    held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added).is_ok()
}

#[cold]
fn above_share(whose: &str, limit: usize) -> Error {
    let text = format!("what waits for this {whose} would exceed its share of the byte budget, {limit} bytes");
    Error::new(Kind::OutOfBudget, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGEST: usize = 1_000;
    const BUDGET: usize = 1 << 20;

    fn shares() -> Arc<Shares> {
        let limits = LimitSettings {
            byte_budget: BUDGET,
            max_body_bytes: LARGEST,
            trusted_proxies: "198.51.100.0/24".to_owned(),
            ..LimitSettings::default()
        };
        Shares::new(&limits)
    }

    fn share(shares: &Arc<Shares>, address: &str) -> Share {
        Share::new(shares, Some(address.parse().expect("an address")))
    }

    #[test]
    fn a_connection_has_its_share_and_gives_it_back() {
        let shares = shares();
        let share = share(&shares, "127.0.0.1");
        let (mut first, mut second) = (share.hold(), share.hold());
        first.grow_to(BUDGET / 8).expect("within the share");
        second.grow_to(BUDGET / 8).expect("within the share");
        assert_eq!(second.grow_to(BUDGET / 8 + 1).expect_err("above it").kind(), Kind::OutOfBudget);
        second.grow_to(1).expect("less is nothing new");
        drop(first);
        second.grow_to(BUDGET / 4).expect("the other one's part is free");
    }

    #[test]
    fn an_address_has_its_share_over_all_connections_but_this_machine_has_none() {
        let shares = shares();
        let connections = |address: &str| -> Vec<_> {
            (0..4)
                .map(|_| {
                    let mut held = share(&shares, address).hold();
                    held.grow_to(BUDGET / 4).map(|()| held)
                })
                .collect()
        };
        let accepted = |address: &str| connections(address).iter().filter(|held| held.is_ok()).count();
        assert_eq!(accepted("192.0.2.1"), 2);
        assert_eq!(accepted("::ffff:192.0.2.1"), 2);
        let _others = connections("192.0.2.1");
        assert_eq!(accepted("192.0.2.2"), 2, "one address does not spend another one's share");
        assert_eq!(accepted("127.0.0.1"), 4);
        assert_eq!(accepted("::1"), 4);
        assert_eq!(accepted("198.51.100.7"), 4, "a trusted proxy");
        assert_eq!(accepted("2001:db8::1"), 2);
    }

    #[test]
    fn addresses_that_left_are_forgotten() {
        let shares = shares();
        let (one, other) = (share(&shares, "192.0.2.1"), share(&shares, "192.0.2.1"));
        one.hold().grow_to(5).expect("within the share");
        other.hold().grow_to(5).expect("within the share");
        drop(one);
        assert_eq!(shares.addresses.lock().len(), 1);
        drop(other);
        assert!(shares.addresses.lock().is_empty());
    }

    #[test]
    fn one_answer_may_always_wait_and_no_second_one_beside_it() {
        let shares = shares();
        let share = share(&shares, "192.0.2.1");
        let (mut first, mut second) = (share.hold(), share.hold());
        first.take_answer(BUDGET).expect("the only one");
        assert_eq!(second.take_answer(1).expect_err("above the share").kind(), Kind::OutOfBudget);
        drop(first);
        second.take_answer(BUDGET / 16).expect("within the share");
        share.hold().take_answer(BUDGET / 16).expect("half of it for all");
    }

    #[test]
    fn the_largest_body_always_fits() {
        let limits = LimitSettings { byte_budget: LARGEST, max_body_bytes: LARGEST, ..LimitSettings::default() };
        let share = share(&Shares::new(&limits), "192.0.2.1");
        share.hold().grow_to(LARGEST + 5).expect("one body and its frame");
    }
}
