//! `_core.Server`: a data plane in this process; and `_core.run_cli`: the data plane's command line.

use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use mlserve_core::error::{Error, Kind};
use mlserve_server::settings;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::error::{ConfigError, to_python};
use crate::gil::{received, released};
use crate::infer::{ChannelReply, PyInput, PyOutput, PyParameter, request, version_number};
use crate::life::Life;

/// Runs `mlserve serve`, `inspect` or `config` with these arguments and returns the exit status.
///
/// `ort_library` is where ONNX Runtime was found, if the settings name none.
#[pyfunction]
#[pyo3(signature = (args, ort_library=None))]
pub(crate) fn run_cli(py: Python<'_>, args: Vec<String>, ort_library: Option<PathBuf>) -> i32 {
    released(py, move || mlserve_server::cli::run(&args, ort_library.as_deref()))
}

/// To be called in the child of a fork: its end does not wait for threads that only its parent has.
#[pyfunction]
pub(crate) fn forked() {
    mlserve_server::end_without_destructors();
}

/// A data plane in this process. Two may live side by side.
#[pyclass(frozen, module = "mlserve._core")]
pub(crate) struct Server {
    settings: mlserve_core::config::Settings,
    life: Life,
}

#[pymethods]
impl Server {
    /// Checks the settings, a JSON object with the tables of mlserve.toml. Nothing starts yet.
    ///
    /// Raises `mlserve.errors.ConfigError` for an unknown key or a bad value.
    #[new]
    #[pyo3(signature = (settings_json, ort_library=None))]
    fn new(settings_json: &str, ort_library: Option<PathBuf>) -> PyResult<Self> {
        let mut settings =
            settings::from_json(settings_json).map_err(|error| ConfigError::new_err(error.to_string()))?;
        if settings.server.ort_library.is_none() {
            settings.server.ort_library = ort_library;
        }
        Ok(Self { settings, life: Life::new() })
    }

    /// Starts, and returns when every model is ready or has failed.
    ///
    /// Raises `mlserve.errors.ModelLoadError` if no model could be loaded, or an address is taken;
    /// `mlserve.errors.LifecycleError` if it was started before, or is stopped meanwhile; or what a signal's handler
    /// raises meanwhile: then it is stopped.
    fn start(&self, py: Python<'_>) -> PyResult<()> {
        self.life.start(py, self.settings.clone())
    }

    /// Where it listens: keys `http`, `grpc`, `metrics` and, if there is one, `uds`.
    fn addresses<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let server = self.life.running()?;
        let addresses = server.addresses();
        let dict = PyDict::new(py);
        dict.set_item("http", addresses.http.to_string())?;
        dict.set_item("grpc", addresses.grpc.to_string())?;
        dict.set_item("metrics", addresses.metrics.to_string())?;
        if let Some(path) = &addresses.uds {
            dict.set_item("uds", path.display().to_string())?;
        }
        Ok(dict)
    }

    /// Stops, and returns when it has ended: with `drain`, what is in flight is finished first. A second call waits for
    /// the same end; without `drain` it hastens it.
    ///
    /// Raises what a signal's handler raises meanwhile; the server goes on to stop.
    fn stop(&self, py: Python<'_>, drain: bool) -> PyResult<()> {
        self.life.stop(py, drain)
    }

    /// Stops at once, for the end of the interpreter: waits for some seconds at most, and raises nothing.
    fn leave(&self, py: Python<'_>) {
        self.life.leave(py);
    }

    /// Runs one request through the same pipeline as those of the sockets.
    ///
    /// Returns the model's name and version, the outputs (name, datatype, shape, bytes) and the answer's parameters.
    /// Raises the class of `mlserve.errors` that the error table gives, or what a signal's handler raises meanwhile:
    /// then the request is given up.
    #[allow(clippy::too_many_arguments, reason = "the parts of a request, spelt out once at the border")]
    fn infer<'py>(
        &self,
        py: Python<'py>,
        model: String,
        version: &str,
        inputs: Vec<PyInput<'py>>,
        outputs: Vec<String>,
        parameters: std::collections::HashMap<String, PyParameter>,
        timeout_us: Option<u64>,
    ) -> PyResult<(String, String, Vec<PyOutput<'py>>, Bound<'py, PyDict>)> {
        let server = self.life.running()?;
        let deadline = timeout_us.map(|timeout_us| server.process().clock.now() + Duration::from_micros(timeout_us));
        let mut request = request(model, version, inputs, outputs, parameters.into_iter().collect(), deadline)
            .map_err(|error| to_python(py, &error))?;
        if request.has_to_be_walked() {
            released(py, || request.walk());
        }
        let (reply, answer, caller) = ChannelReply::new();
        server.submit(Box::new(request), Box::new(reply));
        // Nothing comes if the server has ended and dropped the request.
        let owned = self.answered(py, answer)?;
        drop(caller);
        let parameters = PyDict::new(py);
        if self.settings.server.report_batches {
            parameters.set_item("mlserve_batch", owned.place.batch)?;
            parameters.set_item("mlserve_batch_rows", owned.place.rows)?;
            parameters.set_item("mlserve_batch_offset", owned.place.offset)?;
        }
        let outputs = owned.outputs.into_iter();
        let outputs = outputs.map(|(name, datatype, shape, data)| (name, datatype, shape, PyBytes::new(py, &data)));
        Ok((owned.model, owned.version.to_string(), outputs.collect(), parameters))
    }

    /// A model's metadata as JSON, as HTTP gives it. An empty version lets the server choose.
    ///
    /// Raises the class of `mlserve.errors` that the error table gives.
    fn model_metadata(&self, py: Python<'_>, model: &str, version: &str) -> PyResult<Vec<u8>> {
        let server = self.life.running()?;
        let version = version_number(version).map_err(|error| to_python(py, &error))?;
        self.answered(py, server.model_metadata(model, version))
    }

    /// What models there are: a JSON array of objects with `name`, `version`, `state` and `reason`.
    fn index(&self, py: Python<'_>) -> PyResult<String> {
        self.answered(py, self.life.running()?.index())
    }

    /// Loads a model, or what of it has changed, and returns once it serves. `config_json` takes the place of its
    /// `config.pbtxt`.
    ///
    /// Raises the class of `mlserve.errors` that the error table gives.
    fn load(&self, py: Python<'_>, name: &str, config_json: Option<String>) -> PyResult<()> {
        self.answered(py, self.life.running()?.load(name, config_json))
    }

    /// Unloads a model, and returns once everything in flight is answered.
    ///
    /// Raises the class of `mlserve.errors` that the error table gives.
    fn unload(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        self.answered(py, self.life.running()?.unload(name))
    }

    /// The statistics of a model, or of all if `name` is empty, as JSON.
    ///
    /// Raises the class of `mlserve.errors` that the error table gives.
    fn statistics(&self, py: Python<'_>, name: &str) -> PyResult<String> {
        let server = self.life.running()?;
        released(py, || server.statistics(name)).map_err(|error| to_python(py, &error))
    }

    /// Everything counted so far, as JSON.
    fn snapshot(&self, py: Python<'_>) -> PyResult<String> {
        let server = self.life.running()?;
        Ok(released(py, || server.snapshot()))
    }
}

impl Server {
    /// What comes through `receiver`, while signals are looked at.
    fn answered<T: Send>(&self, py: Python<'_>, receiver: Receiver<Result<T, Error>>) -> PyResult<T> {
        let outcome = received(py, receiver, || self.life.has_ended())?;
        // Nothing comes if the server ends.
        let outcome = outcome.unwrap_or_else(|| Err(Error::new(Kind::Draining, "the server has ended")));
        outcome.map_err(|error| to_python(py, &error))
    }
}
