//! Orders that wait for the manager: bounded in number, merged where they ask for the same, and dropped before they begin
//! if nobody waits for them any more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use mlserve_core::error::{Error, Kind, Result};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::Overrides;
use super::upload::Quota;

/// Loads and unloads that may wait. They are carried out one by one, so more would wait for longer than callers do.
const MAX_WAITING: usize = 64;

/// Where the outcome of an order arrives.
pub(crate) type Outcome = oneshot::Receiver<Result<()>>;

/// What the manager is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Load a model, or load it again.
    Load { name: String, overrides: Overrides, callers: Callers },
    /// Unload a model.
    Unload { name: String, callers: Callers },
    /// Somebody waits for a model that is loaded on demand.
    Wanted { name: String },
}

/// What comes next for the manager.
#[derive(Debug)]
pub(crate) enum Next {
    /// To be carried out.
    Order(Order),
    /// Nothing came until the moment that was given.
    Late,
    /// The server ends.
    End,
}

/// Who waits for an order.
#[derive(Debug, Default)]
pub(crate) struct Callers(Vec<oneshot::Sender<Result<()>>>);

impl Callers {
    fn join(&mut self) -> Outcome {
        let (caller, outcome) = oneshot::channel();
        self.0.retain(|caller| !caller.is_closed());
        self.0.push(caller);
        outcome
    }

    fn are_gone(&self) -> bool {
        self.0.iter().all(oneshot::Sender::is_closed)
    }

    /// Tells everybody.
    pub(crate) fn answer(self, result: &Result<()>) {
        for caller in self.0 {
            // Whoever has left needs no answer.
            drop(caller.send(result.clone()));
        }
    }
}

impl Order {
    fn model(&self) -> &str {
        match self {
            Order::Load { name, .. } | Order::Unload { name, .. } | Order::Wanted { name } => name,
        }
    }

    fn is_worth_doing(&self) -> bool {
        match self {
            Order::Load { callers, .. } | Order::Unload { callers, .. } => !callers.are_gone(),
            Order::Wanted { .. } => true,
        }
    }

    fn is_wanted(&self) -> bool {
        matches!(self, Order::Wanted { .. })
    }

    /// Whether carrying out this one does what `other` asks for. Files are not compared: they may be long.
    fn does(&self, other: &Order) -> bool {
        match (self, other) {
            (Order::Load { overrides, .. }, Order::Load { overrides: others, .. }) => {
                overrides.files.is_empty() && others.files.is_empty() && overrides.config == others.config
            }
            (Order::Unload { .. }, Order::Unload { .. }) | (Order::Wanted { .. }, Order::Wanted { .. }) => true,
            _ => false,
        }
    }

    fn callers(&mut self) -> Option<&mut Callers> {
        match self {
            Order::Load { callers, .. } | Order::Unload { callers, .. } => Some(callers),
            Order::Wanted { .. } => None,
        }
    }
}

/// The orders that wait.
#[derive(Debug)]
pub(crate) struct Orders {
    waiting: Mutex<Waiting>,
    more: Condvar,
    /// What the files that come with loads may take.
    pub(super) quota: Arc<Quota>,
}

#[derive(Debug, Default)]
struct Waiting {
    orders: VecDeque<Order>,
    has_ended: bool,
}

impl Orders {
    pub(super) fn new(quota: Arc<Quota>) -> Self {
        Self { waiting: Mutex::default(), more: Condvar::new(), quota }
    }

    /// Adds an order for which somebody waits, or joins one that does the same.
    ///
    /// **Errors:** too many wait; the server ends.
    pub(super) fn order(&self, mut order: Order) -> Result<Outcome> {
        let mut waiting = self.waiting.lock();
        if waiting.has_ended {
            return Err(ended());
        }
        // Only the last order for the model: what comes between would undo the one before.
        let last = waiting.orders.iter_mut().rev().find(|other| other.model() == order.model() && !other.is_wanted());
        if let Some(callers) = last.filter(|last| last.does(&order)).and_then(Order::callers) {
            return Ok(callers.join());
        }
        waiting.orders.retain(Order::is_worth_doing);
        if waiting.orders.iter().filter(|order| !order.is_wanted()).count() >= MAX_WAITING {
            return Err(too_many());
        }
        let outcome = order.callers().map(Callers::join).ok_or_else(|| Error::internal("an order without callers"))?;
        waiting.orders.push_back(order);
        self.more.notify_one();
        Ok(outcome)
    }

    /// Asks for a model that is loaded on demand, once.
    pub(super) fn want(&self, name: &str) {
        let mut waiting = self.waiting.lock();
        let is_asked = |order: &Order| order.is_wanted() && order.model() == name;
        if !waiting.has_ended && !waiting.orders.iter().any(is_asked) {
            waiting.orders.push_back(Order::Wanted { name: name.to_owned() });
            self.more.notify_one();
        }
    }

    /// Nothing is carried out any more; whoever waits is told.
    pub(super) fn end(&self) {
        let mut waiting = self.waiting.lock();
        waiting.has_ended = true;
        waiting.orders.clear();
        self.more.notify_all();
    }

    /// Waits for the next order, at most until `moment`.
    fn next(&self, moment: Option<Instant>) -> Next {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.has_ended {
                return Next::End;
            }
            while let Some(order) = waiting.orders.pop_front() {
                if order.is_worth_doing() {
                    return Next::Order(order);
                }
                tracing::info!(model = order.model(), "an order was dropped: nobody waits for it any more");
            }
            match moment {
                None => self.more.wait(&mut waiting),
                Some(moment) if self.more.wait_until(&mut waiting, moment).timed_out() => return Next::Late,
                Some(_) => {}
            }
        }
    }
}

/// The manager's end of the orders. When it is dropped, however that comes, nobody waits in vain.
#[derive(Debug)]
pub(crate) struct Inbox(pub(super) Arc<Orders>);

impl Inbox {
    /// Waits for the next order, at most until `moment`.
    pub(crate) fn next(&self, moment: Option<Instant>) -> Next {
        self.0.next(moment)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cold]
pub(super) fn ended() -> Error {
    Error::new(Kind::Draining, "the server is shutting down")
}

#[cold]
fn too_many() -> Error {
    let text = format!("{MAX_WAITING} orders to load or unload models wait already; more are not taken");
    Error::new(Kind::QueueFull, text)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn orders() -> Orders {
        Orders::new(Arc::default())
    }

    fn load(orders: &Orders, name: &str) -> Result<Outcome> {
        orders.order(Order::Load {
            name: name.to_owned(),
            overrides: Overrides::default(),
            callers: Callers::default(),
        })
    }

    fn unload(orders: &Orders, name: &str) -> Result<Outcome> {
        orders.order(Order::Unload { name: name.to_owned(), callers: Callers::default() })
    }

    /// What would be carried out now, in order, with the number of callers.
    fn taken(orders: &Orders) -> Vec<(String, usize)> {
        let now = mlserve_core::clock::Clock::Monotonic.now();
        let mut taken = Vec::new();
        while let Next::Order(mut order) = orders.next(Some(now)) {
            let callers = order.callers().map_or(0, |callers| callers.0.len());
            taken.push((format!("{} {}", if order.is_wanted() { "want" } else { "do" }, order.model()), callers));
        }
        taken
    }

    #[test]
    fn orders_of_callers_who_left_are_not_carried_out() {
        let orders = orders();
        for _ in 0..300 {
            drop(load(&orders, "gone"));
            drop(load(&orders, "gone too"));
        }
        let outcome = load(&orders, "honest").expect("there is room");
        assert_eq!(taken(&orders), [("do honest".to_owned(), 1)]);
        drop(outcome);
    }

    #[test]
    fn equal_orders_are_one_unless_another_lies_between() {
        let orders = orders();
        let kept =
            [load(&orders, "a"), load(&orders, "b"), load(&orders, "a"), unload(&orders, "a"), load(&orders, "a")];
        let expected = [("do a", 2), ("do b", 1), ("do a", 1), ("do a", 1)];
        assert_eq!(taken(&orders), expected.map(|(what, callers)| (what.to_owned(), callers)));
        drop(kept);
    }

    #[test]
    fn what_is_loaded_differently_is_loaded_apart() {
        let orders = orders();
        let with = |config: Option<&str>, files: usize| {
            let files = vec![("1/model.onnx".to_owned(), Bytes::new()); files];
            let overrides = Overrides { config: config.map(str::to_owned), files, share: None };
            orders.order(Order::Load { name: "a".to_owned(), overrides, callers: Callers::default() })
        };
        let kept = [with(None, 0), with(Some("{}"), 0), with(Some("{}"), 0), with(Some("{}"), 1), with(Some("{}"), 1)];
        assert_eq!(taken(&orders).iter().map(|(_, callers)| *callers).collect::<Vec<_>>(), [1, 2, 1, 1]);
        drop(kept);
    }

    #[test]
    fn a_full_queue_refuses_more_until_there_is_room() {
        let orders = orders();
        let mut kept: Vec<_> = (0..MAX_WAITING).map(|number| load(&orders, &number.to_string())).collect();
        let refused = load(&orders, "more").expect_err("full");
        assert_eq!((refused.kind(), refused.kind().row().http), (Kind::QueueFull, 503));
        assert!(load(&orders, "0").is_ok(), "who joins another takes no room");
        kept.pop();
        assert!(load(&orders, "more").is_ok(), "somebody left");
    }

    #[test]
    fn a_model_is_wanted_once_however_many_wait() {
        let orders = orders();
        for _ in 0..1_000 {
            orders.want("a");
        }
        orders.want("b");
        assert_eq!(taken(&orders), [("want a".to_owned(), 0), ("want b".to_owned(), 0)]);
    }

    #[test]
    fn the_end_tells_everybody() {
        let orders = Arc::new(orders());
        let mut outcome = load(&orders, "a").expect("there is room");
        drop(Inbox(Arc::clone(&orders)));
        assert!(outcome.try_recv().is_err(), "nobody will answer");
        assert_eq!(load(&orders, "a").expect_err("ended").kind(), Kind::Draining);
    }
}
