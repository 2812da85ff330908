//! Control of the machine by the hardware domain (`xen/include/public/platform.h`).
//!
//! A call whose `interface_version` differs from [`INTERFACE_VERSION`] is `EACCES`.
#![expect(missing_docs, reason = "the fields and constants have the names of the header")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `XENPF_INTERFACE_VERSION`.
pub const INTERFACE_VERSION: u32 = 0x0300_0001;

// What a platform_op does (`cmd`).
pub const XENPF_SETTIME32: u32 = 17;
pub const XENPF_SETTIME64: u32 = 62;
pub const XENPF_ADD_MEMTYPE: u32 = 31;
pub const XENPF_DEL_MEMTYPE: u32 = 32;
pub const XENPF_READ_MEMTYPE: u32 = 33;
pub const XENPF_MICROCODE_UPDATE: u32 = 35;
pub const XENPF_PLATFORM_QUIRK: u32 = 39;
pub const XENPF_EFI_RUNTIME_CALL: u32 = 49;
pub const XENPF_FIRMWARE_INFO: u32 = 50;
pub const XENPF_ENTER_ACPI_SLEEP: u32 = 51;
pub const XENPF_CHANGE_FREQ: u32 = 52;
pub const XENPF_GETIDLETIME: u32 = 53;
pub const XENPF_SET_PROCESSOR_PMINFO: u32 = 54;
pub const XENPF_GET_CPUINFO: u32 = 55;
pub const XENPF_GET_CPU_VERSION: u32 = 48;
pub const XENPF_CPU_ONLINE: u32 = 56;
pub const XENPF_CPU_OFFLINE: u32 = 57;
pub const XENPF_CPU_HOTADD: u32 = 58;
pub const XENPF_MEM_HOTADD: u32 = 59;
pub const XENPF_CORE_PARKING: u32 = 60;
pub const XENPF_RESOURCE_OP: u32 = 61;
pub const XENPF_GET_SYMBOL: u32 = 63;

// `FirmwareInfo::kind`.
pub const XEN_FW_DISK_INFO: u32 = 1;
pub const XEN_FW_DISK_MBR_SIGNATURE: u32 = 2;
pub const XEN_FW_VBEDDC_INFO: u32 = 3;
pub const XEN_FW_EFI_INFO: u32 = 4;
pub const XEN_FW_KBD_SHIFT_FLAGS: u32 = 5;

// `EnterAcpiSleep::flags`.
pub const XENPF_ACPI_SLEEP_EXTENDED: u32 = 1;

// `PcpuInfo::flags`.
pub const XEN_PCPU_FLAGS_ONLINE: u32 = 1;
/// There is no such CPU.
pub const XEN_PCPU_FLAGS_INVALID: u32 = 2;

/// `struct xen_platform_op` up to its union, of which each command has a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PlatformOp {
    /// `XENPF_*`.
    pub cmd: u32,
    /// [`INTERFACE_VERSION`].
    pub interface_version: u32,
    pub u: [u64; 16],
}
layout!(PlatformOp: 136 { cmd @ 0, interface_version @ 4, u @ 8 });

/// `struct xenpf_settime32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Settime32 {
    pub secs: u32,
    pub nsecs: u32,
    pub system_time: u64,
}
layout!(Settime32: 16 { secs @ 0, nsecs @ 4, system_time @ 8 });

/// `struct xenpf_settime64`: the time of day at a system time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Settime64 {
    pub secs: u64,
    pub nsecs: u32,
    pub mbz: u32,
    pub system_time: u64,
}
layout!(Settime64: 24 { secs @ 0, nsecs @ 8, mbz @ 12, system_time @ 16 });

/// `struct xenpf_firmware_info` up to its union.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FirmwareInfo {
    /// `XEN_FW_*`.
    pub kind: u32,
    pub index: u32,
}
layout!(FirmwareInfo: 8 { kind @ 0, index @ 4 });

/// `struct xenpf_enter_acpi_sleep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EnterAcpiSleep {
    pub val_a: u16,
    pub val_b: u16,
    /// n of Sn.
    pub sleep_state: u32,
    pub flags: u32,
}
layout!(EnterAcpiSleep: 12 { val_a @ 0, val_b @ 2, sleep_state @ 4, flags @ 8 });

/// `struct xenpf_pcpuinfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PcpuInfo {
    pub xen_cpuid: u32,
    /// The highest number of a CPU that is there.
    pub max_present: u32,
    /// `XEN_PCPU_FLAGS_*`.
    pub flags: u32,
    pub apic_id: u32,
    pub acpi_id: u32,
}
layout!(PcpuInfo: 20 { xen_cpuid @ 0, max_present @ 4, flags @ 8, apic_id @ 12, acpi_id @ 16 });

/// `struct xenpf_pcpu_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PcpuVersion {
    pub xen_cpuid: u32,
    pub max_present: u32,
    pub vendor_id: [u8; 12],
    pub family: u32,
    pub model: u32,
    pub stepping: u32,
}
layout!(PcpuVersion: 32 { xen_cpuid @ 0, max_present @ 4, vendor_id @ 8, family @ 20, model @ 24, stepping @ 28 });
