//! What is typed at the hypervisor itself: keys, and while a line is open, that.
//!
//! ```text
//!          open            Enter: the line; Ctrl-C, ESC: nothing
//!   keys ------> a line ------------------------------------------> keys
//! ```
//!
//! Keys that a terminal sends as several bytes (ESC [ A, ESC O R) count as ESC alone: no part of them is a key.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

/// The longest line, in bytes.
pub const LINE_MAX: usize = 120;

const CTRL_C: u8 = 0x03;
const BACKSPACE: u8 = 0x08;
const CTRL_U: u8 = 0x15;
const ESC: u8 = 0x1b;
const DELETE: u8 = 0x7f;

/// What rubs out the last character on a terminal.
const RUB_OUT: &[u8] = b"\x08 \x08";

/// Where the next byte goes.
#[derive(Debug, Default)]
pub struct Typing {
    /// The line as far as it is typed, if one is open: printable ASCII, at most [`LINE_MAX`].
    line: Option<String>,
    sequence: Sequence,
}

/// What a byte amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// Nothing yet.
    Nothing,
    /// A key.
    Key(u8),
    /// The open line is ended, and is not blank.
    Line(String),
    /// The open line is given up, or was blank.
    Abandoned,
}

/// How much of a key's bytes has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sequence {
    #[default]
    None,
    /// ESC.
    Begun,
    /// ESC [, and then up to a letter or `~`.
    Parameters,
    /// ESC O, and then one byte.
    Last,
}

impl Sequence {
    /// Whether a byte belongs to a key that has begun.
    fn swallows(&mut self, byte: u8) -> bool {
        let before = *self;
        *self = match (before, byte) {
            (_, ESC) => Self::Begun,
            (Self::Begun, b'[') => Self::Parameters,
            (Self::Begun, b'O') => Self::Last,
            (Self::Parameters, 0x20..=0x3f) => Self::Parameters,
            _ => Self::None,
        };
        match before {
            Self::None => false,
            Self::Begun => *self != Self::None && byte != ESC,
            Self::Parameters | Self::Last => matches!(byte, 0x20..=0x7e),
        }
    }
}

impl Typing {
    /// No line is open.
    pub const fn new() -> Self {
        Self { line: None, sequence: Sequence::None }
    }

    /// Opens an empty line.
    pub fn open(&mut self) {
        self.line = Some(String::new());
    }

    /// Gives up the open line. Says whether one was.
    pub fn abandon(&mut self) -> bool {
        self.line.take().is_some()
    }

    /// Takes a byte, and adds to `echo` what the terminal is to show.
    pub fn take(&mut self, byte: u8, echo: &mut Vec<u8>) -> Typed {
        if self.sequence.swallows(byte) {
            return Typed::Nothing;
        }
        let Some(line) = &mut self.line else { return Typed::Key(byte) };
        match byte {
            b'\r' | b'\n' => {
                let line = mem::take(line);
                self.line = None;
                return if line.trim().is_empty() { Typed::Abandoned } else { Typed::Line(line) };
            }
            CTRL_C | ESC => {
                self.line = None;
                return Typed::Abandoned;
            }
            BACKSPACE | DELETE => {
                if line.pop().is_some() {
                    echo.extend(RUB_OUT);
                }
            }
            CTRL_U => {
                line.drain(..).for_each(|_| echo.extend(RUB_OUT));
            }
            b' '..=b'~' if line.len() < LINE_MAX => {
                line.push(char::from(byte));
                echo.push(byte);
            }
            _ => {}
        }
        Typed::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What bytes that are typed on an open line amount to, but for nothing, and what the terminal shows.
    fn typed(bytes: &[u8]) -> (Vec<Typed>, String) {
        let (mut typing, mut echo) = (Typing::new(), Vec::new());
        typing.open();
        let all = bytes.iter().map(|&byte| typing.take(byte, &mut echo)).filter(|typed| *typed != Typed::Nothing);
        (all.collect(), String::from_utf8(echo).unwrap())
    }

    fn line(text: &str) -> Typed {
        Typed::Line(text.to_string())
    }

    #[test]
    fn a_line_is_echoed_and_corrected_until_enter() {
        assert_eq!(typed(b"help\r"), (vec![line("help")], "help".to_string()));
        assert_eq!(typed(b"\x08ab\x7f\x08c\n"), (vec![line("c")], "ab\x08 \x08\x08 \x08c".to_string()));
        assert_eq!(typed(b"ab\x15x\r").0, [line("x")]);
        assert_eq!(typed(b"a\x00\t\xffb\r"), (vec![line("ab")], "ab".to_string()));
    }

    #[test]
    fn after_the_line_bytes_are_keys_again() {
        assert_eq!(typed(b"a\r\nq").0, [line("a"), Typed::Key(b'\n'), Typed::Key(b'q')]);
        assert_eq!(typed(b"a\x03q").0, [Typed::Abandoned, Typed::Key(b'q')]);
        assert_eq!(typed(b"a\x1bq").0, [Typed::Abandoned, Typed::Key(b'q')]);
        assert_eq!(typed(b"  \rq").0, [Typed::Abandoned, Typed::Key(b'q')]);
    }

    #[test]
    fn no_part_of_a_key_of_several_bytes_is_a_key() {
        for key in ["\x1bOR", "\x1b[A", "\x1b[13;2~", "\x1b[R"] {
            assert_eq!(
                typed(&[b"a", key.as_bytes(), b"q"].concat()).0,
                [Typed::Abandoned, Typed::Key(b'q')],
                "{key:?}"
            );
        }
        assert_eq!(typed(b"a\x1b\x1b[Rq").0, [Typed::Abandoned, Typed::Key(0x1b), Typed::Key(b'q')]);
        assert_eq!(typed(b"\x1b[\rq").0, [Typed::Abandoned, Typed::Key(b'\r'), Typed::Key(b'q')]);
    }

    #[test]
    fn a_line_has_a_longest_length() {
        let (all, echo) = typed(&[&[b'x'; LINE_MAX + 5][..], b"\x08y\r"].concat());
        assert_eq!(all, [line(&("x".repeat(LINE_MAX - 1) + "y"))]);
        assert_eq!(echo, "x".repeat(LINE_MAX) + "\x08 \x08y");
    }

    #[test]
    fn a_line_is_given_up_from_outside_once() {
        let mut typing = Typing::new();
        typing.open();
        assert_eq!((typing.abandon(), typing.abandon()), (true, false));
        assert_eq!(typing.take(b'q', &mut Vec::new()), Typed::Key(b'q'));
    }

    /// What a terminal shows.
    fn shown(echo: &[u8]) -> String {
        let (mut cells, mut at) = (Vec::new(), 0);
        for &byte in echo {
            match byte {
                BACKSPACE => at -= 1,
                byte => {
                    cells.resize(cells.len().max(at + 1), b' ');
                    cells[at] = byte;
                    at += 1;
                }
            }
        }
        assert!(cells[at..].iter().all(|&cell| cell == b' '));
        String::from_utf8(cells[..at].to_vec()).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_terminal_shows_the_line(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (mut typing, mut echo) = (Typing::new(), Vec::new());
            typing.open();
            for byte in bytes {
                match typing.take(byte, &mut echo) {
                    Typed::Nothing => {
                        let line = typing.line.clone().unwrap_or_default();
                        prop_assert!(line.len() <= LINE_MAX);
                        prop_assert_eq!(shown(&echo), line);
                    }
                    _ => {
                        echo.clear();
                        typing.open();
                    }
                }
            }
        }
    }
}
