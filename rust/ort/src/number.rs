//! Numbers of tensors as `f64` and back, and when two of them count as equal.

use mlserve_core::tensor::DataType;

/// How far two answers may be apart and still be the same answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerance {
    /// Times the larger of the two.
    pub(crate) relative: f64,
    /// Times the largest number of the row.
    pub(crate) of_scale: f64,
}

impl Tolerance {
    /// Between a row alone and in a batch: kernels may add in another order, so last bits differ (linear classifiers do).
    pub(crate) const fn of_batch_size(datatype: DataType) -> Self {
        match datatype {
            // One unit in the last place is 1e-3 and 8e-3 of the number here.
            DataType::Fp16 => Self { relative: 1e-2, of_scale: 1e-3 },
            DataType::Bf16 => Self { relative: 5e-2, of_scale: 1e-2 },
            _ => Self { relative: 1e-3, of_scale: 1e-5 },
        }
    }

    /// Between the same place of two batches of the same size: nothing but the neighbours differs, so neither may the
    /// answer; a hair is left for kernels whose threads add in any order.
    pub(crate) const OF_NEIGHBOURS: Self = Self { relative: 1e-6, of_scale: 1e-6 };
}

/// Two numbers that should be equal and are not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Difference {
    pub(crate) expected: f64,
    pub(crate) found: f64,
}

/// The largest difference between two rows of one fixed-size type that exceeds the tolerance.
pub(crate) fn difference(
    datatype: DataType,
    expected: &[u8],
    found: &[u8],
    tolerance: Tolerance,
) -> Option<Difference> {
    if expected == found {
        return None;
    }
    let size = datatype.size()?;
    let numbers = |bytes| move_numbers(datatype, bytes, size);
    let pairs = || numbers(expected).zip(numbers(found));
    let scale =
        numbers(expected).filter(|number| number.is_finite()).fold(0.0, |scale: f64, number| scale.max(number.abs()));
    let is_float = matches!(datatype, DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64);
    let differs = |(expected, found): &(f64, f64)| {
        #[expect(clippy::float_cmp, reason = "equal numbers, infinities among them, are equal")]
        let is_same = expected == found;
        if is_same || (expected.is_nan() && found.is_nan()) {
            return false;
        }
        let allowed = tolerance.relative * expected.abs().max(found.abs()) + tolerance.of_scale * scale;
        !is_float || !allowed.is_finite() || apart((*expected, *found)) > allowed
    };
    let largest = pairs().filter(differs).max_by(|left, right| apart(*left).total_cmp(&apart(*right)));
    largest.map(|(expected, found)| Difference { expected, found })
}

/// How far apart two numbers are; NaN is farthest.
fn apart((expected, found): (f64, f64)) -> f64 {
    let apart = (expected - found).abs();
    if apart.is_nan() { f64::INFINITY } else { apart }
}

fn move_numbers(datatype: DataType, bytes: &[u8], size: usize) -> impl Iterator<Item = f64> {
    bytes.chunks_exact(size).map(move |bytes| number(datatype, bytes))
}

/// One element as a number. 64-bit integers beyond 2^53 lose their last bits, which only texts show.
fn number(datatype: DataType, bytes: &[u8]) -> f64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    let bits = u64::from_le_bytes(word);
    match datatype {
        DataType::Fp16 => half(bits as u16),
        DataType::Bf16 => f64::from(f32::from_bits((bits as u32) << 16)),
        DataType::Fp32 => f64::from(f32::from_bits(bits as u32)),
        DataType::Fp64 => f64::from_bits(bits),
        DataType::Int8 => bits as i8 as f64,
        DataType::Int16 => bits as i16 as f64,
        DataType::Int32 => bits as i32 as f64,
        DataType::Int64 => bits as i64 as f64,
        _ => bits as f64,
    }
}

/// IEEE 754 half precision as a number.
pub(crate) fn half(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    match exponent {
        0x1f if mantissa > 0.0 => f64::NAN,
        0x1f => sign * f64::INFINITY,
        0 => sign * mantissa * 2_f64.powi(-24),
        _ => sign * (1.0 + mantissa / 1024.0) * 2_f64.powi(exponent - 15),
    }
}

/// A number in half precision, cut off; what is too large becomes the largest number.
pub(crate) fn half_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let exponent = (bits >> 23 & 0xff) as i32 - 112;
    if value.is_nan() {
        return 0x7e00;
    }
    match exponent {
        ..=0 => sign,
        1..=30 => sign | (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16,
        _ => sign | 0x7bff,
    }
}

/// A number as the upper half of a float, cut off.
pub(crate) fn bfloat_bits(value: f32) -> u16 {
    if value.is_nan() { 0x7fc0 } else { (value.to_bits() >> 16) as u16 }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact in half precision")]
mod tests {
    use super::*;

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn found(expected: &[f32], found: &[f32], tolerance: Tolerance) -> Option<Difference> {
        difference(DataType::Fp32, &floats(expected), &floats(found), tolerance)
    }

    #[test]
    fn last_bits_are_equal_and_more_is_not() {
        let loose = Tolerance::of_batch_size(DataType::Fp32);
        assert_eq!(found(&[1.0, 1e-9], &[1.000_1, 2e-9], loose), None);
        assert_eq!(found(&[1.0], &[1.01], loose).map(|difference| difference.expected), Some(1.0));
        assert!(found(&[1.0], &[1.000_01], Tolerance::OF_NEIGHBOURS).is_some());
    }

    #[test]
    fn not_a_number_equals_itself_only() {
        let loose = Tolerance::of_batch_size(DataType::Fp32);
        assert_eq!(found(&[f32::NAN, f32::INFINITY], &[-f32::NAN, f32::INFINITY], loose), None);
        for (left, right) in [(f32::NAN, 1.0), (1.0, f32::NAN), (f32::INFINITY, 1.0), (1.0, f32::NEG_INFINITY)] {
            assert!(found(&[left], &[right], loose).is_some(), "{left} {right}");
        }
    }

    #[test]
    fn integers_are_exact() {
        let loose = Tolerance::of_batch_size(DataType::Int32);
        let bytes = |value: i32| value.to_le_bytes();
        assert!(difference(DataType::Int32, &bytes(1_000_000), &bytes(1_000_001), loose).is_some());
    }

    #[test]
    fn half_precision_goes_there_and_back() {
        for value in [0.0, 1.0, -2.5, 0.333_251_95, 65504.0] {
            assert_eq!(half(half_bits(value)), f64::from(value));
        }
        assert_eq!(half(half_bits(1e6)), 65504.0);
        assert!(half(half_bits(f32::NAN)).is_nan());
    }
}
