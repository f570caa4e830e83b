use super::*;
use crate::clock::ManualClock;

fn answer(stats: &Stats, clock: &ManualClock) {
    stats.loops[0].answered(Protocol::Grpc, 3, &Timing::default(), clock.now(), clock.now());
}

#[test]
fn a_slot_is_made_when_its_thread_first_counts() {
    let clock = ManualClock::new();
    let stats = Stats::new(2, 1, None, &Clock::Manual(clock.clone()));
    assert_eq!(stats.totals().succeeded(), 0);
    assert!(stats.loops.iter().chain(&stats.instances).all(|slot| slot.get().is_none()), "reading makes none");
    answer(&stats, &clock);
    assert!(stats.loops[0].get().is_some() && stats.loops[1].get().is_none());
}

#[test]
fn counters_do_not_fall_when_a_version_is_replaced() {
    let clock = ManualClock::new();
    let first = Stats::new(1, 1, None, &Clock::Manual(clock.clone()));
    answer(&first, &clock);
    let second = Stats::new(1, 1, Some(Arc::clone(&first)), &Clock::Manual(clock.clone()));
    answer(&second, &clock);
    assert!(!second.fold(), "the first still counts");
    answer(&first, &clock);
    assert_eq!((second.totals().rows, second.totals().succeeded()), (9, 3));
    drop(first);
    assert!(second.fold());
    assert_eq!((second.totals().rows, second.totals().succeeded()), (9, 3));
}

#[test]
fn versions_replaced_again_and_again_leave_no_chain() {
    let clock = ManualClock::new();
    let mut stats = Stats::new(1, 1, None, &Clock::Manual(clock.clone()));
    for _ in 0..100 {
        answer(&stats, &clock);
        stats = Stats::new(1, 1, Some(stats), &Clock::Manual(clock.clone()));
    }
    let Some(Earlier::Counting(earlier)) = &*lock(&stats.earlier) else { panic!("not looked at yet") };
    assert!(matches!(&*lock(&earlier.earlier), Some(Earlier::Folded(_))), "the one before that is gone");
    assert_eq!(earlier.totals().succeeded(), 100);
}

#[test]
fn the_last_answer_is_remembered_over_a_reload() {
    let clock = ManualClock::new();
    let first = Stats::new(2, 1, None, &Clock::Manual(clock.clone()));
    assert_eq!(first.last_used(), None);
    clock.advance(Duration::from_millis(5));
    answer(&first, &clock);
    let used = clock.now();
    clock.advance(Duration::from_millis(5));
    let second = Stats::new(2, 1, Some(first), &Clock::Manual(clock.clone()));
    assert_eq!(second.last_used(), Some(used));
    assert_eq!(second.totals().last_answer, Some(used), "folded");
    assert_eq!(second.last_used(), Some(used));
}

#[test]
fn only_what_was_valid_fails_late() {
    let clock = ManualClock::new();
    let stats = Stats::new(1, 1, None, &Clock::Manual(clock.clone()));
    let error = Error::invalid("no such input");
    stats.loops[0].failed(Protocol::Http, &error);
    stats.loops[0].failed_late(Protocol::Http, &error, Duration::from_nanos(7));
    let totals = stats.totals();
    assert_eq!((totals.failed(|_| true), totals.failed_late(|_| true), totals.failed_late_ns), (2, 1, 7));
}
