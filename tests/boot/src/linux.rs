//! Debian's kernels: the matrix of combinations, and the few of them that cover every pair.

use crate::bed::{Bed, Firmware};
use crate::case::Case;
use crate::expect::Step;
use crate::words::{self, Speaker};
use std::collections::BTreeSet;

/// Debian's kernels, by the names of `tools/get-kernels.sh`; each has its own compression.
pub const KERNELS: [&str; 4] = ["6.1-cloud", "6.1", "6.12-cloud", "6.12"];

/// The quickest to boot.
const QUICK: &str = KERNELS[0];

/// The hosts of the matrix: bed, firmware, CPUs.
const HOSTS: [(Bed, Firmware, u32); 9] = [
    (Bed::BochsSkylake, Firmware::Bios, 1),
    (Bed::BochsSkylake, Firmware::Bios, 2),
    (Bed::BochsHaswell, Firmware::Bios, 1),
    (Bed::BochsSvm, Firmware::Bios, 1),
    (Bed::BochsSvm, Firmware::Bios, 2),
    (Bed::QemuSvm, Firmware::Bios, 1),
    (Bed::QemuSvm, Firmware::Bios, 4),
    (Bed::QemuSvm, Firmware::Uefi, 1),
    (Bed::QemuSvm, Firmware::Uefi, 4),
];

/// One field of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Combination {
    /// Of the first domain.
    pub kernel: &'static str,
    /// Of the first domain.
    pub vcpus: u32,
    /// Of the first domain.
    pub memory_mib: u32,
    /// The second is a small one with the next kernel of the list.
    pub domains: u32,
    /// The emulator and its processor.
    pub bed: Bed,
    /// What loads GRUB.
    pub firmware: Firmware,
    /// Physical CPUs.
    pub cpus: u32,
}

/// The whole matrix.
pub fn matrix() -> Vec<Combination> {
    let mut all = Vec::new();
    for (bed, firmware, cpus) in HOSTS {
        for kernel in KERNELS {
            for (vcpus, memory_mib) in [(1, 256), (1, 2048), (4, 256), (4, 2048)] {
                for domains in [1, 2] {
                    all.push(Combination { kernel, vcpus, memory_mib, domains, bed, firmware, cpus });
                }
            }
        }
    }
    all
}

impl Combination {
    /// The name of its case.
    pub fn name(&self) -> String {
        let Combination { kernel, vcpus, memory_mib, domains, bed, cpus, .. } = self;
        let firmware = if self.firmware == Firmware::Uefi { "-uefi" } else { "" };
        format!("linux-{kernel}-{vcpus}vcpu-{memory_mib}M-{domains}dom-{}{firmware}-{cpus}cpu", bed.name())
    }

    /// Its values. A processor family's variant (Haswell, UEFI) stands beside the family, so that
    /// four kernels on three families remain the largest product.
    fn values(&self) -> Vec<String> {
        let family = match self.bed {
            Bed::BochsSkylake | Bed::BochsHaswell | Bed::BochsArrowLake => "vmx",
            Bed::BochsSvm => "svm",
            Bed::QemuSvm | Bed::QemuNoSvm => "qemu",
        };
        let many = if self.cpus > 1 { "many" } else { "one" };
        let Combination { kernel, vcpus, memory_mib, domains, .. } = self;
        let mut values = vec![
            format!("kernel {kernel}"),
            format!("vcpus {vcpus}"),
            format!("memory {memory_mib}"),
            format!("domains {domains}"),
            format!("family {family}"),
            format!("cpus {many}"),
        ];
        values.extend((self.bed == Bed::BochsHaswell).then(|| "variant haswell".to_string()));
        values.extend((self.firmware == Firmware::Uefi).then(|| "variant uefi".to_string()));
        values
    }

    /// The pairs of values that it covers, a variant's with a kernel excepted.
    fn pairs(&self) -> BTreeSet<(String, String)> {
        let values = self.values();
        let mut pairs = BTreeSet::new();
        for (at, first) in values.iter().enumerate() {
            for second in &values[at + 1..] {
                if !(first.starts_with("kernel") && second.starts_with("variant")) {
                    pairs.insert((first.clone(), second.clone()));
                }
            }
        }
        pairs
    }

    /// The case that boots it, looks around in each guest, keeps all its CPUs busy, and powers off.
    pub fn case(&self) -> Case {
        let second_mib = if self.domains == 2 { 256 } else { 0 };
        let mut case = Case::new(self.name(), self.bed)
            .cpus(self.cpus)
            .firmware(self.firmware)
            .memory(self.memory_mib + second_mib + 512)
            .budget(40, 600);
        let first = Guest {
            name: "first",
            kind: "pvh",
            kernel: self.kernel,
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            tests: "info,busy",
        };
        case = first.add(case);
        if self.domains == 2 {
            let at = KERNELS.iter().position(|kernel| *kernel == self.kernel).unwrap_or(0);
            let kernel = KERNELS[(at + 1) % KERNELS.len()];
            case =
                Guest { name: "second", kind: "pvh", kernel, vcpus: 1, memory_mib: 256, tests: "info,busy" }.add(case);
        }
        case
    }
}

/// A few combinations that cover every pair of values that occurs in the matrix: always the one
/// next that covers most of what is left, the earliest of the matrix among equals.
pub fn covering() -> Vec<Combination> {
    let all = matrix();
    let mut left: BTreeSet<_> = all.iter().flat_map(Combination::pairs).collect();
    let mut chosen = Vec::new();
    while !left.is_empty() {
        let gain = |combination: &Combination| combination.pairs().intersection(&left).count();
        let best = *all.iter().rev().max_by_key(|combination| gain(combination)).expect("the matrix is not empty");
        left = left.difference(&best.pairs()).cloned().collect();
        chosen.push(best);
    }
    chosen
}

/// A Linux domain with an initramfs of ours.
pub struct Guest<'a> {
    /// Its name.
    pub name: &'a str,
    /// `pvh` or `pv`.
    pub kind: &'a str,
    /// Its kernel.
    pub kernel: &'a str,
    /// Its virtual CPUs.
    pub vcpus: u32,
    /// Its memory.
    pub memory_mib: u32,
    /// What it does (`tests/boot/init`), with more words of its kernel's command line behind.
    pub tests: &'a str,
}

impl Guest<'_> {
    /// Its kernel's command line.
    pub fn cmdline(&self) -> String {
        let Guest { kind, vcpus, memory_mib, tests, .. } = self;
        format!("console=hvc0 euxen.type={kind} euxen.test={tests} euxen.vcpus={vcpus} euxen.memory={memory_mib}")
    }

    fn config(&self, more: &str) -> String {
        let Guest { name, kind, kernel, vcpus, memory_mib, .. } = self;
        let cmdline = self.cmdline();
        format!(
            "name = \"{name}\"\ntype = \"{kind}\"\nkernel = \"vmlinuz-{kernel}\"\nramdisk = \"initrd\"\n\
             cmdline = \"{cmdline}\"\n\
             memory = {memory_mib}\nvcpus = {vcpus}\n{more}"
        )
    }

    /// The modules, without what is expected.
    pub fn load(&self, case: Case, more: &str) -> Case {
        let shared = case.modules.iter().any(|module| module.string == "initrd");
        let kernel = format!("vmlinuz-{}", self.kernel);
        let case =
            case.text(&format!("{}.cfg", self.name), self.config(more)).file(&kernel, format!("build/beds/{kernel}"));
        if shared { case } else { case.file("initrd", "build/initrd") }
    }

    /// The modules, and what a look around and busy CPUs are expected to tell.
    pub fn add(&self, case: Case) -> Case {
        let booted = format!("GUEST-OK booted as {}", self.kind.to_uppercase());
        let vcpus = format!("GUEST-OK vcpus are {}", self.vcpus);
        let last = format!("GUEST-OK cpu {} counted", self.vcpus - 1);
        let lines = [
            "GUEST-OK hypervisor type is xen",
            &booted,
            "GUEST-OK clocksource is xen",
            &vcpus,
            "GUEST-OK memory is",
            &last,
            "GUEST-END",
        ];
        let off = words::ended(self.name, words::POWERED_OFF);
        self.load(case, "").domain_says(self.name, &lines).host_says(&[&off])
    }
}

/// A quick guest of one vCPU.
fn small<'a>(name: &'a str, tests: &'a str) -> Guest<'a> {
    Guest { name, kind: "pvh", kernel: QUICK, vcpus: 1, memory_mib: 256, tests }
}

/// What a guest does beside booting: time, the ends of its life, the console.
pub fn lives() -> Vec<Case> {
    let mut cases = Vec::new();
    for bed in [Bed::BochsSkylake, Bed::BochsHaswell, Bed::BochsSvm, Bed::QemuSvm] {
        cases.push(clock(bed));
    }
    for bed in [Bed::BochsSkylake, Bed::QemuSvm] {
        cases.push(reboot(bed));
        cases.push(crash(bed));
        cases.push(shell("shell", bed));
        // Interrupt 0 stands for none.
        cases.push(shell("shell-polled", bed).option("com1=115200,8n1,0x3f8,0"));
        cases.push(consoles(bed));
        cases.push(memory_returns(bed));
    }
    cases.push(shell("shell-synchronous", Bed::QemuSvm).option("sync_console"));
    cases.push(stress(Bed::QemuSvm, 15));
    cases
}

fn case(what: &str, bed: Bed) -> Case {
    Case::new(format!("linux-{what}-{}", bed.name()), bed).memory(1024).budget(40, 400)
}

fn domain(name: &str, text: &str) -> Step {
    Step::See(Some(Speaker::Domain(name.into())), text.into())
}

fn host(text: impl Into<String>) -> Step {
    Step::See(Some(Speaker::Host), text.into())
}

/// Ten seconds of the guest are ten seconds of the emulator.
fn clock(bed: Bed) -> Case {
    let end = Step::SeeAfter(Some(Speaker::Domain("clock".into())), "GUEST-CLOCK end".into(), 9.8, 10.6);
    small("clock", "clock").load(case("clock", bed), "").track(vec![domain("clock", "GUEST-CLOCK begin"), end])
}

/// Processes that use memory in every way, on four virtual CPUs, for so many seconds.
fn stress(bed: Bed, seconds: u32) -> Case {
    let tests = format!("info,stress euxen.seconds={seconds}");
    let guest = Guest { vcpus: 4, memory_mib: 512, ..small("stress", &tests) };
    let case = guest.load(case("stress", bed).cpus(2).budget(80, 600), "");
    case.domain_says("stress", &["STRESS * rounds, 0 failures", "GUEST-OK stress", "GUEST-END"])
        .host_says(&[&words::ended("stress", words::POWERED_OFF)])
}

/// A guest that reboots is started again.
fn reboot(bed: Bed) -> Case {
    let steps = vec![
        domain("again", "GUEST-END"),
        host(words::ended("again", words::REBOOTED)),
        host(words::starts_again("again")),
        domain("again", "GUEST-END"),
    ];
    small("again", "reboot").load(case("reboot", bed), "on_reboot = \"restart\"\n").track(steps)
}

/// A guest's crash is reported, and another guest goes on.
fn crash(bed: Bed) -> Case {
    let case = small("broken", "crash").load(case("crash", bed), "on_crash = \"destroy\"\n").allow("Kernel panic");
    let case = small("other", "info,clock").load(case, "");
    let crashed = words::ended("broken", words::CRASHED);
    let block = [crashed.as_str(), "(broken)*rip", "(broken)*code", "(broken)*hypercall", "(broken) is destroyed"];
    case.host_says(&block).track(vec![host(crashed.clone()), domain("other", "GUEST-END")])
}

/// Ctrl-A three times.
const SWITCH: &str = "\x01\x01\x01";

/// The input goes from the first domain to the second, to the hypervisor and its keys, and back.
fn consoles(bed: Bed) -> Case {
    let shell = |name| small(name, "");
    let case = shell("two").load(shell("one").load(case("consoles", bed), ""), "");
    let switch = || Step::Type(SWITCH.into());
    let press = |key: &str| Step::Type(key.into());
    let steps = vec![
        host(words::input_to("one")),
        domain("one", "# "),
        press("echo $((40 + 2))in one\r"),
        domain("one", "42in one"),
        switch(),
        host(words::input_to("two")),
        press("echo $((40 + 2))in two\r"),
        domain("two", "42in two"),
        switch(),
        host(words::INPUT_TO_HOST),
        press("h"),
        host("q  domains and their virtual CPUs"),
        press("q"),
        host("(one) runs, * KiB of at most"),
        host("v0 up, "),
        host("(two) runs, "),
        press("m"),
        host("free * KiB"),
        press("e"),
        host("(two)"),
        host("Virq"),
        press("x"),
        host("(two)"),
        host("Hypercall "),
        switch(),
        host(words::input_to("one")),
        press("poweroff\r"),
        host(words::ended("one", words::POWERED_OFF)),
        host(words::input_to("two")),
        press("poweroff\r"),
        host(words::ended("two", words::POWERED_OFF)),
    ];
    case.never("one", "in two").never("two", "in one").track(steps)
}

/// When the last domain is gone, all memory is free that was free before the first.
fn memory_returns(bed: Bed) -> Case {
    let case = small("one", "info").load(case("memory-returns", bed), "");
    let case = Guest { kernel: KERNELS[1], vcpus: 2, ..small("two", "info,busy") }.load(case, "");
    let free = vec![
        Step::Note(Speaker::Host, words::FREE_BEFORE.into()),
        host(words::destroyed("one")),
        Step::Same(Speaker::Host, words::free_after("two")),
    ];
    case.track(free)
}

/// A person's session: a prompt, a command, power off.
fn shell(name: &str, bed: Bed) -> Case {
    let config = "name = \"debian\"\ntype = \"pvh\"\nkernel = \"vmlinuz\"\nramdisk = \"initrd\"\ncmdline = \"console=hvc0\"\nmemory = 256\nvcpus = 2\n";
    let steps = vec![
        domain("debian", "This is Linux"),
        domain("debian", "# "),
        Step::Type("uname -a\r".into()),
        domain("debian", "Linux * x86_64 GNU/Linux"),
        Step::Type("poweroff\r".into()),
        host(words::ended("debian", words::POWERED_OFF)),
    ];
    case(name, bed)
        .text("debian.cfg", config)
        .file("vmlinuz", format!("build/beds/vmlinuz-{QUICK}"))
        .file("initrd", "build/initrd")
        .track(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_fourteen_combinations_cover_every_pair() {
        let chosen = covering();
        assert!(chosen.len() <= 14, "{} combinations", chosen.len());
        let covered: BTreeSet<_> = chosen.iter().flat_map(Combination::pairs).collect();
        for combination in matrix() {
            assert!(combination.pairs().is_subset(&covered), "{combination:?}");
        }
    }

    #[test]
    fn every_host_of_the_matrix_has_a_name_of_its_own() {
        let names: BTreeSet<_> = matrix().iter().map(Combination::name).collect();
        assert_eq!(names.len(), matrix().len());
    }
}
