//! Runs one case: makes its image, starts the emulator, watches the serial port.

use crate::bed::Pace;
use crate::case::Case;
use crate::expect::{Seen, Step, Watch};
use crate::image;
use crate::machine::{Machine, Output};
use crate::words;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How a case ended.
pub struct Outcome {
    /// The case's name.
    pub name: String,
    /// Why it failed, if it did.
    pub wrong: Option<String>,
    /// How long it took on this machine.
    pub took: Duration,
    /// Instructions, where the emulator counts them.
    pub instructions: Option<u64>,
    /// What was seen, of a case that has a [`crate::case::Verdict`].
    pub seen: Option<String>,
}

/// Where a case keeps its files.
pub fn folder(name: &str) -> PathBuf {
    Path::new("build/tests").join(name)
}

/// Runs a case to its end.
pub fn run(case: &Case) -> Outcome {
    let start = Instant::now();
    let (mut wrong, instructions) = match attempt(case, start) {
        Ok((wrong, instructions)) => (wrong, instructions),
        Err(error) => (Some(format!("cannot run: {error}")), None),
    };
    let mut seen = None;
    if let (None, Some(verdict)) = (&wrong, case.verdict) {
        let log = fs::read(folder(&case.name).join("serial.log")).unwrap_or_default();
        match verdict(&String::from_utf8_lossy(&log)) {
            Ok(text) => seen = Some(text),
            Err(reason) => wrong = Some(reason),
        }
    }
    Outcome { name: case.name.clone(), wrong, took: start.elapsed(), instructions, seen }
}

fn attempt(case: &Case, start: Instant) -> io::Result<(Option<String>, Option<u64>)> {
    let dir = folder(&case.name);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    let iso = image::make(case, &dir)?;
    let machine = Machine::start(&case.host, &iso, &dir, Pace::Instructions)?;
    let mut session = Session {
        case,
        machine,
        log: File::create(dir.join("serial.log"))?,
        line: Vec::new(),
        lines: 0,
        destroyed: 0,
        is_over: false,
    };
    let mut watch = Watch::new(&case.tracks, &case.allowed);
    for (who, text) in &case.forbidden {
        watch.forbid(who.clone(), text);
    }
    let stopped = session.watch(&mut watch, start)?;
    let wrong = watch.complaint().or(stopped);
    let instructions = session.machine.clock().instructions();
    drop(session);
    if wrong.is_none() {
        fs::remove_file(iso)?;
    }
    Ok((wrong, instructions))
}

struct Session<'a> {
    case: &'a Case,
    machine: Machine,
    log: File,
    line: Vec<u8>,
    lines: usize,
    destroyed: usize,
    is_over: bool,
}

impl Session<'_> {
    /// Watches until all has been seen or something is wrong, and says what.
    fn watch(&mut self, watch: &mut Watch<'_>, start: Instant) -> io::Result<Option<String>> {
        while !watch.done() {
            if let Some(reason) = self.exhausted(start) {
                return Ok(Some(format!("{reason}, without {}", describe(watch.missing()))));
            }
            let wrong = match self.machine.read(Duration::from_millis(300)) {
                Output::Bytes(bytes) => self.take(&bytes, watch)?,
                Output::Silence if self.is_over => {
                    Some(format!("no domain is left, without {}", describe(watch.missing())))
                }
                Output::Silence => self.pause(watch)?,
                Output::End => Some(format!("the emulator ended without {}", describe(watch.missing()))),
            };
            if wrong.is_some() {
                return Ok(wrong);
            }
        }
        Ok(None)
    }

    fn exhausted(&mut self, start: Instant) -> Option<String> {
        // A machine that is busy with other work makes no test fail.
        let own = start.elapsed().saturating_sub(self.machine.starved());
        if own.as_secs() >= self.case.guard_s {
            return Some(format!("{} s of this machine have passed", self.case.guard_s));
        }
        let budget = self.case.giga_instructions;
        match self.machine.clock().instructions() {
            Some(done) if done >= budget * 1_000_000_000 => {
                Some(format!("{budget} billion instructions were executed"))
            }
            _ => None,
        }
    }

    fn take(&mut self, bytes: &[u8], watch: &mut Watch<'_>) -> io::Result<Option<String>> {
        self.log.write_all(bytes)?;
        for &byte in bytes {
            self.line.push(byte);
            if byte != b'\n' {
                continue;
            }
            let now_s = self.machine.clock().of_line_s(self.lines);
            self.lines += 1;
            let line = text(&self.line);
            self.line.clear();
            self.count_destroyed(&line);
            let seen = watch.line(&line, now_s);
            if let Some(wrong) = self.act(seen)? {
                return Ok(Some(wrong));
            }
            if watch.done() {
                break;
            }
        }
        Ok(None)
    }

    /// It is over when every domain of the case has been destroyed and the hypervisor says so.
    fn count_destroyed(&mut self, line: &str) {
        self.destroyed += usize::from(line.starts_with("(euxen) ") && line.contains(words::DESTROYED));
        let configs = self.case.modules.iter().filter(|module| module.string.ends_with(".cfg")).count();
        self.is_over |= line.starts_with(words::NOTHING_LEFT) && self.destroyed >= configs;
    }

    /// In a pause, a line without its end may be a prompt.
    fn pause(&mut self, watch: &mut Watch<'_>) -> io::Result<Option<String>> {
        if self.line.is_empty() {
            return Ok(None);
        }
        let now_s = self.machine.clock().of_line_s(self.lines);
        let seen = watch.unfinished(&text(&self.line), now_s);
        self.act(seen)
    }

    fn act(&mut self, seen: Seen) -> io::Result<Option<String>> {
        match seen {
            Seen::Nothing => Ok(None),
            Seen::Wrong(reason) => Ok(Some(reason)),
            Seen::Type(keys) => {
                self.machine.write(keys.as_bytes())?;
                Ok(None)
            }
        }
    }
}

/// A line as text, without its end and without what moves a terminal's cursor.
fn text(line: &[u8]) -> String {
    let mut plain = String::new();
    let mut chars = String::from_utf8_lossy(line).into_owned().chars().collect::<Vec<_>>().into_iter().peekable();
    while let Some(c) = chars.next() {
        if c == '\x1b' && chars.peek() == Some(&'[') {
            chars.by_ref().skip(1).find(|c| c.is_ascii_alphabetic());
        } else if !c.is_control() || c == '\t' {
            plain.push(c);
        }
    }
    plain
}

fn describe(step: Option<&Step>) -> String {
    match step {
        Some(Step::See(who, text) | Step::SeeAfter(who, text, ..)) => format!("\"{text}\" from {}", name(who.as_ref())),
        Some(Step::Note(who, text) | Step::Same(who, text)) => format!("\"{text}\" from {}", name(Some(who))),
        Some(Step::Type(keys)) => format!("a chance to type {keys:?}"),
        None => "nothing more to see".into(),
    }
}

fn name(who: Option<&words::Speaker>) -> String {
    match who {
        Some(words::Speaker::Domain(name)) => format!("domain {name}"),
        Some(words::Speaker::Host) => "the hypervisor".into(),
        None => "anyone".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_loses_its_end_and_its_cursor_movements() {
        assert_eq!(text(b"\x1b[2J\x1b[01;01H(web) hello\r\n"), "(web) hello");
    }
}
