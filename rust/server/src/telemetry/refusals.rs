//! Requests that failed, in the log: each for debugging, and for everybody a line now and then that counts them by kind
//! and shows one. Whoever sends requests cannot fill a disk by it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mlserve_core::clock::Clock;
use mlserve_core::error::{Error, Kind, quoted};
use mlserve_core::request::Protocol;
use parking_lot::Mutex;

use super::LogControl;

/// The time between two lines about refusals of one kind.
const EVERY: Duration = Duration::from_secs(10);

/// Who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A process of this machine, over the Unix socket.
    #[default]
    Unix,
    /// Over TCP; a proxy's address, if there is one.
    Tcp(SocketAddr),
}

impl Peer {
    /// Its address without a port; none for a Unix socket, and for a peer that is gone already.
    pub(crate) fn address(self) -> Option<IpAddr> {
        match self {
            Peer::Unix => None,
            Peer::Tcp(address) => Some(address.ip()),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Unix => f.write_str("unix"),
            Peer::Tcp(address) => address.fmt(f),
        }
    }
}

/// What is known of a request that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed<'a> {
    /// Who asked.
    pub(crate) client: Peer,
    /// gRPC or HTTP.
    pub(crate) protocol: Protocol,
    /// The RPC, or the template of the route; empty if it was in no row.
    pub(crate) route: &'a str,
    /// Empty if it is not known.
    pub(crate) model: &'a str,
}

/// What was refused of one kind.
#[derive(Debug, Default)]
struct Tally {
    since_last_line: AtomicU64,
    next_line: Mutex<Option<Instant>>,
}

/// What was refused, by kind.
#[derive(Debug, Default)]
pub(super) struct Refusals([Tally; Kind::ALL.len()]);

impl Refusals {
    /// Counts a refusal of a kind, and gives the count if a line is due.
    fn count(&self, kind: Kind, now: Instant) -> Option<u64> {
        let tally = &self.0[kind as usize];
        tally.since_last_line.fetch_add(1, Ordering::Relaxed);
        // Whoever holds the lock is about to write the line.
        let mut next = tally.next_line.try_lock()?;
        if next.is_some_and(|next| now < next) {
            return None;
        }
        *next = Some(now + EVERY);
        Some(tally.since_last_line.swap(0, Ordering::Relaxed))
    }
}

/// Logs a request that ended with `error`.
#[cold]
pub(crate) fn failed(request: Failed<'_>, error: &Error) {
    let Some(control) = LogControl::of_process() else { return };
    let Failed { client, protocol, route, model } = request;
    let (code, protocol, model, text) = (error.kind().row().code, protocol.name(), quoted(model), error.text());
    tracing::debug!(code, protocol, route, model, %client, text, "a request failed");
    let Some(count) = control.0.refusals.count(error.kind(), Clock::Monotonic.now()) else { return };
    if error.kind() == Kind::Internal {
        tracing::error!(code, count, protocol, route, model, %client, text, "requests failed; this was the last one");
    } else {
        tracing::info!(code, count, protocol, route, model, %client, text, "requests failed; this was the last one");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_one_line_in_ten_seconds_which_counts_all_since_the_last() {
        let refusals = Refusals::default();
        let begun = Clock::Monotonic.now();
        let at = |s, kind| refusals.count(kind, begun + Duration::from_secs(s));
        assert_eq!(at(0, Kind::NotFound), Some(1));
        assert_eq!((1..10).map(|second| at(second, Kind::NotFound)).collect::<Vec<_>>(), [None; 9]);
        assert_eq!(at(5, Kind::QueueFull), Some(1));
        assert_eq!(at(10, Kind::NotFound), Some(10));
        assert_eq!(at(11, Kind::NotFound), None);
    }
}
