//! The grammar of xl.cfg(5): settings, strings, numbers and lists.
//!
//! ```text
//! file     settings, each ended by a line's end, ";" or a comment
//! setting  key "=" value  |  key "+=" value
//! value    '…'  |  "…"  |  number  |  "[" value, value, … "]"
//! ```
//!
//! A number is kept as its text, as any string may stand for a number and the other way round.

use super::{Problem, XlError};
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// How deep lists may nest.
const DEPTH_MAX: usize = 8;

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The line of the key, from 1.
    pub line: usize,
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// Whether it is `+=`, which adds to what was there before.
    pub adds: bool,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A string without its quotes, or a number as it is written.
    Text(String),
    /// A list.
    List(Vec<Value>),
}

/// Splits a file into its settings.
///
/// # Errors
/// `Syntax` with the line.
pub fn settings(file: &[u8]) -> Result<Vec<Setting>, XlError> {
    let text = core::str::from_utf8(file).map_err(|why| {
        let line = 1 + file[..why.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
        XlError { line, problem: Problem::Syntax { expected: "the file must be text in ASCII or UTF-8" } }
    })?;
    let mut cursor = Cursor { rest: text, line: 1 };
    let mut settings = Vec::new();
    loop {
        cursor.skip_blanks(true);
        match cursor.peek() {
            None => return Ok(settings),
            Some(';') => {
                cursor.advance(1);
            }
            Some(_) => {
                settings.push(cursor.setting()?);
                cursor.end_of_setting()?;
            }
        }
    }
}

/// The text that is still to be read.
struct Cursor<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// Moves past `len` bytes, a whole number of characters.
    fn advance(&mut self, len: usize) -> &'a str {
        let (passed, rest) = self.rest.split_at(len);
        self.line += passed.bytes().filter(|&byte| byte == b'\n').count();
        self.rest = rest;
        passed
    }

    /// Moves past the characters that `belongs` takes.
    fn advance_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let len = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        self.advance(len)
    }

    /// Moves past blanks and comments, and past line ends if they may come here.
    fn skip_blanks(&mut self, lines: bool) {
        loop {
            self.advance_while(|c| matches!(c, ' ' | '\t' | '\r') || lines && c == '\n');
            if self.peek() != Some('#') {
                return;
            }
            self.advance_while(|c| c != '\n');
        }
    }

    /// Moves past `token` if it comes next.
    fn take(&mut self, token: &str) -> bool {
        let there = self.rest.starts_with(token);
        if there {
            self.advance(token.len());
        }
        there
    }

    fn fail<T>(&self, expected: &'static str) -> Result<T, XlError> {
        Err(XlError { line: self.line, problem: Problem::Syntax { expected } })
    }

    fn setting(&mut self) -> Result<Setting, XlError> {
        let line = self.line;
        if !self.peek().is_some_and(|c| c.is_ascii_alphabetic() || c == '_') {
            return self.fail("a key must come here, as in memory = 256");
        }
        let key = self.advance_while(|c| c.is_ascii_alphanumeric() || c == '_').to_owned();
        self.skip_blanks(false);
        let adds = self.take("+=");
        if !adds && !self.take("=") {
            return self.fail("\"=\" must follow the key");
        }
        self.skip_blanks(false);
        let value = self.value(DEPTH_MAX)?;
        Ok(Setting { line, key, value, adds })
    }

    fn end_of_setting(&mut self) -> Result<(), XlError> {
        self.skip_blanks(false);
        match self.peek() {
            None | Some('\n' | ';') => Ok(()),
            Some(_) => self.fail("something follows the value; put each setting on a line of its own"),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, XlError> {
        match self.peek() {
            Some('[') if depth == 0 => self.fail("lists nest too deep"),
            Some('[') => self.list(depth - 1),
            Some(quote @ ('\'' | '"')) => self.string(quote).map(Value::Text),
            Some(c) if c.is_ascii_digit() || c == '-' => Ok(Value::Text(self.number())),
            Some(c) if c.is_ascii_alphabetic() => self.fail("the value needs quotes, as in type = \"pvh\""),
            _ => self.fail("a value must come here: a string in quotes, a number, or a list in [ ]"),
        }
    }

    fn number(&mut self) -> String {
        self.advance_while(|c| c.is_ascii_alphanumeric() || c == '-').to_owned()
    }

    fn list(&mut self, depth: usize) -> Result<Value, XlError> {
        let mut values = Vec::new();
        self.advance(1);
        loop {
            self.skip_blanks(true);
            if self.take("]") {
                return Ok(Value::List(values));
            }
            values.push(self.value(depth)?);
            self.skip_blanks(true);
            if !self.take(",") && self.peek() != Some(']') {
                return self.fail("\",\" or \"]\" must follow a value of a list");
            }
        }
    }

    fn string(&mut self, quote: char) -> Result<String, XlError> {
        let mut string = String::new();
        self.advance(1);
        loop {
            string.push_str(self.advance_while(|c| c != quote && c != '\\' && c != '\n'));
            match self.peek() {
                Some('\\') => string.push(self.escape()?),
                Some(c) if c == quote => {
                    self.advance(1);
                    return Ok(string);
                }
                _ => return self.fail("a string must end on its line; its closing quote is missing"),
            }
        }
    }

    /// A backslash and what it stands for, as in C: a letter, `\xHH`, or up to three octal digits.
    fn escape(&mut self) -> Result<char, XlError> {
        self.advance(1);
        let code = match self.peek() {
            Some('x') => {
                self.advance(1);
                return self.coded(2, 16);
            }
            Some('0'..='7') => return self.coded(3, 8),
            Some('a') => '\x07',
            Some('b') => '\x08',
            Some('f') => '\x0c',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('v') => '\x0b',
            Some(c @ ('\\' | '"' | '\'')) => c,
            _ => return self.fail("no such escape; write \\\\ for a backslash"),
        };
        self.advance(1);
        Ok(code)
    }

    /// A character by its number of at most `digits` digits.
    fn coded(&mut self, digits: usize, radix: u32) -> Result<char, XlError> {
        let len = self.rest.chars().take(digits).take_while(|c| c.is_digit(radix)).count();
        let number = self.advance(len);
        match u32::from_str_radix(number, radix) {
            Ok(code @ 1..=0x7f) => Ok(char::from_u32(code).expect("ASCII is a part of Unicode")),
            _ => self.fail("an escape by number must be from 1 to 0x7f"),
        }
    }
}
