//! Memory reservations and the physical map (`xen/include/public/memory.h`): the argument of each `XENMEM_*`.
//!
//! Fields named `*_start`, `idxs`, `gpfns`, `errs`, `buffer` and `frame_list` are guest virtual addresses.
#![expect(missing_docs, reason = "the fields and constants have the names of the header")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

// What a memory_op does (its first argument, bits 5:0).
pub const XENMEM_INCREASE_RESERVATION: u32 = 0;
pub const XENMEM_DECREASE_RESERVATION: u32 = 1;
pub const XENMEM_MAXIMUM_RAM_PAGE: u32 = 2;
pub const XENMEM_CURRENT_RESERVATION: u32 = 3;
pub const XENMEM_MAXIMUM_RESERVATION: u32 = 4;
pub const XENMEM_MACHPHYS_MFN_LIST: u32 = 5;
pub const XENMEM_POPULATE_PHYSMAP: u32 = 6;
pub const XENMEM_ADD_TO_PHYSMAP: u32 = 7;
pub const XENMEM_MEMORY_MAP: u32 = 9;
pub const XENMEM_MACHINE_MEMORY_MAP: u32 = 10;
pub const XENMEM_EXCHANGE: u32 = 11;
pub const XENMEM_MACHPHYS_MAPPING: u32 = 12;
pub const XENMEM_SET_MEMORY_MAP: u32 = 13;
pub const XENMEM_MAXIMUM_GPFN: u32 = 14;
pub const XENMEM_REMOVE_FROM_PHYSMAP: u32 = 15;
pub const XENMEM_SET_POD_TARGET: u32 = 16;
pub const XENMEM_GET_POD_TARGET: u32 = 17;
pub const XENMEM_GET_SHARING_FREED_PAGES: u32 = 18;
pub const XENMEM_GET_SHARING_SHARED_PAGES: u32 = 19;
pub const XENMEM_PAGING_OP: u32 = 20;
pub const XENMEM_ACCESS_OP: u32 = 21;
pub const XENMEM_SHARING_OP: u32 = 22;
pub const XENMEM_ADD_TO_PHYSMAP_BATCH: u32 = 23;
pub const XENMEM_CLAIM_PAGES: u32 = 24;
pub const XENMEM_MACHPHYS_COMPAT_MFN_LIST: u32 = 25;
pub const XENMEM_GET_VNUMAINFO: u32 = 26;
pub const XENMEM_RESERVED_DEVICE_MEMORY_MAP: u32 = 27;
pub const XENMEM_ACQUIRE_RESOURCE: u32 = 28;

/// `XENMEM_increase_reservation`, `_decrease_reservation`, `_populate_physmap` and `_claim_pages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryReservation {
    /// Guest virtual address of `nr_extents` frame numbers of 64 bits.
    pub extent_start: u64,
    pub nr_extents: u64,
    /// log2 of the frames in each extent.
    pub extent_order: u32,
    /// `XENMEMF_*`.
    pub mem_flags: u32,
    pub domid: u16,
    pub pad: [u16; 3],
}
layout!(MemoryReservation: 32 { extent_start @ 0, nr_extents @ 8, extent_order @ 16, mem_flags @ 20, domid @ 24 });

// `MemoryReservation::mem_flags`.
pub const XENMEMF_ADDRESS_BITS_MASK: u32 = 0xff;
pub const XENMEMF_NODE_SHIFT: u32 = 8;
pub const XENMEMF_POPULATE_ON_DEMAND: u32 = 1 << 16;
pub const XENMEMF_EXACT_NODE_REQUEST: u32 = 1 << 17;
pub const XENMEMF_VNODE: u32 = 1 << 18;

/// `XENMEM_exchange`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryExchange {
    pub input: MemoryReservation,
    pub output: MemoryReservation,
    /// Filled; zero when the caller starts.
    pub nr_exchanged: u64,
}
layout!(MemoryExchange: 72 { input @ 0, output @ 32, nr_exchanged @ 64 });

/// `XENMEM_current_reservation`, `_maximum_reservation` and `_maximum_gpfn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryDomain {
    pub domid: u16,
}
layout!(MemoryDomain: 2 { domid @ 0 });

/// `XENMEM_machphys_mfn_list`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MachphysMfnList {
    pub max_extents: u32,
    pub pad0: u32,
    pub extent_start: u64,
    /// Filled.
    pub nr_extents: u32,
    pub pad1: u32,
}
layout!(MachphysMfnList: 24 { max_extents @ 0, extent_start @ 8, nr_extents @ 16 });

/// `XENMEM_machphys_mapping`: filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MachphysMapping {
    pub v_start: u64,
    pub v_end: u64,
    pub max_mfn: u64,
}
layout!(MachphysMapping: 24 { v_start @ 0, v_end @ 8, max_mfn @ 16 });

/// `XENMEM_add_to_physmap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AddToPhysmap {
    pub domid: u16,
    /// Frames, for `XENMAPSPACE_gmfn_range`.
    pub size: u16,
    /// `XENMAPSPACE_*`.
    pub space: u32,
    pub idx: u64,
    /// Where the page appears.
    pub gpfn: u64,
}
layout!(AddToPhysmap: 24 { domid @ 0, size @ 2, space @ 4, idx @ 8, gpfn @ 16 });

// `AddToPhysmap::space`.
pub const XENMAPSPACE_SHARED_INFO: u32 = 0;
pub const XENMAPSPACE_GRANT_TABLE: u32 = 1;
pub const XENMAPSPACE_GMFN: u32 = 2;
pub const XENMAPSPACE_GMFN_RANGE: u32 = 3;
pub const XENMAPSPACE_GMFN_FOREIGN: u32 = 4;
pub const XENMAPSPACE_DEV_MMIO: u32 = 5;
/// In [`AddToPhysmap::idx`] of the grant table: a frame of version 2 status words.
pub const XENMAPIDX_GRANT_TABLE_STATUS: u64 = 0x8000_0000;

/// `XENMEM_add_to_physmap_batch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AddToPhysmapBatch {
    pub domid: u16,
    /// `XENMAPSPACE_*`.
    pub space: u16,
    pub size: u16,
    /// For `XENMAPSPACE_gmfn_foreign`.
    pub foreign_domid: u16,
    pub idxs: u64,
    pub gpfns: u64,
    pub errs: u64,
}
layout!(AddToPhysmapBatch: 32 { domid @ 0, space @ 2, size @ 4, foreign_domid @ 6, idxs @ 8, gpfns @ 16, errs @ 24 });

/// `XENMEM_remove_from_physmap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RemoveFromPhysmap {
    pub domid: u16,
    pub pad: [u16; 3],
    pub gpfn: u64,
}
layout!(RemoveFromPhysmap: 16 { domid @ 0, gpfn @ 8 });

/// `XENMEM_memory_map` and `_machine_memory_map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryMap {
    /// Entries that there is room for, then entries written.
    pub nr_entries: u32,
    pub pad: u32,
    /// Guest virtual address of [`E820Entry`] records.
    pub buffer: u64,
}
layout!(MemoryMap: 16 { nr_entries @ 0, buffer @ 8 });

/// An entry of [`MemoryMap::buffer`], 20 bytes without padding: address and size as low and high words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct E820Entry {
    pub addr_low: u32,
    pub addr_high: u32,
    /// Bytes.
    pub size_low: u32,
    pub size_high: u32,
    /// 1 RAM, 2 reserved, 3 ACPI, 4 NVS, 5 unusable.
    pub kind: u32,
}
layout!(E820Entry: 20 { addr_low @ 0, addr_high @ 4, size_low @ 8, size_high @ 12, kind @ 16 });

/// `XENMEM_set_memory_map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ForeignMemoryMap {
    pub domid: u16,
    pub pad: [u16; 3],
    pub map: MemoryMap,
}
layout!(ForeignMemoryMap: 24 { domid @ 0, map @ 8 });

/// `XENMEM_set_pod_target` and `_get_pod_target`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PodTarget {
    pub target_pages: u64,
    pub tot_pages: u64,
    pub pod_cache_pages: u64,
    pub pod_entries: u64,
    pub domid: u16,
    pub pad: [u16; 3],
}
layout!(PodTarget: 40 { target_pages @ 0, tot_pages @ 8, pod_cache_pages @ 16, pod_entries @ 24, domid @ 32 });

/// `XENMEM_reserved_device_memory_map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReservedDeviceMemoryMap {
    pub flags: u32,
    pub nr_entries: u32,
    pub buffer: u64,
    pub pci_seg: u16,
    pub pci_bus: u8,
    pub pci_devfn: u8,
    pub pad: u32,
}
layout!(ReservedDeviceMemoryMap: 24 { flags @ 0, nr_entries @ 4, buffer @ 8 });

/// `XENMEM_acquire_resource`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AcquireResource {
    pub domid: u16,
    /// `XENMEM_RESOURCE_*`.
    pub kind: u16,
    pub id: u32,
    /// With a null `frame_list`, filled with the resource's size.
    pub nr_frames: u32,
    pub pad: u32,
    pub frame: u64,
    pub frame_list: u64,
}
layout!(AcquireResource: 32 { domid @ 0, kind @ 2, id @ 4, nr_frames @ 8, pad @ 12, frame @ 16, frame_list @ 24 });

// `AcquireResource::kind` and, for the grant table, `id`.
pub const XENMEM_RESOURCE_IOREQ_SERVER: u16 = 0;
pub const XENMEM_RESOURCE_GRANT_TABLE: u16 = 1;
pub const XENMEM_RESOURCE_VMTRACE_BUF: u16 = 2;
pub const XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED: u32 = 0;
pub const XENMEM_RESOURCE_GRANT_TABLE_ID_STATUS: u32 = 1;

/// `XENMEM_get_vnumainfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VnumaTopologyInfo {
    pub domid: u16,
    pub pad: u16,
    pub nr_vnodes: u32,
    pub nr_vcpus: u32,
    pub nr_vmemranges: u32,
    pub vdistance: u64,
    pub vcpu_to_vnode: u64,
    pub vmemrange: u64,
}
layout!(VnumaTopologyInfo: 40 {
    domid @ 0, nr_vnodes @ 4, nr_vcpus @ 8, nr_vmemranges @ 12, vdistance @ 16, vcpu_to_vnode @ 24, vmemrange @ 32,
});
