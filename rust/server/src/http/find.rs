//! Which version a path means, before its body is decoded: some layouts cannot be read without the model's tensors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mlserve_core::error::Result;
use mlserve_core::plan::Found;
use mlserve_core::version::Version;

use super::route::Target;
use crate::event_loop::LoopContext;

/// The version that answers `target`. One that is loaded on demand is waited for, until `deadline` or the default one.
///
/// **Errors:** not found; not ready; the deadline passed.
pub(super) async fn find(context: &LoopContext, target: &Target, deadline: Option<Instant>) -> Result<Arc<Version>> {
    let process = context.process();
    if let Found::Ready(version) = process.plan.load().look_up(&target.model, target.version)? {
        return Ok(Arc::clone(version));
    }
    let default = process.settings.limits.default_deadline_ms;
    let default = (default > 0).then(|| context.now() + Duration::from_millis(default));
    process.models.find(&target.model, target.version, deadline.or(default)).await
}
