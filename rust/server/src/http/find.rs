//! Which version a path means, before its body is decoded: some layouts cannot be read without the model's tensors.

use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Instant;

use mlserve_core::error::Result;
use mlserve_core::version::Version;

use super::route::Target;
use crate::event_loop::LoopContext;

/// The version that answers `target`. The caller waits for it until `_deadline` at most.
///
/// **Errors:** not found; not ready.
pub(super) fn find(
    context: &LoopContext,
    target: &Target,
    _deadline: Option<Instant>,
) -> impl Future<Output = Result<Arc<Version>>> + use<> {
    ready(context.process().plan.load().find(&target.model, target.version).map(Arc::clone))
}
