//! The start of day of a PVH guest: its physical address space, ACPI tables, start info and first registers.
//!
//! [`Start::build`] takes a kernel, a ramdisk's size and a memory size and gives the whole of it as data: what to
//! copy from the modules, what to write beside them, and the registers of virtual CPU 0. The others wait for INIT and SIPI.
//! The truth is xen/include/public/arch-x86/hvm/start_info.h and Xen's docs/misc/pvh.pandoc.

pub mod acpi;
mod layout;
mod start;

pub use layout::{ACPI_BASE, CONSOLE, LOCAL_APIC, Layout, MapEntry, RamRange, STORE, SpecialPages, map_type};
pub use start::{Copy, Guest, PvhError, Registers, Source, Start, Write};

#[cfg(test)]
mod tests;
