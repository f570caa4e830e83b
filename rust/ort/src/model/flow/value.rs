//! What is known about one tensor: where its rows are, what its dimensions are, and what is in it if it holds sizes.

use std::rc::Rc;

use super::size::Size;

/// The axis that counts rows: index `(o * rows + row) * inner + i` belongs to `row`, for each `o` below `outer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    pub(crate) at: usize,
    pub(crate) outer: Size,
    pub(crate) inner: Size,
}

impl Axis {
    /// One index for each row.
    pub(crate) fn plain(at: usize) -> Self {
        Self { at, outer: Size::number(1), inner: Size::number(1) }
    }

    pub(crate) fn moved(&self, at: usize) -> Self {
        Self { at, ..self.clone() }
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.outer.is(1) && self.inner.is(1)
    }
}

/// How a tensor depends on the rows of a run.
#[derive(Clone, Debug)]
pub(crate) enum Flow {
    /// Not at all: the same for all requests of these shapes.
    Fixed,
    /// On how many there are, or on their places; on no values.
    Counts,
    /// Each index of the axis on the row that it belongs to, and on nothing else.
    Rows(Axis),
    /// Not to be told, or on several at once.
    Lost(Rc<Loss>),
}

/// Why a tensor's rows are lost.
#[derive(Debug)]
pub(crate) struct Loss {
    /// The operation.
    pub(crate) label: String,
    pub(crate) how: How,
}

/// What an operation does that ends the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// It works across rows.
    Mixes(&'static str),
    /// It cannot be told.
    Unknown(&'static str),
    /// It draws random numbers.
    Random,
    /// It quantises by what all rows have in common.
    Quantises,
}

impl Loss {
    /// For `inspect`, the metadata and the log.
    pub(crate) fn text(&self) -> String {
        let label = &self.label;
        match self.how {
            How::Mixes(how) => format!("{label} {how}, so rows influence each other"),
            How::Unknown(why) => format!("that rows are independent could not be proven: {label} {why}"),
            How::Random => format!("{label} draws random numbers, so that rows are independent cannot be proven"),
            How::Quantises => {
                let advice = "quantise statically (QDQ) to batch";
                format!("{label} quantises by the range of the whole batch, so rows influence each other; {advice}")
            }
        }
    }
}

/// Dimensions of a tensor.
pub(crate) type Dims = Vec<Size>;

/// One tensor.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) flow: Flow,
    /// `None`: not even the rank is known, which is never so for rows.
    pub(crate) dims: Option<Dims>,
    /// The elements of a small tensor of numbers that follow no values; `None` for one that is not known.
    pub(crate) content: Option<Vec<Option<Size>>>,
    /// The graph's input whose elements these are, unchanged.
    pub(crate) origin: Option<usize>,
}

impl Value {
    pub(crate) fn new(flow: Flow, dims: Dims) -> Self {
        Self { flow, dims: Some(dims), content: None, origin: None }
    }

    pub(crate) fn rows(axis: Axis, dims: Dims) -> Self {
        Self::new(Flow::Rows(axis), dims)
    }

    /// A constant of which nothing is known.
    pub(crate) fn fixed() -> Self {
        Self { flow: Flow::Fixed, dims: None, content: None, origin: None }
    }

    pub(crate) fn counts() -> Self {
        Self { flow: Flow::Counts, ..Self::fixed() }
    }

    pub(crate) fn lost(loss: &Rc<Loss>) -> Self {
        Self { flow: Flow::Lost(Rc::clone(loss)), ..Self::fixed() }
    }

    /// Numbers that are known; they decide whether it follows the number of rows.
    pub(crate) fn known(content: Vec<Option<Size>>, dims: Dims, otherwise: Flow) -> Self {
        let is_free = |size: &Option<Size>| size.as_ref().is_some_and(|size| !size.follows_rows());
        let flow = if content.iter().all(is_free) { Flow::Fixed } else { otherwise };
        Self { flow, dims: Some(dims), content: Some(content), origin: None }
    }

    pub(crate) fn axis(&self) -> Option<&Axis> {
        if let Flow::Rows(axis) = &self.flow { Some(axis) } else { None }
    }

    pub(crate) fn is_fixed(&self) -> bool {
        matches!(self.flow, Flow::Fixed)
    }

    pub(crate) fn rank(&self) -> Option<usize> {
        self.dims.as_ref().map(Vec::len)
    }

    /// Whether it is a constant of one element.
    pub(crate) fn is_scalar(&self) -> bool {
        self.is_fixed() && self.dims.as_ref().is_some_and(|dims| dims.iter().all(|size| size.is(1)))
    }

    /// Its elements as plain numbers.
    pub(crate) fn numbers(&self) -> Option<Vec<i64>> {
        self.content.as_ref()?.iter().map(|size| size.as_ref()?.as_number()).collect()
    }

    pub(crate) fn with_origin(self, origin: Option<usize>) -> Self {
        Self { origin, ..self }
    }
}
