//! `HVM_PARAM_*` by a guest for itself (`xen/include/public/hvm/params.h`). Which it may read and set is Xen's rule.

use core::sync::atomic::Ordering;

use abi::errno::Errno;
use abi::hvm_op::HvmParam;
use abi::hvm_params::*;
use machine::virt::Virt;
use model::evtchn::{COMPAT_PORTS, NR_PORTS};
use sync::Cx;
use sync::place::Root;

use super::{Answer, Outcome};
use crate::domain;
use crate::guest_memory::GuestPtr;
use crate::run::Running;
use crate::time;

/// The least size of a task segment: `struct tss32` of Xen.
const TSS_SIZE: u64 = 104;
/// The greatest that is of use: with the map of virtual-8086 interrupts, all ports, and a last byte.
const MAX_TSS_SIZE: u64 = TSS_SIZE + 0x100 / 8 + 0x1_0000 / 8 + 1;
/// The size that goes with an address set without one.
const OLD_TSS_SIZE: u64 = 128;

/// Parameters that no longer mean anything.
fn is_deprecated(index: u32) -> bool {
    matches!(
        index,
        HVM_PARAM_PAE_ENABLED
            | HVM_PARAM_DM_DOMAIN
            | HVM_PARAM_MEMORY_EVENT_CR0
            | HVM_PARAM_MEMORY_EVENT_CR3
            | HVM_PARAM_MEMORY_EVENT_CR4
            | HVM_PARAM_MEMORY_EVENT_INT3
            | HVM_PARAM_NESTEDHVM
            | HVM_PARAM_MEMORY_EVENT_SINGLE_STEP
            | HVM_PARAM_BUFIOREQ_EVTCHN
            | HVM_PARAM_MEMORY_EVENT_MSR
    )
}

/// What a guest may set itself; it may read these as well.
fn may_set(index: u32) -> bool {
    matches!(
        index,
        HVM_PARAM_CALLBACK_IRQ
            | HVM_PARAM_VM86_TSS
            | HVM_PARAM_VM86_TSS_SIZED
            | HVM_PARAM_ACPI_IOPORTS_LOCATION
            | HVM_PARAM_VM_GENERATION_ID_ADDR
            | HVM_PARAM_STORE_EVTCHN
            | HVM_PARAM_CONSOLE_EVTCHN
            | HVM_PARAM_X87_FIP_WIDTH
    )
}

fn may_get(index: u32) -> bool {
    may_set(index) || matches!(index, HVM_PARAM_STORE_PFN | HVM_PARAM_CONSOLE_PFN | HVM_PARAM_ALTP2M)
}

/// The refusal of a parameter that the guest has no right to.
fn refusal(index: u32) -> Errno {
    if is_deprecated(index) { Errno::EINVAL } else { Errno::EPERM }
}

/// `HVMOP_set_param`.
pub(super) fn set(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let arg = GuestPtr::<HvmParam>::new(at).read(cx, run)?;
    if arg.index >= HVM_NR_PARAMS {
        return Err(Errno::EINVAL);
    }
    domain::own_from_guest(cx, &run.domain, arg.domid)?;
    if !may_set(arg.index) {
        return Err(refusal(arg.index));
    }
    let (index, value) = kept(arg.index, arg.value)?;
    if index == HVM_PARAM_CALLBACK_IRQ {
        set_callback(run, value);
        latch_layout(cx, run);
    }
    cx.lock(&run.domain.params).0[index as usize] = value;
    Ok(Outcome::DONE)
}

/// What is kept of a value, and as which parameter.
fn kept(index: u32, value: u64) -> Result<(u32, u64), Errno> {
    match index {
        // There is no PM timer whose place it would be.
        HVM_PARAM_ACPI_IOPORTS_LOCATION => Err(Errno::ENODEV),
        HVM_PARAM_X87_FIP_WIDTH if !matches!(value, 0 | 4 | 8) => Err(Errno::EINVAL),
        HVM_PARAM_VM86_TSS if value >> 32 != 0 => Err(Errno::EINVAL),
        HVM_PARAM_VM86_TSS if value == 0 => Ok((HVM_PARAM_VM86_TSS_SIZED, 0)),
        HVM_PARAM_VM86_TSS => Ok((HVM_PARAM_VM86_TSS_SIZED, value | OLD_TSS_SIZE << 32)),
        HVM_PARAM_VM86_TSS_SIZED if value >> 32 < TSS_SIZE => Err(Errno::EINVAL),
        HVM_PARAM_VM86_TSS_SIZED => Ok((index, (value >> 32).min(MAX_TSS_SIZE) << 32 | value & 0xffff_ffff)),
        _ => Ok((index, value)),
    }
}

/// Which interrupt the event-channel upcall is. Without an interrupt controller that has lines only a vector counts; any
/// other kind of callback is kept and changes nothing, as in Xen.
fn set_callback(run: &Running, value: u64) {
    if value >> HVM_PARAM_CALLBACK_IRQ_TYPE_SHIFT == HVM_PARAM_CALLBACK_TYPE_VECTOR {
        run.domain.callback_vector.store(value as u8, Ordering::Release);
    }
}

/// The layout of `shared_info` is that of the code which sets the callback or writes the hypercall page, as in Xen.
pub fn latch_layout(cx: &mut Cx<'_, Root>, run: &Running) {
    let is_32 = !run.context.hw.is_long();
    if run.domain.shared.set_layout(is_32) {
        let ports = if is_32 { COMPAT_PORTS } else { NR_PORTS };
        cx.lock(&run.domain.channels).0.limit(ports - 1);
        let clock = time::wall_clock(cx);
        run.domain.shared.write_wall_clock(&clock);
    }
}

/// `HVMOP_get_param`.
pub(super) fn get(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let ptr = GuestPtr::<HvmParam>::new(at);
    let mut arg = ptr.read(cx, run)?;
    if arg.index >= HVM_NR_PARAMS {
        return Err(Errno::EINVAL);
    }
    domain::own_from_guest(cx, &run.domain, arg.domid)?;
    if !may_get(arg.index) {
        return Err(refusal(arg.index));
    }
    let (params, _) = cx.lock(&run.domain.params);
    arg.value = match arg.index {
        HVM_PARAM_VM86_TSS => params[HVM_PARAM_VM86_TSS_SIZED as usize] & 0xffff_ffff,
        index => params[index as usize],
    };
    drop(params);
    ptr.write(cx, run, &arg)?;
    Ok(Outcome::DONE)
}
