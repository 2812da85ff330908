//! Grant tables (`xen/include/public/grant_table.h`): entries, and the argument of each `GNTTABOP_*`.
//!
//! Each call takes an array of these; `status` is filled with a `GNTST_*` for each element.
#![expect(missing_docs, reason = "the fields and constants have the names of the header")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

// What a grant_table_op does (its first argument).
pub const GNTTABOP_MAP_GRANT_REF: u32 = 0;
pub const GNTTABOP_UNMAP_GRANT_REF: u32 = 1;
pub const GNTTABOP_SETUP_TABLE: u32 = 2;
pub const GNTTABOP_DUMP_TABLE: u32 = 3;
pub const GNTTABOP_TRANSFER: u32 = 4;
pub const GNTTABOP_COPY: u32 = 5;
pub const GNTTABOP_QUERY_SIZE: u32 = 6;
pub const GNTTABOP_UNMAP_AND_REPLACE: u32 = 7;
pub const GNTTABOP_SET_VERSION: u32 = 8;
pub const GNTTABOP_GET_STATUS_FRAMES: u32 = 9;
pub const GNTTABOP_GET_VERSION: u32 = 10;
pub const GNTTABOP_SWAP_GRANT_REF: u32 = 11;
pub const GNTTABOP_CACHE_FLUSH: u32 = 12;

/// `struct grant_entry_v1`, shared with the guest; `flags` is written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GrantEntryV1 {
    /// `GTF_*`.
    pub flags: u16,
    pub domid: u16,
    pub frame: u32,
}
layout!(GrantEntryV1: 8 { flags @ 0, domid @ 2, frame @ 4 });

/// `union grant_entry_v2`, by its widest reading; `flags` says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GrantEntryV2 {
    /// `GTF_*`.
    pub flags: u16,
    pub domid: u16,
    /// Sub-page: first byte. Transitive: the other domain.
    pub page_off: u16,
    /// Sub-page: bytes.
    pub length: u16,
    /// Full page and sub-page: the frame. Transitive: the reference in bits 31:0.
    pub frame: u64,
}
layout!(GrantEntryV2: 16 { flags @ 0, domid @ 2, page_off @ 4, length @ 6, frame @ 8 });

// Entries that a domain's builder fills.
pub const GNTTAB_NR_RESERVED_ENTRIES: u32 = 8;
pub const GNTTAB_RESERVED_CONSOLE: u32 = 0;
pub const GNTTAB_RESERVED_XENSTORE: u32 = 1;

// `flags` of an entry.
pub const GTF_INVALID: u16 = 0;
pub const GTF_PERMIT_ACCESS: u16 = 1;
pub const GTF_ACCEPT_TRANSFER: u16 = 2;
pub const GTF_TRANSITIVE: u16 = 3;
pub const GTF_TYPE_MASK: u16 = 3;
pub const GTF_READONLY: u16 = 1 << 2;
pub const GTF_READING: u16 = 1 << 3;
pub const GTF_WRITING: u16 = 1 << 4;
pub const GTF_PWT: u16 = 1 << 5;
pub const GTF_PCD: u16 = 1 << 6;
pub const GTF_PAT: u16 = 1 << 7;
pub const GTF_SUB_PAGE: u16 = 1 << 8;
pub const GTF_TRANSFER_COMMITTED: u16 = 1 << 2;
pub const GTF_TRANSFER_COMPLETED: u16 = 1 << 3;

/// `GNTTABOP_map_grant_ref`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MapGrantRef {
    pub host_addr: u64,
    /// `GNTMAP_*`.
    pub flags: u32,
    pub grant_ref: u32,
    pub dom: u16,
    pub status: i16,
    /// Filled.
    pub handle: u32,
    /// Filled.
    pub dev_bus_addr: u64,
}
layout!(MapGrantRef: 32 { host_addr @ 0, flags @ 8, grant_ref @ 12, dom @ 16, status @ 18, handle @ 20, dev_bus_addr @ 24 });

/// `GNTTABOP_unmap_grant_ref`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UnmapGrantRef {
    pub host_addr: u64,
    pub dev_bus_addr: u64,
    pub handle: u32,
    pub status: i16,
    pub pad: u16,
}
layout!(UnmapGrantRef: 24 { host_addr @ 0, dev_bus_addr @ 8, handle @ 16, status @ 20 });

/// `GNTTABOP_setup_table`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetupTable {
    pub dom: u16,
    pub pad0: u16,
    pub nr_frames: u32,
    pub status: i16,
    pub pad1: [u16; 3],
    /// Guest virtual address of `nr_frames` frame numbers of 64 bits.
    pub frame_list: u64,
}
layout!(SetupTable: 24 { dom @ 0, nr_frames @ 4, status @ 8, frame_list @ 16 });

/// `GNTTABOP_dump_table`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DumpTable {
    pub dom: u16,
    pub status: i16,
}
layout!(DumpTable: 4 { dom @ 0, status @ 2 });

/// `GNTTABOP_transfer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Transfer {
    pub mfn: u64,
    pub domid: u16,
    pub pad0: u16,
    pub grant_ref: u32,
    pub status: i16,
    pub pad1: [u16; 3],
}
layout!(Transfer: 24 { mfn @ 0, domid @ 8, grant_ref @ 12, status @ 16 });

/// One end of a [`GrantCopy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CopyPtr {
    /// A frame number, or a reference in bits 31:0 with `GNTCOPY_*_gref`.
    pub frame_or_ref: u64,
    pub domid: u16,
    /// Bytes from the start of the frame.
    pub offset: u16,
    pub pad: u32,
}
layout!(CopyPtr: 16 { frame_or_ref @ 0, domid @ 8, offset @ 10 });

/// `GNTTABOP_copy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GrantCopy {
    pub source: CopyPtr,
    pub dest: CopyPtr,
    /// Bytes.
    pub len: u16,
    /// `GNTCOPY_*`.
    pub flags: u16,
    pub status: i16,
    pub pad: u16,
}
layout!(GrantCopy: 40 { source @ 0, dest @ 16, len @ 32, flags @ 34, status @ 36 });

// `GrantCopy::flags`.
pub const GNTCOPY_SOURCE_GREF: u16 = 1 << 0;
pub const GNTCOPY_DEST_GREF: u16 = 1 << 1;

/// `GNTTABOP_query_size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct QuerySize {
    pub dom: u16,
    pub pad0: u16,
    /// Filled.
    pub nr_frames: u32,
    /// Filled.
    pub max_nr_frames: u32,
    pub status: i16,
    pub pad1: u16,
}
layout!(QuerySize: 16 { dom @ 0, nr_frames @ 4, max_nr_frames @ 8, status @ 12 });

/// `GNTTABOP_unmap_and_replace`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UnmapAndReplace {
    pub host_addr: u64,
    pub new_addr: u64,
    pub handle: u32,
    pub status: i16,
    pub pad: u16,
}
layout!(UnmapAndReplace: 24 { host_addr @ 0, new_addr @ 8, handle @ 16, status @ 20 });

/// `GNTTABOP_set_version`: filled with the version that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetVersion {
    pub version: u32,
}
layout!(SetVersion: 4 { version @ 0 });

/// `GNTTABOP_get_status_frames`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GetStatusFrames {
    pub nr_frames: u32,
    pub dom: u16,
    pub status: i16,
    /// Guest virtual address of `nr_frames` frame numbers of 64 bits.
    pub frame_list: u64,
}
layout!(GetStatusFrames: 16 { nr_frames @ 0, dom @ 4, status @ 6, frame_list @ 8 });

/// `GNTTABOP_get_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GetVersion {
    pub dom: u16,
    pub pad: u16,
    /// Filled.
    pub version: u32,
}
layout!(GetVersion: 8 { dom @ 0, pad @ 2, version @ 4 });

/// `GNTTABOP_swap_grant_ref`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SwapGrantRef {
    pub ref_a: u32,
    pub ref_b: u32,
    pub status: i16,
    pub pad: u16,
}
layout!(SwapGrantRef: 12 { ref_a @ 0, ref_b @ 4, status @ 8 });

/// `GNTTABOP_cache_flush`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CacheFlush {
    pub addr_or_ref: u64,
    pub offset: u16,
    pub length: u16,
    pub op: u32,
}
layout!(CacheFlush: 16 { addr_or_ref @ 0, offset @ 8, length @ 10, op @ 12 });

// `MapGrantRef::flags`.
pub const GNTMAP_DEVICE_MAP: u32 = 1 << 0;
pub const GNTMAP_HOST_MAP: u32 = 1 << 1;
pub const GNTMAP_READONLY: u32 = 1 << 2;
pub const GNTMAP_APPLICATION_MAP: u32 = 1 << 3;
pub const GNTMAP_CONTAINS_PTE: u32 = 1 << 4;

// `status`.
pub const GNTST_OKAY: i16 = 0;
pub const GNTST_GENERAL_ERROR: i16 = -1;
pub const GNTST_BAD_DOMAIN: i16 = -2;
pub const GNTST_BAD_GNTREF: i16 = -3;
pub const GNTST_BAD_HANDLE: i16 = -4;
pub const GNTST_BAD_VIRT_ADDR: i16 = -5;
pub const GNTST_BAD_DEV_ADDR: i16 = -6;
pub const GNTST_NO_DEVICE_SPACE: i16 = -7;
pub const GNTST_PERMISSION_DENIED: i16 = -8;
pub const GNTST_BAD_PAGE: i16 = -9;
pub const GNTST_BAD_COPY_ARG: i16 = -10;
pub const GNTST_ADDRESS_TOO_BIG: i16 = -11;
pub const GNTST_EAGAIN: i16 = -12;
pub const GNTST_NO_SPACE: i16 = -13;
