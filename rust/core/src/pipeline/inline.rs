//! The inline lane: a turn's requests for one version, run on the loop itself. Hot path.

use std::sync::Arc;
use std::time::Instant;

use super::Pipeline;
use crate::entry::Entry;
use crate::failpoint;
use crate::pool::can_finish;
use crate::queue::{Next, Queue, drop_gone, reason_to_drop};
use crate::run::{Job, Place};
use crate::version::Version;

impl Pipeline {
    /// Runs what waits for `version`, as one batch if it fits.
    pub(super) fn run_inline(&mut self, version: &Arc<Version>, waiting: &mut Vec<Entry>) {
        failpoint!("inline");
        let mut entries = std::mem::take(waiting);
        let now = self.shared.clock.now();
        let forming = version.forming();
        let key = entries[0].key;
        let is_one_batch = entries.iter().all(|entry| entry.uncut.is_none())
            && (entries.len() == 1
                || (forming.shared
                    && entries.iter().all(|entry| entry.key == key)
                    && entries.iter().map(|entry| entry.rows).fold(0, usize::saturating_add) <= forming.max_rows));
        let mut stopped = Vec::new();
        if is_one_batch {
            let outcomes = &mut self.outcomes;
            let mut index = 0;
            while index < entries.len() {
                match reason_to_drop(&mut entries[index], now, &|entry| can_finish(version, entry, now)) {
                    Some(error) => outcomes.push(entries.remove(index).refuse(error)),
                    None => index += 1,
                }
            }
            stopped = self.run_batch(version, entries);
        } else {
            let mut queue = Queue::unbounded();
            for entry in entries {
                queue.push(entry, &mut self.outcomes);
            }
            while let Next::Run(batch) =
                queue.next(now, forming, |entry| can_finish(version, entry, now), &mut self.outcomes)
            {
                stopped = self.run_batch(version, batch);
                if !stopped.is_empty() {
                    stopped.extend(queue.drain());
                }
            }
        }
        self.deliver(version);
        if !stopped.is_empty() {
            self.give_up_inline(version, stopped, now);
        }
    }

    /// Runs a batch on this loop. Returns those whose run was stopped.
    fn run_batch(&mut self, version: &Version, mut batch: Vec<Entry>) -> Vec<Entry> {
        drop_gone(&mut batch, &mut self.outcomes);
        if batch.is_empty() {
            return batch;
        }
        let place = Place::Loop(&self.shared.watch.loops[self.home]);
        let job = Job { version, slot: &version.stats.loops[self.home], place };
        self.runner.run(job, batch, &mut self.outcomes)
    }

    /// A run took too long here and was stopped: it is made again by an instance, and the version's runs go there for a
    /// while.
    #[cold]
    fn give_up_inline(&mut self, version: &Arc<Version>, mut stopped: Vec<Entry>, now: Instant) {
        version.inline.bar(now);
        tracing::warn!(
            model = &*version.spec.name,
            version = version.spec.version,
            "a run on an event loop took too long and was stopped; it is made again on an instance"
        );
        self.hand_over(version, &mut stopped);
    }
}
