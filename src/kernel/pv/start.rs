//! How a PV virtual CPU starts: with a state that is plain data.

use alloc::boxed::Box;
use core::sync::atomic::Ordering;

use abi::errno::Errno;
use abi::pv_vcpu::VcpuGuestContext;
use machine::virt::{GuestMsr, Virt};
use model::ids::VcpuId;
use model::pv::mmu::Stop;
use model::pv::privileged;
use model::pv::state::PvState;
use model::regs::{Cr0, SegmentName};
use sync::Cx;
use sync::place::Root;
use zerocopy::FromBytes;

use super::{IoBitmap, PvContext, exit, mmu};
use crate::domain::{Domain, Start, attention};
use crate::guest_memory::read_bytes;
use crate::hypercall::{Answer, Args, Outcome, assist};
use crate::run::Running;
use crate::updown;

/// Descriptors in a page.
const PER_PAGE: u64 = 512;

/// `VCPUOP_initialise`: `args[2]` a `vcpu_guest_context`.
pub fn initialise(cx: &mut Cx<'_, Root>, run: &mut Running, target: VcpuId, args: &Args) -> Answer {
    let domain = run.domain.clone();
    if !domain.shared.has_vcpu_info(target) {
        return Err(Errno::EINVAL);
    }
    let bytes = read_bytes(cx, run, args[2], size_of::<VcpuGuestContext>())?;
    let context = VcpuGuestContext::read_from_bytes(&bytes).map_err(|_| Errno::EINVAL)?;
    let state = Box::new(PvState::from_guest(&context)?);
    match prepare(cx, &domain, target, state) {
        Ok(is_online) => {
            if is_online {
                domain.vcpu(target).ok_or(Errno::ENOENT)?.note(attention::START);
                updown::bring_up(cx, &domain, target);
            }
            Ok(Outcome::DONE)
        }
        Err(Stop::Refused(errno)) => Err(errno),
        Err(Stop::Again) => Ok(Outcome::Again(*args)),
    }
}

/// Takes the references that a start state needs, and has the virtual CPU start with it once it is up. Says whether that is
/// to be at once.
pub fn prepare(cx: &mut Cx<'_, Root>, domain: &Domain, target: VcpuId, state: Box<PvState>) -> Result<bool, Stop> {
    let vcpu = domain.vcpu(target).ok_or(Errno::ENOENT)?;
    if cx.lock(&vcpu.state).0.is_initialised {
        return Err(Errno::EEXIST.into());
    }
    if target.0 == 0 && state.assists & !assist::OF_PV != 0 || state.gdt_entries > mmu::GDT_PAGES as u64 * PER_PAGE {
        return Err(Errno::EINVAL.into());
    }
    let gdt = &state.gdt_frames[..state.gdt_entries.div_ceil(PER_PAGE) as usize];
    mmu::load_gdt(cx, domain, target, gdt)?;
    let taken = mmu::set_bases(cx, domain, target, state.kernel_l4, state.user_l4);
    if let Err(Stop::Refused(_)) = taken {
        // Giving up descriptors takes no time that would have to be divided.
        let _ = mmu::load_gdt(cx, domain, target, &[]);
    }
    taken?;
    mmu::note_ldt(cx, domain, target, state.ldt);
    if target.0 == 0 {
        domain.assists.store(state.assists, Ordering::Relaxed);
    }
    let is_online = state.is_online;
    let (mut vcpu, _) = cx.lock(&vcpu.state);
    vcpu.start = Some(Start::Pv(state));
    vcpu.waits_for_startup = !is_online;
    vcpu.is_initialised = true;
    Ok(is_online)
}

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
    let allowed = run.domain.controls.cr4_allowed();
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
