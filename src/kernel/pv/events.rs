//! What a PV virtual CPU is given before it enters the guest: NMIs, and event-channel upcalls where [`super::stay`] cannot.

use core::sync::atomic::Ordering;

use model::regs::vector;
use sync::Cx;
use sync::place::Root;

use super::bounce::{self, Bounce};
use crate::domain::attention;
use crate::domain::life::{self, Death};
use crate::run::{Next, Running};
use crate::updown;

/// Before each stay: starts and stops, then an NMI. Upcalls come within the stay.
#[inline]
pub fn prepare(cx: &mut Cx<'_, Root>, run: &mut Running) -> Next {
    if run.vcpu().attention.load(Ordering::Relaxed) == 0 {
        return Next::Enter;
    }
    look(cx, run).unwrap_or_else(|why| end(cx, run, why))
}

/// An upcall that could not be delivered within the stay: by now it can, or it ends the domain.
#[cold]
pub fn deliver(cx: &mut Cx<'_, Root>, run: &mut Running) -> Next {
    if run.info.as_ref().is_some_and(|info| info.words().is_upcall_due())
        && let Err(why) = upcall(run)
    {
        return end(cx, run, why);
    }
    Next::Enter
}

#[cold]
fn end(cx: &mut Cx<'_, Root>, run: &mut Running, why: Death) -> Next {
    life::end(cx, run, why);
    Next::Schedule
}

/// Does what was noted for the virtual CPU.
#[cold]
fn look(cx: &mut Cx<'_, Root>, run: &mut Running) -> Result<Next, Death> {
    let noted = run.vcpu().attention.swap(0, Ordering::Acquire); // pairs with `Vcpu::note`
    if noted & attention::SCHEDULE != 0 {
        run.vcpu().note(noted & !attention::SCHEDULE);
        return Ok(Next::Schedule);
    }
    if noted & attention::START != 0 && !updown::apply(cx, run) {
        run.vcpu().note(noted & !attention::START);
        return Ok(Next::Schedule);
    }
    if noted & attention::NMI != 0 {
        nmi(run)?;
    }
    Ok(Next::Enter)
}

/// An NMI. While the handler of the last one runs it waits for the IRET that ends that; without a handler it is lost.
fn nmi(run: &mut Running) -> Result<(), Death> {
    let pv = run.context.pv();
    if pv.is_nmi_masked {
        pv.is_nmi_pending = true;
        return Ok(());
    }
    let handler = pv.trap(vector::NMI);
    if handler.address == 0 {
        return Ok(());
    }
    pv.is_nmi_masked = true;
    bounce::bounce(run, Bounce::to(handler))
}

/// The upcall of event channels: with further ones masked.
fn upcall(run: &mut Running) -> Result<(), Death> {
    let handler = run.context.pv().upcall();
    if handler.address == 0 {
        return Err(Death::NoCallback { which: "event" });
    }
    bounce::bounce(run, Bounce::to(handler))
}

/// Lets upcalls through (`SCHEDOP_block`, HLT).
pub fn unmask(run: &Running) {
    if let Some(info) = &run.info {
        info.words().mask().store(0, Ordering::Relaxed);
    }
}

/// Whether something waits for the virtual CPU that ends its sleep.
pub fn has_work(run: &Running) -> bool {
    let noted = run.vcpu().attention.load(Ordering::Acquire);
    run.info.as_ref().is_some_and(|info| info.words().is_upcall_due())
        || noted & (attention::NMI | attention::START | attention::SCHEDULE) != 0
}
