//! PVH and HVM virtual CPUs: what the hypervisor does when one leaves the guest, and before it enters.

pub mod apic;
mod control;
mod cpuid;
pub mod emulate;
pub mod events;
pub mod exit;
mod io;
mod msr;
pub mod startup;

use machine::virt::Virt;
use sync::Cx;
use sync::place::Root;

use crate::run::{Next, Running, begin_stay};
use crate::stretch;

/// Stays in the guest, for as long as nothing is noted for this CPU and the scheduler need not be asked. What is long and
/// less common is not inlined here, so that the common exits find room in the registers.
#[inline(never)]
pub fn step(cx: &mut Cx<'_, Root>, run: &mut Running) -> Next {
    loop {
        if events::prepare(cx, run) == Next::Schedule {
            return Next::Schedule;
        }
        if !begin_stay(run) {
            if run.here.is_wanted() {
                return Next::Enter;
            }
            continue;
        }
        stretch::end();
        let exit = run.context.hw.run(&mut run.context.regs);
        stretch::begin();
        run.here.visits.left();
        let next = exit::handle(cx, run, exit);
        stretch::end();
        stretch::begin();
        if next == Next::Schedule || run.here.is_wanted() {
            return next;
        }
    }
}
