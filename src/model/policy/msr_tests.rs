//! The MSR policies of the two invented hosts.

use super::super::cpuid::tests::{amd, intel, offer, policy};
use super::super::{CpuidPolicy, Offer, XenLeaves};
use super::*;
use crate::ids::DomId;

const HOST: MsrHost = MsrHost { microcode: 0xb4 << 32, arch_capabilities: !0, lfence_serializes: true };

fn on_intel() -> MsrPolicy {
    MsrPolicy::new(&policy(intel, 2), &HOST)
}

fn on_amd() -> MsrPolicy {
    MsrPolicy::new(&policy(amd, 2), &HOST)
}

fn with_controls() -> MsrPolicy {
    offered(true)
}

fn offered(spec_ctrl: bool) -> MsrPolicy {
    let xen = XenLeaves {
        domain: DomId(1),
        tsc_khz: 1,
        tsc_offset: 0,
        tsc_mul: 1,
        tsc_shift: 0,
        tsc_is_reliable: false,
        has_rdtscp: false,
        apic_access_virt: false,
        x2apic_virt: false,
        upcall_vector: false,
    };
    let offer = Offer { spec_ctrl, arch_caps: true, ..offer(2) };
    MsrPolicy::new(&CpuidPolicy::new(&intel, &offer, xen), &HOST)
}

#[test]
fn an_unknown_msr_faults() {
    for p in [on_intel(), on_amd()] {
        for msr in [0, 0x480, 0x6a0, 0xda0, 0x122, 0xc0, 0x345, 0x570, 0xc001_0117, 0x4b56_4d00, u32::MAX] {
            assert_eq!((p.read(msr), p.write(msr, 0)), (Read::Fault, Write::Fault), "{msr:#x}");
        }
    }
}

#[test]
fn each_vendors_own_msrs_fault_on_the_other() {
    for msr in [nr::MISC_ENABLE, nr::FEATURE_CONTROL, nr::PLATFORM_ID, nr::PERF_STATUS] {
        assert!(matches!(on_intel().read(msr), Read::Value(_)) && on_amd().read(msr) == Read::Fault, "{msr:#x}");
    }
    for msr in [nr::SYSCFG, nr::HWCR, nr::NB_CFG, nr::VM_CR, nr::DE_CFG, nr::TOP_MEM2] {
        assert!(matches!(on_amd().read(msr), Read::Value(_)) && on_intel().read(msr) == Read::Fault, "{msr:#x}");
    }
}

#[test]
fn what_the_host_tells_is_passed_on_as_far_as_it_concerns_a_guest() {
    assert_eq!(on_intel().read(nr::UCODE_REV), Read::Value(0xb4 << 32));
    assert_eq!(on_amd().read(nr::DE_CFG), Read::Value(2));
    assert_eq!(on_amd().read(nr::HWCR), Read::Value(1 << 24));
    assert_eq!(on_amd().read(nr::VM_CR), Read::Value(0x10));
    assert_eq!(on_intel().read(nr::ARCH_CAPABILITIES), Read::Fault);
    let Read::Value(caps) = with_controls().read(nr::ARCH_CAPABILITIES) else { panic!("offered") };
    assert_eq!(caps & (1 << 3 | 1 << 7 | 1 << 9 | 1 << 10 | 1 << 18 | 1 << 25), 0);
    assert_eq!(caps & 1, 1);
}

#[test]
fn what_linux_answers_by_spec_ctrl_is_hidden_without_it() {
    let caps = |p: MsrPolicy| match p.read(nr::ARCH_CAPABILITIES) {
        Read::Value(caps) => caps & (1 << 1 | 1 << 19),
        other => panic!("not offered: {other:?}"),
    };
    assert_eq!((caps(offered(false)), caps(offered(true))), (0, 1 << 1 | 1 << 19));
}

#[test]
fn linux_finds_fast_strings_and_no_mtrr_ranges() {
    assert_eq!(on_intel().read(nr::MISC_ENABLE), Read::Value(0x1801));
    assert_eq!(on_intel().read(nr::MTRR_CAP), Read::Value(0));
    assert_eq!(on_intel().read(nr::MTRR_DEF_TYPE), Read::Value(0x806));
    assert_eq!(on_intel().write(nr::MTRR_DEF_TYPE, 0), Write::Ignore);
    assert_eq!([on_intel().read(0x200), on_intel().read(0x250)], [Read::Fault; 2]);
}

#[test]
fn what_the_hypervisor_keeps_is_said_to_be_so() {
    for p in [on_intel(), on_amd()] {
        assert_eq!(p.read(nr::TSC), Read::Managed(Managed::Tsc));
        assert_eq!(p.write(nr::TSC_ADJUST, 5), Write::Managed(Managed::TscAdjust));
        assert_eq!(p.read(nr::APIC_BASE), Read::Managed(Managed::ApicBase));
        assert_eq!(p.write(0x830, 0), Write::Managed(Managed::X2apic(0x30)));
        assert_eq!(p.read(nr::TSC_DEADLINE), Read::Managed(Managed::TscDeadline));
        assert_eq!((p.read(nr::EFER), p.write(nr::EFER, 0)), (Read::Switched, Write::Managed(Managed::Efer)));
        let page = Write::Managed(Managed::HypercallPage);
        assert_eq!((p.read(nr::XEN_HYPERCALL), p.write(nr::XEN_HYPERCALL, 0x1000)), (Read::Value(0), page));
    }
}

/// The short way of RDMSR takes it for granted.
#[test]
fn every_hvm_guest_reads_its_efer_and_its_apic_base() {
    for policy in [on_intel(), on_amd(), with_controls(), offered(false), offered(true)] {
        assert_eq!(policy.read(nr::EFER), Read::Switched);
        assert_eq!(policy.read(nr::APIC_BASE), Read::Managed(Managed::ApicBase));
    }
}

#[test]
fn a_register_that_holds_an_address_refuses_one_that_is_not_canonical() {
    for msr in [nr::LSTAR, nr::CSTAR, nr::FS_BASE, nr::GS_BASE, nr::KERNEL_GS_BASE, nr::SYSENTER_ESP, nr::SYSENTER_EIP]
    {
        assert_eq!(on_intel().write(msr, 0x8000_0000_0000), Write::Fault, "{msr:#x}");
        assert_eq!(on_intel().write(msr, 0xffff_8000_0000_0000), Write::Switched, "{msr:#x}");
    }
    assert_eq!(on_intel().write(nr::TSC_AUX, 1 << 32), Write::Fault);
    assert_eq!(on_intel().write(nr::STAR, !0), Write::Switched);
    assert_eq!(on_intel().write(nr::PAT, 2), Write::Fault);
    assert_eq!(on_intel().write(nr::PAT, 6), Write::Switched);
}

#[test]
fn speculation_controls_are_there_only_if_offered_and_take_only_known_bits() {
    assert_eq!([on_intel().read(nr::SPEC_CTRL), on_amd().read(nr::SPEC_CTRL)], [Read::Fault; 2]);
    assert_eq!(on_intel().write(nr::SPEC_CTRL, 0), Write::Fault);
    assert_eq!(on_intel().write(nr::PRED_CMD, 1), Write::Fault);
    let p = with_controls();
    assert_eq!(p.write(nr::SPEC_CTRL, 7), Write::Managed(Managed::SpecCtrl));
    assert_eq!(p.write(nr::SPEC_CTRL, 8), Write::Fault);
    assert_eq!((p.write(nr::PRED_CMD, 1), p.write(nr::PRED_CMD, 2)), (Write::Managed(Managed::PredCmd), Write::Fault));
    assert_eq!(p.read(nr::PRED_CMD), Read::Fault);
}

#[test]
fn microcode_is_not_loaded_but_trying_does_not_fault_where_xen_does_not() {
    assert_eq!([on_intel().write(nr::UCODE_WRITE, 9), on_intel().write(nr::UCODE_REV, 0)], [Write::Ignore; 2]);
    assert_eq!(on_intel().write(nr::UCODE_REV, 1), Write::Fault);
    assert_eq!(on_amd().write(nr::PATCH_LOADER, 9), Write::Ignore);
    assert_eq!(on_amd().write(nr::UCODE_REV, 0), Write::Fault);
}

#[test]
fn machine_checks_and_debug_controls_are_empty() {
    assert_eq!((on_intel().read(nr::MCG_CAP), on_intel().write(nr::MCG_CAP, 0)), (Read::Value(0), Write::Fault));
    assert_eq!((on_amd().read(nr::DEBUGCTL), on_amd().write(nr::DEBUGCTL, 2)), (Read::Value(0), Write::Ignore));
    assert_eq!(on_intel().write(nr::DEBUGCTL, 1 << 6), Write::Fault);
    assert_eq!(on_intel().write(nr::MISC_FEATURES_ENABLES, 1), Write::Fault);
}

#[test]
fn what_needs_no_exit_is_what_the_back_end_switches() {
    let all: Vec<_> = on_amd().without_exit().collect();
    assert!(all.contains(&(nr::LSTAR, true, true)) && all.contains(&(nr::TSC_AUX, true, true)));
    assert!(!all.iter().any(|entry| [nr::EFER, nr::PAT, nr::TSC].contains(&entry.0)));
    assert!(all.iter().all(|&(msr, ..)| on_amd().read(msr) == Read::Switched));
}
