//! The orders: read once from the environment, looked through at each failpoint.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::STAGES;
use crate::error::{Error, Kind};

/// The orders of this process. A static because a failpoint knows nothing but its name; in no release.
static ORDERS: OnceLock<Vec<Order>> = OnceLock::new();

/// How often a blocked thread looks whether its file is gone.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// One order.
#[derive(Debug)]
pub struct Order {
    stage: &'static str,
    action: Action,
    first: u64,
    last: u64,
    thread: Option<String>,
    file: Option<PathBuf>,
    reached: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Panic,
    Error,
    Sleep(Duration),
    Block,
}

/// Carries out what is ordered for `stage`.
///
/// **Errors:** as ordered. **Panics:** as ordered.
pub fn reach(stage: &str) -> Result<(), Error> {
    let orders = ORDERS.get_or_init(from_environment);
    orders.iter().filter(|order| order.stage == stage && order.is_due()).try_for_each(Order::carry_out)
}

fn from_environment() -> Vec<Order> {
    let text = std::env::var("FAILPOINTS").unwrap_or_default();
    let orders = text.split(';').filter(|order| !order.trim().is_empty()).map(Order::parse);
    orders.collect::<Result<_, _>>().unwrap_or_else(|error| {
        // A test that orders what there is not must not pass.
        tracing::error!(error, "FAILPOINTS");
        std::process::abort()
    })
}

impl Order {
    /// Reads one order.
    ///
    /// **Errors:** a text that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("'{}': {what}", text.trim());
        let mut words = text.split_whitespace();
        let stage = words.next().and_then(|name| STAGES.iter().find(|stage| **stage == name));
        let stage = stage.ok_or_else(|| wrong(&format!("the stage is none of {}", STAGES.join(", "))))?;
        let action = match words.next() {
            Some("panic") => Action::Panic,
            Some("error") => Action::Error,
            Some("block") => Action::Block,
            Some("sleep") => {
                let ms = words.next().and_then(|ms| ms.parse().ok()).ok_or_else(|| wrong("sleep how many ms?"))?;
                Action::Sleep(Duration::from_millis(ms))
            }
            _ => return Err(wrong("the action is none of panic, error, sleep, block")),
        };
        let (mut first, mut last, mut thread, mut file) = (1, u64::MAX, None, None);
        while let Some(word) = words.next() {
            match word.strip_prefix('@') {
                Some(times) => {
                    first = times.trim_end_matches('+').parse().map_err(|_| wrong("@ takes a number"))?;
                    last = if times.ends_with('+') { u64::MAX } else { first };
                }
                None if word == "on" => thread = words.next().map(str::to_owned),
                None if word == "while" => file = words.next().map(PathBuf::from),
                None => return Err(wrong(&format!("'{word}' is none of @N, on THREAD, while FILE"))),
            }
        }
        if action == Action::Block && file.is_none() {
            return Err(wrong("block needs: while FILE"));
        }
        Ok(Self { stage, action, first, last, thread, file, reached: AtomicU64::new(0) })
    }

    fn is_due(&self) -> bool {
        let thread = std::thread::current();
        let is_here =
            self.thread.as_ref().is_none_or(|wanted| thread.name().is_some_and(|name| name.starts_with(&**wanted)));
        if !is_here || self.file.as_ref().is_some_and(|file| !file.exists()) {
            return false;
        }
        let times = self.reached.fetch_add(1, Ordering::SeqCst) + 1;
        (self.first..=self.last).contains(&times)
    }

    fn carry_out(&self) -> Result<(), Error> {
        tracing::warn!(stage = self.stage, action = ?self.action, "failpoint");
        match self.action {
            Action::Panic => panic!("failpoint {}", self.stage),
            Action::Error => return Err(Error::new(Kind::Internal, format!("failpoint {}", self.stage))),
            Action::Sleep(time) => std::thread::sleep(time),
            Action::Block => {
                while self.file.as_ref().is_some_and(|file| file.exists()) {
                    std::thread::sleep(LOOK_EVERY);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(text: &str, times: usize) -> Vec<usize> {
        let order = Order::parse(text).expect("an order");
        (1..=times).filter(|_| order.is_due()).collect()
    }

    #[test]
    fn an_order_is_carried_out_when_it_says() {
        assert_eq!(due("run panic", 3), [1, 2, 3]);
        assert_eq!(due("run panic @2", 4), [2]);
        assert_eq!(due("run sleep 5 @2+", 4), [2, 3, 4]);
        assert_eq!(due("run error on no-thread-of-this-name", 2), [0; 0]);
        assert_eq!(due("run block while /no/such/file", 2), [0; 0]);
    }

    #[test]
    fn an_order_that_makes_no_sense_is_told() {
        for (text, told) in [
            ("nowhere panic", "the stage is none of"),
            ("run explode", "the action is none of"),
            ("run block", "block needs"),
            ("run sleep", "sleep how many ms?"),
            ("run panic @x", "@ takes a number"),
            ("run panic sometimes", "'sometimes' is none of"),
        ] {
            let error = Order::parse(text).expect_err("no order");
            assert!(error.contains(told), "{error}");
        }
    }
}
