//! Holds a configuration against the rules: what it asks for is supported, or warned about, or refused by name.

use mlserve_core::error::quoted;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

use super::rules::{Rule, Verdict, When, field_rule, parameter_rule};
use super::text::value_names;

/// What the rules say about one configuration.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) warnings: Vec<String>,
    pub(super) refusals: Vec<String>,
}

/// Everything in `config`, an `inference.ModelConfig`, that is not plainly supported.
pub(super) fn check(config: &DynamicMessage) -> Findings {
    let mut findings = Findings::default();
    walk(config, "", "", &mut findings);
    findings
}

/// `path` is the rule's; `place` has indices and keys too.
fn walk(message: &DynamicMessage, path: &str, place: &str, findings: &mut Findings) {
    for (field, value) in message.fields() {
        let (path, place) = (below(path, field.name()), below(place, field.name()));
        match field_rule(&path) {
            Some(rule) if rule.verdict != Verdict::Supported => findings.judge(rule, &place, &field, value),
            Some(_) if path == "parameters" => parameters(value, findings),
            Some(_) => {
                findings.refusals.extend(unknown_value(&field, value, &place));
                each_message(value, &place, &mut |message, place| walk(message, &path, place, findings));
            }
            // A test holds the table complete; what it does not know must not be served as if it were.
            None => findings.refusals.push(format!("{place} cannot be served: the field is not known here")),
        }
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn each_message(value: &Value, place: &str, visit: &mut dyn FnMut(&DynamicMessage, &str)) {
    match value {
        Value::Message(message) => visit(message, place),
        Value::List(values) => {
            for (index, value) in values.iter().enumerate() {
                each_message(value, &format!("{place}[{index}]"), visit);
            }
        }
        Value::Map(values) => {
            for (key, value) in values {
                each_message(value, &format!("{place}[{}]", key_text(key)), visit);
            }
        }
        _ => {}
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::String(key) => format!("\"{}\"", quoted(key)),
        MapKey::U64(key) => key.to_string(),
        other => format!("{other:?}"),
    }
}

/// A number that its enum has no name for.
fn unknown_value(field: &FieldDescriptor, value: &Value, place: &str) -> Option<String> {
    let (Value::EnumNumber(number), Kind::Enum(kind)) = (value, field.kind()) else { return None };
    let allowed = value_names(&kind);
    kind.get_value(*number).is_none().then(|| format!("{place} = {number} is no value; allowed: {allowed}"))
}

fn parameters(value: &Value, findings: &mut Findings) {
    let Value::Map(entries) = value else { return };
    let mut entries: Vec<_> = entries.iter().collect();
    entries.sort_by_key(|(key, _)| key_text(key));
    for (key, value) in entries {
        let (MapKey::String(name), Value::Message(message)) = (key, value) else { continue };
        let rule = parameter_rule(name);
        if rule.verdict == Verdict::Supported {
            continue;
        }
        if let Some(field) = message.descriptor().get_field_by_name("string_value") {
            let place = format!("parameters[{}]", key_text(key));
            findings.judge(rule, &place, &field, &message.get_field(&field));
        }
    }
}

impl Findings {
    fn judge(&mut self, rule: &Rule, place: &str, field: &FieldDescriptor, value: &Value) {
        let applies = match rule.when {
            When::Given => true,
            When::Asks => asks(field, value),
            When::Other(allowed) => !allowed.contains(&text(field, value).as_str()),
        };
        if !applies {
            return;
        }
        let shown = match value {
            Value::Message(_) | Value::List(_) | Value::Map(_) => place.to_owned(),
            value => format!("{place} = {}", quoted_value(field, value)),
        };
        let allowed = match rule.when {
            When::Other(allowed) => format!("; allowed: {}", allowed.join(", ")),
            When::Asks | When::Given => String::new(),
        };
        match rule.verdict {
            Verdict::Supported => {}
            Verdict::Ignored => self.warnings.push(format!("{shown} has no effect: {}", rule.says)),
            Verdict::Refused => self.refusals.push(format!("{shown} cannot be served: {}{allowed}", rule.says)),
        }
    }
}

/// Whether any value at or below this one is not its default.
fn asks(field: &FieldDescriptor, value: &Value) -> bool {
    match value {
        Value::Message(message) => message.fields().any(|(field, value)| asks(&field, value)),
        Value::List(values) => !values.is_empty(),
        Value::Map(values) => !values.is_empty(),
        // A member of a oneof may be there with its default.
        value => !value.is_default(&field.kind()),
    }
}

fn text(field: &FieldDescriptor, value: &Value) -> String {
    match (value, field.kind()) {
        (Value::String(text), _) => text.clone(),
        (Value::EnumNumber(number), Kind::Enum(kind)) => {
            kind.get_value(*number).map_or_else(|| number.to_string(), |value| value.name().to_owned())
        }
        (value, _) => value.to_string(),
    }
}

fn quoted_value(field: &FieldDescriptor, value: &Value) -> String {
    let text = text(field, value);
    if matches!(value, Value::String(_)) { format!("\"{}\"", quoted(&text)) } else { text }
}
