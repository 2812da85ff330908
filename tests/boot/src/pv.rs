//! Our own guest as a PV domain: from an `xl.cfg`, and as the first module, with and without virtualization.

use crate::bed::Bed;
use crate::case::Case;
use crate::words;

/// The guests' image.
const IMAGE: &str = "build/guest";

/// Every kind of processor; the first has no virtualization at all.
const BEDS: [Bed; 4] = [Bed::QemuNoSvm, Bed::BochsSkylake, Bed::BochsSvm, Bed::QemuSvm];

/// What a guest is asked, its virtual CPUs, and on how many of the beds.
const QUESTIONS: [(&str, u32, usize); 11] = [
    ("pv-hello", 1, 4),
    ("pv-traps", 1, 4),
    ("pv-mmu", 1, 4),
    ("pv-priv", 1, 3),
    ("pv-memory", 1, 2),
    ("pv-vcpu", 4, 4),
    ("pv-failsafe", 2, 2),
    ("pv-hostile", 1, 2),
    ("events", 1, 2),
    ("hostile", 1, 2),
    ("cost", 1, 3),
];

/// Guests that the hypervisor ends, and what it says of them.
const ENDS: [(&str, &str); 7] = [
    ("pv-die-trap", words::NO_TRAP),
    ("pv-die-stack", words::NO_STACK),
    ("pv-die-hole", words::NO_STACK),
    ("pv-die-iret", words::NO_FRAME),
    ("pv-die-user", words::NO_USER_TABLES),
    ("pv-die-kernel-stack", words::NO_STACK),
    ("pv-die-base", words::NO_STACK),
];

/// Questions that the initial domain is asked as well.
const INITIAL: [(&str, u32); 5] = [("pv-hello", 1), ("pv-mmu", 1), ("pv-priv", 1), ("pv-memory", 1), ("pv-hostile", 1)];

/// All of them.
pub fn cases() -> Vec<Case> {
    let from_configs =
        QUESTIONS.iter().flat_map(|(name, vcpus, beds)| BEDS[..*beds].iter().map(|bed| question(name, *vcpus, *bed)));
    let ends = ENDS.iter().map(|(name, why)| end(name, why));
    let initial = INITIAL.iter().flat_map(|(name, vcpus)| BEDS[..2].iter().map(|bed| first(name, *vcpus, *bed)));
    from_configs.chain(ends).chain(initial).collect()
}

fn domain(name: &str, vcpus: u32, bed: Bed) -> Case {
    let config = format!(
        "name = \"{name}\"\ntype = \"pv\"\nkernel = \"guest\"\ncmdline = \"test={name}\"\nmemory = 64\nvcpus = {vcpus}\n"
    );
    Case::new(format!("guest-as-pv-{name}-{}", bed.name()), bed)
        .text(&format!("{name}.cfg"), config)
        .file("guest", IMAGE)
        .never(name, "FAIL ")
        .budget(10, 90)
}

fn question(name: &str, vcpus: u32, bed: Bed) -> Case {
    domain(name, vcpus, bed)
        .domain_says(name, &["GUEST-DONE * passed,*failed"])
        .host_says(&[&words::ended(name, words::POWERED_OFF), &words::destroyed(name)])
}

/// A guest that ends alone: the one beside it goes on.
fn end(name: &str, why: &str) -> Case {
    let other = "name = \"other\"\ntype = \"pv\"\nkernel = \"guest\"\ncmdline = \"test=pv-hello\"\nmemory = 64\n";
    domain(name, 1, Bed::QemuNoSvm)
        .text("other.cfg", other)
        .domain_says(name, &["GUEST-START"])
        .host_says(&[&words::ended(name, why), &words::destroyed(name)])
        .domain_says("other", &["GUEST-DONE * passed,*failed"])
        .never("other", "FAIL ")
        // In the words of the last exits.
        .allow("error: ")
}

/// As the first module, without a configuration.
fn first(name: &str, vcpus: u32, bed: Bed) -> Case {
    Case::new(format!("guest-as-dom0-{name}-{}", bed.name()), bed)
        .option(&format!("dom0_mem=64M dom0_max_vcpus={vcpus}"))
        .file(&format!("guest test={name}"), IMAGE)
        .never("Domain-0", "FAIL ")
        .domain_says("Domain-0", &["GUEST-DONE * passed,*failed"])
        .host_says(&[&words::ended("Domain-0", words::POWERED_OFF), &words::destroyed("Domain-0")])
        .budget(10, 90)
}
