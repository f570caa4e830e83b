//! What repeating failed batches may cost.
//!
//! A batch that fails is run again by halves, so that a bad row hurts only its sender. Without a bound a sender of bad
//! rows could turn each into many runs. Every answered row pays in one token and every repeated run takes one out, so
//! over time there are never more repeated runs than answered rows: retries cannot cost more than not batching at all.
//! Source of the idea: the retry budgets of Finagle and linkerd2-proxy (`linkerd/retry`), there per time, here per row.

use std::sync::atomic::{AtomicI64, Ordering};

/// Tokens at the start: enough to find several bad rows in the first batches.
const INITIAL: i64 = 256;
/// Tokens that can be saved up: about one bad row in each of a hundred full batches at once.
const MOST: i64 = 2_048;

/// The retry budget of one version.
#[derive(Debug)]
pub struct RetryBudget(AtomicI64);

impl RetryBudget {
    /// A budget with its initial tokens.
    pub fn new() -> Self {
        Self(AtomicI64::new(INITIAL))
    }

    /// Pays in for answered rows. Lost updates under contention only make it stricter or laxer by a batch.
    pub fn deposit(&self, rows: usize) {
        let tokens = self.0.load(Ordering::Relaxed);
        if tokens < MOST {
            self.0.store((tokens + rows as i64).min(MOST), Ordering::Relaxed);
        }
    }

    /// Takes a token for one repeated run; `false` if there is none.
    pub fn withdraw(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| (tokens > 0).then_some(tokens - 1)).is_ok()
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new()
    }
}
