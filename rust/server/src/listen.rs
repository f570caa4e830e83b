//! Stage 1: binds the addresses, accepts, and gives each connection to the least loaded loop.
//!
//! Runs on the front thread. An error of `accept` never ends it: it backs off and goes on.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdTcpListener, TcpStream as StdTcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mlserve_core::config::LimitSettings;
use mlserve_core::stats::Counter;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::event_loop::LoopHandle;
use crate::panics::{Place, caught};
use crate::process::Process;

/// Waits after an error of `accept`, doubling from the first to the last: long enough for descriptors to come free,
/// short enough that nobody notices afterwards.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

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
    /// Where it comes from; none for a Unix socket, and for a peer that is gone already.
    pub(crate) fn peer_address(&self) -> Option<IpAddr> {
        match self {
            Stream::Tcp(stream, _) => stream.peer_addr().ok().map(|address| address.ip()),
            Stream::Unix(_) => None,
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

/// How many connections each address has, if that is limited.
#[derive(Debug, Default)]
pub(crate) struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// One connection's place among those of its address.
#[derive(Debug)]
pub(crate) struct AddressGuard {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    fn enter(self: &Arc<Self>, address: IpAddr, limit: usize) -> Option<AddressGuard> {
        let mut counts = self.0.lock();
        let count = counts.entry(address).or_insert(0);
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(AddressGuard { addresses: Arc::clone(self), address })
    }
}

impl Drop for AddressGuard {
    fn drop(&mut self) {
        let mut counts = self.addresses.0.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
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
    pub(crate) max_connections: usize,
    pub(crate) max_per_address: usize,
    pub(crate) addresses: Arc<Addresses>,
    /// Accepted, and turned away at a limit.
    pub(crate) accepted: Counter,
    pub(crate) turned_away: Counter,
}

impl Acceptor {
    pub(crate) fn new(loops: Vec<LoopHandle>, limits: &LimitSettings) -> Self {
        Self {
            loops,
            max_connections: limits.max_connections,
            max_per_address: limits.max_connections_per_address,
            addresses: Arc::default(),
            accepted: Counter::default(),
            turned_away: Counter::default(),
        }
    }

    /// Accepts TCP connections until dropped, whatever happens.
    pub(crate) async fn accept_tcp(&self, process: &Process, listener: StdTcpListener) {
        let Ok(listener) = TcpListener::from_std(listener) else { return };
        self.keep(process, async || self.accept_tcp_on(&listener).await).await;
    }

    /// Accepts Unix connections until dropped, whatever happens.
    pub(crate) async fn accept_unix(&self, process: &Process, listener: StdUnixListener) {
        let Ok(listener) = UnixListener::from_std(listener) else { return };
        self.keep(process, async || self.accept_unix_on(&listener).await).await;
    }

    async fn keep(&self, process: &Process, accept: impl AsyncFn()) {
        while let Err(what) = caught(accept()).await {
            process.panics.note(Place::Front, &what);
            tokio::time::sleep(BACK_OFF.0).await;
        }
    }

    async fn accept_tcp_on(&self, listener: &TcpListener) {
        let mut back_off = BACK_OFF.0;
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    back_off = BACK_OFF.0;
                    if let Ok(stream) = stream.into_std() {
                        self.admit_tcp(stream, address);
                    }
                }
                Err(error) => self.wait_after(&error, &mut back_off).await,
            }
        }
    }

    async fn accept_unix_on(&self, listener: &UnixListener) {
        let mut back_off = BACK_OFF.0;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    back_off = BACK_OFF.0;
                    if let Ok(stream) = stream.into_std() {
                        self.give(Socket::Unix(stream));
                    }
                }
                Err(error) => self.wait_after(&error, &mut back_off).await,
            }
        }
    }

    /// Connections that all loops have.
    pub(crate) fn connections(&self) -> usize {
        self.loops.iter().map(LoopHandle::connections).sum()
    }

    fn admit_tcp(&self, stream: StdTcpStream, address: SocketAddr) {
        // Small answers must not wait for the acknowledgement of earlier ones.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        if self.max_per_address == 0 {
            return self.give(Socket::Tcp(stream, None));
        }
        match self.addresses.enter(address.ip(), self.max_per_address) {
            Some(guard) => self.give(Socket::Tcp(stream, Some(guard))),
            None => self.turned_away.add(1),
        }
    }

    fn give(&self, socket: Socket) {
        if self.connections() >= self.max_connections {
            // Dropping it closes it: a full server says so at once instead of letting the backlog wait.
            self.turned_away.add(1);
            return;
        }
        self.accepted.add(1);
        if let Some(least) = LoopHandle::least_loaded(&self.loops) {
            least.connect(socket);
        }
    }

    async fn wait_after(&self, error: &io::Error, back_off: &mut Duration) {
        // The peer gave up before it was accepted: nothing is wrong here.
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            return;
        }
        tracing::warn!(%error, wait_ms = back_off.as_millis() as u64, "a connection could not be accepted");
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
