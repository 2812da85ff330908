//! A case: a host, what GRUB loads on it, and what must appear on the serial port.

use crate::bed::{Bed, Firmware, Host};
use crate::expect::Step;
use crate::words::Speaker;
use std::path::PathBuf;

/// What GRUB loads as a module.
#[derive(Clone, Debug)]
pub enum Content {
    /// A file as it is.
    File(PathBuf),
    /// The first so many bytes of a file.
    Start(PathBuf, usize),
    /// This text.
    Text(String),
}

/// A module: its string, as the hypervisor sees it, and its content.
#[derive(Clone, Debug)]
pub struct Module {
    /// Name first, then arguments.
    pub string: String,
    /// What is loaded.
    pub content: Content,
}

/// What GRUB starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hypervisor {
    /// The one under test.
    Euxen,
    /// Debian's Xen, from a menu that has both: the same options, the same modules.
    Xen,
    /// The one under test, from that menu.
    EuxenBesideXen,
}

/// Judges the log of a boot in which all was seen that must be.
pub type Verdict = fn(log: &str) -> Result<String, String>;

/// One boot and its outcome.
#[derive(Clone, Debug)]
pub struct Case {
    /// The name in the list of results, and of its folder.
    pub name: String,
    /// Where it runs.
    pub host: Host,
    /// Which hypervisor.
    pub hypervisor: Hypervisor,
    /// Its image, if it is none of the usual ones.
    pub image: Option<PathBuf>,
    /// The hypervisor's command line.
    pub options: String,
    /// In GRUB's order.
    pub modules: Vec<Module>,
    /// What must appear; each track in its order.
    pub tracks: Vec<Vec<Step>>,
    /// Text that must not appear.
    pub forbidden: Vec<(Speaker, String)>,
    /// Words that are no disaster in this case.
    pub allowed: Vec<String>,
    /// What the whole of the log says in the end: why that is wrong, or what was seen.
    pub verdict: Option<Verdict>,
    /// The budget in Bochs, in billions of instructions.
    pub giga_instructions: u64,
    /// The guard against a hang, in seconds of this machine; those in which it ran other work do not count.
    pub guard_s: u64,
}

/// The hypervisor's command line unless a case says more.
pub const OPTIONS: &str = "com1=115200,8n1 console=com1 loglvl=all guest_loglvl=all noreboot";

impl Case {
    /// A case on a small host of one CPU by BIOS, which expects nothing yet.
    pub fn new(name: impl Into<String>, bed: Bed) -> Case {
        Case {
            name: name.into(),
            host: Host::small(bed),
            hypervisor: Hypervisor::Euxen,
            image: None,
            options: OPTIONS.into(),
            modules: Vec::new(),
            tracks: Vec::new(),
            forbidden: Vec::new(),
            allowed: Vec::new(),
            verdict: None,
            giga_instructions: 10,
            guard_s: 120,
        }
    }

    /// On so many physical CPUs.
    pub fn cpus(mut self, cpus: u32) -> Case {
        self.host.cpus = cpus;
        self
    }

    /// With so many of the CPUs as threads of one core.
    pub fn threads(mut self, threads: u32) -> Case {
        self.host.threads = threads;
        self
    }

    /// With so many NUMA nodes, in QEMU.
    pub fn nodes(mut self, nodes: u32) -> Case {
        self.host.nodes = nodes;
        self
    }

    /// With so much memory.
    pub fn memory(mut self, mib: u32) -> Case {
        self.host.memory_mib = mib;
        self
    }

    /// By this hypervisor.
    pub fn hypervisor(mut self, hypervisor: Hypervisor) -> Case {
        self.hypervisor = hypervisor;
        self
    }

    /// With this image of it.
    pub fn image(mut self, path: impl Into<PathBuf>) -> Case {
        self.image = Some(path.into());
        self
    }

    /// With so many instructions to a second of Bochs': less make a long time cheap.
    pub fn ticks_per_s(mut self, ticks: u64) -> Case {
        self.host.ticks_per_s = ticks;
        self
    }

    /// Asks about the whole of the log in the end.
    pub fn verdict(mut self, verdict: Verdict) -> Case {
        self.verdict = Some(verdict);
        self
    }

    /// With this firmware.
    pub fn firmware(mut self, firmware: Firmware) -> Case {
        self.host.firmware = firmware;
        self
    }

    /// With these options added to the hypervisor's command line.
    pub fn option(mut self, more: &str) -> Case {
        self.options = format!("{} {more}", self.options);
        self
    }

    /// Loads a file as the next module.
    pub fn file(self, string: &str, path: impl Into<PathBuf>) -> Case {
        self.module(string, Content::File(path.into()))
    }

    /// Loads a text as the next module.
    pub fn text(self, string: &str, text: impl Into<String>) -> Case {
        self.module(string, Content::Text(text.into()))
    }

    /// Loads the next module.
    pub fn module(mut self, string: &str, content: Content) -> Case {
        self.modules.push(Module { string: string.into(), content });
        self
    }

    /// Expects lines of the hypervisor in this order.
    pub fn host_says(self, lines: &[&str]) -> Case {
        self.says(Speaker::Host, lines)
    }

    /// Expects lines of a domain in this order.
    pub fn domain_says(self, name: &str, lines: &[&str]) -> Case {
        self.says(Speaker::Domain(name.into()), lines)
    }

    /// Expects lines of anybody in this order.
    pub fn anybody_says(mut self, lines: &[&str]) -> Case {
        self.tracks.push(lines.iter().map(|line| Step::See(None, (*line).into())).collect());
        self
    }

    fn says(mut self, who: Speaker, lines: &[&str]) -> Case {
        self.tracks.push(lines.iter().map(|line| Step::See(Some(who.clone()), (*line).into())).collect());
        self
    }

    /// Expects these steps in this order.
    pub fn track(mut self, steps: Vec<Step>) -> Case {
        self.tracks.push(steps);
        self
    }

    /// Fails if a domain writes this.
    pub fn never(mut self, name: &str, text: &str) -> Case {
        self.forbidden.push((Speaker::Domain(name.into()), text.into()));
        self
    }

    /// Does not take this word for a disaster.
    pub fn allow(mut self, word: &str) -> Case {
        self.allowed.push(word.into());
        self
    }

    /// Allows so many billions of instructions in Bochs, and seconds of this machine anywhere.
    pub fn budget(mut self, giga_instructions: u64, guard_s: u64) -> Case {
        self.giga_instructions = giga_instructions;
        self.guard_s = guard_s;
        self
    }
}
