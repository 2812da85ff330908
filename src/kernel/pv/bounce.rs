//! Into a PV guest's kernel and back: the frames that it finds on its stack, and the IRET hypercall.
//!
//! As Xen does (`create_bounce_frame`, `do_iret`): from user mode the kernel's own page tables and stack are taken first.
//! A frame that cannot be written, or that has nowhere to lead to, ends the domain.

use core::sync::atomic::Ordering;

use abi::pv_vcpu::IretContext;
use abi::xen::VMASST_TYPE_ARCHITECTURAL_IOPL;
use model::pv::frame::{self, Circumstances, Handler};
use sync::Cx;
use sync::place::Root;
use zerocopy::{FromZeros, IntoBytes};

use crate::domain::attention;
use crate::domain::life::{self, Death};
use crate::guest_memory::{copy_in_pv, copy_out_pv};
use crate::hypercall::{Answer, Args, Outcome};
use crate::run::Running;

/// What a guest's kernel is entered with.
#[derive(Clone, Copy)]
pub struct Bounce {
    to: Handler,
    error: Option<u32>,
    selectors: Option<[u16; 4]>,
}

impl Bounce {
    /// To a handler, without an error code.
    #[inline]
    pub fn to(to: Handler) -> Self {
        Self { to, error: None, selectors: None }
    }

    /// With an error code.
    #[inline]
    pub fn with_error(self, error: Option<u32>) -> Self {
        Self { error, ..self }
    }

    /// With the selectors that the failsafe callback gets.
    pub fn with_selectors(self, selectors: [u16; 4]) -> Self {
        Self { selectors: Some(selectors), ..self }
    }
}

/// Enters the guest's kernel. The handler's address is not 0.
#[inline]
pub fn bounce(run: &mut Running, bounce: Bounce) -> Result<(), Death> {
    let was_kernel = run.context.hw.pv().is_kernel();
    let mut top = run.context.regs.rsp;
    if !was_kernel {
        run.context.hw.pv_mut().toggle_mode();
        top = run.context.pv().kernel_sp;
    }
    let Some(mask) = run.domain.shared.upcall_mask(run.id) else {
        return Err(Death::NoCallback { which: "vcpu_info" });
    };
    let iopl = if run.domain.assists(VMASST_TYPE_ARCHITECTURAL_IOPL) { run.context.pv().iopl } else { 0 };
    let upcall_mask = mask.load(Ordering::Relaxed);
    let how = Circumstances { was_kernel, upcall_mask, iopl, error: bounce.error, selectors: bounce.selectors };
    let frame = frame::build(&run.context.regs, &how);
    let at = frame.place(top);
    if copy_out_pv(run, at, frame.words().as_bytes()).is_err() {
        return Err(Death::Stack { at });
    }
    if bounce.to.masks_events {
        mask.store(1, Ordering::Relaxed);
    }
    frame::enter(&mut run.context.regs, at, bounce.to.address);
    Ok(())
}

/// `iret`: the guest's kernel goes on as the words on its stack say.
pub fn iret(cx: &mut Cx<'_, Root>, run: &mut Running, _: &Args) -> Answer {
    match go_back(run) {
        Ok(()) => Ok(Outcome::AsIs),
        Err(why) => {
            life::end(cx, run, why);
            Ok(Outcome::Gone)
        }
    }
}

#[inline]
fn go_back(run: &mut Running) -> Result<(), Death> {
    let at = run.context.regs.rsp;
    let mut words = IretContext::new_zeroed();
    copy_in_pv(run, at, words.as_mut_bytes()).map_err(|_| Death::IretFrame { at })?;
    let context = &mut *run.context;
    if words.cs & 3 == 3 && !context.hw.pv_mut().toggle_mode() {
        return Err(Death::NoUserTables);
    }
    let back = frame::iret(&mut context.regs, &words);
    if let Some(mask) = run.domain.shared.upcall_mask(run.id) {
        mask.store(back.upcall_mask, Ordering::Relaxed);
    }
    let pv = context.pv();
    if run.domain.assists(VMASST_TYPE_ARCHITECTURAL_IOPL) {
        pv.iopl = back.iopl;
    }
    if pv.is_nmi_masked {
        pv.is_nmi_masked = false;
        if core::mem::take(&mut pv.is_nmi_pending) {
            run.vcpu().note(attention::NMI);
        }
    }
    Ok(())
}
