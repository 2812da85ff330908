//! Whether a processor lets user mode read, by speculation, what supervisor pages hold (CVE-2017-5754, Meltdown), so that
//! PV guests have to run without the hypervisor's pages in their address space.
//!
//! The rule is Xen's: AMD and Hygon are not affected, any other processor is unless IA32_ARCH_CAPABILITIES says RDCL_NO.

/// The MSR that says which faults a processor has not (SDM 4 table 2-2).
pub const ARCH_CAPABILITIES: u32 = 0x10a;

/// Not affected by rogue data cache loads.
const RDCL_NO: u64 = 1 << 0;
/// Leaf 7 EDX: the processor has [`ARCH_CAPABILITIES`].
const HAS_ARCH_CAPABILITIES: u32 = 1 << 29;

const AMD: [u32; 3] = [0x6874_7541, 0x444d_4163, 0x6974_6e65];
const HYGON: [u32; 3] = [0x6f67_7948, 0x656e_6975, 0x6e65_476e];

/// Whether PV guests have to be isolated on a processor with this CPUID; `arch_capabilities` is asked where it has that MSR.
pub fn needs_isolation(cpuid: impl Fn(u32, u32) -> [u32; 4], arch_capabilities: impl FnOnce() -> Option<u64>) -> bool {
    !is_amd_or_hygon(&cpuid) && read_capabilities(&cpuid, arch_capabilities) & RDCL_NO == 0
}

/// Whether the processor is AMD's or Hygon's.
pub(super) fn is_amd_or_hygon(cpuid: impl Fn(u32, u32) -> [u32; 4]) -> bool {
    let [_, ebx, ecx, edx] = cpuid(0, 0);
    [AMD, HYGON].contains(&[ebx, ecx, edx])
}

/// [`ARCH_CAPABILITIES`], 0 where the processor has none.
pub(super) fn read_capabilities(
    cpuid: impl Fn(u32, u32) -> [u32; 4],
    arch_capabilities: impl FnOnce() -> Option<u64>,
) -> u64 {
    let has_msr = cpuid(0, 0)[0] >= 7 && cpuid(7, 0)[3] & HAS_ARCH_CAPABILITIES != 0;
    if has_msr { arch_capabilities().unwrap_or(0) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vendor(name: &str) -> [u32; 3] {
        let word = |at: usize| u32::from_le_bytes(name.as_bytes()[at..at + 4].try_into().unwrap());
        // The name is in EBX, EDX, ECX.
        [word(0), word(8), word(4)]
    }

    #[test]
    fn a_processor_is_isolated_unless_it_is_known_not_to_be_affected() {
        // Vendor, largest leaf, EDX of leaf 7, IA32_ARCH_CAPABILITIES: whether guests are isolated.
        let table = [
            ("GenuineIntel", 1, 0, None, true),
            ("GenuineIntel", 0xd, 0, Some(RDCL_NO), true), // no such MSR
            ("GenuineIntel", 0xd, HAS_ARCH_CAPABILITIES, None, true),
            ("GenuineIntel", 0xd, HAS_ARCH_CAPABILITIES, Some(0), true),
            ("GenuineIntel", 0xd, HAS_ARCH_CAPABILITIES, Some(!RDCL_NO), true),
            ("GenuineIntel", 0xd, HAS_ARCH_CAPABILITIES, Some(RDCL_NO | 0x2a), false),
            ("AuthenticAMD", 0xd, 0, None, false),
            ("HygonGenuine", 0xd, 0, None, false),
            ("CentaurHauls", 1, 0, None, true),
            ("  Shanghai  ", 0xd, HAS_ARCH_CAPABILITIES, Some(RDCL_NO), false),
        ];
        for (name, max, edx, capabilities, expected) in table {
            let [ebx, ecx, last] = vendor(name);
            let cpuid = |leaf, _| match leaf {
                0 => [max, ebx, ecx, last],
                7 => [0, 0, 0, edx],
                _ => [0; 4],
            };
            assert_eq!(needs_isolation(cpuid, || capabilities), expected, "{name} {max:#x} {edx:#x} {capabilities:x?}");
        }
    }
}
