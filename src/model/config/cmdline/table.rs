//! Every option with what it does.

use super::value::{Amount, boolean, number, size};
use super::{Console, Level, Levels, Options, Uart, Xpti, sched, spec_ctrl};

/// Why a word had no effect.
pub enum Refusal {
    /// No such option.
    Unknown,
    /// An option of Xen's that is not built.
    NotBuilt,
    /// A bad value: what it could be.
    Expected(&'static str),
}

type Set = fn(&mut Options, &str) -> Option<()>;

/// What an option takes.
enum Kind {
    /// `name`, `no-name`, or `name=` with a boolean.
    Flag(fn(&mut Options, bool)),
    /// `name=` with a value, which the text describes.
    Value(Set, &'static str),
    /// `name` or `no-name`, which stand for `on` and `off`, or `name=` with a value.
    FlagOrValue(Set, &'static str),
    /// Anything, without effect and without a word: boot scripts add these.
    Silent,
    /// Anything, without effect.
    NotBuilt,
}
use Kind::{Flag, FlagOrValue, NotBuilt, Silent, Value};

const SIZE: &str = "must be a size, as in 512M";
const LEVELS: &str = "must be none, error, warning, info, debug or all; or two of them with / between";
const SERIAL: &str = "must be as in 115200,8n1,0x3f8,4, or auto";

const OPTIONS: &[(&str, Kind)] = &[
    ("com1", Value(|o, text| uart(o, 0, text), SERIAL)),
    ("com2", Value(|o, text| uart(o, 1, text), SERIAL)),
    ("console", Value(console, "must be a list of com1, com2, vga and none")),
    ("dom0", Value(dom0, "must be a list of pv, pvh and verbose")),
    ("dom0-iommu", Silent),
    ("dom0_max_vcpus", Value(dom0_max_vcpus, "must be a number from 1, or two with - between")),
    ("dom0_mem", Value(dom0_mem, "must be a list of sizes, as in 1G,max:2G")),
    ("dom0_vcpus_pin", Flag(|o, on| o.dom0_vcpus_pin = on)),
    ("edd", Silent),
    ("guest_loglvl", Value(|o, text| levels(text).map(|levels| o.guest_loglvl = levels), LEVELS)),
    ("iommu", NotBuilt),
    ("loglvl", Value(|o, text| levels(text).map(|levels| o.loglvl = levels), LEVELS)),
    ("maxcpus", Value(maxcpus, "must be a number from 1")),
    ("mem", Value(|o, text| size(text).map(|bytes| o.mem = Some(bytes)), SIZE)),
    ("mwait-idle", Flag(|o, on| o.mwait_idle = Some(on))),
    ("noreboot", Flag(|o, on| o.noreboot = on)),
    ("placeholder", Silent),
    ("pv-check", Flag(|o, on| o.pv_check = on)),
    ("real-mode", Silent),
    ("sched", Value(|_, text| (text == "credit").then_some(()), "credit is the one that there is, and is used")),
    (
        "sched_credit_tslice_ms",
        Value(|o, text| sched::set(&mut o.sched.tslice_ms, text), "must be a number of ms from 1 to 1000"),
    ),
    (
        "sched_ratelimit_us",
        Value(|o, text| sched::set(&mut o.sched.ratelimit_us, text), "must be 0, or a number of us from 100 to 500000"),
    ),
    ("smt", NotBuilt),
    (
        "spec-ctrl",
        FlagOrValue(spec_ctrl::parse, "must be no, or a list of parts that Xen knows, as in rsb=no-pv,ibrs=on"),
    ),
    ("sync_console", Flag(|o, on| o.sync_console = on)),
    ("ucode", Silent),
    (
        "vcpu_migration_delay",
        Value(|o, text| sched::set(&mut o.sched.vcpu_migr_delay_us, text), "must be a number of us up to 100000"),
    ),
    ("vga", NotBuilt),
    ("watchdog", NotBuilt),
    ("xpti", FlagOrValue(xpti, "must be a boolean, or a list of default, dom0 and domu with booleans")),
];

/// Does what `word` asks for.
pub fn apply(options: &mut Options, word: &str) -> Result<(), Refusal> {
    let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    let (name, negated) = name.strip_prefix("no-").map_or((name, false), |name| (name, true));
    let Some((_, kind)) = OPTIONS.iter().find(|(known, _)| *known == name) else { return Err(Refusal::Unknown) };
    match kind {
        Silent => Ok(()),
        NotBuilt => Err(Refusal::NotBuilt),
        Flag(set) => match value.map_or(Some(true), boolean) {
            Some(on) => {
                set(options, on != negated);
                Ok(())
            }
            None => Err(Refusal::Expected("must be a boolean: on or off")),
        },
        Value(set, expected) | FlagOrValue(set, expected) => {
            // A list that is wrong in its middle changes nothing.
            let mut changed = options.clone();
            let value = match value {
                None if matches!(kind, FlagOrValue(..)) => Some(if negated { "off" } else { "on" }),
                value => value.filter(|_| !negated),
            };
            set(&mut changed, value.ok_or(Refusal::Expected(expected))?).ok_or(Refusal::Expected(expected))?;
            *options = changed;
            Ok(())
        }
    }
}

fn uart(options: &mut Options, port: usize, text: &str) -> Option<()> {
    options.com[port] = Some(Uart::parse(port, text)?);
    Some(())
}

fn console(options: &mut Options, text: &str) -> Option<()> {
    options.console = Console { com: [false; 2], vga: false };
    for device in text.split(',') {
        match device {
            "vga" => options.console.vga = true,
            // With H or L Xen shares the port by the eighth bit.
            "com1" => options.console.com[0] = true,
            "com2" => options.console.com[1] = true,
            "none" => {}
            _ => return None,
        }
    }
    Some(())
}

fn levels(text: &str) -> Option<Levels> {
    let level = |text| match text {
        "none" => Some(Level::None),
        "error" => Some(Level::Error),
        "warning" => Some(Level::Warning),
        "info" => Some(Level::Info),
        "debug" | "all" => Some(Level::All),
        _ => None,
    };
    let (always, limited) = text.split_once('/').unwrap_or((text, text));
    let (always, limited) = (level(always)?, level(limited)?);
    Some(Levels { always, limited: limited.max(always) })
}

fn maxcpus(options: &mut Options, text: &str) -> Option<()> {
    options.maxcpus = Some(u32::try_from(number(text)?).ok().filter(|&count| count > 0)?);
    Some(())
}

/// `on`, `off`, `default`, `dom0=on`, `domu=off` and so on.
fn xpti(options: &mut Options, text: &str) -> Option<()> {
    for word in text.split(',') {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let (name, negated) = name.strip_prefix("no-").map_or((name, false), |name| (name, true));
        let on = value.map_or(Some(true), boolean).map(|on| on != negated);
        options.xpti = match (name, value) {
            ("dom0", _) => Xpti { dom0: Some(on?), ..options.xpti },
            ("domu", _) => Xpti { domu: Some(on?), ..options.xpti },
            ("default", None) if !negated => Xpti::default(),
            _ => Xpti { dom0: Some(boolean(word)?), domu: Some(boolean(word)?) },
        };
    }
    Some(())
}

/// Xen's `shadow`, `cpuid-faulting` and `msr-relaxed` are taken without effect.
fn dom0(options: &mut Options, text: &str) -> Option<()> {
    for word in text.split(',') {
        let (name, value) = word.split_once('=').unwrap_or((word, "on"));
        let (name, negated) = name.strip_prefix("no-").map_or((name, false), |name| (name, true));
        let on = boolean(value)? != negated;
        match name {
            "pv" if on => options.dom0.pvh = false,
            "pvh" if on => options.dom0.pvh = true,
            "verbose" => options.dom0.verbose = on,
            "shadow" | "cpuid-faulting" | "msr-relaxed" => {}
            _ => return None,
        }
    }
    Some(())
}

fn dom0_mem(options: &mut Options, text: &str) -> Option<()> {
    for part in text.split(',') {
        let (field, amount) = match part.split_once(':') {
            None => (&mut options.dom0_mem.size, part),
            Some(("min", amount)) => (&mut options.dom0_mem.min, amount),
            Some(("max", amount)) => (&mut options.dom0_mem.max, amount),
            Some(_) => return None,
        };
        *field = Some(Amount::parse(amount)?);
    }
    Some(())
}

/// `4`, `2-8`, `2-` and `-8`.
fn dom0_max_vcpus(options: &mut Options, text: &str) -> Option<()> {
    let count = |text, default| match text {
        "" => Some(default),
        text => u32::try_from(number(text)?).ok().filter(|&count| count > 0),
    };
    let (min, max) = match text.split_once('-') {
        Some(("", "")) => return None,
        Some((min, max)) => (count(min, 1)?, count(max, u32::MAX)?),
        None if text.is_empty() => return None,
        None => (count(text, 1)?, count(text, 1)?),
    };
    options.dom0_max_vcpus = Some((min, max.max(min)));
    Some(())
}
