//! Our own small guests, which ask one question each, on every bed.

use crate::bed::Bed;
use crate::case::Case;
use crate::words;

/// The guests' image, built by `make guests`.
const IMAGE: &str = "build/guest";

const BEDS: [Bed; 4] = [Bed::BochsSkylake, Bed::BochsHaswell, Bed::BochsSvm, Bed::QemuSvm];

/// What a guest is asked.
struct Question {
    name: &'static str,
    vcpus: u32,
    /// Whether it counts its own checks.
    counts: bool,
    /// Why the hypervisor says that it ended.
    ended: &'static str,
}

const fn question(name: &'static str, vcpus: u32) -> Question {
    Question { name, vcpus, counts: true, ended: words::POWERED_OFF }
}

const fn ending(name: &'static str, vcpus: u32, ended: &'static str) -> Question {
    Question { name, vcpus, counts: false, ended }
}

const QUESTIONS: [Question; 19] = [
    question("hello", 1),
    question("cost", 1),
    question("lapic", 1),
    question("smp", 4),
    question("storm", 2),
    question("pairs", 2),
    question("events", 2),
    question("memory", 1),
    question("hostile", 1),
    question("badregs", 1),
    question("debug", 4),
    question("answers", 1),
    question("compat", 1),
    ending("triple", 1, words::TRIPLE_FAULT),
    ending("wild", 1, words::WILD_JUMP),
    ending("crash", 1, words::CRASHED),
    ending("dog", 1, words::WATCHDOG),
    ending("haltoff", 2, words::POWERED_OFF),
    ending("reboot", 1, words::REBOOTED),
];

/// Every question on every bed.
pub fn cases() -> Vec<Case> {
    let all = QUESTIONS.iter().flat_map(|question| BEDS.map(|bed| (question, bed)));
    all.filter(|(question, bed)| !fails_the_bed(question.name, *bed))
        .map(|(question, bed)| case(question, bed))
        .chain(BEDS.map(across))
        .chain(BEDS.into_iter().filter(|bed| bed.is_bochs()).map(across_by_hlt))
        .chain(BEDS.into_iter().filter(|bed| !fails_the_bed("debug", *bed)).map(debug_beside_pv))
        .collect()
}

/// Two virtual CPUs that wake each other from one CPU to another, while idle CPUs sleep as is found out at boot.
fn across(bed: Bed) -> Case {
    // QEMU's MWAIT is no sleep.
    across_by("", bed, if bed.is_bochs() { words::MWAIT_WORKS } else { "HLT: MWAIT" })
}

/// The same where they would sleep by MWAIT and may not.
fn across_by_hlt(bed: Bed) -> Case {
    across_by("hlt-", bed, "HLT, as").option("mwait-idle=no")
}

fn across_by(variant: &str, bed: Bed, sleep: &str) -> Case {
    let config = "name = \"across\"\ntype = \"pvh\"\nkernel = \"guest\"\ncmdline = \"test=pairs across\"\nmemory = 64\nvcpus = 2\n";
    Case::new(format!("guest-across-{variant}{}", bed.name()), bed)
        .cpus(2)
        .host_says(&[&words::idle_by(sleep)])
        .text("across.cfg", config)
        .file("guest", IMAGE)
        .never("across", "FAIL ")
        .domain_says("across", &["GUEST-DONE * passed,*failed"])
        .host_says(&[&words::destroyed("across")])
        .budget(10, 90)
}

/// Virtual CPUs that use debug registers, and a PV guest that is single-stepped, on one CPU.
fn debug_beside_pv(bed: Bed) -> Case {
    let config = |name: &str, kind: &str, cmdline: &str, vcpus: u32| {
        format!(
            "name = \"{name}\"\ntype = \"{kind}\"\nkernel = \"guest\"\ncmdline = \"{cmdline}\"\nmemory = 64\nvcpus = {vcpus}\n"
        )
    };
    let case = Case::new(format!("guest-debug-beside-pv-{}", bed.name()), bed)
        .text("debug.cfg", config("debug", "pvh", "test=debug turns=2000", 4))
        .text("pv.cfg", config("pv", "pv", "test=pv-steps", 1))
        .file("guest", IMAGE)
        .budget(10, 90);
    ["debug", "pv"].into_iter().fold(case, |case, name| {
        case.never(name, "FAIL ")
            .domain_says(name, &["GUEST-DONE * passed,*failed"])
            .host_says(&[&words::destroyed(name)])
    })
}

/// Questions that an emulator itself answers wrongly. QEMU ends by an assertion of its own when a guest writes CR8
/// while a virtual interrupt waits, and lets a guest set CR0.NW without CD; Bochs ends when an AMD-V guest clears
/// CR0.PE in long mode, and leaves DR6 as it was when #DB exits from one.
fn fails_the_bed(name: &str, bed: Bed) -> bool {
    matches!((name, bed), ("lapic" | "badregs", Bed::QemuSvm) | ("badregs" | "debug", Bed::BochsSvm))
}

fn case(Question { name, vcpus, counts, ended }: &Question, bed: Bed) -> Case {
    let config = format!(
        "name = \"{name}\"\ntype = \"pvh\"\nkernel = \"guest\"\ncmdline = \"test={name}\"\nmemory = 64\nvcpus = {vcpus}\non_reboot = \"destroy\"\n"
    );
    let cpus = if *name == "storm" { 2 } else { 1 };
    let case = Case::new(format!("guest-{name}-{}", bed.name()), bed)
        .cpus(cpus)
        .text(&format!("{name}.cfg"), config)
        .file("guest", IMAGE)
        .never(name, "FAIL ")
        .host_says(&[&words::ended(name, ended), &words::destroyed(name)])
        .budget(10, 90);
    if *counts { case.domain_says(name, &["GUEST-DONE * passed,*failed"]) } else { case }
}
