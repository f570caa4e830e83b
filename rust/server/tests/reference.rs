//! The generated pages of docs/reference: settings, errors, metrics, model configuration.
//!
//! They are rendered from the schema of the settings, the error table, the list of metrics and the rules for fields, and
//! compared with the committed files. `make reference` (`UPDATE_REFERENCE=1`) writes them.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use mlserve_core::error::{Fault, Kind, Retry};
use mlserve_server::metrics::{FAMILIES, Type};
use mlserve_server::model_config::rules::{FIELDS, OTHER_PARAMETERS, PARAMETERS, Rule, Verdict, When};
use mlserve_server::settings::{self, Key, Sources, table_keys};
use serde_json::Value;

/// Values of which one is out of the range of every setting that has a range.
const PROBES: [&str; 2] = ["1", "4294967295"];
/// gRPC's status codes that the table uses, by number and name.
const GRPC_NAMES: [(u8, &str); 9] = [
    (1, "CANCELLED"),
    (3, "INVALID_ARGUMENT"),
    (4, "DEADLINE_EXCEEDED"),
    (5, "NOT_FOUND"),
    (7, "PERMISSION_DENIED"),
    (8, "RESOURCE_EXHAUSTED"),
    (12, "UNIMPLEMENTED"),
    (13, "INTERNAL"),
    (14, "UNAVAILABLE"),
];

#[test]
fn settings_page_is_the_schema() {
    let schema = settings::schema();
    let mut page = head("Settings", "rust/core/src/config.rs");
    page += "A setting comes from a flag, an environment variable, the file `mlserve.toml`, or its default; the first \
             of these that has it wins. The file is read from the present folder; `--config FILE` or `MLSERVE_CONFIG` \
             names another. `mlserve config` prints all settings with the values in force. An unknown key or a value \
             that is not allowed stops the start.\n";
    for table in settings::FLAG_TABLES {
        let description = schema["properties"][table]["description"].as_str().unwrap_or_default();
        line(&mut page, &format!("\n## `[{table}]`\n\n{description}\n"));
        page += "| key | flag | environment variable | allowed | default | |\n|---|---|---|---|---|---|\n";
        for key in table_keys(&schema, table) {
            let flag = if key.name == "models_path" { "`PATH`".to_owned() } else { format!("`--{}`", key.flag()) };
            let (name, variable, doc) = (&key.name, key.variable(), cell(&key.doc));
            let (allowed, default) = (allowed(&schema, &key), default(&key.default));
            line(&mut page, &format!("| `{name}` | {flag} | `{variable}` | {allowed} | {default} | {doc} |"));
        }
    }
    let description = schema["properties"]["models"]["description"].as_str().unwrap_or_default();
    line(&mut page, &format!("\n## `[models.NAME]`\n\n{description} As a flag: `--set models.NAME.KEY=VALUE`.\n"));
    page += "| key | allowed | default | |\n|---|---|---|---|\n";
    for key in table_keys(&schema, "models") {
        let (name, allowed, default, doc) = (&key.name, allowed(&schema, &key), default(&key.default), cell(&key.doc));
        line(&mut page, &format!("| `{name}` | {allowed} | {default} | {doc} |"));
    }
    compare("settings.md", &page);
}

#[test]
fn errors_page_is_the_error_table() {
    let mut page = head("Errors", "rust/core/src/error.rs");
    page += "Every refusal is one row of this table, over gRPC, over HTTP and in process. The code stands in metrics \
             and in the access log; the text of an error says what was wrong, the value, and what is allowed. In \
             Python each row is a class of `mlserve.errors`; all of them are `MlserveError`.\n\n\
             Several rows share a status; the code tells them apart. It stands in the header `mlserve-code` over HTTP, in \
             the trailer of that name over gRPC, and in the parameter of that name of a streamed error. A client that \
             sees the status alone gets the class that the rows have in common: `UnavailableError` for every 503.\n\n";
    page += "| code | HTTP | gRPC | whose fault | same request again | Python | |\n|---|---|---|---|---|---|---|\n";
    for kind in Kind::ALL {
        let row = kind.row();
        let grpc = GRPC_NAMES.iter().find(|(number, _)| *number == row.grpc).map_or("?", |(_, name)| name);
        let fault = match row.fault {
            Fault::Client => "client",
            Fault::Server => "server",
            Fault::Neither => "neither",
        };
        let retry = match row.retry {
            Retry::No => "no",
            Retry::Yes => "later",
            Retry::Once => "once",
            Retry::ByCaller => "if the caller still wants it",
        };
        let (code, http, number, class, meaning) = (row.code, row.http, row.grpc, python_class(kind), row.meaning);
        let cells = [format!("`{code}`"), http.to_string(), format!("{grpc} ({number})"), fault.into(), retry.into()];
        line(&mut page, &format!("| {} | `{class}` | {meaning} |", cells.join(" | ")));
    }
    page += "\nPython has three more, for starting and stopping: `ConfigError` (a setting is unknown or has a value that \
             is not allowed), `ModelLoadError` (no model could be loaded), and `LifecycleError` (the server was used \
             before it started, after it stopped, or in a forked child).\n";
    compare("errors.md", &page);
}

#[test]
fn metrics_page_is_the_list_of_families() {
    let mut page = head("Metrics", "rust/server/src/metrics.rs");
    page += "The metrics port (8002 unless set) answers `/metrics` in the Prometheus text format. The \
             `nv_inference_*` metrics have Triton's names and units, so that dashboards made for it draw.\n\n";
    page += "| name | type | |\n|---|---|---|\n";
    for family in FAMILIES {
        let kind = match family.kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        line(&mut page, &format!("| `{}` | {kind} | {} |", family.name, family.help));
    }
    compare("metrics.md", &page);
}

#[test]
fn model_config_page_is_the_table_of_rules() {
    let mut page = head("Model configuration", "rust/server/src/model_config/rules.rs");
    page += "A model's folder may have a `config.pbtxt`: Triton's `ModelConfig` in the text format of protobuf. Without it \
             the graph and the [settings](settings.md) say everything. A setting in `mlserve.toml` or on the command line \
             wins over the file. Loading by API takes the same message as JSON, in the parameter `config`.\n\n\
             Each field is supported, ignored with a warning in the log where that changes no answer, or refused: then the \
             model is not loaded, and the error names the field. A value that asks for nothing, such as `decoupled: \
             false`, is always taken. What is said of a field goes for the fields below it too, unless they have a row of \
             their own.\n\n\
             `ModelConfig` over gRPC, and `GET /v2/models/NAME/config`, answer with what is in force.\n\n";
    page += "| field | | |\n|---|---|---|\n";
    for rule in FIELDS {
        line(&mut page, &rule_row(rule));
    }
    page +=
        "\n## `parameters`\n\nThe keys are those of Triton's backend for ONNX Runtime.\n\n| key | | |\n|---|---|---|\n";
    for rule in PARAMETERS {
        line(&mut page, &rule_row(rule));
    }
    let (name, verdict, says) = (OTHER_PARAMETERS.field, OTHER_PARAMETERS.verdict, sentence(OTHER_PARAMETERS.says));
    line(&mut page, &format!("| {name} | {verdict} | {says} |"));
    compare("model-config.md", &page);
}

fn rule_row(rule: &Rule) -> String {
    let verdict = match (rule.verdict, rule.when) {
        (Verdict::Supported, _) | (_, When::Asks | When::Given) => rule.verdict.to_string(),
        (verdict, When::Other(values)) => {
            let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            format!("{}: supported; others: {verdict}", values.join(", "))
        }
    };
    format!("| `{}` | {verdict} | {} |", rule.field, sentence(rule.says))
}

/// Reasons are written to end an error's text.
fn sentence(says: &str) -> String {
    let mut letters = says.chars();
    let first = letters.next().filter(|_| !says.starts_with('`')).map(|first| first.to_ascii_uppercase());
    let text = first.map_or_else(|| says.to_owned(), |first| format!("{first}{}", letters.as_str()));
    cell(&format!("{}.", text.trim_end_matches('.')))
}

fn head(title: &str, source: &str) -> String {
    format!("<!-- Generated from {source} by `make reference`; do not edit. -->\n\n# {title}\n\n")
}

fn line(page: &mut String, line: &str) {
    writeln!(page, "{line}").expect("a string takes everything");
}

/// Python's name of a row: its variant, as an exception.
fn python_class(kind: Kind) -> String {
    match kind {
        // `CancelledError` is asyncio's.
        Kind::Cancelled => "RequestCancelledError".to_owned(),
        kind => format!("{kind:?}Error"),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn default(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        other => format!("`{other}`"),
    }
}

/// What a setting may be, from its schema and, for a number, from what the validation says of one out of range.
fn allowed(schema: &Value, key: &Key) -> String {
    let table = match key.table {
        "models" => "ModelSettings",
        table => reference(&schema["properties"][table]).expect("a table of its own"),
    };
    let property = &schema["$defs"][table]["properties"][&key.name];
    if let Some(name) = reference(property) {
        let choices = schema["$defs"][name]["oneOf"].as_array();
        let words = choices.into_iter().flatten().filter_map(|choice| choice["const"].as_str());
        let words = words.map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ");
        return if words.is_empty() { "text".to_owned() } else { words };
    }
    match property["type"].as_str() {
        Some("boolean") => "`true`, `false`".to_owned(),
        Some("integer") => range(key),
        Some("object") => "a table per level".to_owned(),
        _ => "text".to_owned(),
    }
}

/// The name of the definition that a property refers to.
fn reference(property: &Value) -> Option<&str> {
    property["$ref"].as_str()?.strip_prefix("#/$defs/")
}

fn range(key: &Key) -> String {
    if key.name == "default_priority" {
        // Its bound is another setting, not a number.
        return "0 to `priority_levels`".to_owned();
    }
    let path = if key.table == "models" { format!("models.m.{}", key.name) } else { key.path() };
    let refusal = PROBES.iter().find_map(|value| {
        let sources = Sources { flags: vec![(path.clone(), (*value).to_owned())], ..Sources::default() };
        settings::merge(&sources, std::slice::from_ref(key)).err()
    });
    let Some(error) = refusal else { return "0 or more".to_owned() };
    let text = error.to_string();
    if let Some((_, allowed)) = text.split_once("allowed is ") {
        return allowed.to_owned();
    }
    assert!(text.contains("expected u16"), "{path}: {text}");
    format!("0 to {}", u16::MAX)
}

fn compare(name: &str, page: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    let path = folder.join(name);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::create_dir_all(&folder).expect("docs can be written");
        fs::write(&path, page).expect("docs can be written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page, "docs/reference/{name} is out of date: run `make reference`");
}
