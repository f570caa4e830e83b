//! Errors on their way to Python: classes of `mlserve.errors`, one per row of the error table.

use mlserve_core::error::{Error, Fault, Kind, Retry};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict};

pyo3::import_exception!(mlserve.errors, ConfigError);
pyo3::import_exception!(mlserve.errors, LifecycleError);
pyo3::import_exception!(mlserve.errors, ModelLoadError);

/// The exception of `error`'s row, chosen by `mlserve.errors.error_class`.
pub(crate) fn to_python(py: Python<'_>, error: &Error) -> PyErr {
    let made = py.import("mlserve.errors").and_then(|module| {
        let by_code = [("code", error.kind().row().code)].into_py_dict(py)?;
        module.getattr("error_class")?.call((), Some(&by_code))?.call1((error.text(),))
    });
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(failure) => failure,
    }
}

/// The error table: one dict per row with `code`, `http`, `grpc`, `fault`, `retry` and `meaning`.
#[pyfunction]
pub(crate) fn error_table(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyDict>>> {
    Kind::ALL.iter().map(|kind| row(py, *kind)).collect()
}

fn row(py: Python<'_>, kind: Kind) -> PyResult<Bound<'_, PyDict>> {
    let row = kind.row();
    let dict = PyDict::new(py);
    dict.set_item("code", row.code)?;
    dict.set_item("http", row.http)?;
    dict.set_item("grpc", row.grpc)?;
    dict.set_item("fault", fault(row.fault))?;
    dict.set_item("retry", retry(row.retry))?;
    dict.set_item("meaning", row.meaning)?;
    Ok(dict)
}

fn fault(fault: Fault) -> &'static str {
    match fault {
        Fault::Client => "client",
        Fault::Server => "server",
        Fault::Neither => "neither",
    }
}

fn retry(retry: Retry) -> &'static str {
    match retry {
        Retry::No => "no",
        Retry::Yes => "yes",
        Retry::Once => "once",
        Retry::ByCaller => "by_caller",
    }
}
