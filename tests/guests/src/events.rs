//! The shared page and two-level event channels.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use abi::event_channel::*;
use abi::hvm_params::{HVM_PARAM_CALLBACK_IRQ, HVM_PARAM_CALLBACK_IRQ_TYPE_SHIFT, HVM_PARAM_CALLBACK_TYPE_VECTOR};
use abi::memory::{AddToPhysmap, XENMAPSPACE_SHARED_INFO, XENMEM_ADD_TO_PHYSMAP};
use abi::nr;
use abi::xen::{DOMID_SELF, SharedInfo, VcpuInfo};

use crate::hypercall::{self, Ret};
use crate::{mem, pv};

/// Where a PVH guest's shared page appears: a frame of no RAM.
pub const SHARED_INFO: u64 = 0xfe70_0000;
/// The vector of the upcalls.
pub const VECTOR: u8 = 0xf3;

/// Maps a page of the domain at a guest frame.
pub fn add_to_physmap(space: u32, idx: u64, gpfn: u64) -> Ret {
    let mut arg = AddToPhysmap { domid: DOMID_SELF, size: 0, space, idx, gpfn };
    hypercall::op(nr::MEMORY_OP, XENMEM_ADD_TO_PHYSMAP, &mut arg)
}

static ADDRESS: AtomicU64 = AtomicU64::new(SHARED_INFO);

/// The address of the shared page.
pub fn shared_info() -> u64 {
    ADDRESS.load(SeqCst)
}

/// Notes where the shared page is.
pub fn set_shared_info(address: u64) {
    ADDRESS.store(address, SeqCst);
}

/// Maps the shared page and asks for upcalls by [`VECTOR`]; a PV guest has both from its start.
pub fn init() -> Ret {
    if pv::is_pv() {
        return Ret(0);
    }
    let mapped = add_to_physmap(XENMAPSPACE_SHARED_INFO, 0, SHARED_INFO >> 12);
    if mapped != Ret(0) {
        return mapped;
    }
    let value = HVM_PARAM_CALLBACK_TYPE_VECTOR << HVM_PARAM_CALLBACK_IRQ_TYPE_SHIFT | u64::from(VECTOR);
    hypercall::set_param(HVM_PARAM_CALLBACK_IRQ, value)
}

static MOVED: [AtomicU64; 32] = [const { AtomicU64::new(0) }; 32];

/// Notes that a virtual CPU's record has left the shared page.
pub fn note_moved(vcpu: u32, address: u64) {
    MOVED[vcpu as usize % MOVED.len()].store(address, SeqCst);
}

/// The address of a virtual CPU's record, in the shared page unless it has moved.
pub fn vcpu_info(vcpu: u32) -> u64 {
    let moved = MOVED[vcpu as usize % MOVED.len()].load(SeqCst);
    if moved != 0 { moved } else { shared_info() + u64::from(vcpu) * size_of::<VcpuInfo>() as u64 }
}

fn atomic(addr: u64) -> &'static AtomicU64 {
    // SAFETY: the shared page is mapped, and all its words are reached atomically.
    unsafe { &*(addr as *const AtomicU64) }
}

fn word(offset: usize, port: u32) -> &'static AtomicU64 {
    atomic(shared_info() + offset as u64 + u64::from(port / 64) * 8)
}

/// The word of `evtchn_pending` that holds this port.
pub fn pending_word(port: u32) -> &'static AtomicU64 {
    word(offset_of!(SharedInfo, evtchn_pending), port)
}

/// The word of `evtchn_mask` that holds this port.
pub fn mask_word(port: u32) -> &'static AtomicU64 {
    word(offset_of!(SharedInfo, evtchn_mask), port)
}

/// The port's pending bit.
pub fn is_pending(port: u32) -> bool {
    pending_word(port).load(SeqCst) >> (port % 64) & 1 == 1
}

/// Clears the port's pending bit.
pub fn clear(port: u32) {
    pending_word(port).fetch_and(!(1 << (port % 64)), SeqCst);
}

/// Sets or clears the port's mask bit, without a hypercall.
pub fn set_mask(port: u32, masked: bool) {
    let bit = 1 << (port % 64);
    if masked {
        mask_word(port).fetch_or(bit, SeqCst)
    } else {
        mask_word(port).fetch_and(!bit, SeqCst)
    };
}

/// The port's mask bit.
pub fn is_masked(port: u32) -> bool {
    mask_word(port).load(SeqCst) >> (port % 64) & 1 == 1
}

/// The virtual CPU's `evtchn_upcall_pending`.
pub fn upcall_pending(vcpu: u32) -> bool {
    mem::peek8(vcpu_info(vcpu)) != 0
}

/// The virtual CPU's `evtchn_pending_sel`.
pub fn selector(vcpu: u32) -> &'static AtomicU64 {
    atomic(vcpu_info(vcpu) + offset_of!(VcpuInfo, evtchn_pending_sel) as u64)
}

/// Clears the upcall flag and takes the selector, as an upcall's handler does first.
pub fn acknowledge(vcpu: u32) -> u64 {
    mem::poke8(vcpu_info(vcpu), 0);
    selector(vcpu).swap(0, SeqCst)
}

/// An `event_channel_op`.
pub fn op<T>(number: u32, arg: &mut T) -> Ret {
    hypercall::op(nr::EVENT_CHANNEL_OP, number, arg)
}

/// `EVTCHNOP_bind_virq`.
pub fn bind_virq(virq: u32, vcpu: u32) -> Result<u32, Ret> {
    let mut arg = BindVirq { virq, vcpu, port: 0 };
    match op(EVTCHNOP_BIND_VIRQ, &mut arg) {
        Ret(0) => Ok(arg.port),
        error => Err(error),
    }
}

/// `EVTCHNOP_bind_ipi`.
pub fn bind_ipi(vcpu: u32) -> Result<u32, Ret> {
    let mut arg = BindIpi { vcpu, port: 0 };
    match op(EVTCHNOP_BIND_IPI, &mut arg) {
        Ret(0) => Ok(arg.port),
        error => Err(error),
    }
}

/// `EVTCHNOP_alloc_unbound` of the caller, for a domain to come.
pub fn alloc_unbound(remote_dom: u16) -> Result<u32, Ret> {
    let mut arg = AllocUnbound { dom: DOMID_SELF, remote_dom, port: 0 };
    match op(EVTCHNOP_ALLOC_UNBOUND, &mut arg) {
        Ret(0) => Ok(arg.port),
        error => Err(error),
    }
}

/// `EVTCHNOP_send`.
pub fn send(port: u32) -> Ret {
    op(EVTCHNOP_SEND, &mut Send { port })
}

/// `EVTCHNOP_unmask`.
pub fn unmask(port: u32) -> Ret {
    op(EVTCHNOP_UNMASK, &mut Unmask { port })
}

/// `EVTCHNOP_close`.
pub fn close(port: u32) -> Ret {
    op(EVTCHNOP_CLOSE, &mut Close { port })
}

/// `EVTCHNOP_status` of a port of the caller.
pub fn status(port: u32) -> Result<Status, Ret> {
    let mut arg = Status { dom: DOMID_SELF, pad: 0, port, status: !0, vcpu: !0, peer: !0, peer_port: !0 };
    match op(EVTCHNOP_STATUS, &mut arg) {
        Ret(0) => Ok(arg),
        error => Err(error),
    }
}
