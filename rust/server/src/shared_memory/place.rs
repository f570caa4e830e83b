//! Where a request says that a tensor lies: three parameters, read by each transport in its own way.

use mlserve_core::error::{Error, Result, quoted};
use mlserve_core::request::Text;

/// The parameter with the region's name.
pub(crate) const REGION: &str = "shared_memory_region";

/// The parameter with the first byte in the region.
pub(crate) const OFFSET: &str = "shared_memory_offset";

/// The parameter with the number of bytes.
pub(crate) const BYTE_SIZE: &str = "shared_memory_byte_size";

/// Where a request says that a tensor lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The region's name.
    pub(crate) region: Text,
    /// In the region.
    pub(crate) offset: u64,
    /// What is there (inputs), or may be used (outputs).
    pub(crate) byte_size: u64,
}

/// What was sent for one of the parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Given<T> {
    /// Nothing.
    #[default]
    Nothing,
    /// What is wanted.
    Value(T),
    /// A number that is negative or too large, as text.
    OutOfRange(String),
    /// A value of another kind.
    WrongKind,
}

impl<T> Given<T> {
    fn is_there(&self) -> bool {
        !matches!(self, Given::Nothing)
    }

    fn value(self, key: &str, tensor: &str, kind: &str) -> Result<T> {
        match self {
            Given::Value(value) => Ok(value),
            Given::OutOfRange(number) => Err(out_of_range(key, tensor, &number)),
            Given::WrongKind | Given::Nothing => Err(wrong_kind(key, tensor, kind)),
        }
    }
}

/// The three parameters as they were sent.
#[derive(Debug, Default)]
pub(crate) struct PlaceParameters {
    /// [`REGION`].
    pub(crate) region: Given<Text>,
    /// [`OFFSET`].
    pub(crate) offset: Given<u64>,
    /// [`BYTE_SIZE`].
    pub(crate) byte_size: Given<u64>,
}

impl PlaceParameters {
    /// Whether the tensor is said to lie in shared memory, rightly or not.
    pub(crate) fn is_shared(&self) -> bool {
        self.region.is_there()
    }

    /// The place of `tensor`; `None`: it is in the message.
    ///
    /// **Errors:** a value of the wrong kind or out of range; a region without a size, or either number without a region.
    pub(crate) fn finish(self, tensor: &str) -> Result<Option<Place>> {
        if !self.is_shared() {
            let mut numbers = [(OFFSET, &self.offset), (BYTE_SIZE, &self.byte_size)].into_iter();
            return numbers
                .find(|(_, given)| given.is_there())
                .map_or(Ok(None), |(key, _)| Err(without_region(key, tensor)));
        }
        let region = self.region.value(REGION, tensor, "string_param")?;
        let offset = if self.offset.is_there() { self.offset.value(OFFSET, tensor, "int64_param")? } else { 0 };
        if !self.byte_size.is_there() {
            return Err(without_size(tensor));
        }
        Ok(Some(Place { region, offset, byte_size: self.byte_size.value(BYTE_SIZE, tensor, "int64_param")? }))
    }
}

#[cold]
fn wrong_kind(key: &str, tensor: &str, kind: &str) -> Error {
    Error::invalid(format!(
        "invalid value type for '{key}' parameter for tensor '{}', expected {kind}.",
        quoted(tensor)
    ))
}

#[cold]
fn out_of_range(key: &str, tensor: &str, number: &str) -> Error {
    Error::invalid(format!(
        "invalid value for '{key}' parameter for tensor '{}', expected a value from 0 to {}, got {}",
        quoted(tensor),
        i64::MAX,
        quoted(number)
    ))
}

#[cold]
fn without_region(key: &str, tensor: &str) -> Error {
    Error::invalid(format!("'{key}' can not be specified without '{REGION}' parameter for tensor '{}'", quoted(tensor)))
}

#[cold]
fn without_size(tensor: &str) -> Error {
    Error::invalid(format!(
        "'{BYTE_SIZE}' must be specified along with '{REGION}' parameter for tensor '{}'",
        quoted(tensor)
    ))
}
