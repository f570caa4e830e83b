//! The front thread: accepts connections ([`crate::listen`]) and leads the server through its end.

use std::time::Duration;

use tokio::sync::watch;

use crate::listen::Acceptor;
use crate::process::Process;
use crate::status::Phase;

/// How often the end of the last connections is looked for.
const POLL: Duration = Duration::from_millis(10);

/// How far the server was asked to stop. Each step hastens the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Not at all.
    #[default]
    No,
    /// Give notice, then drain.
    Notice,
    /// Drain without notice.
    Drain,
    /// At once.
    Now,
}

/// Waits until told to stop, then ends the server: notice, closing, and at the latest the timeout.
///
/// Returns once connections may be cut. `accepting` is the task that accepts; it ends when notice does.
pub(crate) async fn wait_for_the_end(
    process: &Process,
    mut asked: watch::Receiver<Stop>,
    acceptor: &Acceptor,
    accepting: Vec<tokio::task::JoinHandle<()>>,
) {
    at_least(&mut asked, Stop::Notice).await;
    let settings = &process.settings.server;
    if *asked.borrow() == Stop::Now {
        // It never served, or whoever started it in this process has no use for it any more.
        process.status.advance(Phase::Closing);
        return;
    }
    process.status.advance(Phase::Notice);
    let accepts = if *asked.borrow() == Stop::Notice { "still accepting" } else { "accepting no more" };
    tracing::info!(connections = acceptor.connections(), "told to stop: not ready any more, {accepts}");
    let notice = Duration::from_millis(settings.drain_notice_ms);
    // Whoever asks again does not want to wait for balancers to notice.
    drop(tokio::time::timeout(notice, at_least(&mut asked, Stop::Drain)).await);
    process.status.advance(Phase::Closing);
    accepting.iter().for_each(tokio::task::JoinHandle::abort);
    let timeout = Duration::from_millis(settings.drain_timeout_ms);
    let drained = async {
        while acceptor.connections() > 0 || acceptor.calls() > 0 {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::select! {
        () = drained => tracing::info!("drained: every request in flight was answered"),
        () = tokio::time::sleep(timeout) => {
            tracing::warn!(connections = acceptor.connections(), "the drain timeout is over: connections are cut");
        }
        () = at_least(&mut asked, Stop::Now) => {
            tracing::warn!(connections = acceptor.connections(), "told to stop at once: connections are cut");
        }
    }
}

async fn at_least(asked: &mut watch::Receiver<Stop>, step: Stop) {
    if asked.wait_for(|present| *present >= step).await.is_err() {
        // Nobody is left who could ask; then nobody asks.
        std::future::pending::<()>().await;
    }
}
