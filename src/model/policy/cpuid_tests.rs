//! CPUID policies of two invented hosts.

use super::*;
use crate::ids::DomId;
use proptest::prelude::*;

/// An Intel host that has nearly everything.
pub(in crate::policy) fn intel(leaf: u32, subleaf: u32) -> Leaf {
    match (leaf, subleaf) {
        (0, _) => [0x16, 0x756e_6547, 0x6c65_746e, 0x4965_6e69],
        (1, _) => [0x0005_0654, 0x1f40_0800, !0, !0],
        (4, 0) => [0x1c00_4121, 0x01c0_003f, 0x3f, 0],
        (4, 1) => [0x1c03_c163, 0x0280_003f, 0x7fff, 4],
        (7, 0) => [2, !0, !0, !0],
        (7, _) => [!0; 4],
        (0xd, 0) => [0x2ff, 0xa88, 0xa88, 0],
        (0xd, 1) => [0xf, 0xa08, 0x100, 0],
        (0xd, 2) => [256, 576, 0, 0],
        (0xd, 9) => [8, 2688, 0, 0],
        (0xd, _) => [64, 1088, 0, 0],
        (0x8000_0000, _) => [0x8000_0008, 0, 0, 0],
        (0x8000_0001, _) => [0, 0, !0, !0],
        (0x8000_0007, _) => [!0; 4],
        (0x8000_0008, _) => [0x3027, 0, 0, 0],
        (..=0x16, _) => [!0; 4],
        _ => [0; 4],
    }
}

/// An AMD host.
pub(in crate::policy) fn amd(leaf: u32, subleaf: u32) -> Leaf {
    match (leaf, subleaf) {
        (0, _) => [0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
        (0x8000_0000, _) => [0x8000_0021, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
        (0x8000_0008, _) => [0x0030_3030, !0, 0x5007, !0],
        (0x8000_0002..=0x8000_0021, _) => [!0; 4],
        _ => intel(leaf, subleaf),
    }
}

pub(in crate::policy) fn offer(nr_vcpus: u32) -> Offer {
    Offer { kind: Kind::Hvm, nr_vcpus, xcr0: 7, invpcid: true, rdtscp: true, spec_ctrl: false, arch_caps: false }
}

fn xen() -> XenLeaves {
    XenLeaves {
        domain: DomId(3),
        tsc_khz: 1_000_000,
        tsc_offset: 0,
        tsc_mul: 0x8000_0000,
        tsc_shift: 1,
        tsc_is_reliable: true,
        has_rdtscp: false,
        apic_access_virt: false,
        x2apic_virt: false,
        upcall_vector: false,
    }
}

pub(in crate::policy) fn policy(host: fn(u32, u32) -> Leaf, nr_vcpus: u32) -> CpuidPolicy {
    CpuidPolicy::new(&host, &offer(nr_vcpus), xen())
}

fn with(change: impl Fn(&mut Offer)) -> CpuidPolicy {
    let mut offer = offer(4);
    change(&mut offer);
    CpuidPolicy::new(&intel, &offer, xen())
}

const NOW: Dynamic = Dynamic { vcpu: VcpuId(0), cr4: 0, xcr0: 1, apic_enabled: true, is_long: true };

fn vcpu(n: u32) -> Dynamic {
    Dynamic { vcpu: VcpuId(n), ..NOW }
}

#[test]
fn what_a_guest_must_not_have_is_hidden() {
    for host in [intel, amd] {
        let p = policy(host, 4);
        let hidden = [(3, 5), (6, 5), (7, 5), (15, 5), (18, 5)];
        let one = p.query(1, 0, &NOW)[2];
        assert!(hidden.iter().all(|&(bit, _)| one & (1 << bit) == 0), "{one:#x}");
        let [_, ebx, ecx, _] = p.query(7, 0, &NOW);
        for bit in [2, 4, 11, 12, 14, 15, 25] {
            assert_eq!(ebx & (1 << bit), 0, "leaf 7 ebx {bit}");
        }
        for bit in [5, 7, 16, 23, 29, 30] {
            assert_eq!(ecx & (1 << bit), 0, "leaf 7 ecx {bit}");
        }
        let extended = p.query(0x8000_0001, 0, &NOW)[2];
        for bit in [2, 3, 10, 12, 22, 23, 24, 28, 29] {
            assert_eq!(extended & (1 << bit), 0, "0x80000001 ecx {bit}");
        }
        for leaf in [3, 5, 6, 9, 0xa, 0xf, 0x12, 0x14, 0x8000_000a, 0x8000_001e, 0x8000_001f] {
            assert_eq!(p.query(leaf, 0, &NOW), [0; 4], "leaf {leaf:#x}");
        }
    }
}

#[test]
fn what_the_hypervisor_provides_is_there_whatever_the_host_has() {
    let bare = |leaf, _| if leaf == 0 { [1, 0, 0, 0] } else { [0; 4] };
    let p = policy(bare, 1);
    let wanted = l1_ecx::HYPERVISOR | l1_ecx::X2APIC | l1_ecx::TSC_DEADLINE;
    assert_eq!(p.query(1, 0, &NOW)[2], wanted);
    assert_eq!(p.query(1, 0, &NOW)[3], l1_edx::APIC);
    assert_eq!(p.xcr0(), 0);
}

#[test]
fn leaves_end_where_the_policy_ends() {
    let p = policy(intel, 1);
    assert_eq!(p.query(0, 0, &NOW), [0xd, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]);
    assert_eq!(p.query(0x8000_0000, 0, &NOW)[0], 0x8000_0008);
    assert_eq!(policy(amd, 1).query(0x8000_0000, 0, &NOW)[0], 0x8000_0021);
    assert_eq!([p.query(0x16, 0, &NOW), p.query(0xffff_ffff, 0, &NOW)], [[0; 4]; 2]);
}

#[test]
fn each_virtual_cpu_has_the_same_apic_id_in_every_leaf() {
    let p = policy(intel, 4);
    for n in 0..4 {
        let id = CpuidPolicy::apic_id(VcpuId(n));
        assert_eq!(id, 2 * n);
        assert_eq!(p.query(1, 0, &vcpu(n))[1] >> 24, id);
        assert_eq!([p.query(0xb, 0, &vcpu(n))[3], p.query(0xb, 1, &vcpu(n))[3]], [id; 2]);
    }
}

#[test]
fn intel_counts_ids_and_amd_counts_cores() {
    let intel = policy(intel, 3).query(1, 0, &NOW);
    assert_eq!((intel[1] >> 16) & 0xff, 8);
    assert_ne!(intel[3] & l1_edx::HTT, 0);
    let p = policy(amd, 3);
    assert_eq!((p.query(1, 0, &NOW)[1] >> 16) & 0xff, 3);
    assert_eq!(p.query(0x8000_0008, 0, &NOW)[2], 0x3002);
    assert_ne!(p.query(0x8000_0001, 0, &NOW)[2] & e1_ecx::CMP_LEGACY, 0);
}

#[test]
fn a_single_virtual_cpu_is_a_single_core() {
    assert_eq!(policy(intel, 1).query(1, 0, &NOW)[3] & l1_edx::HTT, 0);
    assert_eq!(policy(amd, 1).query(0x8000_0001, 0, &NOW)[2] & e1_ecx::CMP_LEGACY, 0);
}

#[test]
fn what_the_guest_sets_in_cr4_shows() {
    let p = with(|o| o.xcr0 = 0x207);
    let on = Dynamic { cr4: (Cr4::OSXSAVE | Cr4::PKE).bits(), ..NOW };
    assert_eq!(p.query(1, 0, &NOW)[2] & l1_ecx::OSXSAVE, 0);
    assert_ne!(p.query(1, 0, &on)[2] & l1_ecx::OSXSAVE, 0);
    assert_eq!(p.query(7, 0, &NOW)[2] & l7_ecx::OSPKE, 0);
    assert_ne!(p.query(7, 0, &on)[2] & l7_ecx::OSPKE, 0);
}

#[test]
fn a_disabled_apic_does_not_show() {
    let off = Dynamic { apic_enabled: false, ..NOW };
    let p = policy(amd, 2);
    assert_eq!(p.query(1, 0, &off)[3] & l1_edx::APIC, 0);
    assert_eq!(p.query(0x8000_0001, 0, &off)[3] & l1_edx::APIC, 0);
    assert_ne!(p.query(0x8000_0001, 0, &NOW)[3] & l1_edx::APIC, 0);
    assert_eq!(policy(intel, 2).query(0x8000_0001, 0, &NOW)[3] & l1_edx::APIC, 0);
}

#[test]
fn intel_hides_syscall_outside_long_mode() {
    let short = Dynamic { is_long: false, ..NOW };
    assert_eq!(policy(intel, 1).query(0x8000_0001, 0, &short)[3] & e1_edx::SYSCALL, 0);
    assert_ne!(policy(intel, 1).query(0x8000_0001, 0, &NOW)[3] & e1_edx::SYSCALL, 0);
    assert_ne!(policy(amd, 1).query(0x8000_0001, 0, &short)[3] & e1_edx::SYSCALL, 0);
}

#[test]
fn pcid_goes_with_invpcid_where_the_host_has_both() {
    let without = with(|o| o.invpcid = false);
    assert!(!without.has_leaf_1_ecx(l1_ecx::PCID) && !without.has_leaf_7_ebx(l7_ebx::INVPCID));
    let both = policy(intel, 1);
    assert!(both.has_leaf_1_ecx(l1_ecx::PCID) && both.has_leaf_7_ebx(l7_ebx::INVPCID));
}

#[test]
fn rdtscp_shows_only_if_the_back_end_has_it() {
    let p = with(|o| o.rdtscp = false);
    assert!(!p.has_extended_edx(e1_edx::RDTSCP) && !p.has_leaf_7_ecx(l7_ecx::RDPID));
    assert_eq!(p.query(0x4000_0003, 0, &NOW)[0], 2);
    assert_eq!(policy(intel, 1).query(0x4000_0003, 0, &NOW)[0], 6);
}

#[test]
fn speculation_controls_show_only_if_they_are_switched() {
    assert!(!policy(intel, 1).has_leaf_7_edx(l7_edx::IBRSB));
    assert_eq!(policy(amd, 1).speculation_ebx() & E8_EBX_SPEC, 0);
    let p = with(|o| (o.spec_ctrl, o.arch_caps) = (true, true));
    assert!(p.has_leaf_7_edx(L7_EDX_SPEC | l7_edx::ARCH_CAPS));
}

#[test]
fn vector_features_follow_the_state_that_is_switched() {
    let p = policy(intel, 1);
    assert!(p.has_leaf_1_ecx(l1_ecx::AVX | l1_ecx::XSAVE) && p.has_leaf_7_ebx(l7_ebx::AVX2));
    assert_eq!(p.query(7, 0, &NOW)[1] & L7_EBX_AVX512, 0);
    assert_eq!(p.query(7, 0, &NOW)[2] & (L7_ECX_AVX512 | l7_ecx::PKU), 0);
    assert!(with(|o| o.xcr0 = 0xe7).has_leaf_7_ebx(L7_EBX_AVX512));
    let none = with(|o| o.xcr0 = 0);
    assert_eq!(none.query(1, 0, &NOW)[2] & (l1_ecx::XSAVE | l1_ecx::AVX | l1_ecx::FMA | l1_ecx::F16C), 0);
    assert_eq!(none.query(0xd, 0, &NOW), [0; 4]);
    assert_eq!(with(|o| o.xcr0 = 0x27).xcr0(), 7);
}

#[test]
fn the_save_area_grows_with_what_is_enabled() {
    let p = with(|o| o.xcr0 = 0x2ff);
    assert_eq!(p.query(0xd, 0, &NOW), [0x2e7, 576, 2696, 0]);
    let avx = Dynamic { xcr0: 7, ..NOW };
    assert_eq!(p.query(0xd, 0, &avx)[1], 832);
    assert_eq!(p.query(0xd, 1, &avx), [7, 832, 0, 0]);
    assert_eq!(p.query(0xd, 2, &NOW), [256, 576, 0, 0]);
    assert_eq!([p.query(0xd, 3, &NOW), p.query(0xd, 8, &NOW), p.query(0xd, 63, &NOW)], [[0; 4]; 3]);
}

#[test]
fn an_invariant_tsc_shows_where_the_host_has_one() {
    assert!(policy(intel, 1).has_invariant_tsc());
    assert_eq!(policy(intel, 1).query(0x8000_0007, 0, &NOW), [0, 0, 0, 0x100]);
    let without = |leaf, subleaf| if leaf == 0x8000_0007 { [0; 4] } else { intel(leaf, subleaf) };
    assert!(!policy(without, 1).has_invariant_tsc());
}

#[test]
fn amd_repeats_leaf_1_in_the_extended_leaf() {
    let p = policy(amd, 1);
    let (one, extended) = (p.query(1, 0, &NOW)[3], p.query(0x8000_0001, 0, &NOW)[3]);
    assert_eq!(one & E1_EDX_REPEATED, extended & E1_EDX_REPEATED);
    assert_eq!(p.query(0x8000_0008, 0, &NOW)[0], 0x3030);
}

#[test]
fn the_xen_leaves_are_where_guests_look() {
    assert_eq!(policy(amd, 2).query(0x4000_0000, 9, &vcpu(1))[1], 0x566e_6558);
    assert_eq!(policy(amd, 2).query(0x4000_0004, 0, &vcpu(1)), [0x18, 1, 3, 0]);
}

proptest! {
    #[test]
    fn no_host_and_no_question_panics(
        seed in any::<u64>(), leaf in any::<u32>(), low in 0u32..0x100, subleaf in any::<u32>(),
        cr4 in any::<u64>(), xcr0 in any::<u64>(), n in any::<u32>(), nr_vcpus in 1u32..=128,
    ) {
        let host = |leaf: u32, subleaf: u32| -> Leaf {
            let mix = |i: u64| (seed ^ u64::from(leaf) << 20 ^ u64::from(subleaf) ^ i << 50).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            core::array::from_fn(|i| (mix(i as u64) >> 32) as u32)
        };
        let offer = Offer { xcr0: u64::MAX, ..offer(nr_vcpus) };
        let p = CpuidPolicy::new(&host, &offer, xen());
        let now = Dynamic { vcpu: VcpuId(n), cr4, xcr0, apic_enabled: true, is_long: true };
        for leaf in [leaf, low, 0x4000_0000 + low, 0x8000_0000 + low] {
            let _ = p.query(leaf, subleaf, &now);
            let _ = p.query(leaf, subleaf % 64, &now);
        }
        prop_assert_eq!(p.query(1, 0, &now)[2] & 1 << 5, 0);
    }
}

pub(in crate::policy) fn pv_policy(host: fn(u32, u32) -> Leaf, nr_vcpus: u32) -> CpuidPolicy {
    let kind = Kind::Pv { address_bits: 40 };
    CpuidPolicy::new(&host, &Offer { kind, invpcid: false, ..offer(nr_vcpus) }, xen())
}

#[test]
fn a_pv_guest_lacks_what_ring_3_and_its_page_tables_cannot_have() {
    for host in [intel, amd] {
        let p = pv_policy(host, 4);
        let one = p.query(1, 0, &NOW);
        for bit in [3, 5, 6, 17, 21, 24, 27] {
            assert_eq!(one[2] & (1 << bit), 0, "leaf 1 ecx {bit}");
        }
        for bit in [1, 3, 12, 13, 17, 28] {
            assert_eq!(one[3] & (1 << bit), 0, "leaf 1 edx {bit}");
        }
        let seven = p.query(7, 0, &NOW);
        for bit in [0, 1, 2, 7, 10, 14, 20] {
            assert_eq!(seven[1] & (1 << bit), 0, "leaf 7 ebx {bit}");
        }
        for bit in [2, 3, 4, 7, 16] {
            assert_eq!(seven[2] & (1 << bit), 0, "leaf 7 ecx {bit}");
        }
        assert_eq!(seven[3] & L7_EDX_SPEC, 0);
        let extended = p.query(0x8000_0001, 0, &NOW);
        assert_eq!((extended[2] & (1 << 1 | 1 << 2 | 1 << 4), extended[3] & (1 << 26)), (0, 0));
        assert_eq!(p.query(0x8000_0008, 0, &NOW)[1] & (0x1ff << 14), 0);
    }
    let repeated = pv_policy(amd, 1).query(0x8000_0001, 0, &NOW)[3];
    assert_eq!(repeated & (1 << 1 | 1 << 3 | 1 << 12 | 1 << 13 | 1 << 17), 0, "what AMD repeats");
}

#[test]
fn a_pv_guest_has_what_its_programs_use() {
    let p = pv_policy(intel, 4);
    let one = p.query(1, 0, &NOW);
    for bit in [0, 1, 9, 12, 13, 19, 20, 22, 23, 25, 26, 28, 29, 30, 31] {
        assert_ne!(one[2] & (1 << bit), 0, "leaf 1 ecx {bit}");
    }
    for bit in [0, 2, 4, 5, 6, 7, 8, 9, 11, 14, 15, 16, 19, 23, 24, 25, 26] {
        assert_ne!(one[3] & (1 << bit), 0, "leaf 1 edx {bit}");
    }
    for bit in [11, 20, 27, 29] {
        assert_ne!(p.query(0x8000_0001, 0, &NOW)[3] & (1 << bit), 0, "0x80000001 edx {bit}");
    }
    assert_eq!(p.xcr0(), 7);
    assert_eq!(p.query(0xd, 0, &NOW)[0], 7);
}

#[test]
fn a_pv_guest_follows_cr4_for_osxsave_alone() {
    let p = pv_policy(intel, 1);
    let on = Dynamic { cr4: (Cr4::OSXSAVE | Cr4::PKE).bits(), ..NOW };
    assert_ne!(p.query(1, 0, &on)[2] & l1_ecx::OSXSAVE, 0);
    assert_eq!(p.query(1, 0, &NOW)[2] & l1_ecx::OSXSAVE, 0);
}

#[test]
fn a_pv_guest_has_no_room_for_protection_keys() {
    let kind = Kind::Pv { address_bits: 40 };
    let with_keys = CpuidPolicy::new(&intel, &Offer { kind, xcr0: 0x2e7, ..offer(1) }, xen());
    assert_eq!((with_keys.xcr0(), with_keys.query(0xd, 9, &NOW)), (0xe7, [0; 4]));
}

#[test]
fn each_processor_of_a_pv_guest_is_a_package() {
    for host in [intel, amd] {
        let p = pv_policy(host, 4);
        let ids: Vec<u32> = (0..4).map(|n| p.query(1, 0, &vcpu(n))[1] >> 24).collect();
        assert_eq!(ids, [0, 1, 2, 3]);
        assert_eq!(p.query(0xb, 0, &vcpu(2)), [0; 4]);
        assert_eq!(p.query(0xb, 1, &vcpu(2)), [0; 4]);
        assert_eq!(p.query(0x8000_0008, 0, &NOW)[2] & 0xff, 0);
    }
    assert_eq!(pv_policy(intel, 4).query(4, 0, &NOW)[0] >> 26, 0);
}

#[test]
fn a_pv_guest_sets_in_xcr0_and_cr4_what_its_cpuid_has() {
    let rules = crate::policy::control::ControlPolicy::new(&pv_policy(intel, 1));
    assert_eq!(rules.check_xcr0(0, 7), Ok(7));
    let guests = (Cr4::TSD | Cr4::DE | Cr4::OSXSAVE).bits();
    assert_eq!(crate::pv::privileged::write_cr4(u64::MAX, rules.cr4_allowed()) & !0x660, guests);
}
