//! Where the parts of a request meet that has more rows than one run takes, and their outputs become one answer.
//!
//! A part's rows are copied to their place by the thread that ran it. The answer is allocated once, when the first part
//! has told how large a row is; outputs whose rows differ in size wait in pieces.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::entry::{Outcome, Rows, Ticket, Timing, answer_out_of_budget, answer_too_large};
use crate::error::{Error, Result};
use crate::request::{BatchPlace, Output};
use crate::sync::{Mutex, lock};
use crate::tensor::{BytesElements, DataType, Shape};

/// Where the parts of one request meet.
#[derive(Debug)]
pub struct Join {
    /// Set once a part has failed: the others need not run any more.
    has_failed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What is needed to answer the whole request; taken by the last part.
    ticket: Option<Ticket>,
    /// Rows of the request.
    rows: usize,
    /// Rows that are neither answered nor refused yet.
    missing: usize,
    outputs: Option<SmallVec<[Joined; 2]>>,
    place: Option<BatchPlace>,
    error: Option<Error>,
}

/// One output of the whole request.
#[derive(Debug)]
struct Joined {
    index: usize,
    datatype: DataType,
    /// Dimensions of a row.
    row_shape: Shape,
    data: Data,
}

#[derive(Debug)]
enum Data {
    /// As many bytes as all rows have, each row in its place.
    Whole { bytes: Vec<u8>, total: usize },
    /// By the row that each piece begins with.
    Pieces { pieces: Vec<(usize, Bytes)>, bytes: usize },
}

impl Join {
    /// A meeting place for the `rows` rows of one request.
    pub(crate) fn new(ticket: Ticket, rows: usize) -> Self {
        let state = State { ticket: Some(ticket), rows, missing: rows, outputs: None, place: None, error: None };
        Self { has_failed: AtomicBool::new(false), state: Mutex::new(state) }
    }

    /// Whether the other parts need not run any more: the caller is gone, or a part has failed.
    pub(crate) fn is_gone(&self) -> bool {
        self.has_failed.load(Ordering::Acquire) || lock(&self.state).ticket.as_mut().is_none_or(Ticket::is_gone)
    }

    /// Takes the result for the `rows` rows from `offset` on. After the last ones: what became of the whole request.
    pub(crate) fn finish(&self, offset: usize, rows: usize, result: Result<Rows>, timing: Timing) -> Option<Outcome> {
        let mut state = lock(&self.state);
        if let Err(error) = result.and_then(|part| state.add(offset, rows, &part)) {
            self.has_failed.store(true, Ordering::Release);
            // A part that was dropped because another failed must not hide the reason.
            state.error.get_or_insert(error);
            state.outputs = None;
        }
        state.missing = state.missing.saturating_sub(rows);
        if state.missing > 0 {
            return None;
        }
        let ticket = state.ticket.take()?;
        Some(Outcome { result: state.whole(), ticket, timing })
    }
}

impl State {
    fn add(&mut self, offset: usize, rows: usize, part: &Rows) -> Result<()> {
        if self.error.is_some() {
            return Ok(());
        }
        self.place.get_or_insert(part.place);
        if self.outputs.is_none() {
            let outputs = part.outputs.iter().map(|output| Joined::new(output, rows, self.rows));
            let outputs: SmallVec<[Joined; 2]> = outputs.collect::<Result<_>>()?;
            self.hold(outputs.iter().map(Joined::bytes).fold(0, usize::saturating_add))?;
            self.outputs = Some(outputs.into_iter().map(Joined::allocated).collect());
        }
        let outputs = self.outputs.as_mut().into_iter().flatten();
        for (joined, output) in outputs.zip(&part.outputs) {
            joined.put(output, offset, rows)?;
        }
        let bytes = self.outputs.iter().flatten().map(Joined::bytes).fold(0, usize::saturating_add);
        self.hold(bytes)
    }

    /// Holds what the answer has become, before it is made.
    fn hold(&mut self, bytes: usize) -> Result<()> {
        let Some(ticket) = &mut self.ticket else { return Ok(()) };
        if bytes > ticket.most {
            return Err(answer_too_large(bytes, ticket.most));
        }
        let more = bytes.saturating_sub(ticket.expected);
        if ticket.reservation.as_mut().is_some_and(|held| !held.grow(more)) {
            return Err(answer_out_of_budget(bytes));
        }
        ticket.expected += more;
        Ok(())
    }

    fn whole(&mut self) -> Result<Rows> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let (Some(outputs), Some(place)) = (self.outputs.take(), self.place) else {
            return Err(Error::internal("a request was cut into no parts"));
        };
        let rows = self.rows;
        Ok(Rows { outputs: outputs.into_iter().map(|output| output.whole(rows)).collect(), place, rows })
    }
}

impl Joined {
    /// The output of which `output` holds `rows` of `all` rows. Nothing is allocated yet.
    fn new(output: &Output, rows: usize, all: usize) -> Result<Self> {
        let Some((_, row_shape)) = output.shape.split_first() else { return Err(not_by_rows(output, rows)) };
        let row_bytes = output.data.len() / rows.max(1);
        let data = match output.datatype.size() {
            Some(_) => Data::Whole { bytes: Vec::new(), total: row_bytes.saturating_mul(all) },
            None => Data::Pieces { pieces: Vec::new(), bytes: 0 },
        };
        Ok(Self { index: output.index, datatype: output.datatype, row_shape: row_shape.into(), data })
    }

    fn bytes(&self) -> usize {
        match &self.data {
            Data::Whole { total, .. } => *total,
            Data::Pieces { bytes, .. } => *bytes,
        }
    }

    fn allocated(mut self) -> Self {
        if let Data::Whole { bytes, total } = &mut self.data {
            *bytes = vec![0; *total];
        }
        self
    }

    fn put(&mut self, output: &Output, offset: usize, rows: usize) -> Result<()> {
        let is_alike = output.datatype == self.datatype
            && output.shape.first() == Some(&(rows as i64))
            && output.shape[1..] == self.row_shape[..];
        if !is_alike {
            return Err(not_by_rows(output, rows));
        }
        match &mut self.data {
            Data::Whole { bytes, .. } => {
                let start = offset * (output.data.len() / rows.max(1));
                let place = bytes.get_mut(start..start + output.data.len());
                place.ok_or_else(|| not_by_rows(output, rows))?.copy_from_slice(&output.data);
            }
            Data::Pieces { pieces, bytes } => {
                *bytes = bytes.saturating_add(output.data.len());
                pieces.push((offset, output.data.clone()));
            }
        }
        Ok(())
    }

    fn whole(self, rows: usize) -> Output {
        let data = match self.data {
            Data::Whole { bytes, .. } => bytes.into(),
            Data::Pieces { mut pieces, bytes } => {
                pieces.sort_unstable_by_key(|&(offset, _)| offset);
                let mut data = Vec::with_capacity(bytes);
                for (_, piece) in pieces {
                    data.extend_from_slice(&piece);
                }
                data.into()
            }
        };
        let shape = std::iter::once(rows as i64).chain(self.row_shape).collect();
        Output { index: self.index, datatype: self.datatype, shape, data }
    }
}

#[cold]
fn not_by_rows(output: &Output, rows: usize) -> Error {
    Error::internal(format!(
        "a part of {rows} rows of a large request came back with shape {:?}, which does not fit the other parts; set \
         models.NAME.max_batch_rows to the largest request",
        output.shape
    ))
}

/// Byte offsets at which the rows of a BYTES tensor begin, and where the last ends.
pub(crate) fn row_bounds(wire: &[u8], rows: usize) -> Vec<usize> {
    let lengths = || BytesElements::new(wire).filter_map(Result::ok).map(|element| 4 + element.len());
    let per_row = lengths().count() / rows.max(1);
    let mut rest = lengths();
    let ends = (0..rows).scan(0, |end, _| {
        *end += rest.by_ref().take(per_row).sum::<usize>();
        Some(*end)
    });
    std::iter::once(0).chain(ends).collect()
}
