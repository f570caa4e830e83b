use std::sync::Arc;

use mlserve_core::budget::{Budget, LocalBudget};
use proptest::prelude::*;

use super::*;

/// `data` in pieces of at most `size` bytes.
fn cut(data: &[u8], size: usize) -> Vec<Bytes> {
    data.chunks(size.max(1)).map(Bytes::copy_from_slice).collect()
}

/// A gzip stream of `len` zeros.
fn bomb(encoding: Encoding, len: usize) -> Vec<u8> {
    let zeros = vec![0_u8; 1 << 20];
    let pieces: Vec<&[u8]> = std::iter::repeat_n(&zeros[..], len >> 20).collect();
    deflate(encoding, &pieces)
}

#[test]
fn a_bomb_costs_no_more_than_the_limit() {
    for encoding in [Encoding::Gzip, Encoding::Deflate] {
        let bomb = bomb(encoding, 64 << 20);
        assert!(bomb.len() < 512 << 10, "{} bytes", bomb.len());
        let budget = Budget::new(64 << 20);
        let local = LocalBudget::new(Arc::clone(&budget), 1);
        let mut reservation = local.reserve(0).expect("nothing");
        let error =
            inflate_reserved(encoding, &cut(&bomb, 16 << 10), 1 << 20, &mut reservation).expect_err("too large");
        assert_eq!(error.kind(), Kind::TooLarge);
        assert_eq!(error.text(), "the request is more than 1048576 bytes after inflating, which is the limit");
        assert!(reservation.units() <= 1 << 20, "{} bytes were reserved", reservation.units());
    }
}

#[test]
fn members_of_gzip_that_promise_gigabytes_stop_at_the_limit() {
    // 1 KiB after 1 KiB of the same member: what a bomb of 10 GiB looks like while it comes in.
    let member = bomb(Encoding::Gzip, 1 << 20);
    let pieces: Vec<Bytes> = std::iter::repeat_n(Bytes::from(member), 10_240).collect();
    let error = inflate(Encoding::Gzip, &pieces, 4 << 20).expect_err("too large");
    assert_eq!(error.kind(), Kind::TooLarge);
}

#[test]
fn a_few_bytes_become_so_many_and_no_more_unless_they_were_declared() {
    let zeros = Bytes::from(bomb(Encoding::Gzip, 64 << 20));
    let most = FREE_BYTES + MOST_RATIO * zeros.len();
    let inflate = |declared: usize| {
        let mut reservation = LocalBudget::new(Budget::new(1 << 30), 1).reserve(0).expect("nothing");
        inflate_declared(Encoding::Gzip, std::slice::from_ref(&zeros), 1 << 30, &mut reservation, &|_| declared)
    };
    for declared in [0, 10 << 20, (64 << 20) - 1] {
        let error = inflate(declared).expect_err("more than was declared");
        assert_eq!(error.kind(), Kind::TooLarge);
        assert!(error.text().contains(&format!("more than {} bytes", declared.max(most))), "{error}");
    }
    assert_eq!(inflate(64 << 20).expect("as declared").len(), 64 << 20);
}

/// Deflate blocks of its kind without content, in gzip members or within one.
fn idle_streams() -> [(&'static str, Vec<u8>); 3] {
    const HEAD: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let member = deflate(Encoding::Gzip, &[b""]);
    let stored = [HEAD, &[0, 0, 0, 0xff, 0xff].repeat(1 << 20), &[3, 0], &[0; 8]].concat();
    // Fixed codes: three bits of header, seven of the end.
    let fixed = [HEAD, &[0x02, 0x08, 0x20, 0x80, 0x00].repeat(1 << 20), &[3, 0], &[0; 8]].concat();
    [("members", member.repeat(1 << 18)), ("stored blocks", stored), ("fixed blocks", fixed)]
}

#[test]
fn input_that_brings_nothing_is_read_a_little_way_only() {
    for (name, stream) in idle_streams() {
        let stream = [Bytes::from(stream)];
        let progress = Cell::new(0);
        let mut input = Pieces { rest: &stream, at: 0, consumed: 0, output: &progress };
        let mut read = 0;
        while let Ok(step) = input.fill_buf().map(<[u8]>::len) {
            read += step;
            input.consume(step);
        }
        assert!(read <= IDLE_BYTES + 2 * STEP_BYTES, "{name}: {read} bytes");
        let error = inflate(Encoding::Gzip, &stream, 1 << 20).expect_err("nothing comes out");
        assert_eq!(error.kind(), Kind::InvalidArgument, "{name}");
    }
}

#[test]
fn members_are_counted_and_a_few_thousand_are_read() {
    let member = deflate(Encoding::Gzip, &[[7_u8; 1_000]]);
    for (count, is_read) in [(1, true), (MOST_MEMBERS, true), (MOST_MEMBERS + 1, false)] {
        let inflated = inflate(Encoding::Gzip, &cut(&member.repeat(count), 1_000), 8 << 20);
        assert_eq!(inflated.map_or(0, |output| output.len()), if is_read { 1_000 * count } else { 0 });
    }
}

#[test]
fn output_at_the_limit_is_allowed_and_one_byte_more_is_not() {
    for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Identity] {
        for len in [0, 1, 4_096, 4_097, 100_000] {
            let data = vec![7_u8; len];
            let sent = [Bytes::from(deflate(encoding, &[&data]))];
            assert_eq!(inflate(encoding, &sent, len).expect("fits"), data, "{encoding:?} {len}");
            if len > 0 {
                assert_eq!(inflate(encoding, &sent, len - 1).expect_err("one less").kind(), Kind::TooLarge);
            }
        }
    }
}

#[test]
fn a_spent_budget_refuses_before_memory_is_taken() {
    let budget = Budget::new(10_000);
    let local = LocalBudget::new(budget, 1);
    let mut reservation = local.reserve(0).expect("nothing");
    let sent = [Bytes::from(bomb(Encoding::Gzip, 1 << 20))];
    let error = inflate_reserved(Encoding::Gzip, &sent, 1 << 20, &mut reservation).expect_err("out of budget");
    assert_eq!(error.kind(), Kind::OutOfBudget);
}

#[test]
fn every_prefix_and_every_addition_is_refused() {
    let data: Vec<u8> = (0..2_000_u32).flat_map(|number| (number * number).to_le_bytes()).collect();
    for encoding in [Encoding::Gzip, Encoding::Deflate] {
        let sent = deflate(encoding, &[&data]);
        for len in 0..sent.len() {
            let error = inflate(encoding, &cut(&sent[..len], 100), 1 << 20).expect_err("cut off");
            assert_eq!(error.kind(), Kind::InvalidArgument, "{encoding:?}, {len} bytes");
        }
        for more in [&b"x"[..], b"\0", b"more than that"] {
            let mut long = sent.clone();
            long.extend_from_slice(more);
            assert!(inflate(encoding, &cut(&long, 100), 1 << 20).is_err(), "{encoding:?} and {more:?}");
        }
    }
}

#[test]
fn names_are_read_in_any_case() {
    assert_eq!(Encoding::from_name(b"GZip"), Some(Encoding::Gzip));
    assert_eq!(Encoding::from_name(b"x-gzip"), Some(Encoding::Gzip));
    assert_eq!(Encoding::from_name(b"deflate"), Some(Encoding::Deflate));
    assert_eq!(Encoding::from_name(b"identity"), Some(Encoding::Identity));
    assert_eq!(Encoding::from_name(b"br"), None);
    assert_eq!(Encoding::from_name(b""), None);
}

proptest! {
    #[test]
    fn what_is_deflated_comes_back_however_it_is_cut(
        data in proptest::collection::vec(any::<u8>(), 0..5_000),
        size in 1_usize..600,
        encoding in proptest::sample::select(&Encoding::ALL),
    ) {
        let halves = data.split_at(data.len() / 2);
        let sent = deflate(encoding, &[halves.0, halves.1]);
        prop_assert_eq!(inflate(encoding, &cut(&sent, size), data.len()).expect("fits"), data);
    }

    #[test]
    fn random_bytes_are_refused_and_never_panic(
        data in proptest::collection::vec(any::<u8>(), 0..300),
        size in 1_usize..50,
        limit in 0_usize..5_000,
    ) {
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            if let Ok(output) = inflate(encoding, &cut(&data, size), limit) {
                prop_assert!(output.len() <= limit);
            }
        }
    }
}
