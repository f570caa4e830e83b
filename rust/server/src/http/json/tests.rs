use mlserve_core::error::Kind;
use proptest::prelude::*;

use super::*;

fn skipped(text: &str) -> Result<()> {
    let mut cursor = Cursor::new(text, 64);
    cursor.skip()?;
    cursor.end()
}

fn fault(text: &str) -> String {
    skipped(text).expect_err(text).text().to_owned()
}

#[test]
fn the_fault_and_its_place_are_named() {
    for (text, fault_text) in [
        ("", "invalid value at 0"),
        ("{a}", "missing a name for object member at 1"),
        ("{\"a\" 1}", "missing a colon after a name of object member at 5"),
        ("{\"a\":1", "missing a comma or } after an object member at 6"),
        ("[1 2]", "missing a comma or ] after an array element at 3"),
        ("[1,]", "invalid value at 3"),
        ("[1]2", "the document root must not be followed by other values at 3"),
        ("\"a", "missing a closing quotation mark in string at 2"),
        ("\"\\x\"", "invalid escape character in string at 3"),
        ("\"\\u12g4\"", "incorrect hex digit after \\u escape in string at 3"),
        ("\"\\ud800\"", "the surrogate pair in string is invalid at 7"),
        ("\"\\ud800\\u0041\"", "the surrogate pair in string is invalid at 13"),
        ("\"\u{1}\"", "control characters in a string must be escaped at 1"),
        ("1.", "missing fraction part in number at 0"),
        ("1e", "missing exponent in number at 0"),
        ("01", "invalid value at 0"),
        ("-", "invalid value at 0"),
        (".5", "invalid value at 0"),
        ("+1", "invalid value at 0"),
        ("tru", "invalid value at 0"),
        ("nul", "invalid value at 0"),
        ("[NaN]", "NaN and Infinity are not JSON; send such values as binary data at 1"),
        ("[-Infinity]", "NaN and Infinity are not JSON; send such values as binary data at 1"),
        ("'a'", "invalid value at 0"),
    ] {
        assert_eq!(fault(text), format!("failed to parse the request JSON buffer: {fault_text}"), "{text:?}");
    }
}

#[test]
fn strings_are_unescaped() {
    for (text, expected) in [
        (r#""plain é""#, "plain é"),
        (r#""""#, ""),
        (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
        (r#""\u0041\u00e9\u20ac\ud83d\ude00""#, "Aé€😀"),
        (r#""a\u0000b""#, "a\0b"),
    ] {
        assert_eq!(Cursor::new(text, 1).string().expect(text), expected);
    }
}

#[test]
fn depth_is_limited_with_constant_stack() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        let levels = open.len() / 4 + open.matches('[').count();
        let levels = if open == "{\"a\":" { 1 } else { levels };
        for count in [1, 32, 63, 64, 65, 128, 129, 1_000, 1_000_000] {
            let text = format!("{}1{}", open.repeat(count), close.repeat(count));
            let outcome = skipped(&text);
            if count * levels <= 64 {
                assert_eq!(outcome, Ok(()), "{open} {count}");
            } else {
                let error = outcome.expect_err("too deep");
                assert_eq!(error.kind(), Kind::TooLarge, "{open} {count}");
                assert_eq!(error.text(), "the request JSON is nested deeper than 64 levels, which is the limit");
            }
            // Unclosed ones are no better.
            assert!(skipped(&open.repeat(count)).is_err());
        }
    }
}

#[test]
fn depth_counts_open_levels_not_all() {
    let text = format!("[{}]", vec!["[[]]"; 1_000].join(","));
    let mut cursor = Cursor::new(&text, 3);
    assert_eq!(cursor.skip(), Ok(()));
    let mut cursor = Cursor::new(&text, 2);
    assert_eq!(cursor.skip().expect_err("too deep").kind(), Kind::TooLarge);
}

/// Any JSON value.
fn value() -> impl Strategy<Value = serde_json::Value> {
    let scalar = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        any::<f64>().prop_map(serde_json::Value::from),
        ".{0,8}".prop_map(serde_json::Value::from),
    ];
    scalar.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
            proptest::collection::vec((".{0,4}", inner), 0..6)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_another_writer_wrote_is_read(value in value(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        prop_assert_eq!(skipped(&text.expect("a value")), Ok(()));
    }

    #[test]
    fn every_prefix_of_an_array_is_refused(value in value(), cut in 0.0..1.0_f64) {
        let text = serde_json::to_string(&[value]).expect("a value");
        let at = (text.len() as f64 * cut) as usize;
        if let Some(prefix) = text.get(..at) {
            prop_assert!(skipped(prefix).is_err(), "{}", prefix);
        }
    }

    #[test]
    fn another_reader_agrees_about_random_text(text in r#"[\[\]{}",:\\ \-+0-9.eEtrufalsn]{0,12}"#) {
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        // It refuses numbers that are no finite doubles; here that is for the element's type to say.
        let is_range = theirs.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
        if !is_range {
            prop_assert_eq!(skipped(&text).is_ok(), theirs.is_ok(), "{}", text);
        }
    }

    #[test]
    fn strings_of_another_writer_come_back(text in any::<String>()) {
        let written = serde_json::to_string(&text).expect("a string");
        let read = Cursor::new(&written, 1).string().expect("a string");
        prop_assert_eq!(&*read, text.as_str());
    }
}
