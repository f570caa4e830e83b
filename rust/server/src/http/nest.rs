//! How a JSON value is nested: the lengths of its lists, and which shapes of a tensor they can stand for.

use mlserve_core::error::{Error, Result, quoted};
use mlserve_core::model::TensorSpec;
use mlserve_core::tensor::{Shape, ShapeText};
use smallvec::SmallVec;

use super::json::{Cursor, Token};

/// The lists of a value that is regular: all lists of a level are equally long, and all elements equally deep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nest {
    /// Of each level, the outermost first; none for a single element.
    lengths: Shape,
    /// Whether there are elements; without any, how much deeper they would lie is open.
    has_elements: bool,
}

impl Nest {
    /// Measures the value at `cursor`, which moves behind it.
    ///
    /// **Errors:** lists of different lengths or elements at different depths, by their position; not JSON; too deep.
    pub(super) fn measure(cursor: &mut Cursor<'_>, input: &str) -> Result<Self> {
        walk(cursor, input, |cursor, _| cursor.skip())
    }

    /// The lengths, the outermost first.
    pub(super) fn lengths(&self) -> &[i64] {
        &self.lengths
    }

    /// Whether it is nested as deep as the whole of `tensor`.
    pub(super) fn is_whole(&self, tensor: &TensorSpec) -> bool {
        self.lengths.len() == tensor.shape.len()
    }

    /// The same without the outermost list.
    pub(super) fn inner(&self) -> Self {
        Self { lengths: self.lengths.iter().skip(1).copied().collect(), has_elements: self.has_elements }
    }

    /// The shape that this value has as a tensor of `dimensions`, of which negative ones are open; `None` if it is of
    /// another rank. A single element also stands for a tensor that can have one element only.
    pub(super) fn fit(&self, dimensions: &[i64]) -> Option<Shape> {
        let rank = self.lengths.len();
        if rank == dimensions.len() {
            return Some(self.lengths.clone());
        }
        if !self.has_elements && rank < dimensions.len() {
            let missing = dimensions[rank..].iter().map(|&dimension| dimension.max(0));
            return Some(self.lengths.iter().copied().chain(missing).collect());
        }
        let is_single = rank == 0 && dimensions.iter().all(|&dimension| dimension == 1 || dimension < 0);
        is_single.then(|| dimensions.iter().map(|_| 1).collect())
    }

    /// Why [`Self::fit`] found nothing. `what`: what the value stands for.
    #[cold]
    pub(super) fn misfit(&self, input: &str, dimensions: &[i64], what: &str) -> Error {
        let expected = match dimensions.len() {
            0 => "a single value".to_owned(),
            1 => format!("a list of shape {}", ShapeText(dimensions)),
            levels => format!("lists {levels} levels deep, of shape {}", ShapeText(dimensions)),
        };
        let got = match self.lengths.len() {
            0 => "a single value".to_owned(),
            _ => format!("shape {}", ShapeText(&self.lengths)),
        };
        Error::invalid(format!("input '{}': {what} takes {expected}, got {got}", quoted(input)))
    }
}

/// Walks the lists of a value and gives each element to `element`, which must read it.
///
/// **Errors:** those of [`Nest::measure`], and those of `element`.
pub(super) fn walk<'a>(
    cursor: &mut Cursor<'a>,
    input: &str,
    mut element: impl FnMut(&mut Cursor<'a>, Token) -> Result<()>,
) -> Result<Nest> {
    let mut walk = Walk { input, counts: SmallVec::new(), lengths: SmallVec::new(), level: None };
    loop {
        let token = cursor.token()?;
        if token == Token::Array {
            walk.list_may_come()?;
            cursor.enter(b'[')?;
            walk.open();
            if !cursor.leave(b']') {
                continue;
            }
            walk.close()?;
        } else {
            walk.element_may_come()?;
            element(cursor, token)?;
        }
        walk.count();
        while !walk.counts.is_empty() && !cursor.more(b']')? {
            walk.close()?;
            walk.count();
        }
        if walk.counts.is_empty() {
            return Ok(walk.end());
        }
    }
}

/// Where a walk is.
struct Walk<'a> {
    input: &'a str,
    /// What has come in the open lists, the innermost last.
    counts: SmallVec<[i64; 8]>,
    /// Of each level, `None` until its first list has ended.
    lengths: SmallVec<[Option<i64>; 8]>,
    /// Where elements are, once one has come.
    level: Option<usize>,
}

impl Walk<'_> {
    fn list_may_come(&self) -> Result<()> {
        if self.level == Some(self.counts.len()) { Err(self.fault("a list", "a value")) } else { Ok(()) }
    }

    fn element_may_come(&mut self) -> Result<()> {
        let level = self.counts.len();
        if self.lengths.len() > level {
            return Err(self.fault("a value", "a list"));
        }
        self.level = Some(level);
        Ok(())
    }

    fn open(&mut self) {
        self.counts.push(0);
        if self.lengths.len() < self.counts.len() {
            self.lengths.push(None);
        }
    }

    fn close(&mut self) -> Result<()> {
        let level = self.counts.len().saturating_sub(1);
        let Some(count) = self.counts.pop() else { return Ok(()) };
        match self.lengths[level].replace(count) {
            Some(length) if length != count => Err(Error::invalid(format!(
                "input '{}' is ragged: the list at {} has {count} elements, those before it have {length}",
                quoted(self.input),
                self.place()
            ))),
            _ => Ok(()),
        }
    }

    /// A value of the innermost open list is complete.
    fn count(&mut self) {
        if let Some(count) = self.counts.last_mut() {
            *count += 1;
        }
    }

    fn end(self) -> Nest {
        let lengths = self.lengths.iter().map(|length| length.unwrap_or(0)).collect();
        Nest { lengths, has_elements: self.level.is_some() }
    }

    /// The indices that lead to what comes next.
    fn place(&self) -> String {
        let indices: Vec<String> = self.counts.iter().map(i64::to_string).collect();
        format!("[{}]", indices.join("]["))
    }

    #[cold]
    fn fault(&self, got: &str, before: &str) -> Error {
        Error::invalid(format!(
            "input '{}' is ragged: there is {got} at {}, where {before} stands before it",
            quoted(self.input),
            self.place()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nest(json: &str) -> Result<Nest> {
        let mut cursor = Cursor::new(json, 8);
        let nest = Nest::measure(&mut cursor, "x")?;
        cursor.end()?;
        Ok(nest)
    }

    fn lengths(json: &str) -> Vec<i64> {
        nest(json).expect(json).lengths().to_vec()
    }

    fn fault(json: &str) -> String {
        nest(json).expect_err(json).text().to_owned()
    }

    #[test]
    fn regular_lists_have_one_length_for_each_level() {
        assert_eq!(lengths("5"), [0_i64; 0]);
        assert_eq!(lengths("[1]"), [1]);
        assert_eq!(lengths("[[1,2,3],[4,5,6]]"), [2, 3]);
        assert_eq!(lengths("[[[1],[2]],[[\"a\"],[null]]]"), [2, 2, 1]);
        assert_eq!(lengths("[{\"b64\":\"\"},{\"b64\":[[]]}]"), [2]);
        assert_eq!(lengths("[]"), [0]);
        assert_eq!(lengths("[[],[]]"), [2, 0]);
    }

    #[test]
    fn what_is_ragged_is_refused_by_its_position() {
        let same = |text: &str| format!("input 'x' is ragged: {text}");
        assert_eq!(fault("[[1,2],[3]]"), same("the list at [1] has 1 elements, those before it have 2"));
        assert_eq!(fault("[[[1],[2]],[[3],[]]]"), same("the list at [1][1] has 0 elements, those before it have 1"));
        assert_eq!(fault("[1,[2]]"), same("there is a list at [1], where a value stands before it"));
        assert_eq!(fault("[[1],2]"), same("there is a value at [1], where a list stands before it"));
        assert_eq!(fault("[[],2]"), same("there is a value at [1], where a list stands before it"));
        assert_eq!(fault("[[],[[]]]"), same("the list at [1] has 1 elements, those before it have 0"));
    }

    #[test]
    fn depth_is_limited() {
        assert_eq!(fault("[[[[[[[[[1]]]]]]]]]"), "the request JSON is nested deeper than 8 levels, which is the limit");
    }

    #[test]
    fn values_fit_tensors_of_their_rank() {
        let fit = |json: &str, dimensions: &[i64]| nest(json).expect(json).fit(dimensions).map(|shape| shape.to_vec());
        assert_eq!(fit("[[1,2]]", &[-1, 2]), Some(vec![1, 2]));
        assert_eq!(fit("[1,2]", &[-1, 2]), None);
        assert_eq!(fit("5", &[]), Some(vec![]));
        assert_eq!(fit("5", &[1, -1]), Some(vec![1, 1]));
        assert_eq!(fit("5", &[2]), None);
        assert_eq!(fit("[]", &[-1, 4]), Some(vec![0, 4]));
        assert_eq!(fit("[]", &[-1, -1]), Some(vec![0, 0]));
        assert_eq!(fit("[[1]]", &[-1]), None);
    }
}
