//! What a queue does with requests that wait in one of its levels: how many, how long, and what then. Hot path.
//!
//! Triton's `ModelQueuePolicy`, with two differences: a request's own timeout counts where the policy has none, and the
//! bound on the whole queue holds besides that of each level.
//!
//! Source: triton-inference-server/core, `src/scheduler_utils.cc` (`PriorityQueue::PolicyQueue`).

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::ModelSettings;

/// What happens to a request that has waited in the queue as long as it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimeoutAction {
    /// It is refused.
    #[default]
    Reject,
    /// It waits on, behind the others of its level.
    Delay,
}

/// What one level of a model's queue does in its own way; what is absent is as for the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QueuePolicySettings {
    /// Microseconds that a request may wait; 0: only its deadline counts.
    pub timeout_us: Option<u64>,
    /// What happens to a request that has waited so long.
    pub timeout_action: Option<TimeoutAction>,
    /// Whether the `timeout` parameter of a request shortens that time.
    pub allow_timeout_override: Option<bool>,
    /// Requests that may wait in this level; 0: as many as in the queue.
    pub capacity: Option<usize>,
}

/// The policy of one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePolicy {
    /// How long a request may wait; `None`: only its deadline counts.
    pub timeout: Option<Duration>,
    /// What happens to those that have waited so long.
    pub timeout_action: TimeoutAction,
    /// Whether a request may ask for a shorter time.
    pub allow_timeout_override: bool,
    /// Requests that may wait in this level; `None`: as many as in the queue.
    pub capacity: Option<usize>,
}

impl QueuePolicy {
    /// The policies of a model's levels, the highest first.
    pub fn of_levels(settings: &ModelSettings) -> Box<[QueuePolicy]> {
        let none = QueuePolicySettings::default();
        let levels = 1..=settings.priority_levels.max(1);
        levels.map(|level| Self::new(settings, settings.queue_policies.get(&level).unwrap_or(&none))).collect()
    }

    fn new(settings: &ModelSettings, level: &QueuePolicySettings) -> Self {
        let timeout_us = level.timeout_us.unwrap_or(settings.queue_timeout_us);
        Self {
            timeout: (timeout_us > 0).then(|| Duration::from_micros(timeout_us)),
            timeout_action: level.timeout_action.unwrap_or(settings.timeout_action),
            allow_timeout_override: level.allow_timeout_override.unwrap_or(settings.allow_timeout_override),
            capacity: level.capacity.filter(|&capacity| capacity > 0),
        }
    }

    /// Until when a request that arrived at `arrived` and asks for `asked` may wait before it is refused, and before it
    /// goes behind the others; at most one of them is set.
    pub fn limits(&self, asked: Option<Duration>, arrived: Instant) -> (Option<Instant>, Option<Instant>) {
        let asked = asked.filter(|_| self.allow_timeout_override);
        let timeout = match (asked, self.timeout) {
            (Some(asked), Some(timeout)) => asked.min(timeout),
            (Some(timeout), None) | (None, Some(timeout)) => timeout,
            (None, None) => return (None, None),
        };
        match self.timeout_action {
            TimeoutAction::Reject => (Some(arrived + timeout), None),
            TimeoutAction::Delay => (None, Some(arrived + timeout)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_level_takes_what_it_does_not_set_from_the_model() {
        let level = QueuePolicySettings { timeout_us: Some(5_000), capacity: Some(3), ..Default::default() };
        let settings = ModelSettings {
            priority_levels: 2,
            queue_timeout_us: 1_000,
            timeout_action: TimeoutAction::Delay,
            allow_timeout_override: false,
            queue_policies: [(2, level)].into(),
            ..ModelSettings::default()
        };
        let [first, second] = *QueuePolicy::of_levels(&settings) else { panic!("two levels") };
        let common = QueuePolicy {
            timeout: Some(ms(1)),
            timeout_action: TimeoutAction::Delay,
            allow_timeout_override: false,
            capacity: None,
        };
        assert_eq!(first, common);
        assert_eq!(second, QueuePolicy { timeout: Some(ms(5)), capacity: Some(3), ..common });
    }

    #[test]
    fn a_request_may_shorten_its_wait_but_not_lengthen_it() {
        let arrived = ManualClock::new().now();
        let settings = ModelSettings { queue_timeout_us: 10_000, ..ModelSettings::default() };
        let policy = QueuePolicy::of_levels(&settings)[0];
        let refused_at = |policy: QueuePolicy, asked| policy.limits(asked, arrived).0.map(|limit| limit - arrived);
        assert_eq!(refused_at(policy, None), Some(ms(10)));
        assert_eq!(refused_at(policy, Some(ms(3))), Some(ms(3)));
        assert_eq!(refused_at(policy, Some(ms(30))), Some(ms(10)));
        let strict = QueuePolicy { allow_timeout_override: false, ..policy };
        assert_eq!(refused_at(strict, Some(ms(3))), Some(ms(10)));
        let delaying = QueuePolicy { timeout_action: TimeoutAction::Delay, ..policy };
        assert_eq!(delaying.limits(Some(ms(3)), arrived), (None, Some(arrived + ms(3))));
    }
}
