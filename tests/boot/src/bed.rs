//! The beds: which emulator stands for which host, and how it is called.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Instructions of a CPU that Bochs counts as one second, unless a case says otherwise.
pub const BOCHS_TICKS_PER_S: u64 = 200_000_000;

/// A kind of host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bed {
    /// QEMU's software emulation with AMD-V.
    QemuSvm,
    /// The same without AMD-V.
    QemuNoSvm,
    /// Bochs with VT-x and all that Skylake-X adds.
    BochsSkylake,
    /// Bochs with VT-x as Haswell has it.
    BochsHaswell,
    /// Bochs with VT-x and the MSRs against speculation attacks, which it has from Ice Lake on.
    BochsArrowLake,
    /// Bochs with AMD-V.
    BochsSvm,
}

/// What loads GRUB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Firmware {
    /// A BIOS: SeaBIOS, or Bochs' own.
    Bios,
    /// UEFI: OVMF, in QEMU.
    Uefi,
}

/// A host as a test wants it.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// The emulator and its processor.
    pub bed: Bed,
    /// What loads GRUB.
    pub firmware: Firmware,
    /// Physical processors.
    pub cpus: u32,
    /// How many of them are threads of one core.
    pub threads: u32,
    /// NUMA nodes, in QEMU.
    pub nodes: u32,
    /// What watches the machine, in QEMU: a plugin that takes `out=` and `cpus=`.
    pub plugin: Option<&'static str>,
    /// Memory.
    pub memory_mib: u32,
    /// Instructions that a second has in Bochs.
    pub ticks_per_s: u64,
}

impl Host {
    /// One CPU by BIOS.
    pub fn small(bed: Bed) -> Host {
        let ticks_per_s = BOCHS_TICKS_PER_S;
        Host {
            bed,
            firmware: Firmware::Bios,
            cpus: 1,
            threads: 1,
            nodes: 1,
            plugin: None,
            memory_mib: 512,
            ticks_per_s,
        }
    }
}

impl Bed {
    /// The name in lists and tests.
    pub fn name(self) -> &'static str {
        match self {
            Bed::QemuSvm => "qemu-svm",
            Bed::QemuNoSvm => "qemu-nosvm",
            Bed::BochsSkylake => "bochs-vmx-skylake",
            Bed::BochsHaswell => "bochs-vmx-haswell",
            Bed::BochsArrowLake => "bochs-vmx-arrow-lake",
            Bed::BochsSvm => "bochs-svm",
        }
    }

    /// The bed that `make run BED=…` names.
    pub fn for_run(name: &str) -> Option<Bed> {
        match name {
            "qemu" | "qemu-svm" => Some(Bed::QemuSvm),
            "bochs-vmx" => Some(Bed::BochsSkylake),
            "bochs-svm" => Some(Bed::BochsSvm),
            _ => None,
        }
    }

    /// Whether Bochs runs it.
    pub fn is_bochs(self) -> bool {
        matches!(self, Bed::BochsSkylake | Bed::BochsHaswell | Bed::BochsArrowLake | Bed::BochsSvm)
    }

    fn bochs_model(self) -> &'static str {
        match self {
            Bed::BochsHaswell => "corei7_haswell_4770",
            Bed::BochsArrowLake => "arrow_lake",
            Bed::BochsSvm => "ryzen",
            _ => "corei7_skylake_x",
        }
    }
}

/// How fast the emulated clock runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// By instructions alone: idle time costs nothing, and a run repeats exactly.
    Instructions,
    /// No faster than a person's.
    Person,
}

/// The command for QEMU, its serial port on its standard input and output.
pub fn qemu(host: &Host, iso: &Path) -> Command {
    let program =
        std::env::var_os("QEMU").map_or_else(|| PathBuf::from("build/beds/qemu-system-x86_64"), PathBuf::from);
    let cpu = if host.bed == Bed::QemuNoSvm { "max,-svm" } else { "max" };
    let mut command = Command::new(program);
    command.args(["-accel", "tcg", "-cpu", cpu, "-smp", &host.cpus.to_string(), "-m", &host.memory_mib.to_string()]);
    command.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot", "-nic", "none"]);
    command.args(numa(host));
    if let Some(plugin) = host.plugin {
        let out = iso.with_file_name("writes");
        command.arg("-plugin").arg(format!("file={plugin},out={},cpus={}", out.display(), host.cpus));
    }
    if host.firmware == Firmware::Uefi {
        command.args(["-bios", "/usr/share/ovmf/OVMF.fd"]);
    }
    command.arg("-cdrom").arg(iso).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// QEMU's options for equal NUMA nodes, of which each has a run of processors; none for one node.
fn numa(host: &Host) -> Vec<String> {
    let (cpus, mib) = (host.cpus / host.nodes, host.memory_mib / host.nodes);
    let node = |node: u32| {
        let (first, last) = (node * cpus, (node + 1) * cpus - 1);
        let memory = format!("memory-backend-ram,id=node{node},size={mib}M");
        ["-object".into(), memory, "-numa".into(), format!("node,nodeid={node},cpus={first}-{last},memdev=node{node}")]
    };
    if host.nodes == 1 { Vec::new() } else { (0..host.nodes).flat_map(node).collect() }
}

/// The command for Bochs, which calls `port` of this machine for its serial port and writes the
/// time of each line to `ticks` in the folder of the test.
pub fn bochs(host: &Host, iso: &Path, dir: &Path, port: u16, pace: Pace) -> std::io::Result<Command> {
    let settings = dir.join("bochsrc");
    fs::write(&settings, bochs_settings(host, iso, dir, port, pace))?;
    let program = std::env::var_os("BOCHS").map_or_else(|| PathBuf::from("build/beds/bochs"), PathBuf::from);
    let mut command = Command::new(program);
    command.arg("-q").arg("-f").arg(settings).env("BX_TICKS", dir.join("ticks"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}

fn bochs_settings(host: &Host, iso: &Path, dir: &Path, port: u16, pace: Pace) -> String {
    let (model, memory) = (host.bed.bochs_model(), host.memory_mib);
    let cpus = match host.threads {
        1 => host.cpus.to_string(),
        threads => format!("1:{}:{threads}", host.cpus / threads),
    };
    // Bochs holds at most 2 GiB itself; of a larger guest's memory the rest is in a file.
    let resident = memory.min(2048);
    let sync = if pace == Pace::Person { "slowdown" } else { "none" };
    let ips = host.ticks_per_s;
    format!(
        "config_interface: textconfig\n\
         display_library: nogui\n\
         cpu: model={model}, count={cpus}, ips={ips}, quantum=5, reset_on_triple_fault=0, ignore_bad_msrs=1, exclude_features=\"rdrand,rdseed\"\n\
         memory: guest={memory}, host={resident}\n\
         romimage: file=/usr/share/bochs/BIOS-bochs-latest, options=fastboot\n\
         vgaromimage: file=/usr/share/vgabios/vgabios.bin\n\
         pci: enabled=1, chipset=i440fx\n\
         clock: sync={sync}, time0=946684800, rtc_sync=0\n\
         ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
         ata0-master: type=cdrom, path=\"{iso}\", status=inserted\n\
         ata1: enabled=0\n\
         boot: cdrom\n\
         com1: enabled=1, mode=socket-client, dev=127.0.0.1:{port}\n\
         panic: action=fatal\n\
         error: action=ignore\n\
         info: action=ignore\n\
         debug: action=ignore\n\
         log: \"{dir}/bochs.log\"\n",
        iso = iso.display(),
        dir = dir.display()
    )
}
