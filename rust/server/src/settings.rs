//! Merges settings: flag, then environment, then file, then default; and says what is wrong by its key.
//!
//! Names, defaults and documentation are those of [`mlserve_core::config`]; flags and environment names are derived from
//! its schema, so that nothing is written twice. Each key of `[server]`, `[limits]` and `[log]` has a flag, `http_port`
//! as `--http-port`, and an environment variable, `MLSERVE_HTTP_PORT`; models are set in the file or by
//! `--set models.NAME.KEY=VALUE`. What Kubernetes sets beside a Service of our name is no setting.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use mlserve_core::config::Settings;
use serde_json::{Map, Value};

pub use self::kubernetes::service_variables;

mod kubernetes;

/// The file that is read if no other is named and it exists.
const DEFAULT_FILE: &str = "mlserve.toml";
/// Environment variables of this prefix are settings; one that is none stops the start.
const PREFIX: &str = "MLSERVE_";
/// Variables of the prefix that are no settings: where the file is, and where tests find the runtime.
const OTHER_VARIABLES: [&str; 2] = ["MLSERVE_CONFIG", "MLSERVE_ORT_LIB"];
/// Tables whose keys have flags.
pub const FLAG_TABLES: [&str; 3] = ["server", "limits", "log"];

/// A setting that stops the start: which, its value, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError(String);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingsError {}

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file named by a flag.
    pub file: Option<PathBuf>,
    /// The process's environment, or a part of it.
    pub environment: Vec<(String, String)>,
    /// Keys and values of flags, `server.http_port` for example, in the order given.
    pub flags: Vec<(String, String)>,
}

/// One key of a flag table, as its schema describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// `server`, `limits` or `log`.
    pub table: &'static str,
    /// `http_port` for example.
    pub name: String,
    /// Its documentation.
    pub doc: String,
    /// Its default, as JSON.
    pub default: Value,
}

impl Key {
    /// The flag's name without dashes before it.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.to_uppercase())
    }

    /// The whole key.
    pub fn path(&self) -> String {
        format!("{}.{}", self.table, self.name)
    }
}

/// The JSON schema of all settings.
pub fn schema() -> Value {
    serde_json::to_value(schemars::schema_for!(Settings)).unwrap_or_default()
}

/// Every key that has a flag, in the order of the tables. **Cost:** the whole schema; a start needs it once.
pub fn keys() -> Vec<Key> {
    let schema = schema();
    FLAG_TABLES.into_iter().flat_map(|table| table_keys(&schema, table)).collect()
}

/// The keys of one table of the schema, in the order of their documentation.
pub fn table_keys(schema: &Value, table: &'static str) -> Vec<Key> {
    let definition = match table {
        "models" => &schema["$defs"]["ModelSettings"],
        _ => definition(schema, &schema["properties"][table]),
    };
    let properties = definition["properties"].as_object();
    properties
        .into_iter()
        .flatten()
        .map(|(name, property)| Key {
            table,
            name: name.clone(),
            doc: property["description"].as_str().unwrap_or_default().replace('\n', " "),
            default: property["default"].clone(),
        })
        .collect()
}

fn definition<'a>(schema: &'a Value, property: &'a Value) -> &'a Value {
    let reference = property["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/"));
    reference.map_or(property, |name| &schema["$defs"][name])
}

/// Merges `sources` and validates the result. `keys`: those of [`keys`].
///
/// **Errors:** an unknown key or a bad value, by its key or variable, and what is allowed.
pub fn merge(sources: &Sources, keys: &[Key]) -> Result<Settings, SettingsError> {
    let mut merged = read_file(sources)?;
    for (name, value) in &sources.environment {
        let is_other = OTHER_VARIABLES.contains(&name.as_str()) || kubernetes::is_of_a_service(name, value);
        if !name.starts_with(PREFIX) || is_other {
            continue;
        }
        let key = keys.iter().find(|key| key.variable() == *name).ok_or_else(|| unknown_variable(name, keys))?;
        set(&mut merged, &key.path(), value)?;
    }
    for (path, value) in &sources.flags {
        set(&mut merged, path, value)?;
    }
    from_value(merged)
}

/// Settings from JSON text, with `environment` and files left aside: what a program hands over.
///
/// **Errors:** as [`merge`].
pub fn from_json(text: &str) -> Result<Settings, SettingsError> {
    let value = serde_json::from_str(text).map_err(|error| SettingsError(format!("settings are not JSON: {error}")))?;
    from_value(value)
}

fn from_value(value: Value) -> Result<Settings, SettingsError> {
    let given = given_keys(&value["models"]);
    let mut settings: Settings = serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let key = if path == "." { String::new() } else { format!("{path}: ") };
        SettingsError(format!("{key}{}{}", error.inner(), allowed_range(&path)))
    })?;
    settings.validate().map_err(|error| SettingsError(error.to_string()))?;
    settings.given = given;
    Ok(settings)
}

/// The keys of each model's table.
fn given_keys(models: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let tables = models.as_object().into_iter().flatten();
    let keys = |table: &Value| table.as_object().into_iter().flat_map(|table| table.keys().cloned()).collect();
    tables.map(|(name, table)| (name.clone(), keys(table))).collect()
}

/// The range that the schema gives for a key, for errors that only know its type.
fn allowed_range(path: &str) -> String {
    let schema = schema();
    let Some((table, name)) = path.split_once('.') else { return String::new() };
    let property = &definition(&schema, &schema["properties"][table])["properties"][name];
    match (&property["minimum"], &property["maximum"]) {
        (Value::Number(least), Value::Number(most)) => format!("; allowed is {least} to {most}"),
        (Value::Number(least), _) => format!("; allowed is {least} and above"),
        _ => String::new(),
    }
}

fn read_file(sources: &Sources) -> Result<Value, SettingsError> {
    let named = sources.file.clone().or_else(|| {
        let variable = sources.environment.iter().find(|(name, _)| name == "MLSERVE_CONFIG");
        variable.map(|(_, path)| PathBuf::from(path))
    });
    let path = match named {
        Some(path) => path,
        None if Path::new(DEFAULT_FILE).is_file() => PathBuf::from(DEFAULT_FILE),
        None => return Ok(Value::Object(Map::new())),
    };
    let in_file = |error: &dyn fmt::Display| SettingsError(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|error| in_file(&error))?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| in_file(&error))?;
    serde_json::to_value(table).map_err(|error| in_file(&error))
}

/// A flag's or variable's text as the value it means: a number or truth value if it reads as one, else the text.
fn scalar(text: &str) -> Value {
    match serde_json::from_str::<Value>(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
        _ => Value::String(text.to_owned()),
    }
}

fn set(merged: &mut Value, path: &str, text: &str) -> Result<(), SettingsError> {
    let mut place = merged;
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        let Some(table) = place.as_object_mut() else {
            return Err(SettingsError(format!("{path}: {part} is below a value, not a table")));
        };
        let next = table.entry(part).or_insert_with(|| Value::Object(Map::new()));
        if parts.peek().is_none() {
            *next = if wants_text(path) { Value::String(text.to_owned()) } else { scalar(text) };
            return Ok(());
        }
        place = next;
    }
    Ok(())
}

/// `--uds 5` means a path, not a number.
fn wants_text(path: &str) -> bool {
    let keys = [
        "server.models_path",
        "server.host",
        "server.uds",
        "server.ort_library",
        "server.ready_file",
        "server.load_models",
        "server.trace_file",
        "server.allowed_origins",
        "limits.trusted_proxies",
        "log.access_log_file",
    ];
    let leaf = path.rsplit('.').next().unwrap_or_default();
    keys.contains(&path) || (path.starts_with("models.") && ["path", "versions"].contains(&leaf))
}

fn unknown_variable(name: &str, keys: &[Key]) -> SettingsError {
    let mut known: Vec<String> = keys.iter().map(Key::variable).collect();
    known.sort_unstable_by_key(|known| strsim_distance(known, name));
    SettingsError(format!("environment variable {name} is no setting; did you mean {}?", known[0]))
}

/// Letters that differ, place by place, plus the difference in length: enough to find a misspelt name.
fn strsim_distance(one: &str, other: &str) -> usize {
    let differing = one.bytes().zip(other.bytes()).filter(|(one, other)| one != other).count();
    differing + one.len().abs_diff(other.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(flags: &[(&str, &str)]) -> Sources {
        let flags = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Sources { flags, ..Sources::default() }
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_file() {
        let folder = std::env::temp_dir().join(format!("mlserve-settings-{}", std::process::id()));
        std::fs::write(&folder, "[server]\nhttp_port = 1\ngrpc_port = 1\nmetrics_port = 1\n").expect("written");
        let mut sources = flags(&[("server.http_port", "3")]);
        sources.file = Some(folder.clone());
        sources.environment = vec![("MLSERVE_HTTP_PORT".into(), "2".into()), ("MLSERVE_GRPC_PORT".into(), "2".into())];
        let settings = merge(&sources, &keys()).expect("valid");
        std::fs::remove_file(folder).expect("removed");
        assert_eq!((settings.server.http_port, settings.server.grpc_port, settings.server.metrics_port), (3, 2, 1));
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = merge(&flags(&[("limits.max_rnk", "3")]), &keys()).expect_err("unknown");
        assert!(error.to_string().starts_with("limits.max_rnk: unknown field"), "{error}");
    }

    #[test]
    fn a_bad_value_is_named_with_what_is_allowed() {
        let error = merge(&flags(&[("server.http_port", "70000")]), &keys()).expect_err("too large");
        assert!(error.to_string().contains("server.http_port") && error.to_string().contains("70000"), "{error}");
        assert!(error.to_string().ends_with("allowed is 0 to 65535"), "{error}");
    }

    #[test]
    fn an_unknown_variable_suggests_the_nearest() {
        let sources = Sources { environment: vec![("MLSERVE_HTTP_PROT".into(), "1".into())], ..Sources::default() };
        let error = merge(&sources, &keys()).expect_err("unknown");
        assert!(error.to_string().contains("MLSERVE_HTTP_PORT"), "{error}");
    }

    #[test]
    fn flags_have_distinct_names_and_documentation() {
        let keys = keys();
        let mut names: Vec<String> = keys.iter().map(Key::flag).collect();
        assert!(keys.iter().all(|key| !key.doc.is_empty()));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_path_may_look_like_a_number_or_a_truth_value() {
        for path in ["5", "1e3", "true", "-0"] {
            let settings = merge(&flags(&[("server.uds", path)]), &keys()).expect("valid");
            assert_eq!(settings.server.uds.as_deref(), Some(Path::new(path)));
        }
    }

    #[test]
    fn models_are_set_by_their_path() {
        let settings = merge(&flags(&[("models.digits.max_batch_rows", "8")]), &keys()).expect("valid");
        assert_eq!(settings.models["digits"].max_batch_rows, 8);
    }
}
