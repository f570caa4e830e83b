use proptest::prelude::*;

use super::*;

fn read<Element: Number>(text: &str) -> Option<Element> {
    Element::from_decimal(&Decimal::scan(text).expect("a number"))
}

#[test]
fn whole_numbers_have_their_range() {
    assert_eq!(read::<u8>("255"), Some(255));
    assert_eq!(read::<u8>("256"), None);
    assert_eq!(read::<u8>("-1"), None);
    assert_eq!(read::<u8>("-0"), Some(0));
    assert_eq!(read::<i8>("-128"), Some(-128));
    assert_eq!(read::<i8>("-129"), None);
    assert_eq!(read::<i64>("-9223372036854775808"), Some(i64::MIN));
    assert_eq!(read::<i64>("-9223372036854775809"), None);
    assert_eq!(read::<i64>("9223372036854775807"), Some(i64::MAX));
    assert_eq!(read::<i64>("9223372036854775808"), None);
    assert_eq!(read::<u64>("18446744073709551615"), Some(u64::MAX));
    assert_eq!(read::<u64>("18446744073709551616"), None);
    assert_eq!(read::<u64>(&"9".repeat(1_000)), None);
    assert_eq!(read::<i32>("1.0"), None);
    assert_eq!(read::<i32>("1e3"), None);
}

#[test]
fn real_numbers_are_rounded_once_and_refused_beyond_their_range() {
    assert_eq!(read::<f64>("1e400"), None);
    assert_eq!(read::<f64>("-1e400"), None);
    assert_eq!(read::<f64>("1e-400"), Some(0.0));
    assert_eq!(read::<f64>("-0").map(f64::to_bits), Some((-0.0_f64).to_bits()));
    assert_eq!(read::<f32>("-0.0").map(f32::to_bits), Some((-0.0_f32).to_bits()));
    assert_eq!(read::<f32>("3.4028235e38"), Some(f32::MAX));
    assert_eq!(read::<f32>("3.5e38"), None);
    assert_eq!(read::<f32>("1e39"), None);
    assert_eq!(read::<f32>("1e-46"), Some(0.0));
    assert_eq!(read::<f64>("1e999999999999999999999999"), None);
    assert_eq!(read::<f64>("0e999999999999999999999999"), Some(0.0));
    assert_eq!(read::<f64>("1e-999999999999999999999999"), Some(0.0));
    assert_eq!(read::<f64>(&format!("0.{}1", "0".repeat(400))), Some(0.0));
    assert_eq!(read::<f64>(&format!("1{}", "0".repeat(308))), Some(1e308));
    // Between two f32: rounding to f64 first would end on the middle, and then on the wrong side.
    assert_eq!(read::<f32>("1.00000005960464477540").map(f32::to_bits), Some(0x3f80_0001));
    assert_eq!(read::<f32>("16777217"), Some(16_777_216.0));
    assert_eq!(read::<f32>("16777219"), Some(16_777_220.0));
}

/// Texts of numbers in all the forms that JSON has.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        any::<f32>().prop_filter("finite", |number| number.is_finite()).prop_map(|number| format!("{number}")),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(|number| format!("{number:e}")),
        // Middles between two f32, and their neighbours.
        (1_u32..0x7f00_0000, -2_i64..3).prop_map(|(bits, off)| {
            let middle = f64::midpoint(f64::from(f32::from_bits(bits)), f64::from(f32::from_bits(bits + 1)));
            format!("{:e}", f64::from_bits((middle.to_bits() as i64 + off) as u64))
        }),
        (1_u64..1 << 54, -30_i32..30).prop_map(|(digits, power)| format!("{digits}e{power}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn the_quick_way_gives_what_the_standard_library_gives(text in number()) {
        let decimal = Decimal::scan(&text).expect("a number");
        prop_assert_eq!(decimal.text, text.as_str());
        let narrow: f32 = text.parse().expect("a number");
        let wide: f64 = text.parse().expect("a number");
        prop_assert_eq!(read::<f32>(&text).map(f32::to_bits), narrow.is_finite().then_some(narrow.to_bits()));
        prop_assert_eq!(read::<f64>(&text).map(f64::to_bits), wide.is_finite().then_some(wide.to_bits()));
        prop_assert_eq!(read::<i64>(&text), text.parse::<i64>().ok());
        prop_assert_eq!(read::<i16>(&text), text.parse::<i16>().ok());
        let unsigned = if text == "-0" { Some(0) } else { text.parse::<u64>().ok() };
        prop_assert_eq!(read::<u64>(&text), unsigned);
    }
}
