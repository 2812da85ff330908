//! `sched-credit`, with the options of `xl`, which are getopt's: `-w 5`, `-w5`, `--weight 5` and `--weight=5`.

use super::{Command, CommandError, PARAMS, ParamChanges, SHARES, Who, number, wrong};
use crate::config::scheduling::{CAPS, WEIGHTS};
use alloc::format;
use core::str::SplitAsciiWhitespace;

/// Options with a value, in the order of [`Given::values`].
const WITH_VALUE: [(char, &str); 6] = [
    ('d', "domain"),
    ('w', "weight"),
    ('c', "cap"),
    ('t', "tslice_ms"),
    ('r', "ratelimit_us"),
    ('m', "migration_delay_us"),
];

/// What was typed.
#[derive(Default)]
struct Given<'a> {
    is_schedparam: bool,
    values: [Option<&'a str>; WITH_VALUE.len()],
}

/// Reads what follows the word.
pub(super) fn parse(words: SplitAsciiWhitespace<'_>) -> Result<Command, CommandError> {
    let Given { is_schedparam, values: [domain, weight, cap, tslice, ratelimit, delay] } = Given::read(words)?;
    let (is_of_one, is_of_all) = (weight.or(cap).is_some(), tslice.or(ratelimit).or(delay).is_some());
    match domain {
        Some(_) if is_schedparam => wrong(PARAMS, "-s is of all domains".into()),
        None if is_schedparam && is_of_one => wrong(SHARES, "-w and -c are of a domain, without -s".into()),
        _ if !is_schedparam && is_of_all => wrong(PARAMS, "-t, -r and -m need -s".into()),
        None if is_schedparam && is_of_all => Ok(Command::SetParams(ParamChanges {
            tslice_ms: duration(tslice)?,
            ratelimit_us: duration(ratelimit)?,
            vcpu_migr_delay_us: duration(delay)?,
        })),
        None if is_schedparam => Ok(Command::Params),
        None if is_of_one => wrong(SHARES, "-w and -c need -d".into()),
        None => Ok(Command::Shares(None)),
        Some(word) => {
            let domain = Who::parse(word, SHARES)?;
            if !is_of_one {
                return Ok(Command::Shares(Some(domain)));
            }
            let weight = share("WEIGHT", weight, 1, WEIGHTS)?;
            Ok(Command::SetShares { domain, weight, cap: share("CAP", cap, 0, CAPS)? })
        }
    }
}

impl<'a> Given<'a> {
    fn read(mut words: SplitAsciiWhitespace<'a>) -> Result<Self, CommandError> {
        let mut given = Self::default();
        while let Some(word) = words.next() {
            if matches!(word, "-s" | "--schedparam") {
                given.is_schedparam = true;
                continue;
            }
            let usage = if given.is_schedparam { PARAMS } else { SHARES };
            let Some((at, value)) = WITH_VALUE.iter().enumerate().find_map(|(at, option)| value(word, option, at))
            else {
                return wrong(usage, format!("\"{word}\" is no option"));
            };
            let Some(value) = value.or_else(|| words.next()) else {
                return wrong(usage, format!("a value must follow \"{word}\""));
            };
            given.values[at] = Some(value);
        }
        Ok(given)
    }
}

/// If `word` is this option: its number, and its value if that is in the word.
fn value<'a>(word: &'a str, (short, long): &(char, &str), at: usize) -> Option<(usize, Option<&'a str>)> {
    let value = match word.strip_prefix("--") {
        Some(word) => match word.strip_prefix(long)? {
            "" => None,
            rest => Some(rest.strip_prefix('=')?),
        },
        None => Some(word.strip_prefix('-')?.strip_prefix(*short)?).filter(|rest| !rest.is_empty()),
    };
    Some((at, value))
}

fn share(name: &str, word: Option<&str>, least: u16, range: &str) -> Result<Option<u16>, CommandError> {
    let Some(word) = word else { return Ok(None) };
    match number(word).filter(|&share| share >= least) {
        Some(share) => Ok(Some(share)),
        None => wrong(SHARES, format!("\"{word}\": {name} {range}")),
    }
}

/// A number of ms or us, whose range depends on the others.
fn duration(word: Option<&str>) -> Result<Option<u32>, CommandError> {
    match word.map(|word| (word, number(word))) {
        None => Ok(None),
        Some((_, Some(duration))) => Ok(Some(duration)),
        Some((word, None)) => wrong(PARAMS, format!("\"{word}\" is no number, or a far too high one")),
    }
}
