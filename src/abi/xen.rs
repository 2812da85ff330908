//! The core of the interface (`xen/include/public/xen.h`, `arch-x86/xen.h`, `arch-x86/xen-x86_64.h`).
//!
//! Domain ids, virtual interrupts, the shared page, the time record and multicalls. Hypercall numbers are in
//! [`crate::nr`].
#![expect(missing_docs, reason = "the fields and constants have the names of the header")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

// Domain ids that are no domain of their own.
pub const DOMID_FIRST_RESERVED: u16 = 0x7ff0;
/// The caller.
pub const DOMID_SELF: u16 = 0x7ff0;
pub const DOMID_IO: u16 = 0x7ff1;
pub const DOMID_XEN: u16 = 0x7ff2;
pub const DOMID_COW: u16 = 0x7ff3;
pub const DOMID_INVALID: u16 = 0x7ff4;
pub const DOMID_IDLE: u16 = 0x7fff;

// Virtual interrupts.
pub const VIRQ_TIMER: u32 = 0;
pub const VIRQ_DEBUG: u32 = 1;
pub const VIRQ_CONSOLE: u32 = 2;
pub const VIRQ_DOM_EXC: u32 = 3;
pub const VIRQ_TBUF: u32 = 4;
pub const VIRQ_DEBUGGER: u32 = 6;
pub const VIRQ_XENOPROF: u32 = 7;
pub const VIRQ_CON_RING: u32 = 8;
pub const VIRQ_PCPU_STATE: u32 = 9;
pub const VIRQ_MEM_EVENT: u32 = 10;
pub const VIRQ_ARGO: u32 = 11;
pub const VIRQ_ENOMEM: u32 = 12;
pub const VIRQ_XENPMU: u32 = 13;
pub const VIRQ_ARCH_0: u32 = 16;
pub const NR_VIRQS: u32 = 24;

// console_io.
pub const CONSOLEIO_WRITE: u32 = 0;
pub const CONSOLEIO_READ: u32 = 1;

// vm_assist.
pub const VMASST_CMD_ENABLE: u32 = 0;
pub const VMASST_CMD_DISABLE: u32 = 1;
pub const VMASST_TYPE_4GB_SEGMENTS: u32 = 0;
pub const VMASST_TYPE_4GB_SEGMENTS_NOTIFY: u32 = 1;
pub const VMASST_TYPE_WRITABLE_PAGETABLES: u32 = 2;
pub const VMASST_TYPE_PAE_EXTENDED_CR3: u32 = 3;
pub const VMASST_TYPE_ARCHITECTURAL_IOPL: u32 = 4;
pub const VMASST_TYPE_RUNSTATE_UPDATE_FLAG: u32 = 5;
pub const VMASST_TYPE_M2P_STRICT: u32 = 32;

// mmu_update: bits 1:0 of `MmuUpdate::ptr`.
pub const MMU_NORMAL_PT_UPDATE: u64 = 0;
pub const MMU_MACHPHYS_UPDATE: u64 = 1;
pub const MMU_PT_UPDATE_PRESERVE_AD: u64 = 2;
pub const MMU_PT_UPDATE_NO_TRANSLATE: u64 = 3;

// update_va_mapping: what to flush, and on which virtual CPUs; any other value beside the type is the address of a
// bitmap of virtual CPUs.
pub const UVMF_NONE: u64 = 0;
pub const UVMF_TLB_FLUSH: u64 = 1;
pub const UVMF_INVLPG: u64 = 2;
pub const UVMF_FLUSHTYPE_MASK: u64 = 3;
pub const UVMF_LOCAL: u64 = 0;
pub const UVMF_ALL: u64 = 4;

// mmuext_op.
pub const MMUEXT_PIN_L1_TABLE: u32 = 0;
pub const MMUEXT_PIN_L2_TABLE: u32 = 1;
pub const MMUEXT_PIN_L3_TABLE: u32 = 2;
pub const MMUEXT_PIN_L4_TABLE: u32 = 3;
pub const MMUEXT_UNPIN_TABLE: u32 = 4;
pub const MMUEXT_NEW_BASEPTR: u32 = 5;
pub const MMUEXT_TLB_FLUSH_LOCAL: u32 = 6;
pub const MMUEXT_INVLPG_LOCAL: u32 = 7;
pub const MMUEXT_TLB_FLUSH_MULTI: u32 = 8;
pub const MMUEXT_INVLPG_MULTI: u32 = 9;
pub const MMUEXT_TLB_FLUSH_ALL: u32 = 10;
pub const MMUEXT_INVLPG_ALL: u32 = 11;
pub const MMUEXT_FLUSH_CACHE: u32 = 12;
pub const MMUEXT_SET_LDT: u32 = 13;
pub const MMUEXT_NEW_USER_BASEPTR: u32 = 15;
pub const MMUEXT_CLEAR_PAGE: u32 = 16;
pub const MMUEXT_COPY_PAGE: u32 = 17;
pub const MMUEXT_FLUSH_CACHE_GLOBAL: u32 = 18;
pub const MMUEXT_MARK_SUPER: u32 = 19;
pub const MMUEXT_UNMARK_SUPER: u32 = 20;

// Start-info flags.
pub const SIF_PRIVILEGED: u32 = 1 << 0;
pub const SIF_INITDOMAIN: u32 = 1 << 1;
pub const SIF_MULTIBOOT_MOD: u32 = 1 << 2;
pub const SIF_MOD_START_PFN: u32 = 1 << 3;
pub const SIF_VIRT_P2M_4TOOLS: u32 = 1 << 4;

/// Virtual CPUs that have their `vcpu_info` in the shared page.
pub const XEN_LEGACY_MAX_VCPUS: u32 = 32;

/// Debug console port: each byte written goes to the hypervisor's log.
pub const XEN_HVM_DEBUGCONS_IOPORT: u16 = 0xe9;

/// `struct mmuext_op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MmuextOp {
    /// `MMUEXT_*`.
    pub cmd: u32,
    pub pad: u32,
    /// A frame number or a linear address.
    pub arg1: u64,
    /// A count in bits 31:0, a guest virtual address, or a frame number.
    pub arg2: u64,
}
layout!(MmuextOp: 24 { cmd @ 0, arg1 @ 8, arg2 @ 16 });

/// `struct mmu_update`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MmuUpdate {
    /// Machine address of the entry; bits 1:0 say what to do with it.
    pub ptr: u64,
    pub val: u64,
}
layout!(MmuUpdate: 16 { ptr @ 0, val @ 8 });

/// `struct multicall_entry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MulticallEntry {
    /// `nr::*`.
    pub op: u64,
    /// Filled.
    pub result: u64,
    pub args: [u64; 6],
}
layout!(MulticallEntry: 64 { op @ 0, result @ 8, args @ 16 });

/// `struct vcpu_time_info`: system time as a function of the TSC.
///
/// time = `system_time` + ((tsc - `tsc_timestamp`) shifted left by `tsc_shift`, or right by its negative) *
/// `tsc_to_system_mul` >> 32, in nanoseconds. `version` is odd while the record is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VcpuTimeInfo {
    pub version: u32,
    pub pad0: u32,
    pub tsc_timestamp: u64,
    /// Nanoseconds at `tsc_timestamp`.
    pub system_time: u64,
    pub tsc_to_system_mul: u32,
    pub tsc_shift: i8,
    /// `XEN_PVCLOCK_*`.
    pub flags: u8,
    pub pad1: [u8; 2],
}
layout!(VcpuTimeInfo: 32 {
    version @ 0, pad0 @ 4, tsc_timestamp @ 8, system_time @ 16, tsc_to_system_mul @ 24, tsc_shift @ 28, flags @ 29,
    pad1 @ 30,
});

// `VcpuTimeInfo::flags`.
pub const XEN_PVCLOCK_TSC_STABLE_BIT: u8 = 1 << 0;
pub const XEN_PVCLOCK_GUEST_STOPPED: u8 = 1 << 1;

/// `struct arch_vcpu_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ArchVcpuInfo {
    /// PV: the address of the last page fault.
    pub cr2: u64,
    pub pad: u64,
}
layout!(ArchVcpuInfo: 16 { cr2 @ 0, pad @ 8 });

/// `struct vcpu_info`: what a virtual CPU shares with the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VcpuInfo {
    /// Not zero: an event is pending.
    pub evtchn_upcall_pending: u8,
    /// PV: not zero holds upcalls back.
    pub evtchn_upcall_mask: u8,
    pub pad: [u8; 6],
    /// A bit for each word of `evtchn_pending` that has news.
    pub evtchn_pending_sel: u64,
    pub arch: ArchVcpuInfo,
    pub time: VcpuTimeInfo,
}
layout!(VcpuInfo: 64 { evtchn_upcall_pending @ 0, evtchn_upcall_mask @ 1, evtchn_pending_sel @ 8, arch @ 16, time @ 32 });

/// `struct arch_shared_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ArchSharedInfo {
    pub max_pfn: u64,
    pub pfn_to_mfn_frame_list_list: u64,
    pub nmi_reason: u64,
    pub p2m_cr3: u64,
    pub p2m_vaddr: u64,
    pub p2m_generation: u64,
}
layout!(ArchSharedInfo: 48 {
    max_pfn @ 0, pfn_to_mfn_frame_list_list @ 8, nmi_reason @ 16, p2m_cr3 @ 24, p2m_vaddr @ 32, p2m_generation @ 40,
});

/// `struct shared_info`: what a domain shares with the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SharedInfo {
    pub vcpu_info: [VcpuInfo; 32],
    /// A bit for each port that is pending.
    pub evtchn_pending: [u64; 64],
    /// A bit for each port that does not wake anyone.
    pub evtchn_mask: [u64; 64],
    /// Odd while the wall clock is being written.
    pub wc_version: u32,
    /// Wall clock at system time zero: seconds since 1970, low word.
    pub wc_sec: u32,
    /// And nanoseconds.
    pub wc_nsec: u32,
    pub wc_sec_hi: u32,
    pub arch: ArchSharedInfo,
}
layout!(SharedInfo: 3136 {
    vcpu_info @ 0, evtchn_pending @ 2048, evtchn_mask @ 2560, wc_version @ 3072, wc_sec @ 3076, wc_nsec @ 3080,
    wc_sec_hi @ 3084, arch @ 3088,
});

/// `struct xenctl_bitmap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct XenctlBitmap {
    /// Guest virtual address.
    pub bitmap: u64,
    pub nr_bits: u32,
    pub pad: u32,
}
layout!(XenctlBitmap: 16 { bitmap @ 0, nr_bits @ 8 });
