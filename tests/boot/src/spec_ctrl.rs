//! `spec-ctrl=`: each way into a guest and out of it, and the processor's registers where a bed has them.

use crate::bed::Bed;
use crate::case::Case;
use crate::words;

/// The guests' image.
const IMAGE: &str = "build/guest";

/// A domain's type, the question that it is asked, the bed, options, and what the hypervisor says that it does.
const CASES: [(&str, &str, Bed, &str, &str); 16] = [
    ("pvh", "hello", Bed::BochsSkylake, "spec-ctrl=hvm", "PV: *; PVH: VERW, return stack; all: nothing"),
    ("pvh", "hello", Bed::BochsSvm, "spec-ctrl=hvm", "PV: *; PVH: VERW, return stack; all: nothing"),
    ("pvh", "hello", Bed::BochsSkylake, "spec-ctrl=no", "PV: nothing; PVH: nothing; all: nothing"),
    ("pvh", "hello", Bed::BochsSvm, "spec-ctrl=no", "PV: nothing; PVH: nothing; all: nothing"),
    ("pv", "pv-traps", Bed::QemuNoSvm, "spec-ctrl=pv xpti=no", "PV: VERW, return stack; PVH: *; all: nothing"),
    ("pv", "pv-traps", Bed::QemuNoSvm, "spec-ctrl=pv xpti", "PV: VERW, return stack; PVH: *; all: nothing"),
    ("pv", "pv-traps", Bed::QemuNoSvm, "spec-ctrl=md-clear", "PV: VERW; PVH: *; all: nothing"),
    ("pv", "pv-traps", Bed::BochsSkylake, "spec-ctrl=pv xpti=no", "PV: VERW, return stack; PVH: *; all: nothing"),
    ("pv", "pv-traps", Bed::BochsSkylake, "spec-ctrl=pv xpti", "PV: VERW, return stack; PVH: *; all: nothing"),
    ("pv", "pv-traps", Bed::BochsSkylake, "spec-ctrl=no", "PV: nothing; PVH: nothing; all: nothing"),
    ("pvh", "hello", ARROW, "", "PV: VERW; PVH: VERW, return stack; all: IBPB between domains, IBRS, BHI_DIS_S"),
    (
        "pvh",
        "smp",
        ARROW,
        "spec-ctrl=hvm,ssbd",
        "PV: VERW; PVH: VERW, return stack, IBPB at exit; all: *, SSBD, BHI_DIS_S",
    ),
    ("pvh", "hello", ARROW, "spec-ctrl=l1d-flush", "PV: VERW; PVH: L1 flush, return stack; all: *"),
    ("pv", "pv-traps", ARROW, "", "PV: VERW; PVH: VERW, return stack; all: IBPB between domains, IBRS, BHI_DIS_S"),
    ("pv", "pv-traps", ARROW, "spec-ctrl=pv xpti", "PV: VERW, return stack, IBPB at exit; PVH: *; all: *"),
    ("pv", "pv-vcpu", ARROW, "spec-ctrl=pv", "PV: VERW, return stack, IBPB at exit; PVH: *; all: *"),
];
const ARROW: Bed = Bed::BochsArrowLake;

/// All of them.
pub fn cases() -> Vec<Case> {
    CASES.iter().map(case).collect()
}

/// The question, with another domain of that type on the same CPU.
fn case((kind, question, bed, options, said): &(&str, &str, Bed, &str, &str)) -> Case {
    let config = |name: &str, question: &str, vcpus: u32| {
        format!(
            "name = \"{name}\"\ntype = \"{kind}\"\nkernel = \"guest\"\ncmdline = \"test={question}\"\nmemory = 64\nvcpus = {vcpus}\n"
        )
    };
    let vcpus = if ["smp", "pv-vcpu"].contains(question) { 4 } else { 1 };
    let other = if *kind == "pv" { "pv-hello" } else { "hello" };
    let set: String =
        options.replace("spec-ctrl=", "").chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let set = if set.is_empty() { "default" } else { &set };
    Case::new(format!("spec-ctrl-{kind}-{question}-{set}-{}", bed.name()), *bed)
        .option(options)
        .text("first.cfg", config("first", question, vcpus))
        .text("other.cfg", config("other", other, 1))
        .file("guest", IMAGE)
        .host_says(&[&format!("against speculation: {said}"), &words::ended("first", words::POWERED_OFF)])
        .host_says(&[&words::destroyed("other")])
        .domain_says("first", &["GUEST-DONE * passed,*failed"])
        .domain_says("other", &["GUEST-DONE * passed,*failed"])
        .never("first", "FAIL ")
        .never("other", "FAIL ")
        .budget(10, 90)
}
