//! A version of a model, ready to run: what callers see of it, what runs it, and what it has done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::backend::Backend;
use crate::clock::Clock;
use crate::config::ModelSettings;
use crate::entry::Outcome;
use crate::model::ModelSpec;
use crate::pool::Pool;
use crate::queue::Forming;
use crate::retry::RetryBudget;
use crate::stats::Slot;
use crate::times::Times;

/// Brings outcomes home to the loop whose requests they answer.
pub trait Mailbox: Send + Sync + std::fmt::Debug {
    /// Takes a delivery and wakes the loop. Never blocks: what is in flight is bounded by admission, not here.
    fn deliver(&self, delivery: Delivery);
}

/// The outcomes of one batch for one loop.
#[derive(Debug)]
pub struct Delivery {
    /// What ran.
    pub version: Arc<Version>,
    /// What became of the loop's entries.
    pub outcomes: Vec<Outcome>,
}

/// A version as the loader made it.
#[derive(Debug)]
pub struct NewVersion {
    /// What callers see.
    pub spec: ModelSpec,
    /// How it is run.
    pub settings: ModelSettings,
    /// What runs it.
    pub backend: Arc<dyn Backend>,
    /// Threads that run batches at once.
    pub instances: usize,
    /// Times of warm-up runs: rows, bytes per row, duration.
    pub warmup: Vec<(usize, usize, Duration)>,
}

/// One loaded version of a model.
#[derive(Debug)]
pub struct Version {
    /// What callers see.
    pub spec: ModelSpec,
    /// How it is run.
    pub settings: ModelSettings,
    /// What runs it.
    pub backend: Arc<dyn Backend>,
    /// What each event loop counts.
    pub loops: Box<[Slot]>,
    /// What each instance counts.
    pub instances: Box<[Slot]>,
    /// What waits for an instance.
    pub pool: Pool,
    /// How long runs take.
    pub times: Times,
    /// What repeating failed batches may cost.
    pub retries: RetryBudget,
    pub(crate) clock: Clock,
    pub(crate) mailboxes: Arc<[Arc<dyn Mailbox>]>,
    batches: AtomicU64,
}

impl Version {
    /// Takes a version into service. `mailboxes`: one per event loop.
    pub fn new(new: NewVersion, mailboxes: Arc<[Arc<dyn Mailbox>]>, clock: Clock) -> Arc<Self> {
        let NewVersion { spec, settings, backend, instances, warmup } = new;
        let max_rows = settings.max_batch_rows;
        let times = Times::new(max_rows);
        for (rows, row_bytes, took) in warmup {
            times.seed(rows, row_bytes, took, max_rows);
        }
        Arc::new(Self {
            pool: Pool::new(settings.priority_levels as usize, settings.queue_capacity, instances),
            loops: mailboxes.iter().map(|_| Slot::default()).collect(),
            instances: (0..instances.max(1)).map(|_| Slot::default()).collect(),
            times,
            retries: RetryBudget::new(),
            batches: AtomicU64::new(0),
            spec,
            settings,
            backend,
            clock,
            mailboxes,
        })
    }

    /// Rows of one run at most.
    pub fn max_rows(&self) -> usize {
        self.settings.max_batch_rows
    }

    /// How batches of this version are formed now.
    pub fn forming(&self) -> Forming {
        let one_by_one = self.retries.is_spent();
        Forming {
            max_rows: if one_by_one { 1 } else { self.times.worthwhile_rows().min(self.max_rows()) },
            max_delay: Duration::from_micros(self.settings.max_delay_us),
            shared: self.spec.batching.is_allowed() && !one_by_one,
        }
    }

    /// The level of the queue for a request's priority: 0 for the highest.
    pub fn level(&self, priority: u64) -> usize {
        let levels = self.settings.priority_levels;
        if levels == 0 {
            return 0;
        }
        let default =
            if self.settings.default_priority == 0 { levels.div_ceil(2) } else { self.settings.default_priority };
        let priority = if priority == 0 { default } else { priority };
        (priority.min(levels) - 1) as usize
    }

    /// The number of the next run, for the test mode that tells who shared one.
    pub(crate) fn next_batch(&self) -> u64 {
        self.batches.fetch_add(1, Ordering::Relaxed)
    }
}
