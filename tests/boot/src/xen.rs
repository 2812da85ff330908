//! The guest's tests on Debian's unmodified Xen: what they expect is what Xen does.

use crate::bed::Bed;
use crate::case::{Case, Hypervisor};

/// The guests' image.
const GUEST: &str = "build/guest";

/// A test, and the virtual CPUs it needs.
const PV: [(&str, u32); 9] = [
    ("pv-hello", 1),
    ("pv-traps", 1),
    ("pv-mmu", 1),
    ("pv-priv", 1),
    ("pv-memory", 1),
    ("pv-vcpu", 4),
    ("pv-hostile", 1),
    ("events", 1),
    ("hostile", 1),
];

/// Guests that the hypervisor ends.
const ENDS: [&str; 7] =
    ["pv-die-trap", "pv-die-stack", "pv-die-hole", "pv-die-iret", "pv-die-user", "pv-die-kernel-stack", "pv-die-base"];

/// Every test as an initial domain; what differs between processors on both vendors' beds.
pub fn cases() -> Vec<Case> {
    let mut all: Vec<Case> = PV.iter().map(|(test, vcpus)| case(test, *vcpus, Bed::QemuNoSvm)).collect();
    all.push(case("pv-traps", 1, Bed::BochsSkylake));
    // Two virtual CPUs that take turns.
    all.push(case("pv-failsafe", 2, Bed::QemuNoSvm).cpus(1));
    all.extend([Bed::BochsSkylake, Bed::BochsSvm].map(pvh_answers));
    all.extend(
        ENDS.map(|test| boot(test, 1, Bed::QemuNoSvm).anybody_says(&["Domain 0 * crashed", "Hardware Dom0 crashed"])),
    );
    all
}

/// What a PVH domain is answered; as the initial domain, without what is a privilege of that.
fn pvh_answers(bed: Bed) -> Case {
    Case::new(format!("xen-answers-{}", bed.name()), bed)
        .hypervisor(Hypervisor::Xen)
        .option("dom0=pvh dom0-iommu=none dom0_mem=64M dom0_max_vcpus=1")
        .file("guest test=answers dom0", GUEST)
        .anybody_says(&["GUEST-DONE * passed, 0 failed"])
        .budget(20, 120)
}

fn case(test: &str, vcpus: u32, bed: Bed) -> Case {
    boot(test, vcpus, bed).anybody_says(&["GUEST-DONE * passed, 0 failed"])
}

fn boot(test: &str, vcpus: u32, bed: Bed) -> Case {
    Case::new(format!("xen-{test}-{}", bed.name()), bed)
        .cpus(vcpus.min(2))
        .hypervisor(Hypervisor::Xen)
        .option(&format!("dom0_mem=64M dom0_max_vcpus={vcpus}"))
        .file(&format!("guest test={test}"), GUEST)
        .budget(20, 120)
}
