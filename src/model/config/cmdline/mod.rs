//! The hypervisor's command line, with Xen's names and syntax (docs/misc/xen-command-line.pandoc).
//!
//! Nothing in it is an error: what cannot be understood is a warning and the default stays, as in Xen, so that a
//! machine boots whatever its menu entry says. A later option overrides an earlier one.

mod sched;
mod serial;
mod spec_ctrl;
mod table;
#[cfg(test)]
mod tests;
mod value;

pub use serial::{Parity, Uart};
pub use spec_ctrl::{Guards, SpecCtrl};
pub use value::{Amount, boolean, size};

use crate::sched::credit::Params;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `com1=` and `com2=`: serial ports to set up.
    pub com: [Option<Uart>; 2],
    /// `console=`: where messages go.
    pub console: Console,
    /// `sync_console`: messages wait until they are out.
    pub sync_console: bool,
    /// `loglvl=`: the hypervisor's own messages.
    pub loglvl: Levels,
    /// `guest_loglvl=`: messages that guests cause.
    pub guest_loglvl: Levels,
    /// `maxcpus=`: CPUs to bring up, at least 1.
    pub maxcpus: Option<u32>,
    /// `mem=`: bytes of machine memory to use.
    pub mem: Option<u64>,
    /// `noreboot`: stop after a crash instead of rebooting.
    pub noreboot: bool,
    /// `pv-check`: page tables of PV guests are looked through again and again; slow.
    pub pv_check: bool,
    /// `dom0=`: the initial domain's kind.
    pub dom0: Dom0,
    /// `dom0_mem=`: the initial domain's memory.
    pub dom0_mem: Dom0Mem,
    /// `dom0_max_vcpus=`: the least and most virtual CPUs of the initial domain.
    pub dom0_max_vcpus: Option<(u32, u32)>,
    /// `dom0_vcpus_pin`: each virtual CPU of the initial domain runs on one CPU alone.
    pub dom0_vcpus_pin: bool,
    /// `mwait-idle=`: whether idle CPUs sleep by MWAIT; where that is found to work if not given.
    pub mwait_idle: Option<bool>,
    /// `sched_credit_tslice_ms=`, `sched_ratelimit_us=` and `vcpu_migration_delay=`, all in their ranges.
    pub sched: Params,
    /// `spec-ctrl=`: what is done against speculation attacks.
    pub spec_ctrl: SpecCtrl,
    /// `xpti=`: whether PV guests run isolated from the hypervisor's address space.
    pub xpti: Xpti,
    /// What had no effect, in the order of the line; then what was out of range.
    pub warnings: Vec<Warning>,
}

/// Where messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Console {
    /// `com1` and `com2`.
    pub com: [bool; 2],
    /// `vga`: the screen.
    pub vga: bool,
}

/// How important a message must be to be printed; each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    None,
    /// Errors.
    Error,
    /// Warnings.
    Warning,
    /// Information.
    Info,
    /// Everything.
    All,
}

/// A level below which messages always come, and one below which they come at a limited rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Up to this level always.
    pub always: Level,
    /// Up to this level at a limited rate; at least `always`.
    pub limited: Level,
}

/// The initial domain's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dom0 {
    /// `pvh` rather than `pv`.
    pub pvh: bool,
    /// `verbose`: say how it is built.
    pub verbose: bool,
}

/// The initial domain's memory, as `dom0_mem=` gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dom0Mem {
    /// Its memory at the start.
    pub size: Option<Amount>,
    /// No less than this.
    pub min: Option<Amount>,
    /// No more than this, now or later.
    pub max: Option<Amount>,
}

/// Whether PV guests run isolated from the hypervisor's address space; `None` where the processor decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Xpti {
    /// The initial domain.
    pub dom0: Option<bool>,
    /// The others.
    pub domu: Option<bool>,
}

impl Dom0Mem {
    /// The initial domain's bytes of memory at its start, and the most that it may ever have, on a machine with so many
    /// free bytes of so many. Xen leaves itself a sixteenth, at most 128 MiB, where nobody says more; so do we.
    pub fn of(&self, free: u64, total: u64) -> (u64, u64) {
        let size = self.size.map_or(free - (free / 16).min(128 << 20), |amount| amount.of(free));
        let min = self.min.map_or(0, |amount| amount.of(free));
        let max = self.max.map_or(total, |amount| amount.of(free));
        let size = size.max(min).min(max).min(free);
        (size, max.max(size))
    }
}

/// A word of the command line that had no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// No such option.
    Unknown(String),
    /// An option with a value that it cannot have.
    BadValue {
        /// The whole word.
        word: String,
        /// What it can have.
        expected: &'static str,
    },
    /// A number that is out of range.
    OutOfRange {
        /// The option with the number.
        word: String,
        /// What it can be.
        range: &'static str,
        /// What it is instead.
        used: u32,
    },
    /// An option that Xen has and Euxen does not act on.
    NotBuilt(String),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => write!(f, "command line: unknown option \"{word}\""),
            Self::BadValue { word, expected } => write!(f, "command line: \"{word}\": {expected}"),
            Self::OutOfRange { word, range, used } => write!(f, "command line: \"{word}\": {range}; {used} is used"),
            Self::NotBuilt(word) => write!(f, "command line: \"{word}\" is not built yet and has no effect"),
        }
    }
}

impl Default for Options {
    /// Xen's defaults.
    fn default() -> Self {
        Self {
            com: [None; 2],
            console: Console { com: [true, false], vga: true },
            sync_console: false,
            loglvl: Levels { always: Level::Warning, limited: Level::Warning },
            guest_loglvl: Levels { always: Level::None, limited: Level::Warning },
            maxcpus: None,
            mem: None,
            noreboot: false,
            pv_check: false,
            dom0: Dom0 { pvh: false, verbose: false },
            dom0_mem: Dom0Mem::default(),
            dom0_max_vcpus: None,
            dom0_vcpus_pin: false,
            mwait_idle: None,
            sched: Params::default(),
            spec_ctrl: SpecCtrl::default(),
            xpti: Xpti::default(),
            warnings: Vec::new(),
        }
    }
}

impl Options {
    /// Reads the command line: words with blanks between them.
    pub fn parse(line: &str) -> Self {
        let mut options = Self::default();
        for word in line.split_ascii_whitespace() {
            let warning = match table::apply(&mut options, word) {
                Ok(()) => continue,
                Err(table::Refusal::Unknown) => Warning::Unknown(word.into()),
                Err(table::Refusal::NotBuilt) => Warning::NotBuilt(word.into()),
                Err(table::Refusal::Expected(expected)) => Warning::BadValue { word: word.into(), expected },
            };
            options.warnings.push(warning);
        }
        sched::settle(&mut options);
        options
    }
}
