//! Physical interrupts and PCI devices (`xen/include/public/physdev.h`).
#![expect(missing_docs, reason = "the fields and constants have the names of the header")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

// What a physdev_op does (its first argument).
pub const PHYSDEVOP_EOI: u32 = 12;
pub const PHYSDEVOP_PIRQ_EOI_GMFN_V1: u32 = 17;
pub const PHYSDEVOP_PIRQ_EOI_GMFN_V2: u32 = 28;
pub const PHYSDEVOP_IRQ_STATUS_QUERY: u32 = 5;
pub const PHYSDEVOP_SET_IOPL: u32 = 6;
pub const PHYSDEVOP_SET_IOBITMAP: u32 = 7;
pub const PHYSDEVOP_APIC_READ: u32 = 8;
pub const PHYSDEVOP_APIC_WRITE: u32 = 9;
pub const PHYSDEVOP_ALLOC_IRQ_VECTOR: u32 = 10;
pub const PHYSDEVOP_FREE_IRQ_VECTOR: u32 = 11;
pub const PHYSDEVOP_MAP_PIRQ: u32 = 13;
pub const PHYSDEVOP_UNMAP_PIRQ: u32 = 14;
pub const PHYSDEVOP_MANAGE_PCI_ADD: u32 = 15;
pub const PHYSDEVOP_MANAGE_PCI_REMOVE: u32 = 16;
pub const PHYSDEVOP_RESTORE_MSI: u32 = 19;
pub const PHYSDEVOP_MANAGE_PCI_ADD_EXT: u32 = 20;
pub const PHYSDEVOP_SETUP_GSI: u32 = 21;
pub const PHYSDEVOP_GET_FREE_PIRQ: u32 = 23;
pub const PHYSDEVOP_PCI_MMCFG_RESERVED: u32 = 24;
pub const PHYSDEVOP_PCI_DEVICE_ADD: u32 = 25;
pub const PHYSDEVOP_PCI_DEVICE_REMOVE: u32 = 26;
pub const PHYSDEVOP_RESTORE_MSI_EXT: u32 = 27;
pub const PHYSDEVOP_PREPARE_MSIX: u32 = 30;
pub const PHYSDEVOP_RELEASE_MSIX: u32 = 31;
pub const PHYSDEVOP_DBGP_OP: u32 = 29;

// From the interface before 3.2.
pub const PHYSDEVOP_IRQ_UNMASK_NOTIFY: u32 = 4;

// `PhysdevMapPirq::type`.
pub const MAP_PIRQ_TYPE_MSI: u32 = 0x0;
pub const MAP_PIRQ_TYPE_GSI: u32 = 0x1;
pub const MAP_PIRQ_TYPE_UNKNOWN: u32 = 0x2;
pub const MAP_PIRQ_TYPE_MSI_SEG: u32 = 0x3;
pub const MAP_PIRQ_TYPE_MULTI_MSI: u32 = 0x4;

/// `struct physdev_set_iopl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetIopl {
    pub iopl: u32,
}
layout!(SetIopl: 4 { iopl @ 0 });

/// `struct physdev_set_iobitmap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetIobitmap {
    /// Guest virtual address.
    pub bitmap: u64,
    pub nr_ports: u32,
    pub pad: u32,
}
layout!(SetIobitmap: 16 { bitmap @ 0, nr_ports @ 8 });

/// `struct physdev_apic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Apic {
    /// The address of an I/O APIC.
    pub apic_physbase: u64,
    pub reg: u32,
    pub value: u32,
}
layout!(Apic: 16 { apic_physbase @ 0, reg @ 8, value @ 12 });

/// `struct physdev_manage_pci`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ManagePci {
    pub bus: u8,
    pub devfn: u8,
}
layout!(ManagePci: 2 { bus @ 0, devfn @ 1 });

/// `struct physdev_pci_mmcfg_reserved`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PciMmcfgReserved {
    pub address: u64,
    pub segment: u16,
    pub start_bus: u8,
    pub end_bus: u8,
    pub flags: u32,
}
layout!(PciMmcfgReserved: 16 { address @ 0, segment @ 8, start_bus @ 10, end_bus @ 11, flags @ 12 });

/// The part that `struct physdev_pci_device_add` and `struct physdev_pci_device` share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PciDevice {
    pub seg: u16,
    pub bus: u8,
    pub devfn: u8,
}
layout!(PciDevice: 4 { seg @ 0, bus @ 2, devfn @ 3 });
