//! What the running processor offers, and turning on what protects the hypervisor.

use core::sync::atomic::{AtomicBool, Ordering};

use model::policy::isolation::ARCH_CAPABILITIES;
use raw_cpuid::{CpuId, CpuIdReaderNative};
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};

use super::msr;
use model::policy::PV_PAT;

/// The page attribute table (SDM 3A 11.12).
const PAT: u32 = 0x277;

/// CPUID of the running processor.
pub fn cpuid() -> CpuId<CpuIdReaderNative> {
    CpuId::new()
}

/// One leaf of CPUID: EAX, EBX, ECX, EDX.
pub fn leaf(leaf: u32, subleaf: u32) -> [u32; 4] {
    let result = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [result.eax, result.ebx, result.ecx, result.edx]
}

/// Whether the direct map may use pages of 1 GiB.
pub fn has_1g_pages() -> bool {
    leaf(0x8000_0000, 0)[0] >= 0x8000_0001 && leaf(0x8000_0001, 0)[3] & 1 << 26 != 0
}

/// Whether the processor has XSAVE.
pub fn has_xsave() -> bool {
    leaf(1, 0)[2] & 1 << 26 != 0
}

/// EBX of leaf 7, or none.
fn extended() -> u32 {
    if leaf(0, 0)[0] >= 7 { leaf(7, 0)[1] } else { 0 }
}

/// Whether the processor has SMAP.
pub fn has_smap() -> bool {
    extended() & 1 << 20 != 0
}

/// Whether the processor has RDFSBASE and its like.
pub fn has_fsgsbase() -> bool {
    extended() & 1 << 0 != 0
}

/// Whether the processor has RDTSCP, and TSC_AUX with it.
pub fn has_rdtscp() -> bool {
    leaf(0x8000_0000, 0)[0] >= 0x8000_0001 && leaf(0x8000_0001, 0)[3] & 1 << 27 != 0
}

/// IA32_ARCH_CAPABILITIES, where the processor has it.
pub fn arch_capabilities() -> Option<u64> {
    super::msr::read_checked(ARCH_CAPABILITIES)
}

/// Whether the hypervisor's pages are global.
static HAS_GLOBAL_PAGES: AtomicBool = AtomicBool::new(false);

/// Lets the hypervisor's translations outlive changes of CR3, on this CPU and those that start later: where no guest is
/// isolated from them.
pub fn use_global_pages() {
    HAS_GLOBAL_PAGES.store(true, Ordering::Relaxed);
    // SAFETY: global entries are the hypervisor's own, the same in every address space.
    unsafe { Cr4::update(|cr4| cr4.insert(Cr4Flags::PAGE_GLOBAL)) };
}

/// Sets this CPU's control registers: write protection, NX, global pages where they are used, SMEP and SMAP where there are any, XSAVE, and the
/// memory types that PV guests expect.
pub fn protect() {
    let extended = extended();
    let mut cr4 = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION
        | Cr4Flags::MACHINE_CHECK_EXCEPTION
        | Cr4Flags::OSFXSR
        | Cr4Flags::OSXMMEXCPT_ENABLE;
    if extended & 1 << 7 != 0 {
        cr4 |= Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION;
    }
    if extended & 1 << 20 != 0 {
        cr4 |= Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION;
    }
    if HAS_GLOBAL_PAGES.load(Ordering::Relaxed) {
        cr4 |= Cr4Flags::PAGE_GLOBAL;
    }
    if has_xsave() {
        cr4 |= Cr4Flags::OSXSAVE;
    }
    // SAFETY: the hypervisor's own tables are loaded, have no user page, and stay valid under these bits; it
    // executes no floating-point instruction but to switch a guest's state.
    unsafe {
        Cr4::write(cr4);
        Cr0::write(
            Cr0Flags::PROTECTED_MODE_ENABLE
                | Cr0Flags::MONITOR_COPROCESSOR
                | Cr0Flags::EXTENSION_TYPE
                | Cr0Flags::NUMERIC_ERROR
                | Cr0Flags::WRITE_PROTECT
                | Cr0Flags::PAGING,
        );
        Efer::update(|efer| efer.insert(EferFlags::NO_EXECUTE_ENABLE | EferFlags::SYSTEM_CALL_EXTENSIONS));
    }
    // SAFETY: every processor with long mode has the register; its first four entries, all that the hypervisor's own
    // mappings use, are as after reset.
    unsafe { msr::write(PAT, PV_PAT) };
}
