//! The way to a loop from other threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mlserve_core::error::Error;
use mlserve_core::request::{Answer, Reply, Request};
use tokio::sync::mpsc;

use super::mailbox::LoopMailbox;
use super::pulse::Pulse;
use crate::listen::Socket;

/// What a loop is sent.
pub(crate) enum Arrival {
    /// A connection, and what it counts as until it ends.
    Connection(Socket, ConnectionGuard),
    /// A request of the same process.
    Request(Box<Request>, Box<dyn Reply>),
    /// So many of the connections that are quiet for the longest time are to leave.
    MakeRoom(usize),
    /// The end: connections that are left are cut.
    End,
    /// A fault that only a test has.
    #[cfg(test)]
    Fault,
}

/// The way to a loop from other threads.
#[derive(Clone, Debug)]
pub(crate) struct LoopHandle {
    arrivals: mpsc::UnboundedSender<Arrival>,
    connections: Arc<AtomicUsize>,
    /// Requests of the same process that are not answered yet.
    calls: Arc<AtomicUsize>,
    pub(super) mailbox: Arc<LoopMailbox>,
    pub(super) pulse: Arc<Pulse>,
}

/// Counts a connection, or a call, for as long as it lives.
#[derive(Debug)]
pub(crate) struct ConnectionGuard {
    connections: Arc<AtomicUsize>,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The way back to a call of the same process, which counts until it is answered or given up.
struct Call {
    reply: Box<dyn Reply>,
    counted: ConnectionGuard,
}

impl Reply for Call {
    fn is_gone(&mut self) -> bool {
        self.reply.is_gone()
    }

    fn send(self: Box<Self>, outcome: Result<Answer<'_>, Error>) {
        let Call { reply, counted } = *self;
        reply.send(outcome);
        drop(counted);
    }
}

impl LoopHandle {
    /// The way to the loop that reads `mailbox`, and what its thread receives from it.
    pub(crate) fn new(mailbox: Arc<LoopMailbox>) -> (Self, mpsc::UnboundedReceiver<Arrival>) {
        let (arrivals, receiver) = mpsc::unbounded_channel();
        let pulse = Arc::new(Pulse::new());
        (Self { arrivals, connections: Arc::default(), calls: Arc::default(), mailbox, pulse }, receiver)
    }

    /// The loop of `loops` that a connection or a request goes to: of those that live, the one with the fewest
    /// connections; of all, if none lives.
    pub(crate) fn least_loaded(loops: &[LoopHandle]) -> Option<&LoopHandle> {
        loops.iter().min_by_key(|handle| (!handle.pulse.lives(), handle.connections()))
    }

    /// Connections that this loop has.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Calls of the same process that this loop has not answered yet.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Acquire)
    }

    /// Whether the loop lives.
    pub(crate) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// What the loop reads from other threads.
    pub(crate) fn mailbox(&self) -> &Arc<LoopMailbox> {
        &self.mailbox
    }

    /// Gives the loop a connection.
    pub(crate) fn connect(&self, socket: Socket) {
        self.connections.fetch_add(1, Ordering::AcqRel);
        let guard = ConnectionGuard { connections: Arc::clone(&self.connections) };
        // A loop that has ended drops the connection, which closes it.
        drop(self.arrivals.send(Arrival::Connection(socket, guard)));
    }

    /// Has `count` of the loop's connections leave, of those on which nothing is in flight.
    pub(crate) fn make_room(&self, count: usize) {
        drop(self.arrivals.send(Arrival::MakeRoom(count)));
    }

    /// Ends the loop, and cuts the connections that it still has.
    pub(crate) fn end(&self) {
        drop(self.arrivals.send(Arrival::End));
    }

    /// Panics where nothing catches it but the loop's own life.
    #[cfg(test)]
    pub(crate) fn break_it(&self) {
        drop(self.arrivals.send(Arrival::Fault));
    }

    /// Gives the loop a request of the same process; `false` if the loop has ended.
    pub(crate) fn submit(&self, request: Box<Request>, reply: Box<dyn Reply>) -> bool {
        self.calls.fetch_add(1, Ordering::AcqRel);
        let counted = ConnectionGuard { connections: Arc::clone(&self.calls) };
        self.arrivals.send(Arrival::Request(request, Box::new(Call { reply, counted }))).is_ok()
    }
}
