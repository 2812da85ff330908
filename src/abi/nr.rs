//! Hypercall numbers (`xen/include/public/xen.h`, `__HYPERVISOR_*`).
//!
//! A 64-bit caller puts the number into RAX and up to six arguments into RDI, RSI, RDX, R10, R8 and R9; the
//! result comes back in RAX, a negative [`crate::Errno`] on failure. A number not listed is `ENOSYS`.
#![expect(missing_docs, reason = "the constants have the names of the header")]

pub const SET_TRAP_TABLE: u64 = 0;
pub const MMU_UPDATE: u64 = 1;
pub const SET_GDT: u64 = 2;
pub const STACK_SWITCH: u64 = 3;
pub const SET_CALLBACKS: u64 = 4;
pub const FPU_TASKSWITCH: u64 = 5;
pub const SCHED_OP_COMPAT: u64 = 6;
pub const PLATFORM_OP: u64 = 7;
pub const SET_DEBUGREG: u64 = 8;
pub const GET_DEBUGREG: u64 = 9;
pub const UPDATE_DESCRIPTOR: u64 = 10;
pub const MEMORY_OP: u64 = 12;
pub const MULTICALL: u64 = 13;
pub const UPDATE_VA_MAPPING: u64 = 14;
pub const SET_TIMER_OP: u64 = 15;
pub const EVENT_CHANNEL_OP_COMPAT: u64 = 16;
pub const XEN_VERSION: u64 = 17;
pub const CONSOLE_IO: u64 = 18;
pub const PHYSDEV_OP_COMPAT: u64 = 19;
pub const GRANT_TABLE_OP: u64 = 20;
pub const VM_ASSIST: u64 = 21;
pub const UPDATE_VA_MAPPING_OTHERDOMAIN: u64 = 22;
pub const IRET: u64 = 23;
pub const VCPU_OP: u64 = 24;
pub const SET_SEGMENT_BASE: u64 = 25;
pub const MMUEXT_OP: u64 = 26;
pub const XSM_OP: u64 = 27;
pub const NMI_OP: u64 = 28;
pub const SCHED_OP: u64 = 29;
pub const CALLBACK_OP: u64 = 30;
pub const XENOPROF_OP: u64 = 31;
pub const EVENT_CHANNEL_OP: u64 = 32;
pub const PHYSDEV_OP: u64 = 33;
pub const HVM_OP: u64 = 34;
pub const SYSCTL: u64 = 35;
pub const DOMCTL: u64 = 36;
pub const KEXEC_OP: u64 = 37;
pub const TMEM_OP: u64 = 38;
pub const ARGO_OP: u64 = 39;
pub const XENPMU_OP: u64 = 40;
pub const DM_OP: u64 = 41;
pub const HYPFS_OP: u64 = 42;

/// x86: machine checks (`arch-x86/xen-mca.h`).
pub const MCA: u64 = 48;
/// x86: continuation of a paging domctl, for the hypervisor itself.
pub const PAGING_DOMCTL_CONT: u64 = 49;

pub const ARCH_0: u64 = 48;
pub const ARCH_1: u64 = 49;
pub const ARCH_2: u64 = 50;
pub const ARCH_3: u64 = 51;
pub const ARCH_4: u64 = 52;
pub const ARCH_5: u64 = 53;
pub const ARCH_6: u64 = 54;
pub const ARCH_7: u64 = 55;

/// One more than the highest number (`NR_hypercalls` is 64 in Xen; 56 and up are unused).
pub const COUNT: usize = 56;
