//! Physical interrupts and PCI devices: the numbers (`xen/include/public/physdev.h`).
#![expect(missing_docs, reason = "the constants have the names of the header")]

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
