//! Stage 1: binds the addresses, accepts, and gives each connection to the least loaded loop.
//!
//! Runs on the front thread. An error of `accept` never ends it: it backs off and goes on.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, TcpStream as StdTcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mlserve_core::config::LimitSettings;
use mlserve_core::failpoint;
use mlserve_core::stats::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use self::addresses::{AddressGuard, Addresses};
use crate::descriptors::{self, Reserve};
use crate::event_loop::LoopHandle;
use crate::panics::{Place, caught};
use crate::process::Process;
use crate::telemetry::Peer;

mod addresses;

/// Waits after an error of `accept`, doubling from the first to the last: long enough for descriptors to come free,
/// short enough that nobody notices afterwards.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Above all but one in so many of the connections that there may be, each newcomer has a quiet one leave: what is left is
/// for those who come while loops are busy.
const PRESSURE: usize = 16;
/// Connections that leave when there are no descriptors left.
const ROOM: usize = 8;

/// An accepted connection on its way to a loop.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(StdTcpStream, Option<AddressGuard>),
    Unix(StdUnixStream),
}

/// A connection on its loop.
#[derive(Debug)]
pub(crate) enum Stream {
    /// Over TCP; holds its address's place.
    Tcp(TcpStream, #[expect(dead_code, reason = "held for its drop")] Option<AddressGuard>),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Socket {
    pub(crate) fn into_stream(self) -> io::Result<Stream> {
        Ok(match self {
            Socket::Tcp(socket, guard) => Stream::Tcp(TcpStream::from_std(socket)?, guard),
            Socket::Unix(socket) => Stream::Unix(UnixStream::from_std(socket)?),
        })
    }
}

impl Stream {
    /// Who is at the other end.
    pub(crate) fn peer(&self) -> Peer {
        match self {
            Stream::Tcp(stream, _) => stream.peer_addr().map(Peer::Tcp).unwrap_or_default(),
            Stream::Unix(_) => Peer::Unix,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream, _) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream, _) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream, _) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream, _) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Binds a TCP address; port 0 picks a free one.
///
/// **Errors:** a text that names the address and why.
pub(crate) fn bind_tcp(host: &str, port: u16) -> Result<StdTcpListener, String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let listener =
        StdTcpListener::bind((bare, port)).map_err(|error| format!("cannot listen on {host}:{port}: {error}"))?;
    listener.set_nonblocking(true).map_err(|error| format!("cannot listen on {host}:{port}: {error}"))?;
    lengthen_backlog(&listener);
    Ok(listener)
}

/// Binds a Unix socket, in place of a socket there that nobody answers any more.
///
/// **Errors:** a text that names the path and why.
pub(crate) fn bind_unix(path: &Path) -> Result<StdUnixListener, String> {
    let text = |error: io::Error| format!("cannot listen on {}: {error}", path.display());
    if path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket()) {
        if StdUnixStream::connect(path).is_ok() {
            return Err(format!("cannot listen on {}: another server answers there", path.display()));
        }
        std::fs::remove_file(path).map_err(text)?;
    }
    let listener = StdUnixListener::bind(path).map_err(text)?;
    listener.set_nonblocking(true).map_err(text)?;
    lengthen_backlog(&listener);
    Ok(listener)
}

/// Lets as many connections wait to be accepted as the system allows (`net.core.somaxconn`); the standard library asks
/// for 128, which a burst of clients after a restart exceeds.
fn lengthen_backlog(listener: &impl AsFd) {
    if let Err(error) = rustix::net::listen(listener, i32::MAX) {
        tracing::warn!(%error, "the listen backlog stays short");
    }
}

/// Where accepted connections go.
#[derive(Debug)]
pub(crate) struct Acceptor {
    pub(crate) loops: Vec<LoopHandle>,
    /// Descriptors that are kept back for the metrics port.
    pub(crate) reserve: Reserve,
    max_connections: usize,
    addresses: Arc<Addresses>,
    /// Accepted, turned away at a limit, and asked to make room for others.
    pub(crate) accepted: Counter,
    pub(crate) turned_away: Counter,
    pub(crate) asked_to_leave: Counter,
}

impl Acceptor {
    pub(crate) fn new(loops: Vec<LoopHandle>, limits: &LimitSettings) -> Self {
        Self {
            loops,
            reserve: Reserve::take(),
            max_connections: limits.max_connections,
            addresses: Addresses::new(limits),
            accepted: Counter::default(),
            turned_away: Counter::default(),
            asked_to_leave: Counter::default(),
        }
    }

    /// Accepts TCP connections until dropped, whatever happens.
    pub(crate) async fn accept_tcp(&self, process: &Process, listener: StdTcpListener) {
        let Ok(listener) = TcpListener::from_std(listener) else { return };
        let accept = async || {
            let (stream, address) = listener.accept().await?;
            self.admit_tcp(stream.into_std()?, address);
            Ok(())
        };
        self.keep(process, accept).await;
    }

    /// Accepts Unix connections until dropped, whatever happens. Who may connect is decided by the socket's file; there is
    /// no address to count by.
    pub(crate) async fn accept_unix(&self, process: &Process, listener: StdUnixListener) {
        let Ok(listener) = UnixListener::from_std(listener) else { return };
        let accept = async || {
            let (stream, _) = listener.accept().await?;
            self.give(Socket::Unix(stream.into_std()?));
            Ok(())
        };
        self.keep(process, accept).await;
    }

    /// Calls of the same process that no loop has answered yet.
    pub(crate) fn calls(&self) -> usize {
        self.loops.iter().map(LoopHandle::calls).sum()
    }

    /// Connections that all loops have.
    pub(crate) fn connections(&self) -> usize {
        self.loops.iter().map(LoopHandle::connections).sum()
    }

    /// Accepts one connection after the other.
    async fn keep(&self, process: &Process, accept: impl AsyncFn() -> io::Result<()>) {
        let mut back_off = BACK_OFF.0;
        loop {
            while !self.reserve.refill() {
                // What comes free now is for probes.
                self.wait_for_descriptors(&mut back_off).await;
            }
            match caught(accept()).await {
                Ok(Ok(())) => back_off = BACK_OFF.0,
                Ok(Err(error)) => self.wait_after(&error, &mut back_off).await,
                Err(what) => {
                    process.panics.note(Place::Front, &what);
                    tokio::time::sleep(BACK_OFF.0).await;
                }
            }
        }
    }

    fn admit_tcp(&self, stream: StdTcpStream, address: SocketAddr) {
        // Small answers must not wait for the acknowledgement of earlier ones.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        match self.addresses.enter(address.ip()) {
            Ok(guard) => self.give(Socket::Tcp(stream, guard)),
            Err(()) => self.turned_away.add(1),
        }
    }

    fn give(&self, socket: Socket) {
        failpoint!("accept");
        let connections = self.connections();
        if connections + self.max_connections.div_ceil(PRESSURE) >= self.max_connections {
            self.make_room(1);
        }
        if connections >= self.max_connections {
            // Dropping it closes it: a full server says so at once instead of letting the backlog wait.
            self.turned_away.add(1);
            return;
        }
        self.accepted.add(1);
        if let Some(least) = LoopHandle::least_loaded(&self.loops) {
            least.connect(socket);
        }
    }

    /// Has connections leave on which nothing is in flight, of the loop that has the most.
    fn make_room(&self, count: usize) {
        let lives = self.loops.iter().filter(|handle| handle.pulse().lives());
        if let Some(most) = lives.max_by_key(|handle| handle.connections()) {
            self.asked_to_leave.add(count as u64);
            most.make_room(count);
        }
    }

    async fn wait_after(&self, error: &io::Error, back_off: &mut Duration) {
        // The peer gave up before it was accepted: nothing is wrong here.
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            return;
        }
        tracing::warn!(%error, wait_ms = back_off.as_millis() as u64, "a connection could not be accepted");
        if descriptors::are_spent(error) {
            return self.wait_for_descriptors(back_off).await;
        }
        tokio::time::sleep(*back_off).await;
        *back_off = (*back_off * 2).min(BACK_OFF.1);
    }

    async fn wait_for_descriptors(&self, back_off: &mut Duration) {
        self.make_room(ROOM);
        tokio::time::sleep(*back_off).await;
        *back_off = (*back_off * 2).min(BACK_OFF.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Above what the standard library asks for, below what a test may open.
    const BURST: usize = 200;

    #[test]
    fn a_burst_of_connections_waits_to_be_accepted() {
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("a number");
        let count = BURST.min(allowed.trim().parse().expect("a number"));
        let listener = bind_tcp("127.0.0.1", 0).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let connect = |_| StdTcpStream::connect_timeout(&address, Duration::from_secs(5));
        let waiting: io::Result<Vec<_>> = (0..count).map(connect).collect();
        assert_eq!(waiting.expect("all connect at once").len(), count);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        let _listener = bind_unix(&path).expect("a free path");
        // Would fail at once if the backlog were full: these sockets do not block.
        let connect = |_| {
            let socket = rustix::net::socket_with(
                rustix::net::AddressFamily::UNIX,
                rustix::net::SocketType::STREAM,
                rustix::net::SocketFlags::NONBLOCK,
                None,
            )?;
            rustix::net::connect(&socket, &rustix::net::SocketAddrUnix::new(&path)?)?;
            Ok(socket)
        };
        let waiting: io::Result<Vec<_>> = (0..count).map(connect).collect();
        assert_eq!(waiting.expect("all connect at once").len(), count);
    }
}
