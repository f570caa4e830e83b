//! A panic ends what it touched, and nothing else.

mod support;

use std::sync::atomic::Ordering;

use mlserve_core::config::ModelSettings;
use mlserve_core::error::Kind;
use support::Bench;

#[test]
fn a_backend_that_panics_on_an_instance_costs_its_batch() {
    let mut bench = Bench::pooled(ModelSettings { instances: 1, ..ModelSettings::default() });
    for _ in 0..3 {
        bench.backend.panics.store(true, Ordering::SeqCst);
        let touched = bench.send(&[&[1.0]]);
        bench.flush();
        bench.receive_until(|| touched.is_answered());
        assert_eq!(touched.only().kind(), Kind::Internal);
        bench.backend.panics.store(false, Ordering::SeqCst);
        let next = bench.send(&[&[2.0]]);
        bench.flush();
        bench.receive_until(|| next.is_answered());
        assert_eq!(next.only().values(), [4.0]);
    }
    assert_eq!(bench.version.stats.totals().panics, 3);
}
