//! The connections of a loop, so that those on which nothing happens can make room for others.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::connection::Meter;

/// How often the list is gone through at most: with ten thousand connections that takes some tens of microseconds.
const SWEEP_EVERY: Duration = Duration::from_millis(50);

/// The open connections, by number.
#[derive(Debug)]
pub(super) struct Connections {
    open: RefCell<HashMap<u64, Open>>,
    next: Cell<u64>,
    swept: Cell<Instant>,
}

#[derive(Debug)]
struct Open {
    meter: Rc<Meter>,
    /// Its reads up to the last sweep, and those between the last two.
    reads: u64,
    lately: u64,
    /// Since when it reads nothing, as far as sweeps tell.
    quiet_since: Instant,
    was_asked: bool,
}

/// A connection's place in the list.
pub(super) struct Place {
    connections: Rc<Connections>,
    number: u64,
}

impl Connections {
    pub(super) fn new() -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self { open: RefCell::default(), next: Cell::new(0), swept: Cell::new(now) })
    }

    /// Puts a connection on the list for as long as the place is held.
    pub(super) fn enter(self: &Rc<Self>, meter: Rc<Meter>) -> Place {
        let number = self.next.get();
        self.next.set(number + 1);
        let open = Open { reads: meter.reads(), lately: 0, quiet_since: Instant::now(), was_asked: false, meter };
        self.open.borrow_mut().insert(number, open);
        Place { connections: Rc::clone(self), number }
    }

    /// Asks the `count` connections to leave that have been quiet for the longest time; of those that one sweep found awake,
    /// the ones that had read least. Those with a request in flight stay; they know it, and are not asked again before they
    /// have read something.
    pub(super) fn make_room(&self, count: usize) {
        let now = Instant::now();
        if now.duration_since(self.swept.get()) >= SWEEP_EVERY {
            self.sweep(now);
        }
        let mut open = self.open.borrow_mut();
        let mut quiet: Vec<_> = open.iter_mut().filter(|(_, open)| !open.was_asked).collect();
        let count = count.min(quiet.len());
        if count == 0 {
            return;
        }
        quiet.select_nth_unstable_by_key(count - 1, |(number, open)| (open.quiet_since, open.lately, **number));
        for (_, open) in &mut quiet[..count] {
            open.was_asked = true;
            open.meter.ask_to_leave();
        }
    }

    fn sweep(&self, now: Instant) {
        self.swept.set(now);
        for open in self.open.borrow_mut().values_mut() {
            let reads = open.meter.reads();
            if reads != open.reads {
                open.lately = reads.wrapping_sub(open.reads);
                (open.reads, open.quiet_since, open.was_asked) = (reads, now, false);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_is_quiet_for_the_longest_time_is_asked_first_and_once() {
        let connections = Connections::new();
        let meters: Vec<Rc<Meter>> = (0..3).map(|_| Rc::default()).collect();
        let mut places = Vec::new();
        for meter in &meters {
            tokio::time::advance(Duration::from_secs(1)).await;
            places.push(connections.enter(Rc::clone(meter)));
        }
        meters[0].note_read();
        tokio::time::advance(Duration::from_secs(1)).await;
        let asked = || meters.iter().map(|meter| meter.was_asked_to_leave()).collect::<Vec<_>>();
        connections.make_room(1);
        assert_eq!(asked(), [false, true, false], "the first has read something since");
        connections.make_room(1);
        assert_eq!(asked(), [false, false, true]);
        connections.make_room(5);
        assert_eq!(asked(), [true, false, false]);
        drop(places);
        assert!(connections.open.borrow().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_all_the_time_stays_when_a_crowd_has_asked_once() {
        let connections = Connections::new();
        let busy: Rc<Meter> = Rc::default();
        let crowd: Vec<Rc<Meter>> = (0..100).map(|_| Rc::default()).collect();
        let _places: Vec<_> =
            [&busy].into_iter().chain(&crowd).map(|meter| connections.enter(Rc::clone(meter))).collect();
        for meter in [&busy; 5].into_iter().chain(&crowd) {
            meter.note_read();
        }
        tokio::time::advance(SWEEP_EVERY).await;
        connections.make_room(50);
        assert!(!busy.was_asked_to_leave());
        assert_eq!(crowd.iter().filter(|meter| meter.was_asked_to_leave()).count(), 50);
    }
}
