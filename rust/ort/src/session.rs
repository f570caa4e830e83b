//! One ONNX Runtime session: made once per version, run by any number of threads at once. Hot path.
//!
//! Concurrent runs are sound: ONNX Runtime documents `Run` of one session as thread safe, and a test holds it to it.

use std::ffi::{CString, c_char};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use mlserve_core::backend::{OutputTensor, TensorView, TextRoom};
use mlserve_core::tensor::ShapeText;
use ort_sys::{OrtRunOptions, OrtSession, OrtValue};
use smallvec::SmallVec;

use crate::api::Status;
use crate::options::SessionOptions;
use crate::runtime::Runtime;
use crate::stop::Terminator;
use crate::value::{Failure, Value, take_output};

/// A model's session.
pub(crate) struct Session {
    runtime: Arc<Runtime>,
    raw: *mut OrtSession,
    input_names: Names,
    output_names: Names,
    not_on_empty: Option<&'static str>,
}

// SAFETY: a session may be run and released on any thread, and runs may happen at once; the names are never written.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("inputs", &self.input_names.texts).finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: the session is ours, no run is in flight (runs borrow it), and it is released once.
        unsafe { (self.runtime.api().table().ReleaseSession)(self.raw) };
    }
}

/// C strings and the array of pointers to them that a run takes.
struct Names {
    texts: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Names {
    /// **Errors:** a NUL inside a name.
    fn new<'a>(names: impl Iterator<Item = &'a str>) -> Result<Self, Status> {
        let nul = |_| Status { code: 0, message: "a name has a NUL byte inside".to_owned() };
        let texts = names.map(CString::new).collect::<Result<Vec<_>, _>>().map_err(nul)?;
        let pointers = texts.iter().map(|text| text.as_ptr()).collect();
        Ok(Self { texts, pointers })
    }
}

impl Session {
    /// Loads the model at `path`.
    ///
    /// `inputs` and `outputs` are the graph's names in the order that runs use; `not_on_empty` is the operation for
    /// which no run may have an input without elements, if there is one.
    pub(crate) fn new<'a>(
        runtime: &Arc<Runtime>,
        path: &Path,
        options: &SessionOptions,
        inputs: impl Iterator<Item = &'a str>,
        outputs: impl Iterator<Item = &'a str>,
        not_on_empty: Option<&'static str>,
    ) -> Result<Self, Status> {
        let nul = |_| Status { code: 0, message: "the path has a NUL byte inside".to_owned() };
        let path = CString::new(path.as_os_str().as_bytes()).map_err(nul)?;
        let (input_names, output_names) = (Names::new(inputs)?, Names::new(outputs)?);
        let api = runtime.api();
        let mut raw = ptr::null_mut();
        // SAFETY: environment, path and options are alive during the call.
        api.check(unsafe {
            (api.table().CreateSession)(runtime.env(), path.as_ptr(), options.as_ptr(), &raw mut raw)
        })?;
        Ok(Self { runtime: Arc::clone(runtime), raw, input_names, output_names, not_on_empty })
    }

    pub(crate) fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Runs the model on all `inputs` and returns the outputs with the indices `outputs`, in that order.
    pub(crate) fn run(
        self: &Arc<Self>,
        inputs: &[TensorView<'_>],
        outputs: &[usize],
    ) -> Result<Vec<OutputTensor>, Failure> {
        self.run_until(inputs, outputs, None, &mut TextRoom::unbounded())
    }

    /// As [`Session::run`], with a way to end it early, and `room` for outputs that are texts.
    pub(crate) fn run_until(
        self: &Arc<Self>,
        inputs: &[TensorView<'_>],
        outputs: &[usize],
        terminator: Option<&Terminator>,
        room: &mut TextRoom,
    ) -> Result<Vec<OutputTensor>, Failure> {
        if inputs.len() != self.input_names.pointers.len() {
            let (got, want) = (inputs.len(), self.input_names.pointers.len());
            return Err(Failure::Input(format!("{got} inputs were given, the model takes {want}")));
        }
        if let Some(operation) = self.not_on_empty {
            refuse_empty(operation, inputs)?;
        }
        let mut values = SmallVec::<[Value<'_>; 8]>::with_capacity(inputs.len());
        for view in inputs {
            values.push(Value::new(&self.runtime, view)?);
        }
        let mut written: SmallVec<[*mut OrtValue; 8]> = SmallVec::from_elem(ptr::null_mut(), outputs.len());
        let options = terminator.map_or(ptr::null(), Terminator::as_ptr);
        self.run_values(options, &values, outputs, &mut written)?;
        // The runtime's copies of texts go before those of the outputs are made.
        drop(values);
        // All are taken before the first error is returned, so that none leaks.
        let taken: SmallVec<[_; 8]> = written.into_iter().map(|raw| take_output(self, raw, inputs, room)).collect();
        taken.into_iter().collect()
    }

    fn run_values(
        &self,
        options: *const OrtRunOptions,
        inputs: &[Value<'_>],
        outputs: &[usize],
        written: &mut [*mut OrtValue],
    ) -> Result<(), Failure> {
        let values: SmallVec<[_; 8]> = inputs.iter().map(Value::as_ptr).collect();
        let names: SmallVec<[_; 8]> =
            outputs.iter().filter_map(|&index| self.output_names.pointers.get(index).copied()).collect();
        if names.len() != written.len() {
            return Err(Failure::Input("an output that the model does not have was asked for".to_owned()));
        }
        let api = self.runtime.api();
        // SAFETY: session, options (or null), names and values are alive during the call; each array is as long as the length passed with
        // it; outputs are null, so the runtime allocates them, and they are ours afterwards.
        let status = unsafe {
            (api.table().Run)(
                self.raw,
                options,
                self.input_names.pointers.as_ptr(),
                values.as_ptr(),
                values.len(),
                names.as_ptr(),
                names.len(),
                written.as_mut_ptr(),
            )
        };
        let result = api.check(status);
        if result.is_err() {
            // Nothing is written when a run fails, but a leak would be silent: release what is there.
            for raw in written.iter_mut().filter(|raw| !raw.is_null()) {
                drop(Value::from_raw(&self.runtime, std::mem::replace(raw, ptr::null_mut())));
            }
        }
        Ok(result?)
    }
}

/// **Errors:** an input without elements, on which `operation` is not defined.
fn refuse_empty(operation: &str, inputs: &[TensorView<'_>]) -> Result<(), Failure> {
    let Some(empty) = inputs.iter().find(|input| input.shape.contains(&0)) else { return Ok(()) };
    let shape = ShapeText(empty.shape);
    Err(Failure::Input(format!(
        "the model's {operation} operation takes no tensor without elements, got shape {shape}"
    )))
}
