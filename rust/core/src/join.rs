//! Requests with more rows than one run takes: cut into parts, and the parts' outputs joined again.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::budget::Reservation;
use crate::entry::{Entry, Rows, Ticket, Waiter};
use crate::error::{Error, Kind, Result};
use crate::model::ModelSpec;
use crate::request::{Output, Reply};
use crate::sync::{Mutex, lock};
use crate::tensor::{BytesElements, DataType, TensorBytes};
use crate::trace::Trace;
use crate::validate::CheckedInput;

/// Where the parts of one request meet.
#[derive(Debug)]
pub struct Join(Mutex<State>);

#[derive(Debug)]
struct State {
    reply: Option<Box<dyn Reply>>,
    parts: Vec<Option<Rows>>,
    missing: usize,
    error: Option<Error>,
    held: Held,
}

/// What the whole request holds until it is answered.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Its bytes, and those that its answer is expected to have.
    pub(crate) reservation: Option<Reservation>,
    /// Of these, the bytes of the answer.
    pub(crate) expected: usize,
    /// Its place among the requests in flight.
    pub(crate) in_flight: Option<Reservation>,
    /// What is written of it, if it is traced.
    pub(crate) trace: Option<Box<Trace>>,
}

impl Join {
    /// Whether the other parts need not run any more: the caller is gone, or a part has failed.
    pub(crate) fn is_gone(&self) -> bool {
        let mut state = lock(&self.0);
        state.error.is_some() || state.reply.as_mut().is_none_or(|reply| reply.is_gone())
    }

    /// Takes a part's result. After the last one: the caller, and the rows of all parts or the first error.
    pub(crate) fn finish(&self, index: usize, result: Result<Rows>) -> Option<(Box<dyn Reply>, Result<Rows>, Held)> {
        let mut state = lock(&self.0);
        match result {
            Ok(rows) => state.parts[index] = Some(rows),
            // A part that was dropped because another failed must not hide the reason.
            Err(error) => state.error = state.error.take().or(Some(error)),
        }
        state.missing -= 1;
        if state.missing > 0 {
            return None;
        }
        let reply = state.reply.take()?;
        let parts = std::mem::take(&mut state.parts);
        let result = match state.error.take() {
            Some(error) => Err(error),
            None => joined(parts),
        };
        Some((reply, result, std::mem::take(&mut state.held)))
    }
}

/// Cuts `entry` into parts of at most `max_rows` rows.
///
/// **Cost:** no copy; the parts are views. Joining copies the outputs once.
pub fn cut(entry: Entry, spec: &ModelSpec, max_rows: usize) -> Vec<Entry> {
    let Entry { inputs, outputs, classes, rows, key, bytes: _, level, deadline, queue_deadline, delayed_from, ticket } =
        entry;
    let Ticket { waiter, id, protocol, arrived, home, reservation, expected, in_flight, trace } = ticket;
    let Waiter::Caller(reply) = waiter else { unreachable!("a part is never cut again: it has at most max_rows rows") };
    let count = rows.div_ceil(max_rows);
    let join = Arc::new(Join(Mutex::new(State {
        reply: Some(reply),
        parts: (0..count).map(|_| None).collect(),
        missing: count,
        error: None,
        held: Held { reservation, expected, in_flight, trace },
    })));
    let cutters: Vec<Cutter> =
        inputs.iter().zip(&spec.inputs).map(|(input, spec)| Cutter::new(input, spec.datatype, rows)).collect();
    (0..count)
        .map(|index| {
            let (start, end) = (index * max_rows, rows.min((index + 1) * max_rows));
            let inputs: SmallVec<[CheckedInput; 2]> = cutters.iter().map(|cutter| cutter.rows(start, end)).collect();
            Entry {
                bytes: inputs.iter().map(|input| input.data.len()).sum(),
                inputs,
                outputs: outputs.clone(),
                classes: classes.clone(),
                rows: end - start,
                key,
                level,
                deadline,
                queue_deadline,
                delayed_from,
                ticket: Ticket {
                    waiter: Waiter::Part { join: Arc::clone(&join), index },
                    id: id.clone(),
                    protocol,
                    arrived,
                    home,
                    reservation: None,
                    expected: 0,
                    in_flight: None,
                    trace: None,
                },
            }
        })
        .collect()
}

/// Knows where each row of an input begins.
struct Cutter {
    input: CheckedInput,
    bounds: Bounds,
}

enum Bounds {
    Every(usize),
    At(Vec<usize>),
}

impl Cutter {
    fn new(input: &CheckedInput, datatype: DataType, rows: usize) -> Self {
        let input = CheckedInput { shape: input.shape.clone(), data: input.data.to_contiguous().into() };
        let bounds = match datatype {
            DataType::Bytes => Bounds::At(row_bounds(&input.data.to_contiguous(), rows)),
            _ => Bounds::Every(input.data.len() / rows.max(1)),
        };
        Self { input, bounds }
    }

    fn rows(&self, start: usize, end: usize) -> CheckedInput {
        let at = |row: usize| match &self.bounds {
            Bounds::Every(bytes) => row * bytes,
            Bounds::At(bounds) => bounds[row],
        };
        let mut shape = self.input.shape.clone();
        shape[0] = (end - start) as i64;
        let data = self.input.data.as_contiguous().map(|bytes| bytes.slice(at(start)..at(end))).unwrap_or_default();
        CheckedInput { shape, data: TensorBytes::from(data) }
    }
}

/// Byte offsets at which the rows of a BYTES tensor begin, and where the last ends.
pub(crate) fn row_bounds(wire: &[u8], rows: usize) -> Vec<usize> {
    let ends: Vec<usize> = BytesElements::new(wire)
        .filter_map(Result::ok)
        .scan(0, |end, element| {
            *end += 4 + element.len();
            Some(*end)
        })
        .collect();
    let per_row = ends.len() / rows.max(1);
    (0..=rows).map(|row| if row * per_row == 0 { 0 } else { ends[row * per_row - 1] }).collect()
}

fn joined(parts: Vec<Option<Rows>>) -> Result<Rows> {
    let mut parts = parts.into_iter().flatten();
    let Some(mut whole) = parts.next() else {
        return Err(Error::new(Kind::Internal, "a request was cut into no parts"));
    };
    let rest: Vec<Rows> = parts.collect();
    for (index, output) in whole.outputs.iter_mut().enumerate() {
        append(output, rest.iter().map(|part| &part.outputs[index]))?;
    }
    whole.rows += rest.iter().map(|part| part.rows).sum::<usize>();
    Ok(whole)
}

fn append<'a>(output: &mut Output, rest: impl Iterator<Item = &'a Output> + Clone) -> Result<()> {
    let bytes = output.data.len() + rest.clone().map(|part| part.data.len()).sum::<usize>();
    let mut data = Vec::with_capacity(bytes);
    data.extend_from_slice(&output.data);
    for part in rest {
        if part.shape[1..] != output.shape[1..] {
            return Err(Error::internal(format!(
                "parts of one request came back with shapes {:?} and {:?}; set models.NAME.max_batch_rows to the \
                 largest request",
                output.shape, part.shape
            )));
        }
        output.shape[0] += part.shape[0];
        data.extend_from_slice(&part.data);
    }
    output.data = data.into();
    Ok(())
}
