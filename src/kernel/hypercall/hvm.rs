//! `hvm_op` (`xen/include/public/hvm/hvm_op.h`), by a guest for itself.

use abi::errno::Errno;
use abi::hvm_op::*;
use abi::hvm_params::HVM_NR_PARAMS;
use model::addr::Gfn;
use sync::Cx;
use sync::place::Root;

use super::{Answer, Args, Outcome, command, params};
use crate::domain::{self, flush};
use crate::guest_memory::GuestPtr;
use crate::run::Running;
use crate::time;

/// `HVMOP_*`: `args[0]` the command, `args[1]` its argument.
pub(super) fn op(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    if run.is_pv() {
        of_hvm_only(cx, run, args)?;
    }
    match command(args) {
        HVMOP_SET_PARAM => params::set(cx, run, args[1]),
        HVMOP_GET_PARAM => params::get(cx, run, args[1]),
        HVMOP_GET_TIME => {
            let now = GetTime { now: time::now() };
            GuestPtr::<GetTime>::new(args[1]).write(cx, run, &now)?;
            Ok(Outcome::DONE)
        }
        HVMOP_FLUSH_TLBS if args[1] == 0 => {
            flush::all(cx, &run.domain);
            Ok(Outcome::DONE)
        }
        HVMOP_FLUSH_TLBS => Err(Errno::EINVAL),
        HVMOP_GET_MEM_TYPE => mem_type(cx, run, args[1]),
        HVMOP_PAGETABLE_DYING => pagetable_dying(cx, run, args[1]),
        HVMOP_XENTRACE => trace(cx, run, args[1]),
        // Nobody monitors the guest.
        HVMOP_GUEST_REQUEST_VM_EVENT if args[1] == 0 => Ok(Outcome::DONE),
        HVMOP_GUEST_REQUEST_VM_EVENT => Err(Errno::EINVAL),
        HVMOP_ALTP2M => Err(Errno::EOPNOTSUPP),
        // Among them the per-vCPU upcall vector, which CPUID does not advertise.
        _ => Err(Errno::ENOSYS),
    }
}

/// `EINVAL` for what only a translated domain has, but first what Xen finds wrong before it looks for that.
fn of_hvm_only(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Result<(), Errno> {
    match command(args) {
        HVMOP_SET_PARAM | HVMOP_GET_PARAM => {
            let arg = GuestPtr::<HvmParam>::new(args[1]).read(cx, run)?;
            if arg.index < HVM_NR_PARAMS {
                domain::own_from_guest(cx, &run.domain, arg.domid)?;
            }
        }
        HVMOP_GET_MEM_TYPE => {
            let arg = GuestPtr::<GetMemType>::new(args[1]).read(cx, run)?;
            domain::own_from_guest(cx, &run.domain, arg.domid)?;
        }
        HVMOP_FLUSH_TLBS | HVMOP_SET_EVTCHN_UPCALL_VECTOR => {}
        _ => return Ok(()),
    }
    Err(Errno::EINVAL)
}

/// What there is at a guest frame, as far as a guest is told: memory, or a device's registers.
fn mem_type(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let ptr = GuestPtr::<GetMemType>::new(at);
    let mut arg = ptr.read(cx, run)?;
    domain::own_from_guest(cx, &run.domain, arg.domid)?;
    let (memory, _) = cx.lock(&run.domain.memory);
    let gfn = Gfn::new(arg.pfn);
    arg.mem_type = match (memory.ram(gfn, false), memory.ram(gfn, true)) {
        (None, _) => HVMMEM_MMIO_DM,
        (_, None) => HVMMEM_RAM_RO,
        _ => HVMMEM_RAM_RW,
    };
    drop(memory);
    ptr.write(cx, run, &arg)?;
    Ok(Outcome::DONE)
}

/// A help for shadow page tables, of which there are none.
fn pagetable_dying(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let arg = GuestPtr::<PagetableDying>::new(at).read(cx, run)?;
    match domain::own_from_guest(cx, &run.domain, arg.domid) {
        Ok(()) => Err(Errno::EINVAL),
        Err(Errno::EPERM) => Err(Errno::EOPNOTSUPP),
        Err(errno) => Err(errno),
    }
}

/// A guest's record for the trace, which nobody reads.
fn trace(cx: &mut Cx<'_, Root>, run: &mut Running, at: u64) -> Answer {
    let arg = GuestPtr::<Xentrace>::new(at).read(cx, run)?;
    if usize::from(arg.extra_bytes) > arg.extra.len() {
        return Err(Errno::EINVAL);
    }
    Ok(Outcome::DONE)
}
