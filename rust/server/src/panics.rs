//! Panics: kept to what they touched, and counted.
//!
//! A panic is a fault of the server's own. It ends a request, a connection, or at worst a loop, which is started again;
//! the metrics say that it happened, and readiness for as long as it has consequences.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

/// What a panic ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// One connection.
    Connection,
    /// The turn of a loop: the requests that were in it.
    Turn,
    /// A whole loop, with its connections.
    Loop,
    /// The work of one request: a stream's task, or what another thread does for it.
    Decoder,
    /// A task of the front thread.
    Front,
    /// A probe or a scrape.
    Health,
    /// An order to load or unload.
    Manager,
}

impl Place {
    /// All of them, in the order of the counters.
    pub(crate) const ALL: [Self; 7] =
        [Self::Connection, Self::Turn, Self::Loop, Self::Decoder, Self::Front, Self::Health, Self::Manager];

    /// The label in the metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Turn => "turn",
            Self::Loop => "loop",
            Self::Decoder => "decoder",
            Self::Front => "front",
            Self::Health => "health",
            Self::Manager => "manager",
        }
    }
}

/// How many there were.
#[derive(Debug, Default)]
pub(crate) struct Panics([AtomicU64; Place::ALL.len()]);

impl Panics {
    /// Counts one, and says so: nobody else does.
    pub(crate) fn note(&self, place: Place, what: &str) {
        self.0[place as usize].fetch_add(1, Ordering::Relaxed);
        tracing::error!(place = place.name(), what, "a panic, which is a fault of the server; it was caught");
    }

    /// How many ended this.
    pub(crate) fn count(&self, place: Place) -> u64 {
        self.0[place as usize].load(Ordering::Relaxed)
    }

    /// Carries `work` out again and again until it ends without a panic.
    pub(crate) fn until_done(&self, place: Place, mut work: impl FnMut()) {
        while let Err(payload) = catch_unwind(AssertUnwindSafe(&mut work)) {
            self.note(place, &text(&*payload));
        }
    }
}

/// What `future` gives, or the text of the panic that ended it.
///
/// What a panic leaves behind in shared data is for the caller to mend or to give up.
pub(crate) fn caught<F: Future>(future: F) -> impl Future<Output = Result<F::Output, String>> {
    // On the heap: what an `async fn` is given and pins it holds twice, and this may be a whole connection.
    let mut future = Box::pin(future);
    poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(payload) => Poll::Ready(Err(text(&*payload))),
    })
}

/// What a panic said.
pub(crate) fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_future_is_an_error_and_a_result_stays_one() {
        assert_eq!(caught(async { 1 }).await, Ok(1));
        let late = caught(async {
            tokio::task::yield_now().await;
            panic!("number {}", 7)
        });
        assert_eq!(late.await, Err::<(), _>("number 7".to_owned()));
    }

    #[test]
    fn work_that_panics_is_begun_again_and_counted() {
        let panics = Panics::default();
        let mut left = 3;
        panics.until_done(Place::Manager, || {
            left -= 1;
            assert!(left == 0, "not yet");
        });
        assert_eq!((left, panics.count(Place::Manager), panics.count(Place::Loop)), (0, 2, 0));
    }
}
