//! Allowances that all event loops share: the process's byte budget and its requests in flight. Hot path.
//!
//! A single shared counter would be written by every loop for every request. Each loop therefore draws from the
//! [`Budget`] in chunks and spends from its own [`LocalBudget`]; the shared counter moves once per chunk. The price is
//! that up to two chunks per loop can lie idle when the budget is nearly spent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the process may hold at once, in bytes or in requests.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    loops: usize,
    drawn: AtomicUsize,
}

impl Budget {
    /// A budget of `limit` units for one loop.
    pub fn new(limit: usize) -> Arc<Self> {
        Self::shared_by(limit, 1)
    }

    /// A budget of `limit` units for `loops` loops.
    pub fn shared_by(limit: usize, loops: usize) -> Arc<Self> {
        Arc::new(Self { limit, loops: loops.max(1), drawn: AtomicUsize::new(0) })
    }

    /// Units that may be held at once.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Units drawn by the loops, spent or lying with them.
    pub fn drawn(&self) -> usize {
        self.drawn.load(Ordering::Relaxed)
    }

    fn draw(&self, units: usize) -> bool {
        self.drawn
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |drawn| {
                drawn.checked_add(units).filter(|&drawn| drawn <= self.limit)
            })
            .is_ok()
    }

    fn give_back(&self, units: usize) {
        self.drawn.fetch_sub(units, Ordering::AcqRel);
    }
}

/// One loop's part of a [`Budget`].
#[derive(Debug)]
pub struct LocalBudget {
    shared: Arc<Budget>,
    chunk: usize,
    idle: AtomicUsize,
}

impl LocalBudget {
    /// A part of `shared` that draws and gives back `chunk` units at a time.
    pub fn new(shared: Arc<Budget>, chunk: usize) -> Arc<Self> {
        // Each loop keeps up to two chunks idle; all of them together a quarter of the budget at most. A budget too small
        // for that is drawn on unit by unit.
        let chunk = chunk.min(shared.limit / (8 * shared.loops));
        Arc::new(Self { shared, chunk, idle: AtomicUsize::new(0) })
    }

    /// Reserves `units`, or says that the budget is spent.
    ///
    /// **Cost:** one uncontended atomic operation, unless the loop's part has to be topped up.
    pub fn reserve(self: &Arc<Self>, units: usize) -> Option<Reservation> {
        self.spend(units).then(|| Reservation { budget: Arc::clone(self), units })
    }

    fn spend(&self, units: usize) -> bool {
        let spend = |idle: usize| idle.checked_sub(units);
        self.idle.fetch_update(Ordering::AcqRel, Ordering::Relaxed, spend).is_ok() || self.top_up(units)
    }

    /// Spends what lies idle and draws the rest; `false` if that would exceed the budget.
    fn top_up(&self, units: usize) -> bool {
        let had = self.idle.swap(0, Ordering::AcqRel);
        let missing = units.saturating_sub(had);
        let in_chunks = missing.checked_next_multiple_of(self.chunk.max(1)).filter(|&drawn| self.shared.draw(drawn));
        // Near the limit a whole chunk may not fit where the units themselves do.
        let drawn = in_chunks.or_else(|| self.shared.draw(missing).then_some(missing));
        self.idle.fetch_add(drawn.map_or(had, |drawn| had + drawn - units), Ordering::AcqRel);
        drawn.is_some()
    }

    fn release(&self, units: usize) {
        let idle = self.idle.fetch_add(units, Ordering::AcqRel) + units;
        if idle > 2 * self.chunk {
            let surplus = idle - self.chunk;
            // Somebody else may have spent it meanwhile; then there is nothing to give back.
            if self.idle.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |idle| idle.checked_sub(surplus)).is_ok() {
                self.shared.give_back(surplus);
            }
        }
    }
}

impl Drop for LocalBudget {
    fn drop(&mut self) {
        self.shared.give_back(*self.idle.get_mut());
    }
}

/// Units held until this is dropped, on whatever thread.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<LocalBudget>,
    units: usize,
}

impl Reservation {
    /// Units held.
    pub fn units(&self) -> usize {
        self.units
    }

    /// Another that draws on the same budget and holds nothing yet.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self { budget: Arc::clone(&self.budget), units: 0 }
    }

    /// Holds `more` units as well, or says that the budget is spent and holds what it held.
    #[must_use]
    pub fn grow(&mut self, more: usize) -> bool {
        let fits = more == 0 || self.budget.spend(more);
        self.units += if fits { more } else { 0 };
        fits
    }

    /// Gives back all but `units`.
    pub fn shrink_to(&mut self, units: usize) {
        if let Some(surplus) = self.units.checked_sub(units).filter(|&surplus| surplus > 0) {
            self.units = units;
            self.budget.release(surplus);
        }
    }

    /// Takes over the units of another reservation.
    pub fn absorb(&mut self, mut other: Reservation) {
        if Arc::ptr_eq(&self.budget, &other.budget) {
            self.units += std::mem::take(&mut other.units);
        } else {
            let moved = other.units;
            // Both draw on the same process budget, so moving units cannot fail for want of them.
            other.budget.shared.give_back(std::mem::take(&mut other.units));
            if self.budget.shared.draw(moved) {
                self.units += moved;
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.units > 0 {
            self.budget.release(self.units);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_over_all_loops() {
        let budget = Budget::new(1000);
        let loops = [LocalBudget::new(Arc::clone(&budget), 10), LocalBudget::new(Arc::clone(&budget), 10)];
        let held: Vec<_> = (0..200).filter_map(|turn| loops[turn % 2].reserve(9)).collect();
        assert!(held.len() * 9 <= 1000);
        assert!(held.len() * 9 >= 1000 - 4 * 10, "only chunks may lie idle: {}", held.len() * 9);
        assert!(loops[0].reserve(100).is_none());
        drop(held);
        assert!(loops[0].reserve(900).is_some());
        drop(loops);
        assert_eq!(budget.drawn(), 0);
    }

    #[test]
    fn a_budget_smaller_than_the_number_of_loops_serves_each_in_turn() {
        let budget = Budget::shared_by(1, 4);
        let loops: Vec<_> = (0..4).map(|_| LocalBudget::new(Arc::clone(&budget), 64)).collect();
        for local in loops.iter().chain(&loops) {
            let held = local.reserve(1).expect("nobody else holds it");
            assert!(loops[0].reserve(1).is_none());
            drop(held);
        }
    }

    #[test]
    fn a_reservation_grows_and_shrinks() {
        let budget = Budget::new(100);
        let local = LocalBudget::new(Arc::clone(&budget), 1);
        let mut held = local.reserve(40).expect("fits");
        assert!(held.grow(60));
        assert!(!held.grow(1));
        held.shrink_to(10);
        assert_eq!(held.units(), 10);
        assert!(local.reserve(90).is_some());
    }
}
