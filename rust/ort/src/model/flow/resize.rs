//! Images made larger and smaller.

use super::size::Size;
use super::value::{Dims, How};
use super::{Ruled, Step, index};

const UNKNOWN: How = How::Unknown("resizes dimensions that are not known");

/// `Resize` and `Upsample`: the dimension of the rows stays as it is, and nothing is blended along it.
pub(super) fn resize(step: &mut Step<'_>) -> Ruled {
    let dims = step.dims(0)?;
    let axis = step.needed(0)?.axis().cloned();
    let asked = Resizing::of(step, dims.len())?;
    if let Some(axis) = &axis {
        if !asked.keeps(axis.at, &dims[axis.at]) {
            return Err(How::Unknown("may resize along the rows"));
        }
        // Fewer dimensions are blended all together; a neighbour that is infinite counts although its weight is zero.
        if step.node.text("mode", "nearest") != "nearest" && (axis.at != 0 || dims.len() < 4) {
            return Err(How::Mixes("blends along all dimensions"));
        }
    }
    let rows = axis.as_ref().map(|axis| axis.at);
    for (place, value) in step.inputs.iter().enumerate().skip(1) {
        if let Some(value) = value.as_ref().filter(|value| !value.is_fixed()) {
            let content = value.content.as_ref().ok_or(How::Mixes("works with the number of rows"))?;
            let is_rows = |at: usize| place == asked.sizes_at && rows.is_some() && asked.axes.get(at).copied() == rows;
            let is_free = |size: &Option<Size>| size.as_ref().is_some_and(|size| !size.follows_rows());
            if !content.iter().enumerate().all(|(at, size)| is_rows(at) || is_free(size)) {
                return Err(How::Mixes("works with the number of rows"));
            }
        }
    }
    let mut made = Dims::new();
    for (at, size) in dims.into_iter().enumerate() {
        let kept = asked.keeps(at, &size).then_some(size);
        let wanted = || asked.size(at).filter(|size| !size.follows_rows());
        made.push(kept.or_else(wanted).unwrap_or_else(|| step.symbols.fresh()));
    }
    Ok(vec![step.made(axis, made)])
}

/// What a node wants to be resized, and to what.
struct Resizing {
    /// The dimensions that the lists are about.
    axes: Vec<usize>,
    /// Whether each dimension is known to keep its size by its factor.
    factors: Option<Vec<bool>>,
    /// `None`: there are none, or they are only what a common ratio is computed from.
    sizes: Option<Vec<Option<Size>>>,
    /// The input that may follow the number of rows.
    sizes_at: usize,
}

impl Resizing {
    fn of(step: &Step<'_>, rank: usize) -> Result<Self, How> {
        let node = step.node;
        let is_by_values = step.inputs.iter().skip(1).flatten().any(|value| value.axis().is_some());
        if is_by_values {
            return Err(How::Unknown("resizes by values"));
        }
        let is_cut = node.text("coordinate_transformation_mode", "") == "tf_crop_and_resize";
        let axes: Vec<usize> = match node.ints("axes") {
            Some(numbers) => numbers.iter().map(|&number| index(number, rank)).collect::<Option<_>>().ok_or(UNKNOWN)?,
            None => (0..rank).collect(),
        };
        if (1..axes.len()).any(|at| axes[..at].contains(&axes[at])) {
            return Err(UNKNOWN);
        }
        let is_old = node.op_type == "Upsample" || step.opset < 11;
        let (scales_at, sizes_at) = if is_old { (1, usize::MAX) } else { (2, 3) };
        let list = |at: usize| step.value(at).and_then(|value| value.content.clone()).filter(|list| !list.is_empty());
        // A factor of one keeps the size of what is cut out.
        let is_one = |size: &Option<Size>| !is_cut && size.as_ref().is_some_and(|size| size.is(1));
        #[expect(clippy::float_cmp, reason = "one is exact")]
        let factors = match node.attribute("scales") {
            Some(scales) => Some(scales.floats.iter().map(|scale| !is_cut && *scale == 1.0).collect()),
            None => list(scales_at).map(|list| list.iter().map(is_one).collect()),
        };
        let is_stretched = node.text("keep_aspect_ratio_policy", "stretch") == "stretch";
        Ok(Self { axes, factors, sizes: list(sizes_at).filter(|_| is_stretched && !is_cut), sizes_at })
    }

    /// Whether the dimension, which has this size, is known to keep it.
    fn keeps(&self, at: usize, size: &Size) -> bool {
        let Some(place) = self.axes.iter().position(|&axis| axis == at) else { return true };
        match &self.factors {
            Some(factors) => factors.get(place) == Some(&true),
            None => self.size(at).as_ref() == Some(size),
        }
    }

    /// The size that is wanted for a dimension.
    fn size(&self, at: usize) -> Option<Size> {
        let place = self.axes.iter().position(|&axis| axis == at)?;
        self.sizes.as_ref().filter(|_| self.factors.is_none())?.get(place)?.clone()
    }
}
