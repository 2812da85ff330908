//! Control of the machine by the hardware domain: the numbers (`xen/include/public/platform.h`).
//!
//! A call whose `interface_version` differs from [`INTERFACE_VERSION`] is `EACCES`.
#![expect(missing_docs, reason = "the constants have the names of the header")]

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
