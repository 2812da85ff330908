//! What a PVH guest finds at its start (`xen/include/public/arch-x86/hvm/start_info.h`).
//!
//! EBX holds the guest-physical address of a [`HvmStartInfo`]. All addresses are guest-physical, in bytes.
#![expect(missing_docs, reason = "the fields and constants have the names of the header")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `XEN_HVM_START_MAGIC_VALUE`: "xEn3" with bit 7 of the "E" set.
pub const MAGIC: u32 = 0x336e_c578;

/// `struct hvm_start_info`, version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HvmStartInfo {
    /// [`MAGIC`].
    pub magic: u32,
    /// 1: the memory map is there.
    pub version: u32,
    /// `xen::SIF_*`.
    pub flags: u32,
    pub nr_modules: u32,
    /// Of `nr_modules` [`ModlistEntry`] records.
    pub modlist_paddr: u64,
    /// Of a NUL-terminated text, or zero.
    pub cmdline_paddr: u64,
    pub rsdp_paddr: u64,
    /// Of `memmap_entries` [`MemmapTableEntry`] records.
    pub memmap_paddr: u64,
    pub memmap_entries: u32,
    pub reserved: u32,
}
layout!(HvmStartInfo: 56 {
    magic @ 0, version @ 4, flags @ 8, nr_modules @ 12, modlist_paddr @ 16, cmdline_paddr @ 24, rsdp_paddr @ 32,
    memmap_paddr @ 40, memmap_entries @ 48, reserved @ 52,
});

/// `struct hvm_modlist_entry`: one module, the initial RAM disk first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ModlistEntry {
    pub paddr: u64,
    /// Bytes.
    pub size: u64,
    pub cmdline_paddr: u64,
    pub reserved: u64,
}
layout!(ModlistEntry: 32 { paddr @ 0, size @ 8, cmdline_paddr @ 16, reserved @ 24 });

/// `struct hvm_memmap_table_entry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemmapTableEntry {
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// `XEN_HVM_MEMMAP_TYPE_*`.
    pub kind: u32,
    pub reserved: u32,
}
layout!(MemmapTableEntry: 24 { addr @ 0, size @ 8, kind @ 16, reserved @ 20 });

// `MemmapTableEntry::kind`.
pub const XEN_HVM_MEMMAP_TYPE_RAM: u32 = 1;
pub const XEN_HVM_MEMMAP_TYPE_RESERVED: u32 = 2;
pub const XEN_HVM_MEMMAP_TYPE_ACPI: u32 = 3;
pub const XEN_HVM_MEMMAP_TYPE_NVS: u32 = 4;
pub const XEN_HVM_MEMMAP_TYPE_UNUSABLE: u32 = 5;
pub const XEN_HVM_MEMMAP_TYPE_DISABLED: u32 = 6;
pub const XEN_HVM_MEMMAP_TYPE_PMEM: u32 = 7;
