//! The text format of protobuf, as Triton's users write it, read into a message; faults come with line and column.
//!
//! The parser wants a colon before every list. The format does not, before lists of messages, and `input [ { … } ]` is
//! how it is written everywhere, so the colons are added first.

use miette::Diagnostic;
use prost_reflect::{DynamicMessage, EnumDescriptor, MessageDescriptor};

use crate::extensions::json::descriptor;

/// Levels of braces. The message has 7; the parser recurses, so that a file of braces would end the process.
const MAX_DEPTH: usize = 32;

/// The `ModelConfig` that `text` is.
pub(super) fn from_text(text: &str) -> Result<DynamicMessage, String> {
    let (completed, added) = with_colons(text)?;
    let config = descriptor("ModelConfig").map_err(|error| error.text().to_owned())?;
    DynamicMessage::parse_text_format(config, &completed).map_err(|error| {
        let label = error.labels().and_then(|mut labels| labels.next());
        // Only the end of the text has no label.
        let offset = label.map_or(completed.trim_end().len(), |label| label.offset());
        let offset = offset - added.iter().filter(|&&position| position < offset).count();
        let fault = error.to_string();
        let allowed = allowed_by(&fault).map(|allowed| format!("; allowed: {allowed}")).unwrap_or_default();
        format!("{}: {fault}{allowed}", place(text, offset))
    })
}

/// Line and column, from 1, of a byte.
pub(super) fn place(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&letter| letter != '\n').count() + 1;
    format!("line {line}, column {column}")
}

/// Where a text is, for whoever looks at its bytes one after the other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Code,
    Comment,
    /// In a string with this quote; whether the next byte is escaped.
    Quoted(u8, bool),
}

impl Inside {
    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (_, b'\n') => Inside::Code,
            (Inside::Code, b'#') => Inside::Comment,
            (Inside::Code, b'"' | b'\'') => Inside::Quoted(byte, false),
            (Inside::Quoted(quote, false), b'\\') => Inside::Quoted(quote, true),
            (Inside::Quoted(quote, false), byte) if byte == quote => Inside::Code,
            (Inside::Quoted(quote, _), _) => Inside::Quoted(quote, false),
            (inside, _) => inside,
        }
    }
}

/// `text` with a colon before each list that follows a name, and where they are in the result.
///
/// **Errors:** braces that nest too deep.
fn with_colons(text: &str) -> Result<(String, Vec<usize>), String> {
    let (mut completed, mut added) = (String::with_capacity(text.len() + 64), Vec::new());
    let (mut inside, mut depth, mut last, mut copied) = (Inside::Code, 0_usize, b' ', 0);
    for (offset, byte) in text.bytes().enumerate() {
        inside = inside.after(byte);
        if inside != Inside::Code || byte.is_ascii_whitespace() {
            continue;
        }
        match byte {
            b'{' | b'<' | b'[' => depth += 1,
            b'}' | b'>' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(format!("{}: more than {MAX_DEPTH} braces are open", place(text, offset)));
        }
        if byte == b'[' && (last.is_ascii_alphanumeric() || last == b'_') {
            completed.push_str(&text[copied..offset]);
            added.push(completed.len());
            completed.push(':');
            copied = offset;
        }
        last = byte;
    }
    completed.push_str(&text[copied..]);
    Ok((completed, added))
}

/// What there is instead, for a fault that ends with the name of a message or an enum of ours.
fn allowed_by(fault: &str) -> Option<String> {
    let name = fault.rsplit('\'').nth(1).filter(|name| name.starts_with("inference."))?;
    let config = descriptor("ModelConfig").ok()?;
    let pool = config.parent_pool();
    let message = pool.get_message_by_name(name).map(|message| field_names(&message));
    message.or_else(|| Some(value_names(&pool.get_enum_by_name(name)?)))
}

/// The names of a message's fields.
pub(super) fn field_names(message: &MessageDescriptor) -> String {
    message.fields().map(|field| field.name().to_owned()).collect::<Vec<_>>().join(", ")
}

/// The names of an enum's values.
pub(super) fn value_names(values: &EnumDescriptor) -> String {
    values.values().map(|value| value.name().to_owned()).collect::<Vec<_>>().join(", ")
}
