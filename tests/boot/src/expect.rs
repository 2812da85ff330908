//! What must appear on the serial port, and whether it did.
//!
//! A case has several tracks, each a list of steps in order; tracks advance independently, so the
//! lines of two domains may interleave in any way. A pattern is text in which `*` stands for
//! anything; it matches anywhere in a line.

use crate::words::{self, Speaker};

/// One thing that must happen, in the order of its track.
#[derive(Clone, Debug)]
pub enum Step {
    /// A line by this speaker (anyone if `None`) that matches.
    See(Option<Speaker>, String),
    /// Such a line, and the emulated time since the step before lies within these seconds.
    SeeAfter(Option<Speaker>, String, f64, f64),
    /// Types this text into the serial port.
    Type(String),
    /// A line by this speaker that matches; the number at its `#` is noted.
    Note(Speaker, String),
    /// Such a line, and the number at its `#` is the one noted before in this track.
    Same(Speaker, String),
}

/// The steps that are still to come, for each track.
pub struct Watch<'a> {
    tracks: Vec<Track<'a>>,
    forbidden: Vec<(Speaker, &'a str)>,
    allowed: &'a [String],
    complaints: Vec<String>,
}

struct Track<'a> {
    steps: &'a [Step],
    last_s: f64,
    noted: Option<u64>,
}

/// What a line led to.
#[derive(Debug, PartialEq)]
pub enum Seen {
    /// Nothing to do but go on.
    Nothing,
    /// This text must be typed.
    Type(String),
    /// The test has failed, for this reason.
    Wrong(String),
}

impl<'a> Watch<'a> {
    /// Begins to watch for the steps; a disaster whose text is in `allowed` is none.
    pub fn new(tracks: &'a [Vec<Step>], allowed: &'a [String]) -> Self {
        let tracks = tracks.iter().map(|steps| Track { steps, last_s: 0.0, noted: None }).collect();
        Watch { tracks, forbidden: Vec::new(), allowed, complaints: Vec::new() }
    }

    /// Adds text that this speaker must not write. The watch goes on when it does, to see it all.
    pub fn forbid(&mut self, who: Speaker, text: &'a str) {
        self.forbidden.push((who, text));
    }

    /// Whether every step has happened.
    pub fn done(&self) -> bool {
        self.tracks.iter().all(|track| track.steps.is_empty())
    }

    /// The first step that has not happened.
    pub fn missing(&self) -> Option<&Step> {
        self.tracks.iter().find_map(|track| track.steps.first())
    }

    /// Takes a whole line, written at `now_s` of emulated time.
    pub fn line(&mut self, line: &str, now_s: f64) -> Seen {
        if let Some(reason) = self.disaster(line) {
            return Seen::Wrong(reason);
        }
        self.note_forbidden(line);
        self.advance(line, now_s)
    }

    /// Takes a line that has not ended, such as a prompt.
    pub fn unfinished(&mut self, line: &str, now_s: f64) -> Seen {
        self.advance(line, now_s)
    }

    fn disaster(&self, line: &str) -> Option<String> {
        let (speaker, text) = words::split(line);
        let general = match speaker {
            Some(Speaker::Host) => words::HOST_DISASTERS,
            _ => words::GUEST_DISASTERS,
        };
        let general = general.iter().find(|word| text.contains(**word) && !self.allowed.iter().any(|a| a == *word));
        general.map(|_| format!("unwanted: {line}"))
    }

    fn note_forbidden(&mut self, line: &str) {
        let (speaker, text) = words::split(line);
        if self.forbidden.iter().any(|(who, word)| speaker.as_ref() == Some(who) && text.contains(word)) {
            self.complaints.push(text.to_string());
        }
    }

    /// What forbidden lines there were, if any.
    pub fn complaint(&self) -> Option<String> {
        let first = self.complaints.first()?;
        Some(format!("{} unwanted lines, the first: {first}", self.complaints.len()))
    }

    fn advance(&mut self, line: &str, now_s: f64) -> Seen {
        let mut to_type = String::new();
        for track in &mut self.tracks {
            match track.advance(line, now_s) {
                Seen::Nothing => {}
                Seen::Type(text) => to_type.push_str(&text),
                wrong => return wrong,
            }
        }
        if to_type.is_empty() { Seen::Nothing } else { Seen::Type(to_type) }
    }
}

impl Track<'_> {
    fn advance(&mut self, line: &str, now_s: f64) -> Seen {
        let Some(step) = self.steps.first() else { return Seen::Nothing };
        match step {
            Step::Type(_) => return self.typing(),
            Step::See(who, pattern) if !matches(who.as_ref(), pattern, line) => return Seen::Nothing,
            Step::SeeAfter(who, pattern, ..) if !matches(who.as_ref(), pattern, line) => return Seen::Nothing,
            Step::See(..) => {}
            Step::SeeAfter(_, pattern, least, most) => {
                let took = now_s - self.last_s;
                if !(*least..=*most).contains(&took) {
                    return Seen::Wrong(format!("{took:.2} s up to \"{pattern}\", not {least} to {most}"));
                }
            }
            Step::Note(who, pattern) | Step::Same(who, pattern) => {
                let Some(number) = number(who, pattern, line) else { return Seen::Nothing };
                if let (Step::Same(..), Some(noted)) = (step, self.noted)
                    && noted != number
                {
                    return Seen::Wrong(format!("{number} at \"{pattern}\", {noted} before"));
                }
                self.noted = Some(number);
            }
        }
        self.last_s = now_s;
        self.steps = &self.steps[1..];
        self.typing()
    }

    /// The text of the steps that type, which follow at once.
    fn typing(&mut self) -> Seen {
        let mut text = String::new();
        while let Some(Step::Type(more)) = self.steps.first() {
            text.push_str(more);
            self.steps = &self.steps[1..];
        }
        if text.is_empty() { Seen::Nothing } else { Seen::Type(text) }
    }
}

fn matches(who: Option<&Speaker>, pattern: &str, line: &str) -> bool {
    let (speaker, text) = words::split(line);
    (who.is_none() || who == speaker.as_ref()) && contains(text, pattern)
}

/// The number that stands at the `#` of the pattern, if the line matches.
fn number(who: &Speaker, pattern: &str, line: &str) -> Option<u64> {
    let (speaker, text) = words::split(line);
    let (before, after) = pattern.split_once('#')?;
    let rest = &text[text.find(before)? + before.len()..];
    let digits = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
    (speaker.as_ref() == Some(who) && rest[digits.len()..].starts_with(after)).then(|| digits.parse().ok())?
}

/// Whether the parts of the pattern between its `*` follow one another in the text.
fn contains(text: &str, pattern: &str) -> bool {
    let mut rest = text;
    pattern.split('*').all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn see(text: &str) -> Step {
        Step::See(None, text.into())
    }

    #[test]
    fn a_star_stands_for_anything_between_two_parts() {
        assert!(contains("domain web: powered off", "web*off"));
        assert!(!contains("domain off: web", "web*off"));
    }

    #[test]
    fn steps_count_only_in_their_order() {
        let tracks = [vec![see("one"), see("two")]];
        let mut watch = Watch::new(&tracks, &[]);
        watch.line("two", 0.0);
        watch.line("one", 0.0);
        assert!(!watch.done());
        watch.line("two", 0.0);
        assert!(watch.done());
    }

    #[test]
    fn tracks_advance_independently() {
        let tracks = [vec![see("a1"), see("a2")], vec![see("b1")]];
        let mut watch = Watch::new(&tracks, &[]);
        for line in ["a1", "b1", "a2"] {
            assert_eq!(watch.line(line, 0.0), Seen::Nothing);
        }
        assert!(watch.done());
    }

    #[test]
    fn a_line_too_early_or_too_late_is_wrong() {
        let tracks = [vec![see("begin"), Step::SeeAfter(None, "end".into(), 9.5, 10.5)]];
        for (end, right) in [(11.0, true), (5.0, false), (20.0, false)] {
            let mut watch = Watch::new(&tracks, &[]);
            watch.line("begin", 1.0);
            assert_eq!(watch.line("end", end) == Seen::Nothing, right, "at {end}");
        }
    }

    #[test]
    fn a_panic_of_the_hypervisor_fails_the_test_unless_allowed() {
        let tracks = [vec![see("never")]];
        let mut watch = Watch::new(&tracks, &[]);
        assert!(matches!(watch.line("(euxen) PANIC at x", 0.0), Seen::Wrong(_)));
        let allowed = ["PANIC".to_string()];
        let mut watch = Watch::new(&tracks, &allowed);
        assert_eq!(watch.line("(euxen) PANIC at x", 0.0), Seen::Nothing);
    }

    #[test]
    fn a_forbidden_line_is_remembered_to_the_end() {
        let tracks = [vec![see("end")]];
        let mut watch = Watch::new(&tracks, &[]);
        watch.forbid(Speaker::Domain("a".into()), "FAIL ");
        for line in ["(b) FAIL other", "(a) FAIL one", "(a) end"] {
            assert_eq!(watch.line(line, 0.0), Seen::Nothing);
        }
        assert!(watch.done());
        assert_eq!(watch.complaint(), Some("1 unwanted lines, the first: FAIL one".into()));
    }

    #[test]
    fn a_number_that_is_not_the_one_noted_is_wrong() {
        let note = Step::Note(Speaker::Host, "before; # KiB".into());
        let tracks = [vec![note, Step::Same(Speaker::Host, "after; # KiB".into())]];
        for (end, right) in [("(euxen) after; 42 KiB", true), ("(euxen) after; 41 KiB", false)] {
            let mut watch = Watch::new(&tracks, &[]);
            assert_eq!(watch.line("(euxen) before; 42 KiB", 0.0), Seen::Nothing);
            assert_eq!(watch.line("(euxen) after; no KiB", 0.0), Seen::Nothing);
            assert_eq!(watch.line(end, 0.0) == Seen::Nothing, right, "{end}");
            assert_eq!(watch.done(), right);
        }
    }

    #[test]
    fn text_is_typed_when_the_prompt_is_seen() {
        let tracks = [vec![see("# "), Step::Type("uname\n".into())]];
        let mut watch = Watch::new(&tracks, &[]);
        assert_eq!(watch.unfinished("(a) / # ", 0.0), Seen::Type("uname\n".into()));
        assert!(watch.done());
    }
}
