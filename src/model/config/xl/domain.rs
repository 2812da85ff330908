//! From settings to a domain's configuration: types, ranges and defaults.

use super::syntax::{Setting, Value};
use super::{Parsed, Problem, Warning, XlError, keys};
use crate::config::cpus::{self, Nodes};
use crate::config::scheduling::{Affinity, CAPS, Scheduling, WEIGHTS};
use crate::sched::CpuSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// A domain to start. The defaults are those of xl.cfg(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainConfig {
    /// Its name, printable and not empty.
    pub name: String,
    /// Its type.
    pub kind: DomainKind,
    /// The name of the module that is its kernel.
    pub kernel: String,
    /// The name of the module that is its ramdisk.
    pub ramdisk: Option<String>,
    /// The kernel's command line: `cmdline`, or else `root` and `extra`.
    pub cmdline: String,
    /// RAM at the start, in MiB.
    pub memory_mib: u64,
    /// The most RAM it can have, in MiB; at least `memory_mib`.
    pub maxmem_mib: u64,
    /// Virtual CPUs at the start, from 1 to [`VCPUS_MAX`].
    pub vcpus: u32,
    /// The most virtual CPUs it can have; at least `vcpus`, at most [`VCPUS_MAX`].
    pub maxvcpus: u32,
    /// Its share of the machine's CPUs, and which of them.
    pub scheduling: Scheduling,
    /// Its UUID, if the file gives one.
    pub uuid: Option<[u8; 16]>,
    /// What to do when it powers off.
    pub on_poweroff: Action,
    /// What to do when it reboots.
    pub on_reboot: Action,
    /// What to do when its watchdog fires.
    pub on_watchdog: Action,
    /// What to do when it crashes.
    pub on_crash: Action,
    /// What to do when it asks for a soft reset.
    pub on_soft_reset: Action,
}

/// Which kind of guest a domain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainKind {
    /// In ring 3 on page tables of its own.
    Pv,
    /// In hardware virtualization, without an emulated machine.
    Pvh,
}

/// What to do with a domain that has shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Free everything.
    Destroy,
    /// Start it anew.
    Restart,
    /// Keep it under another name and start it anew.
    RenameRestart,
    /// Keep it as it is.
    Preserve,
    /// Write a dump, then as `Destroy`.
    CoredumpDestroy,
    /// Write a dump, then as `Restart`.
    CoredumpRestart,
    /// Reset what Xen keeps for it and let it go on.
    SoftReset,
}

/// The most virtual CPUs of a domain (`HVM_MAX_VCPUS`).
pub const VCPUS_MAX: u32 = 128;
/// The least and most memory of a domain in MiB.
const MEMORY_MIB: RangeInclusive<u64> = 1..=1 << 30;

const ACTIONS: [(&str, Action); 7] = [
    ("destroy", Action::Destroy),
    ("restart", Action::Restart),
    ("rename-restart", Action::RenameRestart),
    ("preserve", Action::Preserve),
    ("coredump-destroy", Action::CoredumpDestroy),
    ("coredump-restart", Action::CoredumpRestart),
    ("soft-reset", Action::SoftReset),
];

/// Builds the configuration.
///
/// # Errors
/// Any [`Problem`] but `Syntax`.
pub fn domain(settings: &[Setting], nodes: Nodes<'_>) -> Result<Parsed, XlError> {
    let mut warnings = Vec::new();
    let table = Table::new(settings, &mut warnings)?;
    let kind = table.kind()?;
    let memory_mib = table.memory()?;
    let vcpus = table.number("vcpus", 1..=u64::from(VCPUS_MAX), "must be from 1 to 128")?.unwrap_or(1);
    let maxvcpus = table.number("maxvcpus", vcpus..=u64::from(VCPUS_MAX), "must be from vcpus to 128")?;
    let maxmem = table.number("maxmem", memory_mib..=*MEMORY_MIB.end(), "must be at least memory, in MiB")?;
    let maxvcpus = maxvcpus.unwrap_or(vcpus) as u32; // at most VCPUS_MAX, as is vcpus
    let config = DomainConfig {
        name: table.name()?,
        kind,
        kernel: table.kernel()?,
        ramdisk: table.text("ramdisk")?.filter(|name| !name.is_empty()),
        cmdline: table.cmdline(&mut warnings)?,
        memory_mib,
        maxmem_mib: maxmem.unwrap_or(memory_mib),
        vcpus: vcpus as u32,
        maxvcpus,
        scheduling: table.scheduling(maxvcpus, nodes, &mut warnings)?,
        uuid: table.uuid()?,
        on_poweroff: table.action("on_poweroff", Action::Destroy)?,
        on_reboot: table.action("on_reboot", Action::Restart)?,
        on_watchdog: table.action("on_watchdog", Action::Destroy)?,
        on_crash: table.action("on_crash", Action::Destroy)?,
        on_soft_reset: table.action("on_soft_reset", Action::SoftReset)?,
    };
    warnings.sort_by_key(|warning| warning.line);
    Ok(Parsed { config, warnings })
}

fn missing(key: &'static str, example: &'static str) -> XlError {
    XlError { line: 0, problem: Problem::Missing { key, example } }
}

/// The keys that have an effect, each once.
struct Table(Vec<Setting>);

impl Table {
    fn new(settings: &[Setting], warnings: &mut Vec<Warning>) -> Result<Self, XlError> {
        let mut table: Vec<Setting> = Vec::new();
        for setting in settings {
            if !keys::BUILT.contains(&setting.key.as_str()) {
                warnings.push(no_effect(setting)?);
                continue;
            }
            match table.iter_mut().find(|before| before.key == setting.key) {
                None => table.push(setting.clone()),
                Some(before) if setting.adds => add(before, setting)?,
                Some(before) => {
                    let problem = Problem::Duplicate { key: setting.key.clone(), first: before.line };
                    return Err(XlError { line: setting.line, problem });
                }
            }
        }
        Ok(Self(table))
    }

    fn get(&self, key: &str) -> Option<&Setting> {
        self.0.iter().find(|setting| setting.key == key)
    }

    fn bad<T>(&self, key: &'static str, expected: &'static str) -> Result<T, XlError> {
        let line = self.get(key).map_or(0, |setting| setting.line);
        Err(XlError { line, problem: Problem::BadValue { key, expected } })
    }

    fn text(&self, key: &'static str) -> Result<Option<String>, XlError> {
        match self.get(key).map(|setting| &setting.value) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text.clone())),
            Some(Value::List(_)) => self.bad(key, "must be a string, not a list"),
        }
    }

    /// A number in decimal, hexadecimal (`0x`) or octal (`0`).
    fn number(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
        expected: &'static str,
    ) -> Result<Option<u64>, XlError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let (digits, radix) = match text.as_bytes() {
            [b'0', b'x' | b'X', ..] => (&text[2..], 16),
            [b'0', _, ..] => (&text[1..], 8),
            _ => (text.as_str(), 10),
        };
        match u64::from_str_radix(digits, radix) {
            Ok(number) if range.contains(&number) && !digits.starts_with('+') => Ok(Some(number)),
            _ => self.bad(key, expected),
        }
    }

    fn scheduling(&self, maxvcpus: u32, nodes: Nodes<'_>, warnings: &mut Vec<Warning>) -> Result<Scheduling, XlError> {
        let default = Scheduling::default();
        let weight = self.number("cpu_weight", 1..=u64::from(u16::MAX), WEIGHTS)?;
        let cap = self.number("cap", 0..=u64::from(u16::MAX), CAPS)?;
        Ok(Scheduling {
            weight: weight.map_or(default.weight, |weight| weight as u16),
            cap: cap.map_or(default.cap, |cap| cap as u16),
            hard: self.affinity("cpus", maxvcpus, nodes, warnings)?,
            soft: self.affinity("cpus_soft", maxvcpus, nodes, warnings)?,
        })
    }

    /// One list of CPUs for all virtual CPUs, or a list with one for each.
    fn affinity(
        &self,
        key: &'static str,
        maxvcpus: u32,
        nodes: Nodes<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Affinity, XlError> {
        let Some(setting) = self.get(key) else { return Ok(Affinity::default()) };
        let read = |text: &str| {
            let at_line = |error| XlError { line: setting.line, problem: Problem::Cpus { key, error } };
            cpus::parse(text, nodes).map_err(at_line)
        };
        let list = match &setting.value {
            Value::Text(text) => return Ok(Affinity::Same(read(text)?)),
            Value::List(list) => list,
        };
        let set = |value: &Value| match value {
            Value::Text(text) => read(text),
            Value::List(_) => self.bad(key, "must be a string, or a list of strings, one for each virtual CPU"),
        };
        let mut sets = list.iter().map(set).collect::<Result<Vec<CpuSet>, _>>()?;
        if sets.len() > maxvcpus as usize {
            sets.truncate(maxvcpus as usize);
            let why = "has more lists than there are virtual CPUs; the last have no effect";
            warnings.push(Warning { line: setting.line, key: key.into(), why });
        }
        Ok(Affinity::Each(sets))
    }

    fn memory(&self) -> Result<u64, XlError> {
        let expected = "must be a number of MiB, at least 1";
        self.number("memory", MEMORY_MIB, expected)?.ok_or(missing("memory", "memory = 256 for 256 MiB"))
    }

    fn name(&self) -> Result<String, XlError> {
        match self.text("name")? {
            None => Err(missing("name", "name = \"web\"")),
            Some(name) if name.is_empty() || name.chars().any(char::is_control) => {
                self.bad("name", "must not be empty and must have printable characters only")
            }
            Some(name) => Ok(name),
        }
    }

    fn kernel(&self) -> Result<String, XlError> {
        match self.text("kernel")? {
            None => Err(missing("kernel", "kernel = \"the first word of the kernel's module\"")),
            Some(kernel) if kernel.is_empty() => self.bad("kernel", "must be the first word of the kernel's module"),
            Some(kernel) => Ok(kernel),
        }
    }

    /// `type`, or else the older `builder`, or else xl's default.
    fn kind(&self) -> Result<DomainKind, XlError> {
        let (key, kind) = match (self.text("type")?, self.text("builder")?) {
            (Some(kind), _) => ("type", kind),
            (None, Some(builder)) => ("builder", builder),
            (None, None) => return Ok(DomainKind::Pv),
        };
        match (key, kind.as_str()) {
            ("type", "pvh") => Ok(DomainKind::Pvh),
            ("type", "pv") | ("builder", "generic") => Ok(DomainKind::Pv),
            (_, "hvm") => {
                let line = self.get(key).map_or(0, |setting| setting.line);
                Err(XlError { line, problem: Problem::NotBuilt { kind: "hvm" } })
            }
            ("type", _) => self.bad("type", "must be \"pvh\", \"pv\" or \"hvm\""),
            _ => self.bad("builder", "must be \"generic\" or \"hvm\"; use type = instead"),
        }
    }

    fn cmdline(&self, warnings: &mut Vec<Warning>) -> Result<String, XlError> {
        let (root, extra) = (self.text("root")?, self.text("extra")?);
        let Some(cmdline) = self.text("cmdline")? else {
            return Ok(match (root, extra) {
                (Some(root), Some(extra)) => format!("root={root} {extra}"),
                (Some(root), None) => format!("root={root}"),
                (None, extra) => extra.unwrap_or_default(),
            });
        };
        for setting in ["root", "extra"].into_iter().filter_map(|key| self.get(key)) {
            warnings.push(Warning {
                line: setting.line,
                key: setting.key.clone(),
                why: "has no effect beside cmdline; put it there",
            });
        }
        Ok(cmdline)
    }

    fn uuid(&self) -> Result<Option<[u8; 16]>, XlError> {
        let Some(text) = self.text("uuid")? else { return Ok(None) };
        match uuid(&text) {
            Some(uuid) => Ok(Some(uuid)),
            None => self.bad("uuid", "must be 32 hexadecimal digits, as in 01234567-89ab-cdef-0123-456789abcdef"),
        }
    }

    fn action(&self, key: &'static str, default: Action) -> Result<Action, XlError> {
        let Some(text) = self.text(key)? else { return Ok(default) };
        match ACTIONS.iter().find(|(name, _)| *name == text) {
            Some(&(_, action)) => Ok(action),
            None => self.bad(
                key,
                "must be destroy, restart, rename-restart, preserve, coredump-destroy, coredump-restart or soft-reset",
            ),
        }
    }
}

/// The warning for a key that has no effect, or the error for one that does not exist.
fn no_effect(setting: &Setting) -> Result<Warning, XlError> {
    let key = setting.key.clone();
    if keys::is_known(&key) {
        Ok(Warning { line: setting.line, key, why: "is not built yet and has no effect" })
    } else {
        Err(XlError { line: setting.line, problem: Problem::UnknownKey { key } })
    }
}

/// `+=`: a string or a list grows at its end.
fn add(before: &mut Setting, more: &Setting) -> Result<(), XlError> {
    match (&mut before.value, &more.value) {
        (Value::Text(text), Value::Text(more)) => text.push_str(more),
        (Value::List(list), Value::List(more)) => list.extend(more.iter().cloned()),
        _ => {
            let expected = "\"+=\" must add a string to a string or a list to a list";
            return Err(XlError { line: more.line, problem: Problem::Syntax { expected } });
        }
    }
    Ok(())
}

/// 16 bytes in hexadecimal, with dashes between any of them.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits = text.replace('-', "");
    let mut uuid = [0; 16];
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (n, byte) in uuid.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * n..2 * n + 2], 16).ok()?;
    }
    Some(uuid)
}
