//! Properties of shape arithmetic, budgets and batching, over values that somebody hostile would choose.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use mlserve_core::budget::{Budget, LocalBudget};
use mlserve_core::config::ModelSettings;
use mlserve_core::tensor::{BytesElements, DataType, TensorBytes, byte_count, element_count, push_bytes_element};
use proptest::prelude::*;
use support::{Bench, Caller, POISON};

fn dimension() -> impl Strategy<Value = i64> {
    let edges = [0, 1, -1, 2, i64::from(i32::MAX), 1 << 31, (1 << 31) + 1, 1 << 32, 1 << 62, i64::MAX, i64::MIN];
    prop_oneof![prop::sample::select(edges.to_vec()), any::<i64>(), 0..100_i64]
}

proptest! {
    #[test]
    fn counts_equal_exact_arithmetic_or_are_refused(shape in prop::collection::vec(dimension(), 0..12)) {
        let exact = shape.iter().try_fold(1_u128, |count, &dimension| {
            count.checked_mul(u128::try_from(dimension).ok()?)
        });
        let is_negative = shape.iter().any(|&dimension| dimension < 0);
        let is_empty = !is_negative && shape.contains(&0);
        match element_count(&shape) {
            Some(count) => prop_assert!(is_empty || exact == Some(count as u128)),
            None => prop_assert!(is_negative || (!is_empty && exact.is_none_or(|exact| exact > usize::MAX as u128))),
        }
        for datatype in DataType::ALL {
            if let (Some(bytes), Some(size)) = (byte_count(datatype, &shape), datatype.size()) {
                prop_assert_eq!(Some(bytes as u128), if is_empty { Some(0) } else { exact.map(|e| e * size as u128) });
            }
        }
    }

    #[test]
    fn random_bytes_are_elements_or_an_error_and_never_more(wire in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut read = 0;
        for element in BytesElements::new(&wire) {
            match element {
                Ok(element) => read += 4 + element.len(),
                Err(_) => break,
            }
        }
        prop_assert!(read <= wire.len());
    }

    #[test]
    fn elements_survive_the_wire(elements in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..20)) {
        let mut wire = Vec::new();
        for element in &elements {
            push_bytes_element(&mut wire, element).expect("short");
        }
        let read: Vec<Vec<u8>> = BytesElements::new(&wire).map(|element| element.expect("valid").to_vec()).collect();
        prop_assert_eq!(read, elements);
    }

    #[test]
    fn pieces_do_not_matter(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..10), 0..8)) {
        let mut tensor = TensorBytes::new();
        for piece in &pieces {
            tensor.push(Bytes::from(piece.clone()));
        }
        let whole: Vec<u8> = pieces.concat();
        prop_assert_eq!(tensor.len(), whole.len());
        prop_assert_eq!(tensor.is_empty(), whole.is_empty());
        prop_assert_eq!(&tensor.to_contiguous()[..], &whole[..]);
    }

    #[test]
    fn a_budget_never_holds_more_than_its_limit(
        limit in 1_usize..500,
        chunk in 1_usize..50,
        steps in prop::collection::vec((0_usize..3, 0_usize..120), 0..60),
    ) {
        let budget = Budget::new(limit);
        let loops: Vec<Arc<LocalBudget>> = (0..2).map(|_| LocalBudget::new(Arc::clone(&budget), chunk)).collect();
        let mut held = Vec::new();
        for (step, units) in steps {
            match step {
                2 => drop(held.pop()),
                home => held.extend(loops[home].reserve(units)),
            }
            let units: usize = held.iter().map(mlserve_core::budget::Reservation::units).sum();
            prop_assert!(units <= budget.drawn() && budget.drawn() <= limit);
        }
        drop(held);
        drop(loops);
        prop_assert_eq!(budget.drawn(), 0);
    }

    #[test]
    fn every_caller_gets_its_own_rows_however_requests_mix(
        requests in prop::collection::vec((1_usize..9, 1_usize..4, prop::bool::weighted(0.1)), 1..30),
        max_batch_rows in 1_usize..10,
    ) {
        let mut bench = Bench::with(ModelSettings { max_batch_rows, ..ModelSettings::default() });
        let sent: Vec<(Vec<f32>, Caller)> = requests.iter().enumerate().map(|(number, &(rows, width, is_bad))| {
            let value = |row: usize, column: usize| match (is_bad, row, column) {
                (true, 0, 0) => POISON,
                _ => (number * 1_000 + row * 10 + column) as f32,
            };
            let rows: Vec<Vec<f32>> = (0..rows).map(|row| (0..width).map(|column| value(row, column)).collect()).collect();
            let caller = bench.send(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
            (rows.concat(), caller)
        }).collect();
        bench.flush();
        bench.receive_until(|| sent.iter().all(|(_, caller)| caller.is_answered()));
        for (values, caller) in sent {
            let got = caller.only();
            if values.contains(&POISON) {
                prop_assert!(got.is_refused());
            } else {
                prop_assert_eq!(got.values(), values.iter().map(|value| value * 2.0).collect::<Vec<_>>());
            }
        }
    }
}
