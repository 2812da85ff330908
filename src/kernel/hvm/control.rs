//! Control registers and XSETBV.

use machine::exit::{CrAccess, Length};
use machine::virt::{GuestMsr, Virt};
use model::emul::ControlOp;
use model::policy::control::Controls;
use model::regs::{Cr0, Event, SegmentName};
use sync::Cx;
use sync::place::Root;

use super::exit::inject;
use super::msr::Fault;
use super::{apic, emulate};
use crate::run::{Next, Running};

/// MOV to or from a control register, CLTS, LMSW.
#[inline(never)]
pub fn handle(cx: &mut Cx<'_, Root>, run: &mut Running, access: CrAccess, len: Length) -> Next {
    let (op, len) = match (decoded(access), len) {
        (Some(op), Some(len)) => (op, len),
        _ => match emulate::control(cx, run) {
            Ok(Some(decoded)) => decoded,
            Ok(None) => return inject(run, Event::UD),
            Err(fault) => return emulate::deliver(run, fault),
        },
    };
    // The instruction may have changed since it exited.
    if run.context.hw.cpl() != 0 || perform(cx, run, op).is_err() {
        return inject(run, Event::GP);
    }
    run.context.hw.skip(&mut run.context.regs, len);
    Next::Enter
}

fn decoded(access: CrAccess) -> Option<ControlOp> {
    Some(match access {
        CrAccess::Write { cr, gpr } => ControlOp::Write { cr, gpr },
        CrAccess::Read { cr, gpr } => ControlOp::Read { cr, gpr },
        CrAccess::Clts => ControlOp::Clts,
        CrAccess::Lmsw { value } => ControlOp::Lmsw { value },
        CrAccess::Undecoded => return None,
    })
}

fn perform(cx: &mut Cx<'_, Root>, run: &mut Running, op: ControlOp) -> Result<(), Fault> {
    match op {
        ControlOp::Write { cr: 8, gpr } => apic::set_cr8(cx, run, run.context.regs.gpr(gpr)),
        ControlOp::Write { cr, gpr } => set(run, cr, run.context.regs.gpr(gpr)),
        ControlOp::Read { cr, gpr } => {
            let value = if cr == 8 { apic::cr8(cx, run) } else { run.context.hw.cr(cr) };
            *run.context.regs.gpr_mut(gpr) = value;
            Ok(())
        }
        ControlOp::Clts => set(run, 0, run.context.hw.cr(0) & !Cr0::TS.bits()),
        ControlOp::Lmsw { value } => {
            let old = run.context.hw.cr(0);
            // LMSW sets PE but never clears it (SDM 2A, LMSW).
            set(run, 0, old & !0xe | u64::from(value) & 0xf)
        }
    }
}

/// The registers that the rules look at.
fn controls(run: &Running) -> Controls {
    let hw = &run.context.hw;
    Controls {
        cr0: hw.cr(0),
        cr3: hw.cr(3),
        cr4: hw.cr(4),
        efer: hw.msr(GuestMsr::Efer),
        cs_is_long: hw.segment(SegmentName::Cs).is_long(),
    }
}

fn set(run: &mut Running, cr: u8, value: u64) -> Result<(), Fault> {
    let (policy, old) = (run.domain.controls, controls(run));
    let checked = match cr {
        0 => policy.check_cr0(value, &old),
        3 => policy.check_cr3(value, &old),
        4 => policy.check_cr4(value, &old),
        _ => return Err(Fault),
    };
    run.context.hw.set_cr(cr, checked.map_err(|_| Fault)?);
    Ok(())
}

/// Writes EFER.
pub fn set_efer(run: &mut Running, value: u64) -> Result<(), Fault> {
    let checked = run.domain.controls.check_efer(value, &controls(run)).map_err(|_| Fault)?;
    run.context.hw.set_msr(GuestMsr::Efer, checked);
    Ok(())
}

/// XSETBV of EDX:EAX to the register in ECX.
pub fn xsetbv(_: &mut Cx<'_, Root>, run: &mut Running, len: u8) -> Next {
    let regs = &run.context.regs;
    let (index, value) = (regs.rcx as u32, regs.rax & 0xffff_ffff | regs.rdx << 32);
    let checked = run.domain.controls.check_xcr0(index, value);
    let (Ok(value), 0) = (checked, run.context.hw.cpl()) else { return inject(run, Event::GP) };
    run.context.extended.set_xcr0(value);
    run.context.hw.skip(&mut run.context.regs, len);
    Next::Enter
}
