//! Tensors of one request that lie in shared memory: its inputs before it is submitted, its outputs after it has run.
//!
//! Requests without such tensors pay a null check. Bytes are charged to the request before they are read. What is more
//! than a loop should copy is read and written on another thread.

use std::sync::Arc;

use bytes::Bytes;
use mlserve_core::budget::Reservation;
use mlserve_core::error::{Error, Kind, Result, quoted};
use mlserve_core::request::{Answer, Request, Text};
use smallvec::SmallVec;

use super::{Place, Window};
use crate::process::Process;

/// Bytes that are read or written on the loop at most, as with bodies: some 30 µs.
const MAX_BYTES_ON_LOOP: usize = 128 << 10;

/// The tensors of a request that lie in shared memory, as it was decoded.
#[derive(Debug, Default)]
pub(crate) struct SharedTensors {
    /// Indices in the request's inputs.
    pub(crate) inputs: SmallVec<[(usize, Place); 2]>,
    /// Names of wanted outputs.
    pub(crate) outputs: SmallVec<[(Text, Place); 2]>,
}

/// Fills in the inputs of `request` from shared memory, and finds out where its outputs are to go.
///
/// **Errors:** off; no such region, or outside of it; classified outputs; too large; out of budget; memory that is gone. Texts name
/// the tensor, never the region.
pub(crate) async fn attach(
    process: &Arc<Process>,
    shared: Box<SharedTensors>,
    mut request: Request,
) -> Result<(Request, Option<Box<Destinations>>)> {
    let windows = find(process, &shared, &request)?;
    let bytes = windows.inputs.iter().fold(0_usize, |sum, (_, window)| sum.saturating_add(window.len()));
    let limits = &process.settings.limits;
    if bytes > limits.max_body_bytes {
        return Err(too_large("inputs", bytes, limits.max_body_bytes, "limits.max_body_bytes"));
    }
    if request.reservation.as_mut().is_some_and(|held| !held.grow(bytes)) {
        return Err(out_of_budget(bytes));
    }
    let inputs = windows.inputs;
    if bytes > MAX_BYTES_ON_LOOP {
        request = off_loop(move || read(request, &inputs)).await??;
    } else {
        request = read(request, &inputs)?;
    }
    let most_bytes = limits.max_response_bytes;
    let destinations =
        (!windows.outputs.is_empty()).then(|| Box::new(Destinations { outputs: windows.outputs, most_bytes }));
    Ok((request, destinations))
}

/// [`SharedTensors`] with their regions found.
struct Windows {
    inputs: SmallVec<[(usize, Window); 2]>,
    outputs: SmallVec<[(Text, Window); 2]>,
}

fn find(process: &Process, shared: &SharedTensors, request: &Request) -> Result<Windows> {
    let regions = &process.shared_memory;
    let window = |name: &str, place: &Place| {
        regions.window(place).map_err(|error| {
            let text = format!("{}; tensor '{}' asks for it", error.text(), quoted(name));
            Error::new(error.kind(), text)
        })
    };
    let mut windows = Windows { inputs: SmallVec::new(), outputs: SmallVec::new() };
    for (index, place) in &shared.inputs {
        let name = request.inputs.get(*index).map_or("", |input| &input.name);
        windows.inputs.push((*index, window(name, place)?));
    }
    for (name, place) in &shared.outputs {
        windows.outputs.push((name.clone(), window(name, place)?));
    }
    let classified = request.options.as_ref().map_or(&[][..], |options| &options.classifications);
    if let Some((name, _)) = classified.iter().find(|(name, _)| shared.outputs.iter().any(|(other, _)| other == name)) {
        return Err(Error::invalid(format!(
            "output can't set both 'shared_memory_region' and 'classification'; output '{}' does",
            quoted(name)
        )));
    }
    Ok(windows)
}

fn read(mut request: Request, inputs: &[(usize, Window)]) -> Result<Request> {
    for (index, window) in inputs {
        let Some(input) = request.inputs.get_mut(*index) else { continue };
        input.data = window.read().map_err(|fault| failed("input", &input.name, "read", fault.text()))?.into();
    }
    request.walk();
    Ok(request)
}

/// Where the outputs of one request are to go.
#[derive(Debug)]
pub(crate) struct Destinations {
    outputs: SmallVec<[(Text, Window); 2]>,
    /// Of all of them.
    most_bytes: usize,
}

impl Destinations {
    /// Takes the outputs that are to go to shared memory out of `answer`, where they stay with type and shape only.
    ///
    /// **Errors:** an output does not fit; together they are too large.
    pub(crate) fn take(self, answer: &mut Answer<'_>) -> Result<Writes> {
        let mut writes = Writes { outputs: SmallVec::new(), bytes: 0 };
        for output in &mut answer.outputs {
            let name = answer.version.spec.outputs.get(output.index).map_or("", |spec| &spec.name);
            let Some((name, window)) = self.outputs.iter().find(|(wanted, _)| **wanted == *name) else { continue };
            if output.data.len() > window.len() {
                return Err(does_not_fit(name, window.len(), output.data.len()));
            }
            let data = std::mem::take(&mut output.data);
            writes.bytes += data.len();
            writes.outputs.push((name.clone(), window.clone(), data));
        }
        if writes.bytes > self.most_bytes {
            return Err(too_large("outputs", writes.bytes, self.most_bytes, "limits.max_response_bytes"));
        }
        Ok(writes)
    }
}

/// Outputs on their way to shared memory.
#[derive(Debug)]
pub(crate) struct Writes {
    outputs: SmallVec<[(Text, Window, Bytes); 2]>,
    bytes: usize,
}

impl Writes {
    /// Bytes of all outputs; the answer's reservation holds them until they are written.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes everything; what is long on another thread.
    ///
    /// **Errors:** memory that is gone.
    pub(crate) async fn finish(self) -> Result<()> {
        if self.bytes > MAX_BYTES_ON_LOOP { off_loop(move || self.run()).await? } else { self.run() }
    }

    /// Writes everything and then calls `done` with what is left of `reservation`: at once, unless it is long.
    pub(crate) fn then(
        self,
        mut reservation: Option<Reservation>,
        done: impl FnOnce(Result<()>, Option<Reservation>) + Send + 'static,
    ) {
        let bytes = self.bytes;
        let end = move |written: Result<()>| {
            if let Some(held) = &mut reservation {
                held.shrink_to(held.units().saturating_sub(bytes));
            }
            done(written, reservation);
        };
        if bytes > MAX_BYTES_ON_LOOP {
            tokio::spawn(async move { end(self.finish().await) });
        } else {
            end(self.run());
        }
    }

    fn run(self) -> Result<()> {
        for (name, window, data) in &self.outputs {
            window.write(data).map_err(|fault| failed("output", name, "written", fault.text()))?;
        }
        Ok(())
    }
}

/// Runs `job` on a thread where it may take its time.
async fn off_loop<Output: Send + 'static>(job: impl FnOnce() -> Output + Send + 'static) -> Result<Output> {
    // A job that panics, or one that the end of the server cuts off.
    tokio::task::spawn_blocking(job).await.map_err(|_| Error::internal("the shared memory could not be worked on"))
}

#[cold]
fn failed(what: &str, name: &str, done: &str, why: &str) -> Error {
    Error::invalid(format!("the shared memory of {what} '{}' cannot be {done}: {why}", quoted(name)))
}

#[cold]
fn does_not_fit(name: &str, has: usize, needed: usize) -> Error {
    Error::invalid(format!(
        "shared memory size specified with the request for output '{}' ({has} bytes) should be at least {needed} bytes to \
         hold the results",
        quoted(name)
    ))
}

#[cold]
fn too_large(what: &str, bytes: usize, most: usize, setting: &str) -> Error {
    Error::too_large(format!("the {what} in shared memory have {bytes} bytes; at most {most} are allowed ({setting})"))
}

#[cold]
fn out_of_budget(bytes: usize) -> Error {
    Error::new(
        Kind::OutOfBudget,
        format!("the {bytes} bytes of the inputs in shared memory would exceed the server's byte budget"),
    )
}
