//! A version of a model, ready to run: what callers see of it, what runs it, and what it has done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::answers::Answers;
use crate::backend::Backend;
use crate::clock::Clock;
use crate::config::ModelSettings;
use crate::entry::Outcome;
use crate::lane::Inline;
use crate::model::ModelSpec;
use crate::pool::Pool;
use crate::queue::{Forming, Queue};
use crate::queue_policy::QueuePolicy;
use crate::retry::RetryBudget;
use crate::shapes::SeenShapes;
use crate::stats::Stats;
use crate::tensor::DataType;
use crate::times::Times;

/// Bytes of outputs that one run should produce at most: what a batch adds to the memory that is charged to requests.
/// Rows so large that this cuts a batch short gain little from sharing it.
const MAX_BATCH_OUTPUT: usize = 16 << 20;

/// Brings outcomes home to the loop whose requests they answer.
pub trait Mailbox: Send + Sync + std::fmt::Debug {
    /// Takes a delivery and wakes the loop. Never blocks: what is in flight is bounded by admission, not here. If the loop
    /// has ended, the delivery is dropped, and with it whatever it holds.
    fn deliver(&self, delivery: Delivery);

    /// Wakes the loop to look at the plan anew; see [`crate::pipeline::Pipeline::plan_changed`].
    fn plan_changed(&self);
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
    /// Bytes of its files.
    pub model_bytes: u64,
    /// How long it took to load and warm up.
    pub load_duration: Duration,
    /// What was counted for the version object that this one replaces, so that counters do not fall.
    pub earlier: Option<Arc<Stats>>,
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
    /// Bytes of its files.
    pub model_bytes: u64,
    /// How long it took to load and warm up.
    pub load_duration: Duration,
    /// What has been counted.
    pub stats: Arc<Stats>,
    /// What waits for an instance.
    pub pool: Pool,
    /// How long runs take.
    pub times: Times,
    /// How large answers are.
    pub answers: Answers,
    /// Whether a run gives texts.
    pub has_text_outputs: bool,
    /// Whether it may run on loops.
    pub inline: Inline,
    /// What repeating failed batches may cost.
    pub retries: RetryBudget,
    /// The shapes that requests had.
    pub seen: SeenShapes,
    /// What each level of the queue does with what waits in it.
    policies: Box<[QueuePolicy]>,
    pub(crate) clock: Clock,
    pub(crate) mailboxes: Arc<[Arc<dyn Mailbox>]>,
    batches: AtomicU64,
}

impl Version {
    /// Takes a version into service. `mailboxes`: one per event loop.
    pub fn new(new: NewVersion, mailboxes: Arc<[Arc<dyn Mailbox>]>, clock: Clock) -> Arc<Self> {
        let NewVersion { spec, settings, backend, instances, warmup, model_bytes, load_duration, earlier } = new;
        let max_rows = settings.max_batch_rows;
        let times = Times::new(max_rows);
        for (rows, row_bytes, took) in warmup {
            times.seed(rows, row_bytes, took, max_rows);
        }
        let policies = QueuePolicy::of_levels(&settings);
        Arc::new(Self {
            pool: Pool::new(Queue::new(&policies, settings.queue_capacity), instances),
            stats: Stats::new(mailboxes.len(), instances.max(1), earlier, &clock),
            policies,
            model_bytes,
            load_duration,
            times,
            retries: RetryBudget::new(),
            seen: SeenShapes::default(),
            batches: AtomicU64::new(0),
            answers: Answers::new(&spec),
            has_text_outputs: spec.outputs.iter().any(|output| output.datatype == DataType::Bytes),
            inline: Inline::default(),
            spec,
            settings,
            backend,
            clock,
            mailboxes,
        })
    }

    /// It has left the plan: its instances end when its queue is empty, and its loops let go of it.
    pub fn close(&self) {
        self.pool.close();
        // A loop that looked before the pool was closed, and was served since, looks once more.
        self.mailboxes.iter().for_each(|mailbox| mailbox.plan_changed());
    }

    /// Rows of one run at most.
    pub fn max_rows(&self) -> usize {
        self.settings.max_batch_rows
    }

    /// How batches of this version are formed now.
    pub fn forming(&self) -> Forming {
        let one_by_one = self.retries.is_spent();
        let held = (MAX_BATCH_OUTPUT / self.answers.row_bytes().max(1)).max(1);
        Forming {
            max_rows: if one_by_one { 1 } else { self.times.worthwhile_rows().min(self.max_rows()).min(held) },
            part_rows: self.max_rows().min(held),
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
        // As Triton does: what is no level means the default one.
        let priority = if (1..=levels).contains(&priority) { priority } else { default };
        (priority - 1) as usize
    }

    /// What is done with what waits in a level of the queue.
    pub fn queue_policy(&self, level: usize) -> &QueuePolicy {
        &self.policies[level]
    }

    /// The number of the next run, for the test mode that tells who shared one.
    pub(crate) fn next_batch(&self) -> u64 {
        self.batches.fetch_add(1, Ordering::Relaxed)
    }
}
