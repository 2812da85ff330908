//! Event channels (`xen/include/public/event_channel.h`): the argument of each `EVTCHNOP_*`.
//!
//! Ports are 32 bits wide; port 0 is never a channel. Fields that the hypervisor fills are named so.
#![expect(missing_docs, reason = "the fields and constants have the names of the header")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

// What an event_channel_op does (its first argument).
pub const EVTCHNOP_BIND_INTERDOMAIN: u32 = 0;
pub const EVTCHNOP_BIND_VIRQ: u32 = 1;
pub const EVTCHNOP_BIND_PIRQ: u32 = 2;
pub const EVTCHNOP_CLOSE: u32 = 3;
pub const EVTCHNOP_SEND: u32 = 4;
pub const EVTCHNOP_STATUS: u32 = 5;
pub const EVTCHNOP_ALLOC_UNBOUND: u32 = 6;
pub const EVTCHNOP_BIND_IPI: u32 = 7;
pub const EVTCHNOP_BIND_VCPU: u32 = 8;
pub const EVTCHNOP_UNMASK: u32 = 9;
pub const EVTCHNOP_RESET: u32 = 10;
pub const EVTCHNOP_INIT_CONTROL: u32 = 11;
pub const EVTCHNOP_EXPAND_ARRAY: u32 = 12;
pub const EVTCHNOP_SET_PRIORITY: u32 = 13;
/// For the hypervisor itself: a caller from outside gets `ENOSYS`.
pub const EVTCHNOP_RESET_CONT: u32 = 14;

/// Channels of the two-level interface, port 0 included (`EVTCHN_2L_NR_CHANNELS`, 64-bit).
pub const EVTCHN_2L_NR_CHANNELS: u32 = 4096;

/// `EVTCHNOP_alloc_unbound`: a port of `dom` that `remote_dom` may bind to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AllocUnbound {
    pub dom: u16,
    pub remote_dom: u16,
    /// Filled.
    pub port: u32,
}
layout!(AllocUnbound: 8 { dom @ 0, remote_dom @ 2, port @ 4 });

/// `EVTCHNOP_bind_interdomain`: a port of the caller, joined to one that waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BindInterdomain {
    pub remote_dom: u16,
    pub pad: u16,
    pub remote_port: u32,
    /// Filled.
    pub local_port: u32,
}
layout!(BindInterdomain: 12 { remote_dom @ 0, remote_port @ 4, local_port @ 8 });

/// `EVTCHNOP_bind_virq`: a port for a virtual interrupt (`xen::VIRQ_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BindVirq {
    pub virq: u32,
    pub vcpu: u32,
    /// Filled.
    pub port: u32,
}
layout!(BindVirq: 12 { virq @ 0, vcpu @ 4, port @ 8 });

/// `EVTCHNOP_bind_pirq`: a port for a physical interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BindPirq {
    pub pirq: u32,
    /// [`BIND_PIRQ_WILL_SHARE`].
    pub flags: u32,
    /// Filled.
    pub port: u32,
}
layout!(BindPirq: 12 { pirq @ 0, flags @ 4, port @ 8 });

/// In [`BindPirq::flags`].
pub const BIND_PIRQ_WILL_SHARE: u32 = 1;

/// `EVTCHNOP_bind_ipi`: a port that the domain sends to its own virtual CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BindIpi {
    pub vcpu: u32,
    /// Filled.
    pub port: u32,
}
layout!(BindIpi: 8 { vcpu @ 0, port @ 4 });

/// `EVTCHNOP_close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Close {
    pub port: u32,
}
layout!(Close: 4 { port @ 0 });

/// `EVTCHNOP_send`: makes the other end pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Send {
    pub port: u32,
}
layout!(Send: 4 { port @ 0 });

/// `EVTCHNOP_status`: what is bound to a port. All fields from `status` on are filled.
///
/// The union `u` of the header is its two words here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Status {
    pub dom: u16,
    pub pad: u16,
    pub port: u32,
    /// `EVTCHNSTAT_*`.
    pub status: u32,
    pub vcpu: u32,
    /// Unbound and interdomain: the other domain in bits 15:0; else the number of the PIRQ or VIRQ.
    pub peer: u32,
    /// Interdomain: the other port.
    pub peer_port: u32,
}
layout!(Status: 24 { dom @ 0, port @ 4, status @ 8, vcpu @ 12, peer @ 16, peer_port @ 20 });

// `Status::status`.
pub const EVTCHNSTAT_CLOSED: u32 = 0;
pub const EVTCHNSTAT_UNBOUND: u32 = 1;
pub const EVTCHNSTAT_INTERDOMAIN: u32 = 2;
pub const EVTCHNSTAT_PIRQ: u32 = 3;
pub const EVTCHNSTAT_VIRQ: u32 = 4;
pub const EVTCHNSTAT_IPI: u32 = 5;

/// `EVTCHNOP_bind_vcpu`: the virtual CPU that the port's upcalls go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BindVcpu {
    pub port: u32,
    pub vcpu: u32,
}
layout!(BindVcpu: 8 { port @ 0, vcpu @ 4 });

/// `EVTCHNOP_unmask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Unmask {
    pub port: u32,
}
layout!(Unmask: 4 { port @ 0 });

/// `EVTCHNOP_reset`: closes all channels of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Reset {
    pub dom: u16,
}
layout!(Reset: 2 { dom @ 0 });

/// `EVTCHNOP_init_control`: the FIFO interface's control block of a virtual CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InitControl {
    pub control_gfn: u64,
    /// Bytes from the start of the frame.
    pub offset: u32,
    pub vcpu: u32,
    /// Filled.
    pub link_bits: u8,
    pub pad: [u8; 7],
}
layout!(InitControl: 24 { control_gfn @ 0, offset @ 8, vcpu @ 12, link_bits @ 16, pad @ 17 });

/// `EVTCHNOP_expand_array`: one more frame of FIFO event words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExpandArray {
    pub array_gfn: u64,
}
layout!(ExpandArray: 8 { array_gfn @ 0 });

/// `EVTCHNOP_set_priority`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetPriority {
    pub port: u32,
    /// [`EVTCHN_FIFO_PRIORITY_MAX`] to [`EVTCHN_FIFO_PRIORITY_MIN`].
    pub priority: u32,
}
layout!(SetPriority: 8 { port @ 0, priority @ 4 });

// The FIFO interface.
pub const EVTCHN_FIFO_PRIORITY_MAX: u32 = 0;
pub const EVTCHN_FIFO_PRIORITY_DEFAULT: u32 = 7;
pub const EVTCHN_FIFO_PRIORITY_MIN: u32 = 15;
pub const EVTCHN_FIFO_MAX_QUEUES: u32 = 16;
pub const EVTCHN_FIFO_PENDING: u32 = 31;
pub const EVTCHN_FIFO_MASKED: u32 = 30;
pub const EVTCHN_FIFO_LINKED: u32 = 29;
pub const EVTCHN_FIFO_BUSY: u32 = 28;
pub const EVTCHN_FIFO_LINK_BITS: u32 = 17;
pub const EVTCHN_FIFO_NR_CHANNELS: u32 = 1 << EVTCHN_FIFO_LINK_BITS;

/// The FIFO interface's control block, shared with the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FifoControlBlock {
    pub ready: u32,
    pub rsvd: u32,
    pub head: [u32; 16],
}
layout!(FifoControlBlock: 72 { ready @ 0, rsvd @ 4, head @ 8 });
