//! Why a runtime or a model could not be loaded. Texts are for whoever runs the server, so they may name paths.

use std::fmt;

/// What kind of failure a [`LoadError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadErrorKind {
    /// No shared library at the given path.
    LibraryMissing,
    /// The file is no ONNX Runtime library, or it did not start.
    LibraryUnusable,
    /// ONNX Runtime is older than [`crate::MINIMUM_VERSION`].
    LibraryTooOld,
    /// A file of the model cannot be read; loading again may succeed.
    ModelUnreadable,
    /// The model file is damaged, or contradicts itself.
    ModelBroken,
    /// The model is sound, but mlserve or this runtime cannot serve it; the text says the way out.
    ModelUnsupported,
    /// A file of the model was replaced or changed while it was loaded; loading again may succeed.
    ModelChanged,
    /// The options of the load ask for something that is refused; the text names it.
    SettingsRefused,
}

/// Why a runtime or a model could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    kind: LoadErrorKind,
    text: String,
}

impl LoadError {
    pub(crate) fn new(kind: LoadErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    pub(crate) fn unreadable(text: impl Into<String>) -> Self {
        Self::new(LoadErrorKind::ModelUnreadable, text)
    }

    pub(crate) fn broken(text: impl Into<String>) -> Self {
        Self::new(LoadErrorKind::ModelBroken, text)
    }

    pub(crate) fn unsupported(text: impl Into<String>) -> Self {
        Self::new(LoadErrorKind::ModelUnsupported, text)
    }

    pub(crate) fn changed(text: impl Into<String>) -> Self {
        Self::new(LoadErrorKind::ModelChanged, text)
    }

    pub(crate) fn settings(text: impl Into<String>) -> Self {
        Self::new(LoadErrorKind::SettingsRefused, text)
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> LoadErrorKind {
        self.kind
    }

    /// Whether the same files may be loaded later: what was wrong lies in reading them.
    pub fn may_pass(&self) -> bool {
        matches!(self.kind, LoadErrorKind::ModelUnreadable | LoadErrorKind::ModelChanged)
    }

    /// What was wrong and what to do.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for LoadError {}
