//! The leaves by which a guest knows that it runs on Xen's interface (`xen/include/public/arch-x86/cpuid.h`).

use super::cpuid::{Kind, Leaf};
use crate::ids::DomId;
use abi::cpuid as x;

/// The version of Xen whose interface is spoken.
pub const XEN_VERSION: u32 = 4 << 16 | 17;

/// What the Xen leaves tell of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XenLeaves {
    /// The domain's own number.
    pub domain: DomId,
    /// The rate of the guest's TSC, which is the host's, in kHz.
    pub tsc_khz: u32,
    /// What is added to the host's TSC.
    pub tsc_offset: u64,
    /// `vcpu_time_info`'s multiplier.
    pub tsc_mul: u32,
    /// `vcpu_time_info`'s shift.
    pub tsc_shift: i8,
    /// The TSC is invariant and the same on all CPUs.
    pub tsc_is_reliable: bool,
    /// The guest may use RDTSCP.
    pub has_rdtscp: bool,
    /// The processor virtualizes accesses to APIC registers.
    pub apic_access_virt: bool,
    /// The processor virtualizes accesses to x2APIC registers.
    pub x2apic_virt: bool,
    /// `HVMOP_set_evtchn_upcall_vector` works.
    pub upcall_vector: bool,
}

impl XenLeaves {
    /// Whether a leaf is one of these, present or not.
    pub(super) const fn has(leaf: u32) -> bool {
        leaf >= x::XEN_CPUID_FIRST_LEAF && leaf < x::XEN_CPUID_FIRST_LEAF + 0x100
    }

    /// What the leaf tells virtual CPU `vcpu` of a domain of this kind.
    pub(super) fn query(&self, leaf: u32, subleaf: u32, vcpu: u32, kind: Kind) -> Leaf {
        match (leaf - x::XEN_CPUID_FIRST_LEAF, subleaf) {
            (0, _) => [
                x::XEN_CPUID_FIRST_LEAF + x::XEN_CPUID_MAX_NUM_LEAVES,
                x::XEN_CPUID_SIGNATURE_EBX,
                x::XEN_CPUID_SIGNATURE_ECX,
                x::XEN_CPUID_SIGNATURE_EDX,
            ],
            (1, _) => [XEN_VERSION, 0, 0, 0],
            (2, _) if kind == Kind::Hvm => [1, x::MSR_HYPERCALL, 0, 0],
            (2, _) => [1, x::MSR_HYPERCALL, x::XEN_CPUID_FEAT1_MMU_PT_UPDATE_PRESERVE_AD, 0],
            (3, 0) => [self.tsc_flags(), 0, self.tsc_khz, 0],
            (3, 1) => {
                let shift = i32::from(self.tsc_shift).cast_unsigned();
                [self.tsc_offset as u32, (self.tsc_offset >> 32) as u32, self.tsc_mul, shift]
            }
            (3, 2) => [self.tsc_khz, 0, 0, 0],
            (4, 0) if kind == Kind::Hvm => [self.hvm_flags(), vcpu, u32::from(self.domain.0), 0],
            (5, 0) => match kind {
                Kind::Pv { address_bits } => [0, u32::from(address_bits), 0, 0],
                Kind::Hvm => [0; 4],
            },
            _ => [0; 4],
        }
    }

    fn tsc_flags(&self) -> u32 {
        flags(&[(self.tsc_is_reliable, x::TSC_HOST_RELIABLE), (self.has_rdtscp, x::TSC_RDTSCP)])
    }

    fn hvm_flags(&self) -> u32 {
        x::XEN_HVM_CPUID_VCPU_ID_PRESENT
            | x::XEN_HVM_CPUID_DOMID_PRESENT
            | flags(&[
                (self.apic_access_virt, x::XEN_HVM_CPUID_APIC_ACCESS_VIRT),
                (self.x2apic_virt, x::XEN_HVM_CPUID_X2APIC_VIRT),
                (self.upcall_vector, x::XEN_HVM_CPUID_UPCALL_VECTOR),
            ])
    }
}

fn flags(list: &[(bool, u32)]) -> u32 {
    list.iter().filter(|flag| flag.0).fold(0, |bits, flag| bits | flag.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u32 = 0x4000_0000;

    fn leaves() -> XenLeaves {
        XenLeaves {
            domain: DomId(7),
            tsc_khz: 2_400_000,
            tsc_offset: 0x1_0000_0002,
            tsc_mul: 0x8000_0000,
            tsc_shift: -1,
            tsc_is_reliable: true,
            has_rdtscp: false,
            apic_access_virt: false,
            x2apic_virt: false,
            upcall_vector: false,
        }
    }

    #[test]
    fn the_signature_spells_xen() {
        let leaf = leaves().query(BASE, 0, 0, Kind::Hvm);
        let text: Vec<u8> = leaf[1..].iter().flat_map(|r| r.to_le_bytes()).collect();
        assert_eq!(text, b"XenVMMXenVMM");
        assert_eq!(leaf[0], BASE + 5);
    }

    #[test]
    fn the_version_is_4_17_and_the_hypercall_page_has_its_msr() {
        assert_eq!(leaves().query(BASE + 1, 0, 0, Kind::Hvm), [0x0004_0011, 0, 0, 0]);
        assert_eq!(leaves().query(BASE + 2, 0, 0, Kind::Hvm), [1, 0x4000_0000, 0, 0]);
    }

    #[test]
    fn the_time_leaves_tell_rate_offset_and_scale() {
        assert_eq!(leaves().query(BASE + 3, 0, 0, Kind::Hvm), [2, 0, 2_400_000, 0]);
        assert_eq!(leaves().query(BASE + 3, 1, 0, Kind::Hvm), [2, 1, 0x8000_0000, 0xffff_ffff]);
        assert_eq!(leaves().query(BASE + 3, 2, 0, Kind::Hvm), [2_400_000, 0, 0, 0]);
        assert_eq!(leaves().query(BASE + 3, 3, 0, Kind::Hvm), [0; 4]);
    }

    #[test]
    fn each_virtual_cpu_finds_its_number_and_its_domain() {
        assert_eq!(leaves().query(BASE + 4, 0, 3, Kind::Hvm), [0x18, 3, 7, 0]);
        let with_vector = XenLeaves { upcall_vector: true, ..leaves() };
        assert_eq!(with_vector.query(BASE + 4, 0, 3, Kind::Hvm)[0], 0x58);
    }

    #[test]
    fn a_pv_domain_is_told_the_width_of_machine_addresses_and_nothing_of_hvm() {
        let pv = Kind::Pv { address_bits: 39 };
        assert_eq!(leaves().query(BASE, 0, 0, pv), leaves().query(BASE, 0, 0, Kind::Hvm));
        assert_eq!(leaves().query(BASE + 2, 0, 0, pv), [1, 0x4000_0000, 1, 0]);
        assert_eq!(leaves().query(BASE + 3, 2, 0, pv), [2_400_000, 0, 0, 0]);
        assert_eq!(leaves().query(BASE + 4, 0, 3, pv), [0; 4]);
        assert_eq!(leaves().query(BASE + 5, 0, 3, pv), [0, 39, 0, 0]);
    }

    #[test]
    fn the_range_is_one_block_of_256() {
        assert!(XenLeaves::has(BASE + 0xff) && !XenLeaves::has(BASE + 0x100) && !XenLeaves::has(BASE - 1));
        assert_eq!(leaves().query(BASE + 5, 0, 0, Kind::Hvm), [0; 4]);
    }
}
