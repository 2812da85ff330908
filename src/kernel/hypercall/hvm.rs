//! `hvm_op` (`xen/include/public/hvm/hvm_op.h`, `params.h`), by a guest for itself.

use core::sync::atomic::Ordering;

use abi::errno::Errno;
use abi::hvm_op::*;
use abi::hvm_params::*;
use sync::Cx;
use sync::place::Root;

use super::{Answer, Args, Outcome, command};
use crate::domain;
use crate::guest_memory::GuestPtr;
use crate::run::Running;
use crate::time;

/// `HVMOP_*`: `args[0]` the command, `args[1]` its argument.
pub(super) fn op(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    match command(args) {
        HVMOP_SET_PARAM => set_param(cx, run, args[1]),
        HVMOP_GET_PARAM => get_param(cx, run, args[1]),
        HVMOP_GET_TIME => {
            let now = GetTime { now: time::now() };
            GuestPtr::<GetTime>::new(args[1]).write(cx, run, &now)?;
            Ok(Outcome::DONE)
        }
        HVMOP_FLUSH_TLBS | HVMOP_PAGETABLE_DYING | HVMOP_GET_MEM_TYPE => Err(Errno::EOPNOTSUPP),
        // Among them the per-vCPU upcall vector, which CPUID does not advertise.
        _ => Err(Errno::ENOSYS),
    }
}

/// What a guest may do with a parameter of its own (`xen/arch/x86/hvm/hvm.c` has the same rule).
fn may_set(index: u32) -> bool {
    matches!(index, HVM_PARAM_CALLBACK_IRQ | HVM_PARAM_VM_GENERATION_ID_ADDR)
}

fn may_get(index: u32) -> bool {
    matches!(
        index,
        HVM_PARAM_CALLBACK_IRQ
            | HVM_PARAM_VM_GENERATION_ID_ADDR
            | HVM_PARAM_STORE_PFN
            | HVM_PARAM_STORE_EVTCHN
            | HVM_PARAM_CONSOLE_PFN
            | HVM_PARAM_CONSOLE_EVTCHN
            | HVM_PARAM_X87_FIP_WIDTH
    )
}

fn set_param(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let arg = GuestPtr::<HvmParam>::new(at).read(cx, run)?;
    if arg.index >= HVM_NR_PARAMS {
        return Err(Errno::EINVAL);
    }
    domain::own_from_guest(cx, &run.domain, arg.domid)?;
    if !may_set(arg.index) {
        return Err(Errno::EPERM);
    }
    if arg.index == HVM_PARAM_CALLBACK_IRQ {
        set_callback(run, arg.value)?;
    }
    cx.lock(&run.domain.params).0[arg.index as usize] = arg.value;
    Ok(Outcome::DONE)
}

/// Which interrupt the event-channel upcall is: a vector; interrupt lines are not built.
fn set_callback(run: &Running, value: u64) -> Result<(), Errno> {
    let kind = value >> HVM_PARAM_CALLBACK_IRQ_TYPE_SHIFT;
    let vector = (value & 0xff) as u8;
    match kind {
        HVM_PARAM_CALLBACK_TYPE_VECTOR if vector >= 16 => run.domain.callback_vector.store(vector, Ordering::Release),
        HVM_PARAM_CALLBACK_TYPE_VECTOR => return Err(Errno::EINVAL),
        _ if value == 0 => run.domain.callback_vector.store(0, Ordering::Release),
        _ => return Err(Errno::EOPNOTSUPP),
    }
    Ok(())
}

fn get_param(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let ptr = GuestPtr::<HvmParam>::new(at);
    let mut arg = ptr.read(cx, run)?;
    if arg.index >= HVM_NR_PARAMS {
        return Err(Errno::EINVAL);
    }
    domain::own_from_guest(cx, &run.domain, arg.domid)?;
    if !may_get(arg.index) {
        return Err(Errno::EPERM);
    }
    arg.value = cx.lock(&run.domain.params).0[arg.index as usize];
    ptr.write(cx, run, &arg)?;
    Ok(Outcome::DONE)
}
