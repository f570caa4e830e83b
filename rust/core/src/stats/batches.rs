//! How often each batch size has run, and how long its runs took; one writer each. Hot path.
//!
//! Sizes are kept apart one by one, as Triton's `batch_stats` tell them. Memory is taken for the sizes that run, in
//! blocks of sizes up to a power of two, so that a model that never runs costs none.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::{Counter, nanoseconds};
use crate::entry::Timing;

/// Largest batch that is counted by its own size. Larger ones are counted together, under one row more: whoever runs
/// batches of thousands of rows does not look at them one by one, and the counters of all sizes would cost 32 bytes each.
pub const MAX_EXACT_ROWS: u64 = 1_024;

/// Blocks: 1, 2, 3–4, 5–8, … 513–1024, and everything above.
const BLOCKS: usize = MAX_EXACT_ROWS.ilog2() as usize + 2;

/// The runs of one thread, by batch size.
#[derive(Debug, Default)]
pub struct BatchSizes([OnceLock<Box<[Cell]>>; BLOCKS]);

/// The runs of one batch size.
#[derive(Debug, Default)]
struct Cell {
    runs: Counter,
    gather_ns: Counter,
    compute_ns: Counter,
    scatter_ns: Counter,
}

/// The sum over threads of the runs of one batch size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchTotal {
    /// Runs.
    pub runs: u64,
    /// Copying inputs together, in nanoseconds.
    pub gather_ns: u64,
    /// The runs themselves, in nanoseconds.
    pub compute_ns: u64,
    /// Cutting outputs apart, in nanoseconds.
    pub scatter_ns: u64,
}

impl BatchSizes {
    /// Counts a run of `rows` rows, on the owner's thread. **Cost:** allocates at the first run of a block.
    pub fn record(&self, rows: u64, timing: &Timing) {
        let (block, index) = place(rows);
        let cells = self.0[block].get_or_init(|| (0..block_len(block)).map(|_| Cell::default()).collect());
        let cell = &cells[index];
        cell.runs.add(1);
        cell.gather_ns.add(nanoseconds(timing.gather));
        cell.compute_ns.add(nanoseconds(timing.compute));
        cell.scatter_ns.add(nanoseconds(timing.scatter));
    }

    /// Adds these runs to `total`, by batch size, on any thread.
    pub fn add_to(&self, total: &mut BTreeMap<u64, BatchTotal>) {
        for (block, cells) in self.0.iter().enumerate() {
            let ran = cells.get().into_iter().flatten().enumerate().filter(|(_, cell)| cell.runs.get() > 0);
            for (index, cell) in ran {
                total.entry(first_of(block) + index as u64).or_default().merge(&BatchTotal {
                    runs: cell.runs.get(),
                    gather_ns: cell.gather_ns.get(),
                    compute_ns: cell.compute_ns.get(),
                    scatter_ns: cell.scatter_ns.get(),
                });
            }
        }
    }
}

impl BatchTotal {
    /// Adds the runs of the same size elsewhere.
    pub fn merge(&mut self, other: &BatchTotal) {
        self.runs += other.runs;
        self.gather_ns += other.gather_ns;
        self.compute_ns += other.compute_ns;
        self.scatter_ns += other.scatter_ns;
    }
}

/// The block of a batch size, and its index there.
fn place(rows: u64) -> (usize, usize) {
    if rows > MAX_EXACT_ROWS {
        return (BLOCKS - 1, 0);
    }
    let block = rows.max(1).next_power_of_two().ilog2() as usize;
    (block, (rows.max(1) - first_of(block)) as usize)
}

/// The smallest batch size of a block.
fn first_of(block: usize) -> u64 {
    if block == 0 { 1 } else { (1 << (block - 1)) + 1 }
}

fn block_len(block: usize) -> usize {
    if block == 0 || block == BLOCKS - 1 { 1 } else { 1 << (block - 1) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_size_is_counted_by_itself_up_to_the_bound() {
        let sizes = BatchSizes::default();
        let timing = Timing {
            gather: Duration::from_nanos(1),
            compute: Duration::from_nanos(10),
            scatter: Duration::from_nanos(100),
            ..Timing::default()
        };
        for rows in 1..=MAX_EXACT_ROWS + 2 {
            sizes.record(rows, &timing);
        }
        sizes.record(7, &timing);
        let mut total = BTreeMap::new();
        sizes.add_to(&mut total);
        assert!(total.keys().copied().eq(1..=MAX_EXACT_ROWS + 1));
        assert_eq!(total[&1].runs, 1);
        assert_eq!(total[&7], BatchTotal { runs: 2, gather_ns: 2, compute_ns: 20, scatter_ns: 200 });
        assert_eq!(total[&MAX_EXACT_ROWS].runs, 1);
        assert_eq!(total[&(MAX_EXACT_ROWS + 1)].runs, 2);
    }

    #[test]
    fn memory_is_taken_for_the_sizes_that_run() {
        let sizes = BatchSizes::default();
        assert!(sizes.0.iter().all(|block| block.get().is_none()));
        sizes.record(3, &Timing::default());
        let taken: Vec<usize> = sizes.0.iter().filter_map(|block| Some(block.get()?.len())).collect();
        assert_eq!(taken, [2]);
    }
}
