//! Commands that are typed at the hypervisor's console, in the words of xl(1) and of `xen-hptool`.

mod sched_credit;
#[cfg(test)]
mod tests;

use super::cpus::{self, Nodes};
use super::scheduling;
use crate::ids::{CpuId, DomId, VcpuId};
use crate::sched::credit::{BadParams, Params};
use crate::sched::{CpuSet, MAX_CPUS};
use abi::xen::DOMID_FIRST_RESERVED;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use core::fmt;
use core::str::{FromStr, SplitAsciiWhitespace};

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `help`: say what there is.
    Help,
    /// `sched-credit`: say weight and cap of a domain, or of all.
    Shares(Option<Who>),
    /// `sched-credit -d`: change weight and cap of a domain; `None` leaves them.
    SetShares {
        /// The domain.
        domain: Who,
        /// Its weight, at least 1.
        weight: Option<u16>,
        /// Percent of one CPU; 0 for no cap.
        cap: Option<u16>,
    },
    /// `sched-credit -s`: say the scheduler's parameters.
    Params,
    /// `sched-credit -s`: change them.
    SetParams(ParamChanges),
    /// `vcpu-list`: say where the virtual CPUs of a domain are, or of all.
    Vcpus(Option<Who>),
    /// `vcpu-pin`: change where virtual CPUs of a domain run; `None` leaves it. No set is empty.
    Pin {
        /// The domain.
        domain: Who,
        /// The virtual CPU; `None` for all.
        vcpu: Option<VcpuId>,
        /// Where they may run.
        hard: Option<CpuSet>,
        /// Where they would rather run.
        soft: Option<CpuSet>,
    },
    /// `cpu-online`: a CPU runs virtual CPUs.
    Online(CpuId),
    /// `cpu-offline`: a CPU runs no virtual CPUs.
    Offline(CpuId),
}

/// A domain as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// By its number.
    Id(DomId),
    /// By its name.
    Name(String),
}

/// The parameters that are to change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParamChanges {
    /// `-t`.
    pub tslice_ms: Option<u32>,
    /// `-r`.
    pub ratelimit_us: Option<u32>,
    /// `-m`.
    pub vcpu_migr_delay_us: Option<u32>,
}

/// A line that is no command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError {
    /// What is wrong.
    pub wrong: String,
    /// What to type.
    pub usage: &'static str,
}

const SHARES: &str = "sched-credit [-d DOM [-w WEIGHT] [-c CAP]]";
const PARAMS: &str = "sched-credit -s [-t TSLICE_MS] [-r RATELIMIT_US] [-m MIGRDELAY_US]";
const VCPUS: &str = "vcpu-list [DOM]";
const PIN: &str = "vcpu-pin DOM VCPU|all HARD|- [SOFT|-]";
const ONLINE: &str = "cpu-online CPU";
const OFFLINE: &str = "cpu-offline CPU";
const HELP: &str = "help";

/// Each command with what it does.
pub const COMMANDS: [(&str, &str); 7] = [
    (SHARES, "says weight and cap of every domain or of one, or sets them"),
    (PARAMS, "says the scheduler's parameters, or sets them"),
    (VCPUS, "says where virtual CPUs are, may run, and would rather run"),
    (PIN, "sets where they may run and would rather, as in 0-3,^2; - leaves it"),
    (ONLINE, "a CPU runs virtual CPUs"),
    (OFFLINE, "a CPU runs no virtual CPUs"),
    (HELP, "this list"),
];

impl Command {
    /// Reads a line, which may name the CPUs of these nodes.
    ///
    /// # Errors
    /// [`CommandError`], also for a line of blanks.
    pub fn parse(line: &str, nodes: Nodes<'_>) -> Result<Self, CommandError> {
        let mut words = line.split_ascii_whitespace();
        let (command, usage) = match words.next() {
            Some("help") => (Self::Help, HELP),
            Some("sched-credit") => return sched_credit::parse(words),
            Some("vcpu-list") => (Self::Vcpus(words.next().map(|word| Who::parse(word, VCPUS)).transpose()?), VCPUS),
            Some("vcpu-pin") => (pin(&mut words, nodes)?, PIN),
            Some("cpu-online") => (Self::Online(cpu(&mut words, ONLINE)?), ONLINE),
            Some("cpu-offline") => (Self::Offline(cpu(&mut words, OFFLINE)?), OFFLINE),
            Some(word) => return wrong(HELP, format!("there is no command \"{word}\"")),
            None => return wrong(HELP, "nothing was typed".into()),
        };
        match words.next() {
            None => Ok(command),
            Some(word) => wrong(usage, format!("\"{word}\" is too much")),
        }
    }
}

impl Who {
    fn parse(word: &str, usage: &'static str) -> Result<Self, CommandError> {
        if !word.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::Name(word.to_owned()));
        }
        match number(word).filter(|&id| id < DOMID_FIRST_RESERVED) {
            Some(id) => Ok(Self::Id(DomId(id))),
            None => wrong(usage, format!("no domain has a number as high as {word}")),
        }
    }

    /// Whether it is the domain of this number and name.
    pub fn is(&self, id: DomId, name: &str) -> bool {
        match self {
            Self::Id(wanted) => *wanted == id,
            Self::Name(wanted) => wanted == name,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => write!(f, "\"{name}\""),
        }
    }
}

impl ParamChanges {
    /// The parameters with the changes.
    ///
    /// # Errors
    /// [`CommandError`] if one is out of range then.
    pub fn on(self, now: Params) -> Result<Params, CommandError> {
        let params = Params {
            tslice_ms: self.tslice_ms.unwrap_or(now.tslice_ms),
            ratelimit_us: self.ratelimit_us.unwrap_or(now.ratelimit_us),
            vcpu_migr_delay_us: self.vcpu_migr_delay_us.unwrap_or(now.vcpu_migr_delay_us),
        };
        params.check().map(|()| params).map_err(CommandError::from)
    }
}

impl From<BadParams> for CommandError {
    fn from(bad: BadParams) -> Self {
        let name = match bad {
            BadParams::Slice => "TSLICE_MS",
            BadParams::RateLimit => "RATELIMIT_US",
            BadParams::MigrationDelay => "MIGRDELAY_US",
        };
        Self { wrong: format!("{name} {}", scheduling::range(bad)), usage: PARAMS }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; type {}", self.wrong, self.usage)
    }
}

impl core::error::Error for CommandError {}

fn wrong<T>(usage: &'static str, wrong: String) -> Result<T, CommandError> {
    Err(CommandError { wrong, usage })
}

/// A decimal number without a sign.
fn number<T: FromStr>(word: &str) -> Option<T> {
    if word.starts_with('+') { None } else { word.parse().ok() }
}

fn pin(words: &mut SplitAsciiWhitespace<'_>, nodes: Nodes<'_>) -> Result<Command, CommandError> {
    let (Some(domain), Some(vcpu), Some(hard)) = (words.next(), words.next(), words.next()) else {
        return wrong(PIN, "a domain, a virtual CPU and CPUs are needed".into());
    };
    let domain = Who::parse(domain, PIN)?;
    let vcpu = match (vcpu, number(vcpu)) {
        ("all", _) => None,
        (_, Some(id)) => Some(VcpuId(id)),
        _ => return wrong(PIN, format!("\"{vcpu}\" is no virtual CPU, which is a number or all")),
    };
    let set = |word| match word {
        "-" => Ok(None),
        word => cpus::parse(word, nodes).map(Some).or_else(|error| wrong(PIN, format!("{error}"))),
    };
    match (set(hard)?, words.next().map_or(Ok(None), set)?) {
        (None, None) => wrong(PIN, "nothing is to be changed".into()),
        (hard, soft) => Ok(Command::Pin { domain, vcpu, hard, soft }),
    }
}

fn cpu(words: &mut SplitAsciiWhitespace<'_>, usage: &'static str) -> Result<CpuId, CommandError> {
    let Some(word) = words.next() else { return wrong(usage, "a CPU is needed".into()) };
    match number(word).filter(|&cpu| cpu < MAX_CPUS) {
        Some(cpu) => Ok(CpuId(cpu)),
        None => wrong(usage, format!("\"{word}\" is no CPU, which is a number from 0 to {}", MAX_CPUS - 1)),
    }
}
