//! Debian's kernels as PV domains: from an `xl.cfg`, and as the initial domain.

use crate::bed::Bed;
use crate::case::Case;
use crate::expect::Step;
use crate::linux::Guest;
use crate::words::{self, Speaker};

/// The initial domain's name.
const DOM0: &str = "Domain-0";

/// All of them, the quick ones first.
pub fn cases() -> Vec<Case> {
    vec![
        alone("6.1-cloud", 1, 256, Bed::QemuNoSvm, 1),
        reboot(Bed::QemuNoSvm),
        crash(Bed::QemuNoSvm),
        dom0_shell("6.1", Bed::QemuNoSvm),
        alone("6.12", 4, 256, Bed::QemuNoSvm, 2),
        alone("6.12-cloud", 1, 256, Bed::BochsSvm, 1),
        alone("6.1-cloud", 4, 256, Bed::BochsSkylake, 1),
        beside_pvh("6.1", Bed::QemuSvm),
        dom0("6.12", 4, Bed::QemuNoSvm, 4),
        dom0("6.1", 1, Bed::BochsSkylake, 1),
        stress(Bed::QemuNoSvm, 15),
    ]
}

fn guest<'a>(name: &'a str, kernel: &'a str, tests: &'a str) -> Guest<'a> {
    Guest { name, kind: "pv", kernel, vcpus: 1, memory_mib: 256, tests }
}

fn case(what: &str, bed: Bed) -> Case {
    Case::new(format!("linux-pv-{what}-{}", bed.name()), bed).memory(1024).budget(60, 600)
}

fn alone(kernel: &str, vcpus: u32, memory_mib: u32, bed: Bed, cpus: u32) -> Case {
    let case = case(&format!("{kernel}-{vcpus}vcpu-{memory_mib}M"), bed).cpus(cpus);
    Guest { vcpus, memory_mib, ..guest("pv", kernel, "info,busy") }.add(case).host_says(&[&words::destroyed("pv")])
}

/// A large PV domain with four virtual CPUs and a PVH domain at the same time.
fn beside_pvh(kernel: &str, bed: Bed) -> Case {
    let case = case(&format!("{kernel}-beside-pvh"), bed).memory(3072).cpus(4).budget(80, 900);
    let case = Guest { vcpus: 4, memory_mib: 2048, ..guest("pv", kernel, "info,busy") }.add(case);
    Guest { kind: "pvh", ..guest("pvh", "6.1-cloud", "info,busy") }.add(case)
}

fn see(name: &str, text: &str) -> Step {
    Step::See(Some(Speaker::Domain(name.into())), text.into())
}

fn host(text: impl Into<String>) -> Step {
    Step::See(Some(Speaker::Host), text.into())
}

/// Processes that use memory in every way, on four virtual CPUs, while the hypervisor checks its counts.
fn stress(bed: Bed, seconds: u32) -> Case {
    let tests = format!("info,stress euxen.seconds={seconds}");
    let guest = Guest { vcpus: 4, memory_mib: 512, ..guest("stress", "6.1-cloud", &tests) };
    guest
        .load(case("stress", bed).cpus(2).option("pv-check").budget(80, 600), "")
        .domain_says("stress", &["STRESS * rounds, 0 failures", "GUEST-OK stress", "GUEST-END"])
        .host_says(&[&words::ended("stress", words::POWERED_OFF)])
}

/// A guest that reboots is started again.
fn reboot(bed: Bed) -> Case {
    let steps = vec![
        see("again", "GUEST-END"),
        host(words::ended("again", words::REBOOTED)),
        host(words::starts_again("again")),
        see("again", "GUEST-END"),
    ];
    guest("again", "6.1-cloud", "reboot").load(case("reboot", bed), "on_reboot = \"restart\"\n").track(steps)
}

/// A guest's crash is reported, and its memory comes back.
fn crash(bed: Bed) -> Case {
    let crashed = words::ended("broken", words::CRASHED);
    let block = [crashed.as_str(), "(broken)*rip", "(broken)*code", "(broken)*hypercall", "(broken) is destroyed"];
    let case = case("crash", bed).allow("Kernel panic");
    guest("broken", "6.1-cloud", "crash").load(case, "on_crash = \"destroy\"\n").host_says(&block)
}

/// A kernel as the first module, with its ramdisk as the second.
fn first(guest: &Guest<'_>, case: Case) -> Case {
    let (mib, vcpus) = (guest.memory_mib, guest.vcpus);
    case.option(&format!("dom0_mem={mib}M,max:{mib}M dom0_max_vcpus={vcpus}"))
        .file(
            &format!("placeholder {} euxen.role=dom0", guest.cmdline()),
            format!("build/beds/vmlinuz-{}", guest.kernel),
        )
        .file("", "build/initrd")
}

/// The initial domain looks around and turns the machine off.
fn dom0(kernel: &str, vcpus: u32, bed: Bed, cpus: u32) -> Case {
    let case = case(&format!("dom0-{kernel}-{vcpus}vcpu"), bed).cpus(cpus);
    let guest = Guest { vcpus, memory_mib: 512, ..guest(DOM0, kernel, "info,busy") };
    let found = format!("GUEST-OK vcpus are {vcpus}");
    let lines =
        ["GUEST-OK hypervisor type is xen", "GUEST-OK booted as PV", &found, "GUEST-OK no kernel warning", "GUEST-END"];
    first(&guest, case).domain_says(DOM0, &lines).host_says(&["turns the machine off"])
}

/// The initial domain's shell takes what is typed.
fn dom0_shell(kernel: &str, bed: Bed) -> Case {
    let steps = vec![
        host(words::input_to(DOM0)),
        see(DOM0, "# "),
        Step::Type("echo $((40 + 2))in dom0\r".into()),
        see(DOM0, "42in dom0"),
        Step::Type("poweroff\r".into()),
        host("turns the machine off"),
    ];
    first(&Guest { memory_mib: 512, ..guest(DOM0, kernel, "") }, case("dom0-shell", bed)).track(steps)
}
