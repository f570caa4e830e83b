//! Scheduling in the words of Triton's configuration and in those of our settings: one mapping, both ways.
//!
//! Forwards when a file is read, backwards when `ModelConfig` is answered with what is in force. The settings are taken as
//! JSON, because they are merged with those of other sources before they become [`ModelSettings`].

use mlserve_core::config::{ModelSettings, Settings};
use serde_json::{Map, Value, json};

use crate::proto::model_config::SchedulingChoice;
use crate::proto::model_queue_policy::TimeoutAction;
use crate::proto::{ModelConfig, ModelDynamicBatching, ModelQueuePolicy};

use super::runtime::count_parameter;

/// Settings and the fields that they come from.
const NAMES: [(&str, &str); 8] = [
    ("max_batch_rows", "max_batch_size"),
    ("max_delay_us", "dynamic_batching.max_queue_delay_microseconds"),
    ("queue_capacity", "dynamic_batching.default_queue_policy.max_queue_size"),
    ("queue_timeout_us", "dynamic_batching.default_queue_policy.default_timeout_microseconds"),
    ("priority_levels", "dynamic_batching.priority_levels"),
    ("default_priority", "dynamic_batching.default_priority_level"),
    ("instances", "instance_group.count"),
    ("threads", "parameters[\"intra_op_thread_count\"]"),
];

/// Most requests that a queue can be told to hold: what the setting allows. Triton has no bound.
const MAX_QUEUE: u32 = 10_000_000;

/// The dynamic batching of a configuration, if it has it.
pub(super) fn dynamic_batching(config: &ModelConfig) -> Option<&ModelDynamicBatching> {
    match &config.scheduling_choice {
        Some(SchedulingChoice::DynamicBatching(batching)) => Some(batching),
        _ => None,
    }
}

/// The settings that `config` sets, by their names in `[models.NAME]`.
pub(super) fn settings_of(config: &ModelConfig) -> Result<Map<String, Value>, String> {
    let mut settings = Map::new();
    let mut set = |name: &str, value: Value| settings.insert(name.to_owned(), value);
    if config.max_batch_size > 0 {
        set("max_batch_rows", json!(config.max_batch_size));
    }
    let instances: i64 = config.instance_group.iter().map(|group| i64::from(group.count)).sum();
    if instances > 0 {
        set("instances", json!(instances));
    }
    let threads = count_parameter(config, "intra_op_thread_count")?;
    if threads > 0 {
        set("threads", json!(threads));
    }
    if let Some(batching) = dynamic_batching(config) {
        set("max_delay_us", json!(batching.max_queue_delay_microseconds));
        set("priority_levels", json!(batching.priority_levels));
        if batching.priority_levels > 0 {
            set("default_priority", json!(batching.default_priority_level));
        }
        if let Some(policy) = &batching.default_queue_policy {
            default_policy(policy, &mut set);
        }
        if !batching.priority_queue_policy.is_empty() {
            set("queue_policies", policies(batching)?);
        }
    }
    validated(settings)
}

fn default_policy(policy: &ModelQueuePolicy, set: &mut impl FnMut(&str, Value) -> Option<Value>) {
    set("queue_timeout_us", json!(policy.default_timeout_microseconds));
    set("timeout_action", json!(action_name(policy.timeout_action())));
    set("allow_timeout_override", json!(policy.allow_timeout_override));
    if policy.max_queue_size > 0 {
        set("queue_capacity", json!(policy.max_queue_size.min(MAX_QUEUE)));
    }
}

fn policies(batching: &ModelDynamicBatching) -> Result<Value, String> {
    let mut policies = Map::new();
    for (level, policy) in &batching.priority_queue_policy {
        if !(1..=batching.priority_levels).contains(level) {
            return Err(format!(
                "dynamic_batching.priority_queue_policy[{level}]: there is no such level; allowed: 1 to \
                 dynamic_batching.priority_levels ({})",
                batching.priority_levels
            ));
        }
        let mut entry = Map::new();
        entry.insert("timeout_us".to_owned(), json!(policy.default_timeout_microseconds));
        entry.insert("timeout_action".to_owned(), json!(action_name(policy.timeout_action())));
        entry.insert("allow_timeout_override".to_owned(), json!(policy.allow_timeout_override));
        if policy.max_queue_size > 0 {
            entry.insert("capacity".to_owned(), json!(policy.max_queue_size.min(MAX_QUEUE)));
        }
        policies.insert(level.to_string(), Value::Object(entry));
    }
    Ok(Value::Object(policies))
}

fn action_name(action: TimeoutAction) -> &'static str {
    match action {
        TimeoutAction::Reject => "reject",
        TimeoutAction::Delay => "delay",
    }
}

/// Refuses what the settings' own ranges refuse, by the field's name.
fn validated(settings: Map<String, Value>) -> Result<Map<String, Value>, String> {
    let known = serde_json::to_value(ModelSettings::default()).unwrap_or_default();
    let ours = settings.iter().filter(|(name, _)| known.get(name.as_str()).is_some());
    let ours: Map<String, Value> = ours.map(|(name, value)| (name.clone(), value.clone())).collect();
    let model: ModelSettings = serde_json::from_value(Value::Object(ours)).map_err(|error| error.to_string())?;
    let all = Settings { models: [("m".to_owned(), model)].into(), ..Settings::default() };
    let Err(invalid) = all.validate() else { return Ok(settings) };
    let leaf = invalid.key.rsplit('.').next().unwrap_or_default();
    let field = NAMES.iter().find(|(name, _)| *name == leaf).map_or(leaf, |(_, field)| field);
    Err(format!("{field} = {}: allowed: {}", invalid.value, invalid.allowed))
}

/// Dynamic batching as `settings` have it.
pub(super) fn batching_of(settings: &ModelSettings) -> ModelDynamicBatching {
    batching_in(&serde_json::to_value(settings).unwrap_or_default())
}

/// The way back: dynamic batching from settings as JSON. A key that is not there counts as Triton's default.
pub(super) fn batching_in(settings: &Value) -> ModelDynamicBatching {
    let number = |key: &str| settings[key].as_u64().unwrap_or_default();
    let default_policy = ModelQueuePolicy {
        default_timeout_microseconds: number("queue_timeout_us"),
        max_queue_size: u32::try_from(number("queue_capacity")).unwrap_or(u32::MAX),
        ..policy(settings)
    };
    let by_level = settings["queue_policies"].as_object().into_iter().flatten();
    ModelDynamicBatching {
        max_queue_delay_microseconds: number("max_delay_us"),
        priority_levels: number("priority_levels"),
        default_priority_level: default_level(number("priority_levels"), number("default_priority")),
        default_queue_policy: Some(default_policy),
        priority_queue_policy: by_level
            .filter_map(|(level, value)| Some((level.parse().ok()?, policy(value))))
            .collect(),
        ..ModelDynamicBatching::default()
    }
}

/// The level of requests that ask for none; 0 stands for the middle one.
fn default_level(levels: u64, level: u64) -> u64 {
    if level == 0 { levels.div_ceil(2) } else { level }
}

fn policy(value: &Value) -> ModelQueuePolicy {
    let action = if value["timeout_action"] == "delay" { TimeoutAction::Delay } else { TimeoutAction::Reject };
    ModelQueuePolicy {
        timeout_action: action.into(),
        default_timeout_microseconds: value["timeout_us"].as_u64().unwrap_or_default(),
        allow_timeout_override: value["allow_timeout_override"].as_bool().unwrap_or_default(),
        max_queue_size: u32::try_from(value["capacity"].as_u64().unwrap_or_default()).unwrap_or(u32::MAX),
    }
}
