//! JSON numbers as elements of a tensor: range-checked, correctly rounded, little-endian. Hot path.

use super::decimal::Decimal;

/// Integers up to this are exact as `f64`.
const EXACT_INTEGER: u64 = 1 << f64::MANTISSA_DIGITS;

/// The powers of ten that are exact as `f64`.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Bits of an `f64`'s fraction that an `f32`'s has not.
const LOST_BITS: u32 = f64::MANTISSA_DIGITS - f32::MANTISSA_DIGITS;

/// An element type that JSON can carry as a number.
pub(super) trait Number: Sized {
    /// What is allowed, for error texts.
    const RANGE: &'static str;
    /// Its bytes.
    type Wire: AsRef<[u8]>;

    /// The element that `number` means; `None` if it is not within [`Number::RANGE`].
    fn from_decimal(number: &Decimal<'_>) -> Option<Self>;

    /// Little-endian.
    fn wire(self) -> Self::Wire;
}

macro_rules! whole_number {
    ($type:ty, $range:literal) => {
        impl Number for $type {
            const RANGE: &'static str = concat!("a whole number from ", $range);
            type Wire = [u8; size_of::<$type>()];

            fn from_decimal(number: &Decimal<'_>) -> Option<Self> {
                if !number.is_whole {
                    return None;
                }
                match number.digits {
                    Some(digits) if number.is_negative => Self::try_from(-i128::from(digits)).ok(),
                    Some(digits) => Self::try_from(digits).ok(),
                    None => number.text.parse().ok(),
                }
            }

            fn wire(self) -> Self::Wire {
                self.to_le_bytes()
            }
        }
    };
}

macro_rules! real_number {
    ($type:ty, $range:literal, $quick:expr) => {
        impl Number for $type {
            const RANGE: &'static str = concat!("a number from ", $range);
            type Wire = [u8; size_of::<$type>()];

            fn from_decimal(number: &Decimal<'_>) -> Option<Self> {
                let quick = exact_quotient(number).and_then($quick);
                // What is too small becomes zero; what is too large is refused.
                quick.or_else(|| number.text.parse::<$type>().ok()).filter(|number| number.is_finite())
            }

            fn wire(self) -> Self::Wire {
                self.to_le_bytes()
            }
        }
    };
}

whole_number!(u8, "0 to 255");
whole_number!(u16, "0 to 65535");
whole_number!(u32, "0 to 4294967295");
whole_number!(u64, "0 to 18446744073709551615");
whole_number!(i8, "-128 to 127");
whole_number!(i16, "-32768 to 32767");
whole_number!(i32, "-2147483648 to 2147483647");
whole_number!(i64, "-9223372036854775808 to 9223372036854775807");
real_number!(f32, "-3.4028235e38 to 3.4028235e38", narrowed);
real_number!(f64, "-1.7976931348623157e308 to 1.7976931348623157e308", Some);

/// The nearest `f64`, where one operation on two exact numbers gives it (W. D. Clinger, "How to read floating point
/// numbers accurately", 1990, §3); `None` elsewhere.
fn exact_quotient(number: &Decimal<'_>) -> Option<f64> {
    let digits = number.digits.filter(|&digits| digits <= EXACT_INTEGER)? as f64;
    let power = *EXACT_POWERS.get(number.power.unsigned_abs() as usize)?;
    let value = if number.power < 0 { digits / power } else { digits * power };
    Some(if number.is_negative { -value } else { value })
}

/// The `f32` nearest to the number whose nearest `f64` is `wide`.
///
/// Rounding twice is wrong only where the first rounding ended on the middle between two `f32`: below it and above it, a
/// number's nearest `f64` stays on its side, because the middle itself is an `f64`. `None` there, and where `f32` has
/// fewer bits than usual (subnormal) or none (overflow).
fn narrowed(wide: f64) -> Option<f32> {
    let is_middle = wide.to_bits() & ((1 << LOST_BITS) - 1) == 1 << (LOST_BITS - 1);
    let narrow = wide as f32;
    // Just below the smallest normal number, rounding up to it would hide that bits were missing.
    let is_normal = narrow.is_finite() && narrow.abs() > f32::MIN_POSITIVE;
    (wide == 0.0 || (is_normal && !is_middle)).then_some(narrow)
}

#[cfg(test)]
mod tests;
