//! What repeating failed batches may cost.
//!
//! A batch that fails is run again by halves, so that a bad row hurts only its sender. Without a bound a sender of bad
//! rows could turn each into many runs. Every answered row pays in one token and every repeated run takes one out. While
//! the budget is spent, requests of the version run one by one: its good rows are still answered, and bad rows cannot
//! cost more than not batching at all. Once enough rows have been answered it batches again.
//! Source of the idea: the retry budgets of Finagle and linkerd2-proxy (`linkerd/retry`), there per time, here per row.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// Tokens at the start, and how many end a shortage: enough to find several bad rows in the next batches.
const ENOUGH: i64 = 256;
/// Tokens that can be saved up: about one bad row in each of a hundred full batches at once.
const MOST: i64 = 2_048;

/// The retry budget of one version.
#[derive(Debug)]
pub struct RetryBudget {
    tokens: AtomicI64,
    is_spent: AtomicBool,
}

impl RetryBudget {
    /// A budget with its initial tokens.
    pub fn new() -> Self {
        Self { tokens: AtomicI64::new(ENOUGH), is_spent: AtomicBool::new(false) }
    }

    /// Pays in for answered rows. Lost updates under contention only make it stricter or laxer by a batch.
    pub fn deposit(&self, rows: usize) {
        let tokens = self.tokens.load(Ordering::Relaxed);
        if tokens < MOST {
            self.tokens.store((tokens + rows as i64).min(MOST), Ordering::Relaxed);
        }
        if tokens >= ENOUGH && self.is_spent() {
            self.is_spent.store(false, Ordering::Relaxed);
        }
    }

    /// Takes a token for one repeated run; `false` if there is none, and from then on until enough are back.
    pub fn withdraw(&self) -> bool {
        let taken = |tokens: i64| (tokens > 0).then_some(tokens - 1);
        if self.is_spent() || self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_err() {
            self.is_spent.store(true, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Whether requests should run one by one for now.
    pub fn is_spent(&self) -> bool {
        self.is_spent.load(Ordering::Relaxed)
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spent_budget_comes_back_with_answered_rows() {
        let budget = RetryBudget::new();
        while budget.withdraw() {}
        assert!(budget.is_spent());
        (0..ENOUGH).for_each(|_| budget.deposit(1));
        assert!(budget.is_spent(), "not before there are enough");
        budget.deposit(1);
        assert!(!budget.is_spent() && budget.withdraw());
    }
}
