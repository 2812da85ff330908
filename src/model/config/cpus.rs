//! Lists of CPUs as `xl` takes them: `"all"`, `"0-3,5,^2"`, `"node:1,^7"` (xl.cfg(5), `cpus`).
//!
//! A list is read from left to right. One that begins with `^` begins with all CPUs; for `xl` it begins with none.

use crate::ids::CpuId;
use crate::sched::{CpuSet, MAX_CPUS};
use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::ops::RangeInclusive;

/// The CPUs of each NUMA node; `None` where nobody knows.
pub type Nodes<'a> = Option<&'a dyn Fn(u32) -> CpuSet>;

/// What is wrong with a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CpusError {
    /// No CPU is in it.
    Empty,
    /// This part is none of a list.
    Syntax(String),
    /// This part goes from a higher number to a lower one.
    Backwards(String),
    /// This part names a CPU or a node that there cannot be.
    TooHigh(String),
    /// This part names nodes, and nobody knows which there are.
    NoNodes(String),
    /// This part names a node that has no CPUs.
    NoSuchNode(String),
}

impl fmt::Display for CpusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "no CPU is left; write all, or CPUs as in 0-3,5,^2"),
            Self::Syntax(part) => write!(f, "\"{part}\" is no CPU; write all, or CPUs as in 0-3,5,^2"),
            Self::Backwards(part) => write!(f, "\"{part}\" goes backwards; write the lower number first"),
            Self::TooHigh(part) => write!(f, "\"{part}\" is too high; numbers are from 0 to {}", MAX_CPUS - 1),
            Self::NoNodes(part) => write!(f, "\"{part}\": nodes are not known here; write CPUs as in 0-3,5,^2"),
            Self::NoSuchNode(part) => write!(f, "\"{part}\": there is no such node with CPUs; write CPUs as in 0-3,5"),
        }
    }
}

impl core::error::Error for CpusError {}

/// Reads a list.
///
/// # Errors
/// [`CpusError`], which names the part that is wrong. A list of no CPU is an error.
pub fn parse(text: &str, nodes: Nodes<'_>) -> Result<CpuSet, CpusError> {
    let mut parts = text.split(',').map(str::trim).filter(|part| !part.is_empty()).peekable();
    let begins_with_all = parts.peek().is_some_and(|part| part.starts_with('^'));
    let mut set = if begins_with_all { CpuSet::ALL } else { CpuSet::EMPTY };
    for part in parts {
        set = match part.strip_prefix('^') {
            Some("all" | "node:all" | "nodes:all") => return Err(CpusError::Syntax(part.to_owned())),
            Some(rest) => set.without(&named(part, rest, nodes)?),
            None => set.or(&named(part, part, nodes)?),
        };
    }
    if set.is_empty() { Err(CpusError::Empty) } else { Ok(set) }
}

/// A set as a list: `all`, or `0-3,5`.
#[derive(Clone, Copy, Debug)]
pub struct List(pub CpuSet);

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == CpuSet::ALL {
            return f.write_str("all");
        }
        let is_in = |cpu| self.0.contains(CpuId(cpu));
        let mut separator = "";
        for from in (0..MAX_CPUS).filter(|&cpu| is_in(cpu) && (cpu == 0 || !is_in(cpu - 1))) {
            let to = (from..MAX_CPUS).take_while(|&cpu| is_in(cpu)).last().unwrap_or(from);
            match to - from {
                0 => write!(f, "{separator}{from}")?,
                _ => write!(f, "{separator}{from}-{to}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

/// The CPUs that `text` names, which is `part` without `^`.
fn named(part: &str, text: &str, nodes: Nodes<'_>) -> Result<CpuSet, CpusError> {
    let Some(text) = text.strip_prefix("node:").or(text.strip_prefix("nodes:")) else {
        return if text == "all" { Ok(CpuSet::ALL) } else { range(part, text).map(numbered) };
    };
    if text == "all" {
        return Ok(CpuSet::ALL);
    }
    let cpus_of = nodes.ok_or_else(|| CpusError::NoNodes(part.to_owned()))?;
    range(part, text)?.try_fold(CpuSet::EMPTY, |set, node| {
        let cpus = cpus_of(node);
        if cpus.is_empty() { Err(CpusError::NoSuchNode(part.to_owned())) } else { Ok(set.or(&cpus)) }
    })
}

fn numbered(range: RangeInclusive<u32>) -> CpuSet {
    range.fold(CpuSet::EMPTY, |set, cpu| set.or(&CpuSet::only(CpuId(cpu))))
}

/// `N` or `N-M`, below [`MAX_CPUS`]: of nodes that have CPUs there are no more either.
fn range(part: &str, text: &str) -> Result<RangeInclusive<u32>, CpusError> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    if [from, to].iter().any(|digits| digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(CpusError::Syntax(part.to_owned()));
    }
    // They are digits, so only their size can be wrong.
    match (from.parse(), to.parse()) {
        (Ok(from), Ok(to)) if from > to => Err(CpusError::Backwards(part.to_owned())),
        (Ok(from), Ok(to)) if to < MAX_CPUS => Ok(from..=to),
        _ => Err(CpusError::TooHigh(part.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn two_nodes(node: u32) -> CpuSet {
        match node {
            0 => cpus([0, 1, 2, 3]),
            1 => cpus([4, 5, 6, 7]),
            _ => CpuSet::EMPTY,
        }
    }

    fn cpus<const N: usize>(numbers: [u32; N]) -> CpuSet {
        numbers.into_iter().fold(CpuSet::EMPTY, |set, cpu| set.or(&CpuSet::only(CpuId(cpu))))
    }

    #[test]
    fn lists_are_read_from_left_to_right() {
        for (text, expected) in [
            ("all", CpuSet::ALL),
            ("0", cpus([0])),
            ("255", cpus([255])),
            ("0-3,5,^2", cpus([0, 1, 3, 5])),
            ("^2,2", CpuSet::ALL),
            ("^1", CpuSet::ALL.without(&cpus([1]))),
            ("all,^4-255,^0", cpus([1, 2, 3])),
            (" 1 , 3-3,, 007,", cpus([1, 3, 7])),
            ("node:1", cpus([4, 5, 6, 7])),
            ("nodes:0-1,^node:0,^7,0", cpus([0, 4, 5, 6])),
            ("nodes:all,^0-254", cpus([255])),
        ] {
            assert_eq!(parse(text, Some(&two_nodes)), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_set_is_written_as_a_list() {
        for (set, expected) in
            [(CpuSet::ALL, "all"), (CpuSet::EMPTY, ""), (cpus([0, 1, 2, 5, 254, 255]), "0-2,5,254-255")]
        {
            assert_eq!(List(set).to_string(), expected);
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_to_write() {
        for (text, expected) in [
            ("", "no CPU is left; write all, or CPUs as in 0-3,5,^2"),
            (" , ", "no CPU is left; write all, or CPUs as in 0-3,5,^2"),
            ("3,^0-9", "no CPU is left; write all, or CPUs as in 0-3,5,^2"),
            ("1,x", "\"x\" is no CPU; write all, or CPUs as in 0-3,5,^2"),
            ("^all", "\"^all\" is no CPU; write all, or CPUs as in 0-3,5,^2"),
            ("1-", "\"1-\" is no CPU; write all, or CPUs as in 0-3,5,^2"),
            ("1-2-3", "\"1-2-3\" is no CPU; write all, or CPUs as in 0-3,5,^2"),
            ("+1", "\"+1\" is no CPU; write all, or CPUs as in 0-3,5,^2"),
            ("1,5-2", "\"5-2\" goes backwards; write the lower number first"),
            ("0-256", "\"0-256\" is too high; numbers are from 0 to 255"),
            ("99999999999", "\"99999999999\" is too high; numbers are from 0 to 255"),
            ("node:2", "\"node:2\": there is no such node with CPUs; write CPUs as in 0-3,5"),
            ("^node:0-999", "\"^node:0-999\" is too high; numbers are from 0 to 255"),
        ] {
            assert_eq!(parse(text, Some(&two_nodes)).unwrap_err().to_string(), expected, "{text}");
        }
        let error = parse("node:0", None).unwrap_err().to_string();
        assert_eq!(error, "\"node:0\": nodes are not known here; write CPUs as in 0-3,5,^2");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_makes_a_panic(text in "[0-9,^ alnode:s-]{0,20}", any in ".{0,12}") {
            let _ = parse(&text, Some(&two_nodes));
            let _ = parse(&any, None);
        }

        #[test]
        fn any_set_comes_back_from_its_list(words in any::<[u64; 4]>()) {
            let set = CpuSet::from_words(words);
            prop_assert_eq!(parse(&List(set).to_string(), None).ok(), (!set.is_empty()).then_some(set));
        }
    }
}
