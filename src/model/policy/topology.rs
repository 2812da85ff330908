//! One package of single-threaded cores whose APIC ids are even: virtual CPU `n` has id `2n`, as in Xen's HVM.
//!
//! CPUID leaves 1, 4, 0xb and 0x80000008 tell it here; the MADT and the local APIC must agree.

use super::cpuid::{Leaf, Vendor};

/// The APIC id of a virtual CPU.
pub(super) const fn apic_id(vcpu: u32) -> u32 {
    vcpu.wrapping_mul(2)
}

/// Bits of an APIC id that tell the package's cores and threads apart.
pub(super) fn id_bits(nr_vcpus: u32) -> u32 {
    (2 * nr_vcpus.clamp(1, 1 << 15)).next_power_of_two().trailing_zeros()
}

/// Leaf 1, EBX bits 23:16: Intel counts the APIC ids that the package could have, AMD its cores.
pub(super) fn logical_count(vendor: Vendor, nr_vcpus: u32) -> u32 {
    match vendor {
        Vendor::Intel => (1 << id_bits(nr_vcpus)).min(255),
        Vendor::Amd => nr_vcpus.min(255),
    }
}

/// One cache in leaf 4: the highest level is shared by all, the others belong to a core, which has two ids.
pub(super) fn cache(host: Leaf, nr_vcpus: u32) -> Leaf {
    const TYPE: u32 = 0x1f;
    if host[0] & TYPE == 0 {
        return [0; 4];
    }
    let is_shared = (host[0] >> 5) & 7 >= 3;
    let last_sharing_id = if is_shared { (1 << id_bits(nr_vcpus)) - 1 } else { 1 };
    let last_core = ((1u32 << id_bits(nr_vcpus)) / 2 - 1).min(63);
    let eax = (host[0] & 0x3fff) | (last_sharing_id.min(0xfff) << 14) | (last_core << 26);
    [eax, host[1], host[2], host[3]]
}

/// Leaf 0xb: subleaf 0 is threads, subleaf 1 cores; EDX, the virtual CPU's id, is for the caller to fill in.
pub(super) fn extended(subleaf: u32, nr_vcpus: u32) -> Leaf {
    const THREADS: u32 = 1 << 8;
    const CORES: u32 = 2 << 8;
    let level = subleaf & 0xff;
    match subleaf {
        0 => [1, 1, THREADS | level, 0],
        1 => [id_bits(nr_vcpus), nr_vcpus, CORES | level, 0],
        _ => [0, 0, level, 0],
    }
}

/// Leaf 0x80000008, ECX: cores less one, and the bits of an APIC id. AMD only.
pub(super) fn core_count(nr_vcpus: u32) -> u32 {
    (id_bits(nr_vcpus) << 12) | (nr_vcpus.clamp(1, 256) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_all_virtual_cpus_fit_into_the_bits_told() {
        for nr in 1..=128 {
            let bits = id_bits(nr);
            assert!(apic_id(nr - 1) < 1 << bits, "{nr}");
            assert_eq!(extended(1, nr)[0], bits);
            assert_eq!(core_count(nr) >> 12, bits);
            assert!(logical_count(Vendor::Intel, nr) >= (1 << bits).min(255));
        }
    }

    #[test]
    fn a_thread_shift_of_one_leaves_each_core_a_single_thread() {
        assert_eq!(extended(0, 4), [1, 1, 0x100, 0]);
        assert_eq!(extended(1, 4), [3, 4, 0x201, 0]);
        assert_eq!(extended(7, 4), [0, 0, 7, 0]);
    }

    #[test]
    fn only_the_last_level_cache_is_shared() {
        let l1 = cache([0x1c00_4121, 1, 2, 3], 4);
        assert_eq!((l1[0] >> 14) & 0xfff, 1);
        assert_eq!(l1[0] >> 26, 3);
        assert_eq!((cache([0x1c03_c163, 1, 2, 3], 4)[0] >> 14) & 0xfff, 7);
        assert_eq!(cache([0, 1, 2, 3], 4), [0; 4]);
        assert_eq!(&l1[1..], [1, 2, 3]);
    }
}
