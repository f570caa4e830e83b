//! The metrics port: health and metrics, on a thread that does nothing else.
//!
//! Probes are answered whatever else the port does. Each connection has one answer under way at most and gives way to the
//! others before each; metrics are rendered elsewhere ([`crate::renderer`]); when all places are taken, a newcomer gets the place
//! of whoever did nothing for the longest time. Carries no request, so neither a long run nor a full loop can make a
//! healthy server look dead.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::TcpListener as StdTcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, LocalSet};
use tokio::time::Instant;

use self::answer::Answers;
use self::socket::{Activity, Observed};
use crate::descriptors::{self, Reserve};
use crate::event_loop::pulse;
use crate::listen::Acceptor;
use crate::panics::{Panics, Place, caught};
use crate::process::Process;

mod answer;
mod socket;
#[cfg(test)]
mod tests;

/// Connections at once. Scrapers and probes need a handful; the more there are, the longer an idle one is kept while
/// somebody opens many.
pub(crate) const MAX_CONNECTIONS: usize = 128;
/// Time for a request's header, and between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for taking an answer whole: longer than any scraper waits, short enough that slow readers do not pile up texts.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often answers that are not taken are looked for.
const JANITOR_EVERY: Duration = Duration::from_secs(1);
/// Pause after an error of `accept`, which is mostly a lack of descriptors.
const BACK_OFF: Duration = Duration::from_millis(10);

/// The running thread.
#[derive(Debug)]
pub(crate) struct HealthPort {
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl HealthPort {
    /// Answers on `listener` until told to end.
    ///
    /// **Errors:** a thread could not be started.
    pub(crate) fn start(
        listener: StdTcpListener,
        process: Arc<Process>,
        acceptor: Arc<Acceptor>,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        let answers = Answers::start(Arc::clone(&process), Arc::clone(&acceptor))?;
        let run = move || {
            mlserve_ort::take_short_slices();
            let serving = async {
                tokio::select! {
                    () = serve(listener, Rc::new(answers), &acceptor, &process.panics) => {}
                    () = watch(&acceptor, &process.panics) => {}
                    // Dropped means ended as well.
                    _ = ended => {}
                }
            };
            LocalSet::new().block_on(&runtime, serving);
        };
        let thread = std::thread::Builder::new().name("health".to_owned()).spawn(run)?;
        Ok(Self { end, thread })
    }

    /// Cuts what is left and waits for the thread.
    pub(crate) fn end(self) {
        drop(self.end);
        if self.thread.join().is_err() {
            tracing::error!("the health thread panicked");
        }
    }
}

/// Feels the pulse of the loops.
async fn watch(acceptor: &Acceptor, panics: &Panics) {
    while let Err(what) = caught(pulse::watch(acceptor.loops.clone())).await {
        panics.note(Place::Health, &what);
    }
}

async fn serve(listener: StdTcpListener, answers: Rc<Answers>, acceptor: &Acceptor, panics: &Panics) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        let connections = Rc::new(Connections::default());
        let accepting = caught(accept(&listener, &connections, &answers, &acceptor.reserve));
        let ended = tokio::select! {
            ended = accepting => ended,
            ended = caught(connections.cut_overdue(&acceptor.reserve)) => ended,
        };
        panics.note(Place::Health, &ended.err().unwrap_or_default());
        // Whatever was wrong with them, newcomers begin with an empty list.
        connections.open.take().values().for_each(|connection| connection.task.abort());
    }
}

async fn accept(listener: &TcpListener, connections: &Rc<Connections>, answers: &Rc<Answers>, reserve: &Reserve) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => connections.open(stream, Rc::clone(answers)),
            // Tried again at once, with one of those that are kept back; they are taken again when there is room.
            Err(error) if descriptors::are_spent(&error) && reserve.give_up_one() => {}
            Err(error) => {
                tracing::debug!(%error, "a connection to the metrics port could not be accepted");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// The open connections, by number.
#[derive(Debug, Default)]
struct Connections {
    open: RefCell<HashMap<u64, Connection>>,
    next: Cell<u64>,
}

#[derive(Debug)]
struct Connection {
    activity: Rc<Activity>,
    task: AbortHandle,
}

impl Connections {
    /// Serves a newcomer, if need be in the place of whoever did nothing for the longest time.
    fn open(self: &Rc<Self>, stream: TcpStream, answers: Rc<Answers>) {
        if self.open.borrow().len() >= MAX_CONNECTIONS {
            self.make_room();
        }
        let number = self.next.get();
        self.next.set(number + 1);
        let activity = Rc::new(Activity::new(Instant::now()));
        let connections = Rc::downgrade(self);
        let process = Arc::clone(answers.process());
        let served = serve_connection(stream, Rc::clone(&activity), answers);
        let leaving = Leaving { connections, number };
        let task = tokio::task::spawn_local(async move {
            let _leaving = leaving;
            if let Err(what) = caught(served).await {
                process.panics.note(Place::Health, &what);
            }
        });
        self.open.borrow_mut().insert(number, Connection { activity, task: task.abort_handle() });
    }

    fn make_room(&self) {
        let mut open = self.open.borrow_mut();
        let least = open.iter().min_by_key(|(_, connection)| connection.activity.standing());
        if let Some(number) = least.map(|(number, _)| *number)
            && let Some(connection) = open.remove(&number)
        {
            connection.task.abort();
        }
    }

    /// Cuts whoever does not take an answer, now and then.
    async fn cut_overdue(&self, reserve: &Reserve) {
        loop {
            tokio::time::sleep(JANITOR_EVERY).await;
            reserve.refill();
            let now = Instant::now();
            for connection in self.open.borrow().values() {
                if connection.activity.is_overdue(now, ANSWER_TIMEOUT) {
                    connection.task.abort();
                }
            }
        }
    }
}

/// Takes a connection out of the list however its task ends.
struct Leaving {
    connections: std::rc::Weak<Connections>,
    number: u64,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(connections) = self.connections.upgrade() {
            connections.open.borrow_mut().remove(&self.number);
        }
    }
}

async fn serve_connection(stream: TcpStream, activity: Rc<Activity>, answers: Rc<Answers>) {
    let io = TokioIo::new(Observed::new(stream, Rc::clone(&activity)));
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (activity, answers) = (Rc::clone(&activity), Rc::clone(&answers));
        async move {
            // Whoever sends requests ahead and does not read waits here, with one answer.
            activity.taken().await;
            // Whoever sends many lets the others go first, each time.
            tokio::task::yield_now().await;
            activity.begin();
            let response = answers.answer(&request).await;
            activity.answered(Instant::now());
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(16 << 10);
    if let Err(error) = builder.serve_connection(io, service).await {
        tracing::debug!(%error, "a connection to the metrics port ended");
    }
}
