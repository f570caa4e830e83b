//! A configuration's file, and its JSON form: read within bounds.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use prost_reflect::{DeserializeOptions, DynamicMessage, Kind, MessageDescriptor};
use serde_json::Deserializer;
use serde_path_to_error::{Deserializer as Tracked, Track};

use super::text::{field_names, place, value_names};
use crate::extensions::json::descriptor;

/// Bytes of a configuration. Real ones have some hundreds; a label or a warm-up tensor has a file of its own.
const MAX_BYTES: usize = 1 << 20;

/// The text of a file of at most [`MAX_BYTES`]; `None` if there is none. A link that leads nowhere is an error.
pub(super) fn text_of(path: &Path) -> Result<Option<String>, String> {
    match path.symlink_metadata() {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    }
    // Opening anything else could wait for ever.
    if !path.metadata().map_err(|error| error.to_string())?.is_file() {
        return Err("it is no file".to_owned());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    bounded(bytes.len())?;
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        format!("{}: the text is not UTF-8", place(&String::from_utf8_lossy(valid), valid.len()))
    })
}

fn bounded(bytes: usize) -> Result<(), String> {
    if bytes <= MAX_BYTES {
        return Ok(());
    }
    Err(format!("it has more than {MAX_BYTES} bytes, which is the most that is read"))
}

/// The `ModelConfig` that `text` is in JSON; 64-bit integers may be numbers or strings.
pub(super) fn from_json(text: &str) -> Result<DynamicMessage, String> {
    bounded(text.len())?;
    let mut json = Deserializer::from_str(text);
    let mut track = Track::new();
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let config = descriptor("ModelConfig").map_err(|error| error.text().to_owned())?;
    let read = DynamicMessage::deserialize_with_options(config.clone(), Tracked::new(&mut json, &mut track), &options);
    let message = read.map_err(|error| {
        let (path, fault) = (track.path().to_string(), error.to_string());
        let allowed = allowed_at(&config, &path).filter(|_| fault.contains("unrecognized"));
        let allowed = allowed.map(|allowed| format!("; allowed: {allowed}")).unwrap_or_default();
        // The path is not known where the text itself is broken.
        if [".", "?"].contains(&path.as_str()) {
            format!("{fault}{allowed}")
        } else {
            format!("{path}: {fault}{allowed}")
        }
    })?;
    json.end().map_err(|error| error.to_string())?;
    Ok(message)
}

/// What may stand at `path` of the JSON form: the values of an enum, or else the members of the message around it.
fn allowed_at(config: &MessageDescriptor, path: &str) -> Option<String> {
    let mut message = config.clone();
    let names = path.split('.').map(|part| part.split('[').next().unwrap_or_default());
    // What is no field is a key of a map, or the name that is not known.
    for name in names {
        let Some(field) = message.get_field_by_name(name) else { continue };
        match field.kind() {
            Kind::Message(entry) if entry.is_map_entry() => {
                message = entry.map_entry_value_field().kind().as_message()?.clone();
            }
            Kind::Message(below) => message = below,
            Kind::Enum(values) => return Some(value_names(&values)),
            _ => return None,
        }
    }
    Some(field_names(&message))
}
