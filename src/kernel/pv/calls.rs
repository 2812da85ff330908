//! Hypercalls about a PV virtual CPU itself (`xen/include/public/xen.h`, `callback.h`, `nmi.h`, `arch-x86/xen-x86_64.h`).

use abi::callback::*;
use abi::errno::Errno;
use abi::pv_vcpu::{SEGBASE_FS, SEGBASE_GS_KERNEL, SEGBASE_GS_USER, SEGBASE_GS_USER_SEL, TrapInfo};
use machine::pv::Vcpu;
use machine::virt::{GuestMsr, Virt};
use model::addr::GuestVirt;
use model::pv::frame::Handler;
use model::pv::state::{NO_TRAPS, unprivileged};
use model::regs::{Cr0, Cr4, vector};
use sync::Cx;
use sync::place::Root;

use super::PvContext;
use crate::guest_memory::GuestPtr;
use crate::hypercall::{Answer, Args, Outcome};
use crate::run::Running;

/// Entries of a trap table after which pending work is looked for.
const STEP: u64 = 64;

fn canonical(address: u64) -> Result<u64, Errno> {
    if GuestVirt::new(address).is_canonical() { Ok(address) } else { Err(Errno::EINVAL) }
}

/// `set_trap_table`: `args[0]` an array that ends with address 0; null to have no handlers.
pub fn set_trap_table(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    if args[0] == 0 {
        *run.context.pv().traps = NO_TRAPS;
        return Ok(Outcome::DONE);
    }
    let table = GuestPtr::<TrapInfo>::new(args[0]);
    for index in 0..STEP {
        let mut trap = table.at(index).read(cx, run)?;
        if canonical(trap.address)? == 0 {
            return Ok(Outcome::DONE);
        }
        trap.cs = unprivileged(trap.cs);
        run.context.pv().traps[usize::from(trap.vector)] = trap;
    }
    let rest = args[0].wrapping_add(STEP * size_of::<TrapInfo>() as u64);
    Ok(Outcome::Again([rest, args[1], args[2], args[3], args[4], args[5]]))
}

/// `set_callbacks`: the addresses for events, the failsafe callback and SYSCALL. What is not canonical is left out.
pub fn set_callbacks(_: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    for (kind, address) in [CALLBACKTYPE_EVENT, CALLBACKTYPE_FAILSAFE, CALLBACKTYPE_SYSCALL].into_iter().zip(*args) {
        let _ = register(run, kind, address, false);
    }
    Ok(Outcome::DONE)
}

/// `callback_op`: `args[0]` the command, `args[1]` its argument.
pub fn callback_op(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    match args[0] as u32 {
        CALLBACKOP_REGISTER => {
            let arg = GuestPtr::<CallbackRegister>::new(args[1]).read(cx, run)?;
            register(run, arg.kind, arg.address, arg.flags & CALLBACKF_MASK_EVENTS != 0)
        }
        CALLBACKOP_UNREGISTER => {
            let arg = GuestPtr::<CallbackUnregister>::new(args[1]).read(cx, run)?;
            match arg.kind {
                CALLBACKTYPE_NMI => unregister_nmi(run),
                CALLBACKTYPE_EVENT
                | CALLBACKTYPE_FAILSAFE
                | CALLBACKTYPE_SYSCALL
                | CALLBACKTYPE_SYSENTER
                | CALLBACKTYPE_SYSCALL32 => Err(Errno::EINVAL),
                _ => Err(Errno::ENOSYS),
            }
        }
        _ => Err(Errno::ENOSYS),
    }
}

fn register(run: &mut Running, kind: u16, address: u64, masks_events: bool) -> Answer {
    let address = canonical(address)?;
    let pv = run.context.pv();
    let handler = Handler { address, masks_events };
    match kind {
        CALLBACKTYPE_EVENT => pv.callbacks.event = address,
        CALLBACKTYPE_FAILSAFE => pv.callbacks.failsafe = handler,
        CALLBACKTYPE_SYSCALL => pv.callbacks.syscall = handler,
        CALLBACKTYPE_SYSCALL32 => pv.callbacks.syscall32 = handler,
        CALLBACKTYPE_SYSENTER => pv.callbacks.sysenter = handler,
        CALLBACKTYPE_NMI => return register_nmi(run, address),
        _ => return Err(Errno::ENOSYS),
    }
    Ok(Outcome::DONE)
}

/// The handler of NMIs is that of the virtual IDT, with events masked.
fn register_nmi(run: &mut Running, address: u64) -> Answer {
    let address = canonical(address)?;
    let flat = abi::pv_vcpu::FLAT_KERNEL_CS64;
    let trap = TrapInfo { vector: vector::NMI, flags: 4, cs: flat, pad: 0, address };
    run.context.pv().traps[usize::from(vector::NMI)] = trap;
    Ok(Outcome::DONE)
}

fn unregister_nmi(run: &mut Running) -> Answer {
    run.context.pv().traps[usize::from(vector::NMI)] = TrapInfo::default();
    Ok(Outcome::DONE)
}

/// `nmi_op`: `args[0]` the command, `args[1]` its argument.
pub fn nmi_op(cx: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    match args[0] as u32 {
        XENNMI_REGISTER_CALLBACK => {
            let arg = GuestPtr::<NmiCallback>::new(args[1]).read(cx, run)?;
            register_nmi(run, arg.handler_address)
        }
        XENNMI_UNREGISTER_CALLBACK => unregister_nmi(run),
        _ => Err(Errno::ENOSYS),
    }
}

/// `stack_switch`: `args[0]` the selector, `args[1]` the pointer.
pub fn stack_switch(_: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    set_stack(run.context.pv(), args[0], args[1]);
    Ok(Outcome::DONE)
}

/// The kernel's stack.
#[inline]
pub fn set_stack(pv: &mut PvContext, selector: u64, pointer: u64) {
    // A selector has 16 bits.
    pv.kernel_ss = unprivileged(selector as u16);
    pv.kernel_sp = pointer;
}

/// `fpu_taskswitch`: `args[0]` is CR0.TS.
pub fn fpu_taskswitch(_: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    set_task_switched(run.context.hw.pv_mut(), args[0] as u32 != 0);
    Ok(Outcome::DONE)
}

/// CR0.TS.
#[inline]
pub fn set_task_switched(vcpu: &mut Vcpu, is_set: bool) {
    let flag = if is_set { Cr0::TS.bits() } else { 0 };
    vcpu.set_cr(0, vcpu.cr(0) & !Cr0::TS.bits() | flag);
}

/// `set_segment_base`: `args[0]` which, `args[1]` the base, or the selector for the user's GS.
pub fn set_segment_base(_: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    set_base(run.context.hw.pv_mut(), args[0] as u32, args[1])?;
    Ok(Outcome::DONE)
}

/// Base `which`, or the selector for the user's GS.
#[inline]
pub fn set_base(vcpu: &mut Vcpu, which: u32, value: u64) -> Result<(), Errno> {
    if which != SEGBASE_FS {
        return set_gs(vcpu, which, value);
    }
    if vcpu.set_fs_base(value) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// The bases of GS, which the kernel sets more rarely, and its selector.
#[inline(never)]
fn set_gs(vcpu: &mut Vcpu, which: u32, value: u64) -> Result<(), Errno> {
    match which {
        // The other one of the pair, as the caller is in kernel mode.
        SEGBASE_GS_USER => vcpu.set_msr(GuestMsr::KernelGsBase, canonical(value)?),
        SEGBASE_GS_KERNEL => vcpu.set_msr(GuestMsr::GsBase, canonical(value)?),
        SEGBASE_GS_USER_SEL => {
            let selector = value as u16;
            let selector = if selector > 3 { unprivileged(selector) } else { selector };
            // As in Xen, one that cannot be loaded becomes the null selector, and the call does not fail.
            let _ = vcpu.set_user_gs(selector);
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

/// `set_debugreg`: `args[0]` which, `args[1]` the value.
pub fn set_debugreg(_: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    write_debug(run, u64::from(args[0] as u32), args[1])?;
    Ok(Outcome::DONE)
}

/// `get_debugreg`: `args[0]` which; the value is the answer.
pub fn get_debugreg(_: &mut Cx<'_, Root>, run: &mut Running, args: &Args) -> Answer {
    Ok(Outcome::Done(read_debug(run, u64::from(args[0] as u32))?))
}

/// A debug register as the guest reads it.
pub fn read_debug(run: &mut Running, n: u64) -> Result<u64, Errno> {
    let has_extensions = run.context.hw.cr(4) & Cr4::DE.bits() != 0;
    run.context.pv().debug.get(n, has_extensions)
}

/// The guest writes a debug register.
pub fn write_debug(run: &mut Running, n: u64, value: u64) -> Result<(), Errno> {
    let has_extensions = run.context.hw.cr(4) & Cr4::DE.bits() != 0;
    run.context.pv().debug.set(n, value, has_extensions)?;
    run.context.load_debug();
    Ok(())
}
