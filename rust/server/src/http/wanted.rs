//! Which outputs a JSON request wants, and in which form. Hot path.

use mlserve_core::error::{Error, Result, quoted};
use mlserve_core::request::{RequestOptions, Text};
use smallvec::SmallVec;

use super::decode::{kind, missing, once, text, too_many};
use super::json::{Cursor, Token};
use super::parameters::{boolean, read_classes, read_place};
use crate::shared_memory::{Place, PlaceParameters, SharedTensors};

/// How an output is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum OutputForm {
    /// As an array in the JSON.
    #[default]
    Json,
    /// Behind the JSON.
    Binary,
    /// In shared memory: the answer has its name, type and shape only.
    Shared,
}

/// The forms of a request's outputs.
#[derive(Clone, Debug, Default)]
pub(super) struct Wants {
    by_name: SmallVec<[(Text, OutputForm); 2]>,
    otherwise: OutputForm,
}

impl Wants {
    /// Everything as binary data.
    pub(super) fn all_binary() -> Self {
        Self { by_name: SmallVec::new(), otherwise: OutputForm::Binary }
    }

    /// How the output of this name is answered.
    pub(super) fn form(&self, name: &str) -> OutputForm {
        self.by_name.iter().find(|(wanted, _)| **wanted == *name).map_or(self.otherwise, |&(_, form)| form)
    }
}

/// One wanted output as its members come.
#[derive(Debug)]
struct Output {
    name: Text,
    /// `None`: as the request says.
    form: Option<OutputForm>,
}

/// The `outputs` of a request.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    list: SmallVec<[Output; 2]>,
    classifications: Vec<(Text, usize)>,
    shared: Vec<(Text, Place)>,
}

impl Outputs {
    /// Reads the array of them.
    ///
    /// **Errors:** too many; without a name; parameters of the wrong kind, or that contradict each other.
    pub(super) fn read(cursor: &mut Cursor<'_>, max_tensors: usize) -> Result<Self> {
        kind(cursor, Token::Array, "outputs")?;
        let mut outputs = Self::default();
        cursor.array(|cursor| {
            if outputs.list.len() == max_tensors {
                return Err(too_many("outputs", max_tensors));
            }
            kind(cursor, Token::Object, "outputs")?;
            let (mut name, mut parameters) = (None, OutputParameters::default());
            cursor.object(|cursor, key| {
                match &*key {
                    _ if cursor.null()? => {}
                    "name" => {
                        once(name.is_none(), &key)?;
                        name = Some(text(cursor, &key)?);
                    }
                    "parameters" => {
                        kind(cursor, Token::Object, &key)?;
                        parameters = OutputParameters::read(cursor)?;
                    }
                    _ => cursor.skip()?,
                }
                Ok(())
            })?;
            let name = Text::from(name.ok_or_else(|| missing("name"))?.into_owned());
            outputs.push(name, parameters)
        })?;
        Ok(outputs)
    }

    fn push(&mut self, name: Text, parameters: OutputParameters) -> Result<()> {
        let mut form =
            parameters.is_binary.map(|is_binary| if is_binary { OutputForm::Binary } else { OutputForm::Json });
        if let Some(place) = parameters.place.map(|place| place.finish(&name)).transpose()?.flatten() {
            if form == Some(OutputForm::Binary) {
                return Err(shared_and("binary_data", &name));
            }
            if parameters.classes > 0 {
                return Err(shared_and("classification", &name));
            }
            form = Some(OutputForm::Shared);
            self.shared.push((name.clone(), place));
        } else if parameters.classes > 0 {
            self.classifications.push((name.clone(), usize::try_from(parameters.classes).unwrap_or(usize::MAX)));
        }
        self.list.push(Output { name, form });
        Ok(())
    }

    /// The names, to be put into the request, and the forms; outputs that say nothing have the form `otherwise`.
    pub(super) fn finish(self, otherwise: OutputForm, names: &mut SmallVec<[Text; 2]>) -> Wants {
        let mut wants = Wants { by_name: SmallVec::new(), otherwise };
        for Output { name, form } in self.list {
            wants.by_name.push((name.clone(), form.unwrap_or(otherwise)));
            names.push(name);
        }
        wants
    }

    /// Takes out what few requests have.
    pub(super) fn take_rare(
        &mut self,
        options: &mut Option<Box<RequestOptions>>,
        shared: &mut Option<Box<SharedTensors>>,
    ) {
        if !self.classifications.is_empty() {
            options.get_or_insert_default().classifications = std::mem::take(&mut self.classifications);
        }
        if !self.shared.is_empty() {
            shared.get_or_insert_default().outputs = std::mem::take(&mut self.shared).into();
        }
    }
}

/// What the `parameters` of an output say.
#[derive(Debug, Default)]
struct OutputParameters {
    is_binary: Option<bool>,
    /// 0: not to be classified.
    classes: u64,
    place: Option<Box<PlaceParameters>>,
}

impl OutputParameters {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self> {
        let mut parameters = Self::default();
        cursor.object(|cursor, key| {
            match &*key {
                _ if cursor.null()? => {}
                "binary_data" => parameters.is_binary = Some(boolean(cursor, &key)?),
                "classification" => parameters.classes = read_classes(cursor)?,
                _ if read_place(&mut parameters.place, cursor, &key)? => {}
                _ => cursor.skip()?,
            }
            Ok(())
        })?;
        Ok(parameters)
    }
}

#[cold]
fn shared_and(what: &str, name: &str) -> Error {
    Error::invalid(format!("Output can't set both 'shared_memory_region' and '{what}'; output '{}' does", quoted(name)))
}
