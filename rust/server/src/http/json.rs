//! A cursor over JSON text: one pass, constant stack, no tree. Hot path.
//!
//! A tensor's numbers go straight from the text into little-endian bytes, so what a general parser would build in
//! between is never built, and every error can name the place (why not a library: docs/decisions/0003). Depth is counted
//! here and nowhere else. Must not know the protocol; that is [`super::decode`].

use std::borrow::Cow;

use mlserve_core::error::{Error, Result};

use super::decimal::Decimal;

/// Levels that [`Cursor::skip`] can remember, one bit each; settings allow no more.
const MAX_DEPTH: usize = u128::BITS as usize;

/// A place in a JSON text.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    max_depth: usize,
}

/// The kinds of JSON values, told by their first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Object,
    Array,
    Text,
    Number,
    Bool,
    Null,
}

impl Token {
    /// For error texts.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Token::Object => "an object",
            Token::Array => "an array",
            Token::Text => "a string",
            Token::Number => "a number",
            Token::Bool => "a boolean",
            Token::Null => "null",
        }
    }
}

impl<'a> Cursor<'a> {
    /// At the start of `text`, which may nest `max_depth` levels.
    pub(super) fn new(text: &'a str, max_depth: usize) -> Self {
        Self { text, at: 0, depth: 0, max_depth: max_depth.min(MAX_DEPTH) }
    }

    /// At the start of a body, which may nest `max_depth` levels.
    ///
    /// **Errors:** not UTF-8; empty; a byte order mark.
    pub(super) fn of_body(body: &'a [u8], max_depth: usize) -> Result<Self> {
        let text = std::str::from_utf8(body).map_err(|error| not_utf8(error.valid_up_to()))?;
        if text.starts_with('\u{feff}') {
            return Err(byte_order_mark());
        }
        let mut cursor = Self::new(text, max_depth);
        if cursor.peek().is_none() {
            return Err(empty());
        }
        Ok(cursor)
    }

    /// Bytes that are left.
    pub(super) fn remaining(&self) -> usize {
        self.text.len() - self.at
    }

    /// What lies between here and `end`, without white space around it.
    pub(super) fn text_until(&self, end: &Self) -> &'a str {
        self.text.get(self.at..end.at).unwrap_or_default().trim_ascii()
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is not white space, still to be read.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.byte() {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    /// What kind of value comes next.
    ///
    /// **Errors:** none does; a bare `NaN` or `Infinity` is told by name, because clients send them.
    #[inline]
    pub(super) fn token(&mut self) -> Result<Token> {
        Ok(match self.peek() {
            Some(b'{') => Token::Object,
            Some(b'[') => Token::Array,
            Some(b'"') => Token::Text,
            Some(b'-' | b'0'..=b'9') => Token::Number,
            Some(b't' | b'f') => Token::Bool,
            Some(b'n') => Token::Null,
            _ => return Err(self.no_value()),
        })
    }

    /// Reads `byte` if it comes next.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<()> {
        if self.take(byte) { Ok(()) } else { Err(self.broken(what)) }
    }

    /// Reads an opening `{` or `[`.
    ///
    /// **Errors:** something else comes next; too deep.
    pub(super) fn enter(&mut self, open: u8) -> Result<()> {
        self.expect(open, "a value of another kind was expected")?;
        if self.depth == self.max_depth {
            return Err(too_deep(self.max_depth));
        }
        self.depth += 1;
        Ok(())
    }

    /// Reads a closing `}` or `]` if it comes next.
    #[inline]
    pub(super) fn leave(&mut self, close: u8) -> bool {
        let left = self.take(close);
        self.depth -= usize::from(left);
        left
    }

    /// Reads `,`, or the closing byte; says whether another element follows.
    #[inline]
    pub(super) fn more(&mut self, close: u8) -> Result<bool> {
        if self.take(b',') {
            return Ok(true);
        }
        if self.leave(close) {
            return Ok(false);
        }
        Err(self.broken(if close == b']' {
            "missing a comma or ] after an array element"
        } else {
            "missing a comma or } after an object member"
        }))
    }

    /// Reads an object; `visit` reads the value of each key.
    pub(super) fn object(&mut self, mut visit: impl FnMut(&mut Self, Cow<'a, str>) -> Result<()>) -> Result<()> {
        self.enter(b'{')?;
        if self.leave(b'}') {
            return Ok(());
        }
        loop {
            let key = self.key()?;
            visit(self, key)?;
            if !self.more(b'}')? {
                return Ok(());
            }
        }
    }

    /// Reads an array; `visit` reads each element.
    pub(super) fn array(&mut self, mut visit: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.enter(b'[')?;
        if self.leave(b']') {
            return Ok(());
        }
        loop {
            visit(self)?;
            if !self.more(b']')? {
                return Ok(());
            }
        }
    }

    fn key(&mut self) -> Result<Cow<'a, str>> {
        if self.peek() != Some(b'"') {
            return Err(self.broken("missing a name for object member"));
        }
        let key = self.string()?;
        self.expect(b':', "missing a colon after a name of object member")?;
        Ok(key)
    }

    /// Reads a string; borrowed unless it has escapes.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>> {
        self.expect(b'"', "a string was expected")?;
        let start = self.at;
        loop {
            match self.byte() {
                Some(b'"') => break,
                Some(b'\\') => return self.escaped(start).map(Cow::Owned),
                Some(0..=0x1f) => return Err(self.broken("control characters in a string must be escaped")),
                Some(_) => self.at += 1,
                None => return Err(self.broken("missing a closing quotation mark in string")),
            }
        }
        let text = &self.text[start..self.at];
        self.at += 1;
        Ok(Cow::Borrowed(text))
    }

    #[cold]
    fn escaped(&mut self, start: usize) -> Result<String> {
        let mut unescaped = self.text[start..self.at].to_owned();
        loop {
            let plain = self.at;
            while self.byte().is_some_and(|byte| byte != b'"' && byte != b'\\' && byte > 0x1f) {
                self.at += 1;
            }
            unescaped.push_str(&self.text[plain..self.at]);
            match self.byte() {
                Some(b'"') => break,
                Some(b'\\') => {
                    self.at += 1;
                    unescaped.push(self.escape()?);
                }
                Some(_) => return Err(self.broken("control characters in a string must be escaped")),
                None => return Err(self.broken("missing a closing quotation mark in string")),
            }
        }
        self.at += 1;
        Ok(unescaped)
    }

    fn escape(&mut self) -> Result<char> {
        let escape = self.byte();
        self.at += usize::from(escape.is_some_and(|byte| byte.is_ascii()));
        Ok(match escape {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.broken("invalid escape character in string")),
        })
    }

    fn unicode(&mut self) -> Result<char> {
        let high = self.hex4()?;
        let code = if (0xd800..0xdc00).contains(&high) && self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            self.at += 2;
            let low = self.hex4()?;
            // A wrong second half makes a number above every character, refused below.
            low.checked_sub(0xdc00).map_or(u32::MAX, |low| 0x10000 + ((high - 0xd800) << 10) + low)
        } else {
            high
        };
        char::from_u32(code).ok_or_else(|| self.broken("the surrogate pair in string is invalid"))
    }

    fn hex4(&mut self) -> Result<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let code = digits.and_then(|digits| {
            digits.iter().try_fold(0, |code, &digit| Some(code << 4 | char::from(digit).to_digit(16)?))
        });
        let code = code.ok_or_else(|| self.broken("incorrect hex digit after \\u escape in string"))?;
        self.at += 4;
        Ok(code)
    }

    /// Reads a number.
    #[inline]
    pub(super) fn number(&mut self) -> Result<Decimal<'a>> {
        self.peek();
        match Decimal::scan(&self.text[self.at..]) {
            Ok(number) => {
                self.at += number.text.len();
                Ok(number)
            }
            Err("invalid value") => Err(self.no_value()),
            Err(missing) => Err(self.broken(missing)),
        }
    }

    /// Reads `true` or `false`.
    pub(super) fn boolean(&mut self) -> Result<bool> {
        let is_true = self.peek() == Some(b't');
        self.word(if is_true { "true" } else { "false" }).map(|()| is_true)
    }

    /// Reads `null` if it comes next: an optional member that is null is one that is not there.
    #[inline]
    pub(super) fn null(&mut self) -> Result<bool> {
        let is_null = self.peek() == Some(b'n');
        if is_null {
            self.word("null")?;
        }
        Ok(is_null)
    }

    /// Reads a value of any kind and gives its text. **Cost:** as [`Self::skip`].
    pub(super) fn raw(&mut self) -> Result<&'a str> {
        let start = self.clone();
        self.skip()?;
        Ok(start.text_until(self))
    }

    fn word(&mut self, word: &'static str) -> Result<()> {
        self.peek();
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.no_value());
        }
        self.at += word.len();
        Ok(())
    }

    fn scalar(&mut self, token: Token) -> Result<()> {
        match token {
            Token::Text => self.string().map(drop),
            Token::Number => self.number().map(drop),
            Token::Bool => self.boolean().map(drop),
            Token::Null | Token::Object | Token::Array => self.word("null"),
        }
    }

    /// Reads a value of any kind and forgets it. **Cost:** one pass; no recursion.
    pub(super) fn skip(&mut self) -> Result<()> {
        let outer = self.depth;
        // One bit per open level, the innermost lowest: 1 for an object.
        let mut levels = 0_u128;
        loop {
            let entered = self.skip_start(&mut levels)?;
            if entered {
                continue;
            }
            loop {
                if self.depth == outer {
                    return Ok(());
                }
                let in_object = levels & 1 == 1;
                if self.more(if in_object { b'}' } else { b']' })? {
                    if in_object {
                        self.key()?;
                    }
                    break;
                }
                levels >>= 1;
            }
        }
    }

    /// Reads a scalar or an empty container (false), or the start of a container up to its first value (true).
    fn skip_start(&mut self, levels: &mut u128) -> Result<bool> {
        let token = self.token()?;
        let (open, close) = match token {
            Token::Object => (b'{', b'}'),
            Token::Array => (b'[', b']'),
            _ => return self.scalar(token).map(|()| false),
        };
        self.enter(open)?;
        if self.leave(close) {
            return Ok(false);
        }
        *levels = *levels << 1 | u128::from(token == Token::Object);
        if token == Token::Object {
            self.key()?;
        }
        Ok(true)
    }

    /// Checks that nothing follows.
    pub(super) fn end(&mut self) -> Result<()> {
        if self.peek().is_none() {
            Ok(())
        } else {
            Err(self.broken("the document root must not be followed by other values"))
        }
    }

    #[cold]
    fn no_value(&self) -> Error {
        let rest = &self.text.as_bytes()[self.at..];
        let word = rest.strip_prefix(b"-").unwrap_or(rest);
        if word.starts_with(b"NaN") || word.starts_with(b"Inf") || word.starts_with(b"nan") || word.starts_with(b"inf")
        {
            return self.broken("NaN and Infinity are not JSON; send such values as binary data");
        }
        self.broken("invalid value")
    }

    /// The text is not JSON, or not what is wanted here.
    #[cold]
    pub(super) fn broken(&self, what: &str) -> Error {
        Error::invalid(format!("failed to parse the request JSON buffer: {what} at {}", self.at))
    }
}

#[cold]
fn byte_order_mark() -> Error {
    Error::invalid(
        "failed to parse the request JSON buffer: it begins with a byte order mark (BOM), which JSON may not have",
    )
}

/// There is no JSON at all.
#[cold]
pub(super) fn empty() -> Error {
    Error::invalid("failed to parse the request JSON buffer: the body is empty; a JSON object is expected")
}

#[cold]
fn not_utf8(at: usize) -> Error {
    Error::invalid(format!("failed to parse the request JSON buffer: invalid encoding in string, not UTF-8 at {at}"))
}

#[cold]
fn too_deep(limit: usize) -> Error {
    Error::too_large(format!("the request JSON is nested deeper than {limit} levels, which is the limit"))
}

#[cfg(test)]
mod tests;
