//! System control: the numbers (`xen/include/public/sysctl.h`).
//!
//! A call whose `interface_version` differs from [`INTERFACE_VERSION`] is `EACCES`.
#![expect(missing_docs, reason = "the constants have the names of the header")]

/// `XEN_SYSCTL_INTERFACE_VERSION` of Xen 4.17.
pub const INTERFACE_VERSION: u32 = 0x15;

// What a sysctl does (`cmd`).
pub const XEN_SYSCTL_READCONSOLE: u32 = 1;
pub const XEN_SYSCTL_TBUF_OP: u32 = 2;
pub const XEN_SYSCTL_PHYSINFO: u32 = 3;
pub const XEN_SYSCTL_SCHED_ID: u32 = 4;
pub const XEN_SYSCTL_PERFC_OP: u32 = 5;
pub const XEN_SYSCTL_GETDOMAININFOLIST: u32 = 6;
pub const XEN_SYSCTL_DEBUG_KEYS: u32 = 7;
pub const XEN_SYSCTL_GETCPUINFO: u32 = 8;
pub const XEN_SYSCTL_AVAILHEAP: u32 = 9;
pub const XEN_SYSCTL_GET_PMSTAT: u32 = 10;
pub const XEN_SYSCTL_CPU_HOTPLUG: u32 = 11;
pub const XEN_SYSCTL_PM_OP: u32 = 12;
pub const XEN_SYSCTL_PAGE_OFFLINE_OP: u32 = 14;
pub const XEN_SYSCTL_LOCKPROF_OP: u32 = 15;
pub const XEN_SYSCTL_CPUTOPOINFO: u32 = 16;
pub const XEN_SYSCTL_NUMAINFO: u32 = 17;
pub const XEN_SYSCTL_CPUPOOL_OP: u32 = 18;
pub const XEN_SYSCTL_SCHEDULER_OP: u32 = 19;
pub const XEN_SYSCTL_COVERAGE_OP: u32 = 20;
pub const XEN_SYSCTL_PSR_CMT_OP: u32 = 21;
pub const XEN_SYSCTL_PCITOPOINFO: u32 = 22;
pub const XEN_SYSCTL_PSR_ALLOC: u32 = 23;
pub const XEN_SYSCTL_GET_CPU_LEVELLING_CAPS: u32 = 25;
pub const XEN_SYSCTL_GET_CPU_FEATURESET: u32 = 26;
pub const XEN_SYSCTL_LIVEPATCH_OP: u32 = 27;
pub const XEN_SYSCTL_GET_CPU_POLICY: u32 = 29;
