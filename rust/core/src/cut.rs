//! A request with more rows than one run takes: one entry of the queue, which yields rows as instances take them. Hot path.
//!
//! Nothing is made of its parts before they run: an entry knows where its next row begins. After each part it goes behind
//! the others of its rank, so that a large request is nobody else's wait; several instances may have parts of it at once.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::entry::{Entry, Waiter};
use crate::join::Join;
use crate::model::ModelSpec;
use crate::tensor::{BytesElements, TensorBytes, element_count};
use crate::validate::CheckedInput;

/// The rows of a large request that no instance has taken yet.
#[derive(Debug)]
pub struct Uncut {
    join: Arc<Join>,
    fronts: SmallVec<[Front; 2]>,
    next_row: usize,
}

/// One input's bytes, from the next row on.
#[derive(Debug)]
struct Front {
    piece: Bytes,
    pieces: std::vec::IntoIter<Bytes>,
    row: RowSize,
}

/// How the end of a row is found.
#[derive(Clone, Copy, Debug)]
enum RowSize {
    /// Each has so many bytes.
    Bytes(usize),
    /// Each has so many elements, with their lengths before them.
    Elements(usize),
}

/// Makes one entry of a large request: it has all the rows, and none of them apart.
pub fn uncut(entry: Entry, spec: &ModelSpec) -> Entry {
    let Entry { inputs, rows, ticket, .. } = entry;
    let part = ticket.beside();
    let mut shapes = SmallVec::with_capacity(inputs.len());
    let mut fronts = SmallVec::with_capacity(inputs.len());
    for (input, spec) in inputs.into_iter().zip(&spec.inputs) {
        let row = match spec.datatype.size() {
            Some(_) => RowSize::Bytes(input.data.len() / rows),
            None => RowSize::Elements(element_count(input.shape.get(1..).unwrap_or_default()).unwrap_or(0)),
        };
        let pieces: Vec<Bytes> = input.data.pieces().cloned().collect();
        fronts.push(Front { piece: Bytes::new(), pieces: pieces.into_iter(), row });
        shapes.push(CheckedInput { shape: input.shape, data: TensorBytes::new() });
    }
    let join = Arc::new(Join::new(ticket, rows));
    let waiter = Waiter::Part { join: Arc::clone(&join), offset: 0, rows };
    Entry { inputs: shapes, uncut: Some(Box::new(Uncut { join, fronts, next_row: 0 })), ticket: part(waiter), ..entry }
}

impl Entry {
    /// Takes the next `rows` rows of a large request, all that are left at most, as an entry that can run.
    ///
    /// It has left the queue with its first part: from then on only its deadline counts.
    pub(crate) fn take_rows(&mut self, rows: usize) -> Option<Entry> {
        let uncut = self.uncut.as_mut()?;
        let rows = rows.min(self.rows);
        let (join, offset) = (Arc::clone(&uncut.join), uncut.next_row);
        let inputs: SmallVec<[CheckedInput; 2]> =
            uncut.fronts.iter_mut().zip(&self.inputs).map(|(front, input)| front.rows(rows, input)).collect();
        uncut.next_row += rows;
        self.rows -= rows;
        let bytes = inputs.iter().map(|input| input.data.len()).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        (self.queue_deadline, self.delayed_from) = (None, None);
        let part = self.ticket.beside();
        let rest = Waiter::Part { join: Arc::clone(&join), offset: uncut.next_row, rows: self.rows };
        self.ticket.waiter = rest;
        Some(Entry {
            inputs,
            uncut: None,
            outputs: self.outputs.clone(),
            classes: self.classes.clone(),
            rows,
            offset: 0,
            key: self.key,
            bytes,
            level: self.level,
            deadline: self.deadline,
            queue_deadline: None,
            delayed_from: None,
            is_tried: self.is_tried,
            ticket: part(Waiter::Part { join, offset, rows }),
        })
    }
}

impl Front {
    fn rows(&mut self, rows: usize, whole: &CheckedInput) -> CheckedInput {
        let mut shape = whole.shape.clone();
        shape[0] = rows as i64;
        let data = match self.row {
            RowSize::Bytes(bytes) => self.take(rows * bytes),
            RowSize::Elements(elements) => {
                // Validation left one piece of such a tensor, all of whose lengths fit.
                if self.piece.is_empty() {
                    self.piece = self.pieces.next().unwrap_or_default();
                }
                let taken = BytesElements::new(&self.piece).take(rows * elements).filter_map(Result::ok);
                let bytes = taken.map(|element| 4 + element.len()).sum();
                self.take(bytes)
            }
        };
        CheckedInput { shape, data }
    }

    fn take(&mut self, mut bytes: usize) -> TensorBytes {
        let mut data = TensorBytes::new();
        while bytes > 0 {
            if self.piece.is_empty() {
                let Some(next) = self.pieces.next() else { break };
                self.piece = next;
            }
            let piece = self.piece.split_to(bytes.min(self.piece.len()));
            bytes -= piece.len();
            data.push(piece);
        }
        data
    }
}
