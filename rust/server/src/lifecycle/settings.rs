//! How one model is to be run: what `mlserve.toml`, the environment and flags say of it, else its `config.pbtxt`, else the
//! defaults.

use mlserve_core::config::{ModelSettings, Settings};
use serde_json::{Map, Value};

use crate::model_config::ConfigFile;

/// The settings of the model `name` with this configuration.
///
/// **Errors:** a value of the configuration that no model can have; the text names the key and what is allowed.
pub(super) fn of_model(settings: &Settings, name: &str, config: Option<&ConfigFile>) -> Result<ModelSettings, String> {
    let given = settings.models.get(name).cloned().unwrap_or_default();
    let Some(config) = config else { return Ok(given) };
    let mut table = table_of(&ModelSettings::default())?;
    table.extend(config.settings());
    if let Some(policy) = config.version_policy() {
        table.insert("versions".to_owned(), policy.to_string().into());
    }
    let keys = settings.given.get(name);
    let own = table_of(&given)?.into_iter().filter(|(key, _)| keys.is_some_and(|keys| keys.contains(key)));
    table.extend(own);
    let merged: ModelSettings = serde_path_to_error::deserialize(Value::Object(table))
        .map_err(|error| format!("config.pbtxt of model '{name}': {}: {}", error.path(), error.inner()))?;
    merged.validate(name).map_err(|error| format!("config.pbtxt of model '{name}': {error}"))?;
    Ok(merged)
}

fn table_of(settings: &ModelSettings) -> Result<Map<String, Value>, String> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(table)) => Ok(table),
        _ => Err("the settings of a model are no table".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ConfigFile {
        let text = r#"{"max_batch_size": 16, "dynamic_batching": {"max_queue_delay_microseconds": 250},
            "version_policy": {"all": {}}}"#;
        ConfigFile::from_json(text, "m").expect("read")
    }

    #[test]
    fn what_is_given_wins_over_the_configuration_and_that_over_the_defaults() {
        let settings = crate::settings::from_json(r#"{"models": {"m": {"max_delay_us": 0, "instances": 3}}}"#);
        let merged = of_model(&settings.expect("valid"), "m", Some(&config())).expect("merged");
        assert_eq!((merged.max_delay_us, merged.instances), (0, 3), "given, also where it is the default");
        assert_eq!((merged.max_batch_rows, merged.versions.to_string().as_str()), (16, "all"));
        assert_eq!(merged.queue_capacity, ModelSettings::default().queue_capacity);
    }

    #[test]
    fn a_model_without_configuration_has_what_is_given() {
        let settings = crate::settings::from_json(r#"{"models": {"m": {"instances": 3}}}"#).expect("valid");
        assert_eq!(of_model(&settings, "m", None).expect("merged").instances, 3);
        assert_eq!(of_model(&settings, "other", None), Ok(ModelSettings::default()));
    }
}
