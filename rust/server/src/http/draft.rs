//! An answer on its way to be written: what of the core's answer goes into the body, borrowed or owned. Hot path.

use std::borrow::Cow;

use bytes::Bytes;
use mlserve_core::budget::Reservation;
use mlserve_core::error::{Error, Result};
use mlserve_core::request::{Answer, BatchPlace, Text};
use mlserve_core::tensor::{DataType, Shape};
use smallvec::SmallVec;

use super::wanted::{OutputForm, Wants};

/// One output.
#[derive(Debug)]
pub(super) struct DraftOutput<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) datatype: DataType,
    pub(super) shape: Shape,
    pub(super) data: Bytes,
    pub(super) form: OutputForm,
}

/// An answer that is not encoded yet.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) model: Cow<'a, str>,
    pub(super) version: u64,
    /// Empty if the caller sent none.
    pub(super) id: Text,
    pub(super) outputs: SmallVec<[DraftOutput<'a>; 2]>,
    /// Where it ran, if the answer tells.
    pub(super) place: Option<BatchPlace>,
    pub(super) reservation: Option<Reservation>,
}

impl<'a> Draft<'a> {
    /// The draft of `answer` in the form that the caller wants.
    ///
    /// **Errors:** the answer has an output that its version does not know.
    pub(super) fn new(answer: Answer<'a>, wants: &Wants, report_batches: bool) -> Result<Self> {
        let spec = &answer.version.spec;
        let outputs = answer.outputs.into_iter().map(|output| {
            let tensor = spec.outputs.get(output.index).ok_or_else(|| Error::internal("an output has no name"))?;
            Ok(DraftOutput {
                name: Cow::Borrowed(tensor.name.as_str()),
                datatype: output.datatype,
                shape: output.shape,
                form: wants.form(&tensor.name),
                data: output.data,
            })
        });
        Ok(Self {
            model: Cow::Borrowed(&spec.name),
            version: spec.version,
            id: answer.id,
            outputs: outputs.collect::<Result<_>>()?,
            place: report_batches.then_some(answer.place),
            reservation: answer.reservation,
        })
    }

    /// Bytes of tensors that will be written as JSON text.
    pub(super) fn json_bytes(&self) -> usize {
        self.outputs.iter().filter(|output| output.form == OutputForm::Json).map(|output| output.data.len()).sum()
    }

    /// The same, to be encoded elsewhere.
    pub(super) fn into_owned(self) -> Draft<'static> {
        let outputs = self.outputs.into_iter().map(|output| DraftOutput {
            name: Cow::Owned(output.name.into_owned()),
            datatype: output.datatype,
            shape: output.shape,
            data: output.data,
            form: output.form,
        });
        Draft {
            model: Cow::Owned(self.model.into_owned()),
            version: self.version,
            id: self.id,
            outputs: outputs.collect(),
            place: self.place,
            reservation: self.reservation,
        }
    }
}
