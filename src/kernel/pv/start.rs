//! How a PV virtual CPU starts: with a state that is plain data.

use machine::virt::{GuestMsr, Virt};
use model::policy::control::ControlPolicy;
use model::pv::privileged;
use model::pv::state::PvState;
use model::regs::{Cr0, SegmentName};
use sync::Cx;
use sync::place::Root;

use super::{IoBitmap, PvContext, exit};
use crate::run::Running;

/// Puts a start state into the hardware's hands. The page tables that it names have their references already.
pub fn set(cx: &mut Cx<'_, Root>, run: &mut Running, state: PvState) {
    let context = &mut *run.context;
    *context.pv() = PvContext {
        traps: state.traps,
        callbacks: state.callbacks,
        kernel_ss: state.kernel_ss,
        kernel_sp: state.kernel_sp,
        iopl: state.iopl,
        io_bitmap: IoBitmap::default(),
        debug: state.debug,
        is_nmi_masked: false,
        is_nmi_pending: false,
    };
    *context.regs = state.regs;
    let hw = context.hw.pv_mut();
    hw.set_kernel_base(state.kernel_l4);
    hw.set_user_base(state.user_l4);
    hw.set_ldt(state.ldt.entries);
    let ts = if state.is_task_switched { Cr0::TS.bits() } else { 0 };
    hw.set_cr(0, hw.cr(0) & !Cr0::TS.bits() | ts);
    let allowed = ControlPolicy::new(&run.domain.cpuid).cr4_allowed();
    hw.set_cr(4, privileged::write_cr4(state.cr4, allowed));
    let names = [SegmentName::Ds, SegmentName::Es, SegmentName::Fs, SegmentName::Gs];
    // GS and its base are user mode's, as it is not in kernel mode that it can be loaded.
    let mut are_good = true;
    for (name, selector) in names.into_iter().zip(state.selectors) {
        are_good &= match name {
            SegmentName::Gs => hw.set_user_gs(selector),
            _ => hw.set_selector(name, selector),
        };
    }
    if state.fs_base != 0 {
        hw.set_msr(GuestMsr::FsBase, state.fs_base);
    }
    hw.set_msr(GuestMsr::GsBase, state.gs_base_kernel);
    if state.gs_base_user != 0 {
        hw.set_msr(GuestMsr::KernelGsBase, state.gs_base_user);
    }
    if !state.in_kernel {
        // There is a table for user mode, or the state would have been refused.
        hw.toggle_mode();
    }
    if let Some(fpu) = &state.fpu {
        context.extended.set_legacy(fpu);
    }
    context.load_debug();
    if !are_good {
        exit::failsafe(cx, run, state.selectors);
    }
}
