//! `_core.Server`: a data plane in this process; and `_core.run_cli`: the data plane's command line.

use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use mlserve_core::error::{Error, Kind};
use mlserve_server::front::Stop;
use mlserve_server::server::{Server as DataPlane, has_failed};
use mlserve_server::settings;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::error::{ConfigError, ModelLoadError, to_python};
use crate::gil::{received, released};
use crate::infer::{ChannelReply, PyInput, PyOutput, PyParameter, request, version_number};

/// Runs `mlserve serve`, `inspect` or `config` with these arguments and returns the exit status.
///
/// `ort_library` is where ONNX Runtime was found, if the settings name none.
#[pyfunction]
#[pyo3(signature = (args, ort_library=None))]
pub(crate) fn run_cli(py: Python<'_>, args: Vec<String>, ort_library: Option<PathBuf>) -> i32 {
    released(py, move || mlserve_server::cli::run(&args, ort_library.as_deref()))
}

/// A data plane in this process. Two may live side by side.
#[pyclass(frozen, module = "mlserve._core")]
pub(crate) struct Server {
    settings: mlserve_core::config::Settings,
    running: std::sync::Mutex<Option<std::sync::Arc<DataPlane>>>,
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
        Ok(Self { settings, running: std::sync::Mutex::default() })
    }

    /// Starts, and returns when every model is ready or has failed.
    ///
    /// Raises `mlserve.errors.ModelLoadError` if no model could be loaded, or an address is taken.
    fn start(&self, py: Python<'_>) -> PyResult<()> {
        if self.running().is_some() {
            return Err(PyRuntimeError::new_err("the server has been started already"));
        }
        let settings = self.settings.clone();
        let started = released(py, move || {
            let server = DataPlane::start(settings)?;
            let startup = server.wait_until_settled().ok_or_else(|| "the server was stopped".to_owned())?;
            if has_failed(&startup.reports) {
                let reasons = startup.reports.iter().filter_map(|report| report.result.as_ref().err().cloned());
                return Err(reasons.collect::<Vec<_>>().join("; "));
            }
            Ok(server)
        });
        let server = started.map_err(ModelLoadError::new_err)?;
        *self.slot() = Some(std::sync::Arc::new(server));
        Ok(())
    }

    /// Where it listens: keys `http`, `grpc`, `metrics` and, if there is one, `uds`.
    fn addresses<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let server = self.started()?;
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

    /// Stops: with `drain`, what is in flight is finished first. A second call does nothing.
    fn stop(&self, py: Python<'_>, drain: bool) {
        let Some(server) = self.slot().take() else { return };
        released(py, move || {
            server.stop(if drain { Stop::Drain } else { Stop::Now });
            server.join();
        });
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
        let server = self.started()?;
        let deadline = timeout_us.map(|timeout_us| server.process().clock.now() + Duration::from_micros(timeout_us));
        let request = request(model, version, inputs, outputs, parameters.into_iter().collect(), deadline)
            .map_err(|error| to_python(py, &error))?;
        let (reply, answer, caller) = ChannelReply::new();
        server.submit(Box::new(request), Box::new(reply));
        // Nothing comes if the server has ended and dropped the request.
        let owned = answered(py, answer)?;
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
        let server = self.started()?;
        let version = version_number(version).map_err(|error| to_python(py, &error))?;
        answered(py, server.model_metadata(model, version))
    }

    /// What models there are: a JSON array of objects with `name`, `version`, `state` and `reason`.
    fn index(&self, py: Python<'_>) -> PyResult<String> {
        answered(py, self.started()?.index())
    }

    /// Loads a model, or what of it has changed, and returns once it serves. `config_json` takes the place of its
    /// `config.pbtxt`.
    ///
    /// Raises the class of `mlserve.errors` that the error table gives.
    fn load(&self, py: Python<'_>, name: &str, config_json: Option<String>) -> PyResult<()> {
        answered(py, self.started()?.load(name, config_json))
    }

    /// Unloads a model, and returns once everything in flight is answered.
    ///
    /// Raises the class of `mlserve.errors` that the error table gives.
    fn unload(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        answered(py, self.started()?.unload(name))
    }

    /// The statistics of a model, or of all if `name` is empty, as JSON.
    ///
    /// Raises the class of `mlserve.errors` that the error table gives.
    fn statistics(&self, py: Python<'_>, name: &str) -> PyResult<String> {
        self.started()?.statistics(name).map_err(|error| to_python(py, &error))
    }

    /// Everything counted so far, as JSON.
    fn snapshot(&self) -> PyResult<String> {
        Ok(self.started()?.snapshot())
    }
}

/// What comes through `receiver`, while signals are looked at.
fn answered<T: Send>(py: Python<'_>, receiver: Receiver<Result<T, Error>>) -> PyResult<T> {
    // Nothing comes if the server ends.
    let outcome = received(py, receiver)?.unwrap_or_else(|| Err(Error::new(Kind::Draining, "the server has ended")));
    outcome.map_err(|error| to_python(py, &error))
}

impl Server {
    fn slot(&self) -> std::sync::MutexGuard<'_, Option<std::sync::Arc<DataPlane>>> {
        self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn running(&self) -> Option<std::sync::Arc<DataPlane>> {
        self.slot().clone()
    }

    fn started(&self) -> PyResult<std::sync::Arc<DataPlane>> {
        self.running().ok_or_else(|| PyRuntimeError::new_err("the server is not running"))
    }
}
