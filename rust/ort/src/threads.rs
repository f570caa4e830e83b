//! The threads that ONNX Runtime shares a run among, made by one thread of ordinary priority.
//!
//! On Linux a thread inherits the priority of the one that makes it. Sessions are made on whatever thread loads a model,
//! which may have lowered its priority so that serving goes first; the threads that serve later must not inherit that.
//! So ONNX Runtime asks us for threads, and a thread that was started with the runtime makes them.

use std::ffi::c_void;
use std::io;
use std::ptr;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};

use ort_sys::{OrtCustomHandleType, OrtCustomThreadHandle, OrtSessionOptions, OrtThreadWorkerFn};

use crate::api::{Api, Status};

/// What the threads of sessions are called.
const POOL_NAME: &str = "ort-pool";

/// What the thread that makes them is called.
const SPAWNER_NAME: &str = "ort-spawner";

/// The thread that makes threads; ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Spawner {
    requests: Sender<Request>,
}

/// A thread that is wanted.
struct Request {
    work: Work,
    made: SyncSender<io::Result<JoinHandle<()>>>,
}

/// What a thread does: a function of the runtime and its argument.
struct Work {
    run: OrtThreadWorkerFn,
    argument: *mut c_void,
}

// SAFETY: the runtime makes the argument for the thread that it asks for, and leaves it to that thread.
unsafe impl Send for Work {}

impl Work {
    fn run(self) {
        // SAFETY: function and argument belong together and are used once, on the thread they were made for.
        unsafe { (self.run)(self.argument) };
    }
}

impl Spawner {
    /// Starts the thread; those that it makes get the priority that the present thread has now.
    ///
    /// **Errors:** the process may have no more threads.
    pub(crate) fn start() -> io::Result<Self> {
        let (requests, wanted) = channel();
        Builder::new().name(SPAWNER_NAME.to_owned()).spawn(move || serve(&wanted))?;
        Ok(Self { requests })
    }

    /// Lets sessions made with `options` get their threads here.
    ///
    /// # Safety
    /// `options` is alive; no session made with it outlives `self`.
    pub(crate) unsafe fn attach(&self, api: &Api, options: *mut OrtSessionOptions) -> Result<(), Status> {
        let table = api.table();
        // SAFETY: the functions are static and have the types that the runtime calls; it hands `self` back to `create`.
        unsafe {
            api.check((table.SessionOptionsSetCustomCreateThreadFn)(options, Some(create)))?;
            let parameter = ptr::from_ref(self).cast_mut().cast();
            api.check((table.SessionOptionsSetCustomThreadCreationOptions)(options, parameter))?;
            api.check((table.SessionOptionsSetCustomJoinThreadFn)(options, Some(join)))
        }
    }

    fn make(&self, work: Work) -> io::Result<JoinHandle<()>> {
        let (made, answer) = sync_channel(1);
        let gone = || io::Error::other("the thread that makes threads has ended");
        self.requests.send(Request { work, made }).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }
}

fn serve(wanted: &Receiver<Request>) {
    for Request { work, made } in wanted {
        let thread = Builder::new().name(POOL_NAME.to_owned()).spawn(move || work.run());
        if let Err(error) = &thread {
            tracing::error!(%error, "no thread can be started for ONNX Runtime");
        }
        // Whoever asked waits for the answer.
        drop(made.send(thread));
    }
}

/// Makes a thread for the runtime; null if there is none to be had, on which the session fails.
unsafe extern "C" fn create(
    spawner: *mut c_void,
    run: OrtThreadWorkerFn,
    argument: *mut c_void,
) -> OrtCustomThreadHandle {
    // SAFETY: what `attach` passed, alive by its caller's promise, and only read.
    let spawner = unsafe { &*spawner.cast_const().cast::<Spawner>() };
    let made = spawner.make(Work { run, argument });
    made.map_or(ptr::null(), |thread| Box::into_raw(Box::new(thread)).cast_const().cast::<OrtCustomHandleType>())
}

/// Waits for a thread's end; the runtime calls it once for each thread, when the session is released.
unsafe extern "C" fn join(handle: OrtCustomThreadHandle) {
    // SAFETY: what `create` returned, not null, and taken back once.
    let thread = unsafe { Box::from_raw(handle.cast_mut().cast::<c_void>().cast::<JoinHandle<()>>()) };
    // It ran foreign code only, which cannot panic.
    drop(thread.join());
}
