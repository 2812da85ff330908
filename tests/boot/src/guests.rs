//! Our own small guests, which ask one question each, on every bed.

use crate::bed::Bed;
use crate::case::Case;
use crate::words;

/// The guests' image, built by `make guests`.
const IMAGE: &str = "build/guest";

const BEDS: [Bed; 4] = [Bed::BochsSkylake, Bed::BochsHaswell, Bed::BochsSvm, Bed::QemuSvm];

/// How a guest's test ends.
enum End {
    /// It counts its own checks and powers off.
    Done,
    /// The hypervisor ends it as crashed.
    Crash,
    /// It halts its last CPU with interrupts off, or asks for the power to go.
    Off,
    /// It reboots.
    Reboot,
}

/// Name, vCPUs, end.
const TESTS: [(&str, u32, End); 12] = [
    ("hello", 1, End::Done),
    ("cost", 1, End::Done),
    ("lapic", 1, End::Done),
    ("smp", 4, End::Done),
    ("events", 2, End::Done),
    ("memory", 1, End::Done),
    ("hostile", 1, End::Done),
    ("triple", 1, End::Crash),
    ("wild", 1, End::Crash),
    ("crash", 1, End::Crash),
    ("haltoff", 1, End::Off),
    ("reboot", 1, End::Reboot),
];

/// Every test on every bed.
pub fn cases() -> Vec<Case> {
    TESTS.iter().flat_map(|test| BEDS.map(|bed| case(test, bed))).collect()
}

fn case((name, vcpus, end): &(&str, u32, End), bed: Bed) -> Case {
    let config = format!(
        "name = \"{name}\"\ntype = \"pvh\"\nkernel = \"guest\"\ncmdline = \"test={name}\"\nmemory = 64\nvcpus = {vcpus}\non_reboot = \"destroy\"\n"
    );
    let case = Case::new(format!("guest-{name}-{}", bed.name()), bed)
        .text(&format!("{name}.cfg"), config)
        .file("guest", IMAGE)
        .never(name, "FAIL ")
        .budget(10, 90);
    match end {
        End::Done => case.domain_says(name, &["GUEST-DONE * passed, 0 failed"]).host_says(&[&words::powered_off(name)]),
        End::Crash => case.host_says(&[&words::crashed(name), "RIP"]),
        End::Off => case.host_says(&[&words::powered_off(name)]),
        End::Reboot => case.host_says(&[&words::rebooted(name)]),
    }
}
