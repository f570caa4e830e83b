//! A loaded version as the core's [`Backend`]. Hot path.

use std::sync::Arc;

use mlserve_core::backend::{Backend, OutputTensor, RunError, TensorView, TextRoom};
use mlserve_core::stop::Stop;

use crate::fault::run_error;
use crate::session::Session;
use crate::stop::Terminator;

/// One session, run by however many instances there are.
#[derive(Debug)]
pub(crate) struct OrtBackend {
    session: Arc<Session>,
}

impl OrtBackend {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self { session }
    }
}

impl Backend for OrtBackend {
    fn run(&self, inputs: &[TensorView<'_>], outputs: &[usize]) -> Result<Vec<OutputTensor>, RunError> {
        self.session.run(inputs, outputs).map_err(|failure| run_error(failure, self.session.runtime().arena_bytes()))
    }

    fn run_until(
        &self,
        inputs: &[TensorView<'_>],
        outputs: &[usize],
        stop: &Stop,
        room: &mut TextRoom,
    ) -> Result<Vec<OutputTensor>, RunError> {
        let terminator = stop.switch(|| Terminator::new(self.session.runtime()));
        let arena_bytes = self.session.runtime().arena_bytes();
        self.session.run_until(inputs, outputs, terminator, room).map_err(|failure| run_error(failure, arena_bytes))
    }
}
