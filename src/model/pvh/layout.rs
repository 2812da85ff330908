//! What lies where in a PVH guest's physical address space, as Xen's toolstack lays it out.
//!
//! ```text
//! 0            RAM, as much as there is up to ACPI_BASE
//! 0xfc000000   ACPI tables
//! 0xfee00000   local APIC
//! 0xfeff8000   special pages: xenstore, console; the rest is not populated
//! 4 GiB        the RAM that did not fit below
//! ```
//!
//! Only the RAM, the ACPI tables and the special pages are in the memory map. The frames of ACPI and of the
//! special pages come on top of the guest's RAM.

use super::acpi;
use crate::addr::{Gfn, GuestPhys, PAGE_SIZE};
use alloc::vec::Vec;

/// Where the ACPI tables begin and RAM below 4 GiB ends at the latest.
pub const ACPI_BASE: GuestPhys = GuestPhys::new(0xfc00_0000);
/// The local APIC's page.
pub const LOCAL_APIC: GuestPhys = GuestPhys::new(0xfee0_0000);
/// The page of the xenstore ring (`HVM_PARAM_STORE_PFN`).
pub const STORE: Gfn = Gfn::new(SpecialPages::FIRST.raw() + 4);
/// The page of the console ring (`HVM_PARAM_CONSOLE_PFN`).
pub const CONSOLE: Gfn = Gfn::new(SpecialPages::FIRST.raw() + 7);

const FOUR_GIB: u64 = 1 << 32;

/// The pages that guest and toolstack share, below 0xff000000.
#[derive(Clone, Copy, Debug)]
pub struct SpecialPages;

impl SpecialPages {
    /// The first of them.
    pub const FIRST: Gfn = Gfn::new(0xf_eff8);
    /// How many there are.
    pub const COUNT: u64 = 8;
}

/// Types of a memory-map entry: `XEN_HVM_MEMMAP_TYPE_*`.
pub mod map_type {
    /// Usable memory.
    pub const RAM: u32 = 1;
    /// Not to be touched.
    pub const RESERVED: u32 = 2;
    /// ACPI tables, usable once they are read.
    pub const ACPI: u32 = 3;
}

/// Contiguous frames of guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamRange {
    /// First frame.
    pub first: Gfn,
    /// Number of frames.
    pub nr_frames: u64,
}

/// One entry of the memory map: `struct hvm_memmap_table_entry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// First byte.
    pub addr: GuestPhys,
    /// Length in bytes.
    pub size: u64,
    /// One of [`map_type`].
    pub kind: u32,
}

/// The layout for one guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of RAM from address 0; a multiple of the page size, at most [`ACPI_BASE`].
    low: u64,
    /// Bytes of RAM from 4 GiB; a multiple of the page size.
    high: u64,
    /// Frames of ACPI tables.
    acpi_frames: u64,
}

impl Layout {
    /// The layout for `ram_bytes` of RAM, of which a part of a page at the end is not used, and `vcpus` virtual CPUs.
    pub fn new(ram_bytes: u64, vcpus: u32) -> Self {
        let ram = ram_bytes & !(PAGE_SIZE - 1);
        let low = ram.min(ACPI_BASE.raw());
        Self { low, high: ram - low, acpi_frames: acpi::len(vcpus).div_ceil(PAGE_SIZE) }
    }

    /// The address after the RAM below 4 GiB.
    pub fn low_end(&self) -> GuestPhys {
        GuestPhys::new(self.low)
    }

    /// The RAM in ascending order: one range, or two for more than [`ACPI_BASE`] bytes.
    pub fn ram(&self) -> impl Iterator<Item = RamRange> {
        [(0, self.low), (FOUR_GIB, self.high)]
            .into_iter()
            .filter(|&(_, len)| len > 0)
            .map(|(start, len)| RamRange { first: GuestPhys::new(start).frame(), nr_frames: len / PAGE_SIZE })
    }

    /// The frames that the ACPI tables take, which are not part of the RAM.
    pub fn acpi(&self) -> RamRange {
        RamRange { first: ACPI_BASE.frame(), nr_frames: self.acpi_frames }
    }

    /// The memory map, in ascending order and without overlap.
    pub fn memory_map(&self) -> Vec<MapEntry> {
        let entry = |addr, size, kind| MapEntry { addr, size, kind };
        let special = SpecialPages::COUNT * PAGE_SIZE;
        let entries = [
            entry(GuestPhys::new(0), self.low, map_type::RAM),
            entry(ACPI_BASE, self.acpi_frames * PAGE_SIZE, map_type::ACPI),
            entry(SpecialPages::FIRST.base(), special, map_type::RESERVED),
            entry(GuestPhys::new(FOUR_GIB), self.high, map_type::RAM),
        ];
        entries.into_iter().filter(|entry| entry.size > 0).collect()
    }
}
