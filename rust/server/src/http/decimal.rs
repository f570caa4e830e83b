//! A JSON number: its text, and its digits as an integer while they are scanned anyway. Hot path.
//!
//! Must not round; what the digits mean to a type is [`super::numbers`].

/// Digits that fit a `u64` whatever they are.
const EXACT_DIGITS: usize = 19;

/// A number that follows JSON's grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal<'a> {
    /// As sent.
    pub(super) text: &'a str,
    /// Whether it starts with a minus.
    pub(super) is_negative: bool,
    /// Whether it has neither fraction nor exponent.
    pub(super) is_whole: bool,
    /// The digits as an integer; `None` if there are more than always fit.
    pub(super) digits: Option<u64>,
    /// The power of ten that the digits are to be multiplied with.
    pub(super) power: i32,
}

impl<'a> Decimal<'a> {
    /// Scans the number that `text` starts with.
    ///
    /// **Errors:** it starts with none; the text says what is missing.
    #[inline]
    pub(super) fn scan(text: &'a str) -> Result<Self, &'static str> {
        let bytes = text.as_bytes();
        let mut scan = Scan { bytes, at: 0, digits: 0 };
        let is_negative = scan.take(|byte| byte == b'-');
        let start = scan.at;
        let mut count = scan.digits();
        if count == 0 || (count > 1 && bytes[start] == b'0') {
            return Err("invalid value");
        }
        let mut is_whole = true;
        let mut power = 0_i32;
        if scan.take(|byte| byte == b'.') {
            is_whole = false;
            let fraction = scan.digits();
            if fraction == 0 {
                return Err("missing fraction part in number");
            }
            count += fraction;
            // Beyond the exact digits the power is not used.
            power = -(fraction.min(1_000_000) as i32);
        }
        let digits = (count <= EXACT_DIGITS).then_some(scan.digits);
        if scan.take(|byte| byte == b'e' || byte == b'E') {
            is_whole = false;
            let is_below = !scan.take(|byte| byte == b'+') && scan.take(|byte| byte == b'-');
            scan.digits = 0;
            let length = scan.digits();
            if length == 0 {
                return Err("missing exponent in number");
            }
            let exponent = if length > 9 { i32::MAX } else { scan.digits as i32 };
            power = power.saturating_add(if is_below { -exponent } else { exponent });
        }
        Ok(Self { text: &text[..scan.at], is_negative, is_whole, digits, power })
    }
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    digits: u64,
}

impl Scan<'_> {
    #[inline]
    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> bool {
        let found = self.bytes.get(self.at).is_some_and(|&byte| wanted(byte));
        self.at += usize::from(found);
        found
    }

    /// Reads digits into `self.digits`, which wraps when there are too many, and returns how many there were.
    #[inline]
    fn digits(&mut self) -> usize {
        let start = self.at;
        while let Some(digit) = self.bytes.get(self.at).map(|byte| byte.wrapping_sub(b'0')).filter(|&digit| digit < 10)
        {
            self.digits = self.digits.wrapping_mul(10).wrapping_add(u64::from(digit));
            self.at += 1;
        }
        self.at - start
    }
}
