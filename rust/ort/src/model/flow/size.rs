//! Sizes that are known before a request comes: products of a number, the number of rows, and symbols.
//!
//! A symbol stands for a size that all rows of one run have in common (a sequence's length), or for a computation with
//! such sizes; the same computation is the same symbol.

use std::collections::HashMap;

/// A size, or a whole number that is computed from sizes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Size {
    factor: i64,
    /// Power of the number of rows.
    rows: u32,
    /// Sorted.
    symbols: Vec<Symbol>,
}

/// One symbol of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Symbol {
    number: u32,
    /// Whether it is computed from the number of rows.
    follows_rows: bool,
    /// Whether it is surely not negative.
    is_natural: bool,
}

impl Size {
    pub(crate) fn number(number: i64) -> Self {
        Self { factor: number, rows: 0, symbols: Vec::new() }
    }

    /// The number of rows of the run.
    pub(crate) fn rows() -> Self {
        Self { factor: 1, rows: 1, symbols: Vec::new() }
    }

    pub(crate) fn as_number(&self) -> Option<i64> {
        (self.rows == 0 && self.symbols.is_empty()).then_some(self.factor)
    }

    pub(crate) fn is(&self, number: i64) -> bool {
        self.as_number() == Some(number)
    }

    pub(crate) fn follows_rows(&self) -> bool {
        self.rows > 0 || self.symbols.iter().any(|symbol| symbol.follows_rows)
    }

    /// What is left without the number of rows, if that is a factor once and in nothing else.
    pub(crate) fn per_row(&self) -> Option<Self> {
        let rest = self.divided(&Self::rows())?;
        (!rest.follows_rows()).then_some(rest)
    }

    /// Whether it is surely above or equal to zero.
    pub(crate) fn is_natural(&self) -> bool {
        self.factor >= 0 && self.symbols.iter().all(|symbol| symbol.is_natural)
    }

    /// The product; `None` if it does not fit.
    pub(crate) fn times(&self, other: &Self) -> Option<Self> {
        let factor = self.factor.checked_mul(other.factor)?;
        if factor == 0 {
            return Some(Self::number(0));
        }
        let mut symbols = [&self.symbols[..], &other.symbols[..]].concat();
        symbols.sort_unstable();
        Some(Self { factor, rows: self.rows + other.rows, symbols })
    }

    /// The quotient, if there is surely no remainder.
    pub(crate) fn divided(&self, other: &Self) -> Option<Self> {
        if other.factor == 0 || self.factor % other.factor != 0 {
            return None;
        }
        let mut symbols = self.symbols.clone();
        for symbol in &other.symbols {
            symbols.remove(symbols.iter().position(|own| own == symbol)?);
        }
        Some(Self { factor: self.factor / other.factor, rows: self.rows.checked_sub(other.rows)?, symbols })
    }

    fn is_like(&self, other: &Self) -> bool {
        self.rows == other.rows && self.symbols == other.symbols
    }
}

/// The product of all; `None` if it does not fit.
pub(crate) fn product<'a>(sizes: impl IntoIterator<Item = &'a Size>) -> Option<Size> {
    sizes.into_iter().try_fold(Size::number(1), |product, size| product.times(size))
}

/// The symbols that were made.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    computed: HashMap<(&'static str, Vec<Size>), Symbol>,
    count: u32,
}

impl Symbols {
    /// A size of its own, which does not follow the number of rows.
    pub(crate) fn fresh(&mut self) -> Size {
        let symbol = self.symbol(false, true);
        Size { factor: 1, rows: 0, symbols: vec![symbol] }
    }

    fn symbol(&mut self, follows_rows: bool, is_natural: bool) -> Symbol {
        self.count += 1;
        Symbol { number: self.count, follows_rows, is_natural }
    }

    /// What `how` makes of the operands.
    pub(crate) fn computed(&mut self, how: &'static str, operands: &[&Size], is_natural: bool) -> Size {
        let follows_rows = operands.iter().any(|size| size.follows_rows());
        let key = (how, operands.iter().map(|&size| size.clone()).collect());
        let known = self.computed.get(&key).copied();
        let symbol = known.unwrap_or_else(|| self.symbol(follows_rows, is_natural));
        self.computed.insert(key, symbol);
        Size { factor: 1, rows: 0, symbols: vec![symbol] }
    }

    pub(crate) fn sum(&mut self, left: &Size, right: &Size) -> Size {
        match (left.is(0), right.is(0)) {
            (true, _) => return right.clone(),
            (_, true) => return left.clone(),
            _ => {}
        }
        if left.is_like(right)
            && let Some(factor) = left.factor.checked_add(right.factor)
        {
            return if factor == 0 { Size::number(0) } else { Size { factor, ..left.clone() } };
        }
        let operands = if left <= right { [left, right] } else { [right, left] };
        self.computed("sum", &operands, left.is_natural() && right.is_natural())
    }

    pub(crate) fn difference(&mut self, left: &Size, right: &Size) -> Size {
        match right.times(&Size::number(-1)) {
            Some(negative) => self.sum(left, &negative),
            None => self.computed("difference", &[left, right], false),
        }
    }

    pub(crate) fn times(&mut self, left: &Size, right: &Size) -> Size {
        let natural = left.is_natural() && right.is_natural();
        left.times(right).unwrap_or_else(|| self.computed("product", &[left, right], natural))
    }

    /// The quotient of whole numbers; `None` where rounding would have to be known.
    pub(crate) fn quotient(&mut self, left: &Size, right: &Size) -> Option<Size> {
        if let Some(exact) = left.divided(right) {
            return Some(exact);
        }
        let natural = left.is_natural() && right.is_natural();
        let are_numbers = left.as_number().is_some() && right.as_number().is_some();
        (!are_numbers).then(|| self.computed("quotient", &[left, right], natural))
    }
}
