//! What PV guests of the two invented hosts read and write.

use super::super::cpuid::tests::{amd, intel, pv_policy};
use super::super::{MsrHost, MsrPolicy};
use super::*;

fn on_intel() -> MsrPolicy {
    let host = MsrHost { microcode: 0xb4 << 32, arch_capabilities: !0, lfence_serializes: true };
    MsrPolicy::new(&pv_policy(intel, 2), &host)
}

fn on_amd() -> MsrPolicy {
    MsrPolicy::new(&pv_policy(amd, 2), &MsrHost { microcode: 7, arch_capabilities: 0, lfence_serializes: true })
}

#[test]
fn what_a_pv_guest_has_no_msr_for_faults() {
    // SYSCALL, SYSENTER, MTRRs, x2APIC, deadline, TSC_ADJUST, DEBUGCTL, and what nobody has.
    let gone = [
        0xc000_0081,
        0xc000_0082,
        0xc000_0083,
        0xc000_0084,
        0x174,
        0x175,
        0x176,
        0xfe,
        0x200,
        0x2ff,
        0x802,
        0x83f,
        0x6e0,
        0x3b,
        0x1d9,
        0x48,
        0x49,
        0x10a,
        0x3a,
        0x480,
        0xc001_0010,
        0xc001_001a,
        0xc001_0114,
        0x4000_0001,
        0x9999,
        u32::MAX,
    ];
    for p in [on_intel(), on_amd()] {
        for msr in gone {
            assert_eq!((p.read(msr), p.write(msr, 0)), (Read::Fault, Write::Fault), "{msr:#x}");
        }
    }
}

#[test]
fn efer_is_the_hypervisors_and_takes_only_what_it_is() {
    for p in [on_intel(), on_amd()] {
        assert_eq!(p.read(nr::EFER), Read::Value(0xd01));
        assert_eq!(p.write(nr::EFER, 0xd01), Write::Ignore);
        for other in [0, 0x501, 0x1d01, 0xc01] {
            assert_eq!(p.write(nr::EFER, other), Write::Fault, "{other:#x}");
        }
    }
}

#[test]
fn segment_bases_are_the_guests_if_they_are_canonical() {
    for msr in [nr::FS_BASE, nr::GS_BASE, nr::KERNEL_GS_BASE] {
        assert_eq!(on_intel().read(msr), Read::Switched);
        assert_eq!(on_intel().write(msr, 0xffff_8880_0000_0000), Write::Switched);
        assert_eq!(on_intel().write(msr, 0x8000_0000_0000), Write::Fault);
    }
    assert_eq!((on_amd().write(nr::TSC_AUX, 5), on_amd().write(nr::TSC_AUX, 1 << 32)), (Write::Switched, Write::Fault));
}

#[test]
fn the_clock_is_read_and_never_moved() {
    assert_eq!(on_intel().read(nr::TSC), Read::Managed(Managed::Tsc));
    assert_eq!(on_intel().write(nr::TSC, 0), Write::Fault);
}

#[test]
fn the_local_apic_has_a_base_and_nothing_else() {
    assert_eq!(on_intel().read(nr::APIC_BASE), Read::Managed(Managed::ApicBase));
    assert_eq!(on_intel().write(nr::APIC_BASE, 0xfee0_0900), Write::Fault);
}

#[test]
fn constants_are_as_xen_has_them() {
    for p in [on_intel(), on_amd()] {
        assert_eq!(p.read(nr::PAT), Read::Value(0x0000_0501_0007_0406));
        assert_eq!(p.write(nr::PAT, 0x0007_0406_0007_0406), Write::Fault);
        for msr in [nr::PLATFORM_INFO, nr::MISC_FEATURES_ENABLES, nr::MCG_CAP, nr::MCG_STATUS, nr::XEN_HYPERCALL] {
            assert_eq!(p.read(msr), Read::Value(0), "{msr:#x}");
        }
        assert_eq!(p.write(nr::XEN_HYPERCALL, 0x1000), Write::Managed(Managed::HypercallPage));
        assert_eq!(
            (p.write(nr::MISC_FEATURES_ENABLES, 0), p.write(nr::MISC_FEATURES_ENABLES, 1)),
            (Write::Ignore, Write::Fault)
        );
        assert_eq!((p.write(0x79, 0), p.write(0xc001_0020, 0)), (Write::Fault, Write::Fault), "microcode");
    }
    assert_eq!(on_intel().read(nr::UCODE_REV), Read::Value(0xb4 << 32));
    assert_eq!((on_intel().write(nr::UCODE_REV, 0), on_amd().write(nr::UCODE_REV, 0)), (Write::Ignore, Write::Fault));
    let Read::Value(misc) = on_intel().read(nr::MISC_ENABLE) else { panic!("a value") };
    assert_eq!(misc & (1 << 7 | 1 << 11 | 1 << 12 | 1 << 18 | 1 << 23), 1 << 11 | 1 << 12 | 1 << 23);
    assert_eq!((on_amd().read(nr::HWCR), on_amd().read(nr::DE_CFG)), (Read::Value(1 << 24), Read::Value(2)));
}

#[test]
fn performance_counters_are_empty_on_their_own_vendors_processors() {
    for (msr, intels) in [(0xc1, true), (0x186, true), (0x38f, true), (0xc001_0000, false), (0xc001_020b, false)] {
        let (own, other) = if intels { (on_intel(), on_amd()) } else { (on_amd(), on_intel()) };
        assert_eq!((own.read(msr), own.write(msr, 1)), (Read::Value(0), Write::Ignore), "{msr:#x}");
        assert_eq!((other.read(msr), other.write(msr, 1)), (Read::Fault, Write::Fault), "{msr:#x}");
    }
}
