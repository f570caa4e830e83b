//! The C API of ONNX Runtime: the shared library, its table of functions, and its statuses as results. Hot path.
//!
//! The library is never closed: its threads and thread-local destructors may outlive whatever we could tie it to.

use std::ffi::{CStr, OsStr};
use std::mem::ManuallyDrop;
use std::os::raw::c_char;
use std::path::Path;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use ort_sys::{ORT_API_VERSION, OrtApi, OrtApiBase, OrtErrorCode, OrtStatus, OrtStatusPtr};

use crate::error::{LoadError, LoadErrorKind};
use crate::runtime::MINIMUM_VERSION;

/// A failed call, copied out of the runtime's status.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    /// Number of an `OrtErrorCode`; a newer library may know more of them than our bindings.
    pub(crate) code: i32,
    /// The runtime's own words, with whatever internals they carry.
    pub(crate) message: String,
}

/// `GetErrorCode` as it is declared.
type Coded = unsafe extern "system" fn(*const OrtStatus) -> OrtErrorCode;

/// `GetErrorCode` with the code as a number.
type Numbered = unsafe extern "system" fn(*const OrtStatus) -> i32;

/// The function table of the loaded library.
#[derive(Clone, Copy)]
pub(crate) struct Api {
    table: &'static OrtApi,
    error_code: Numbered,
}

impl Api {
    /// Opens the library at `path`; also returns its version.
    ///
    /// **Errors:** missing, not ONNX Runtime, or too old.
    pub(crate) fn open(path: &Path) -> Result<(Self, String), LoadError> {
        if !path.is_file() {
            let text = format!("no ONNX Runtime library at {}: no such file", path.display());
            return Err(LoadError::new(LoadErrorKind::LibraryMissing, text));
        }
        let base = entry(path)?;
        // SAFETY: both functions take plain values and are present in every release of the library.
        let (table, version) = unsafe { ((base.GetApi)(ORT_API_VERSION), text_of((base.GetVersionString)())) };
        // SAFETY: the table is null or lives as long as the library, which is never closed.
        let Some(table) = (unsafe { table.as_ref() }) else {
            let text = format!(
                "ONNX Runtime {version} at {} is too old: mlserve needs {MINIMUM_VERSION} or later",
                path.display()
            );
            return Err(LoadError::new(LoadErrorKind::LibraryTooOld, text));
        };
        // SAFETY: the enum is `repr(i32)`, so the calling convention is the same; as a number, codes that our bindings
        // do not know yet are no undefined behaviour.
        let error_code = unsafe { std::mem::transmute::<Coded, Numbered>(table.GetErrorCode) };
        Ok((Self { table, error_code }, version))
    }

    /// The functions.
    pub(crate) fn table(&self) -> &'static OrtApi {
        self.table
    }

    /// Turns a status into a result and releases it.
    #[inline]
    pub(crate) fn check(&self, status: OrtStatusPtr) -> Result<(), Status> {
        if status.0.is_null() { Ok(()) } else { Err(self.take(status)) }
    }

    #[cold]
    fn take(&self, status: OrtStatusPtr) -> Status {
        // SAFETY: the status is not null and ours; code and message are read before it is released, once.
        unsafe {
            let code = (self.error_code)(status.0);
            let message = text_of((self.table.GetErrorMessage)(status.0));
            (self.table.ReleaseStatus)(status.0);
            Status { code, message }
        }
    }
}

/// The library's entry point.
fn entry(path: &Path) -> Result<&'static OrtApiBase, LoadError> {
    let unusable = |why: &dyn std::fmt::Display| {
        let text = format!("{} is no usable ONNX Runtime library: {why}", path.display());
        LoadError::new(LoadErrorKind::LibraryUnusable, text)
    };
    // SAFETY: opening runs the library's initialisers; that this file may be executed is the operator's decision.
    let library = unsafe { Library::open(Some(AsRef::<OsStr>::as_ref(path)), RTLD_NOW | RTLD_LOCAL) };
    let library = ManuallyDrop::new(library.map_err(|error| unusable(&error))?);
    // SAFETY: the symbol has this type in every release of the library.
    let symbol = unsafe { library.get::<unsafe extern "system" fn() -> *const OrtApiBase>(b"OrtGetApiBase\0") };
    let get_base = *symbol.map_err(|_| unusable(&"it has no OrtGetApiBase"))?;
    // SAFETY: takes nothing, and what it returns lives as long as the library.
    unsafe { get_base().as_ref() }.ok_or_else(|| unusable(&"OrtGetApiBase returned nothing"))
}

/// A C string as text; null is empty.
///
/// # Safety
/// `text` is null or NUL-terminated and valid during the call.
pub(crate) unsafe fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
