//! Calls of HVM and PVH domains (`xen/include/public/hvm/hvm_op.h`): the argument of each `HVMOP_*`.
#![expect(missing_docs, reason = "the fields and constants have the names of the header")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

// What an hvm_op does (its first argument).
pub const HVMOP_SET_PARAM: u32 = 0;
pub const HVMOP_GET_PARAM: u32 = 1;
/// The argument is null.
pub const HVMOP_FLUSH_TLBS: u32 = 5;
pub const HVMOP_PAGETABLE_DYING: u32 = 9;
pub const HVMOP_GET_TIME: u32 = 10;
pub const HVMOP_XENTRACE: u32 = 11;
pub const HVMOP_SET_MEM_ACCESS: u32 = 12;
pub const HVMOP_GET_MEM_ACCESS: u32 = 13;
pub const HVMOP_GET_MEM_TYPE: u32 = 15;
pub const HVMOP_SET_EVTCHN_UPCALL_VECTOR: u32 = 23;
pub const HVMOP_GUEST_REQUEST_VM_EVENT: u32 = 24;
pub const HVMOP_ALTP2M: u32 = 25;

/// `HVMOP_set_param` and `HVMOP_get_param`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HvmParam {
    pub domid: u16,
    pub pad: u16,
    /// `hvm_params::HVM_PARAM_*`.
    pub index: u32,
    pub value: u64,
}
layout!(HvmParam: 16 { domid @ 0, pad @ 2, index @ 4, value @ 8 });

/// `HVMOP_pagetable_dying`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PagetableDying {
    pub domid: u16,
    pub pad: [u16; 3],
    /// Guest-physical address of the root.
    pub gpa: u64,
}
layout!(PagetableDying: 16 { domid @ 0, pad @ 2, gpa @ 8 });

/// `HVMOP_get_time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GetTime {
    /// Filled: nanoseconds since the domain was made.
    pub now: u64,
}
layout!(GetTime: 8 { now @ 0 });

/// `HVMOP_xentrace`: the head; 28 bytes of `extra` follow in the same structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Xentrace {
    pub event: u16,
    pub extra_bytes: u16,
    pub extra: [u8; 28],
}
layout!(Xentrace: 32 { event @ 0, extra_bytes @ 2, extra @ 4 });

/// `HVMOP_get_mem_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GetMemType {
    pub domid: u16,
    /// Filled: `HVMMEM_*`.
    pub mem_type: u16,
    pub pad: [u16; 2],
    pub pfn: u64,
}
layout!(GetMemType: 16 { domid @ 0, mem_type @ 2, pad @ 4, pfn @ 8 });

// `GetMemType::mem_type`.
pub const HVMMEM_RAM_RW: u16 = 0;
pub const HVMMEM_RAM_RO: u16 = 1;
pub const HVMMEM_MMIO_DM: u16 = 2;
pub const HVMMEM_UNUSED: u16 = 3;
pub const HVMMEM_IOREQ_SERVER: u16 = 4;

/// `HVMOP_set_evtchn_upcall_vector`: event upcalls of a virtual CPU come through its local APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EvtchnUpcallVector {
    pub vcpu: u32,
    /// From 16 up.
    pub vector: u8,
    pub pad: [u8; 3],
}
layout!(EvtchnUpcallVector: 8 { vcpu @ 0, vector @ 4 });
