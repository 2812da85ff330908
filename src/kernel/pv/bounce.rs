//! Into a PV guest's kernel and back: the frames that it finds on its stack, and the IRET hypercall.
//!
//! As Xen does (`create_bounce_frame`, `do_iret`): from user mode the kernel's own page tables and stack are taken first.
//! A frame that cannot be written, or that has nowhere to lead to, ends the domain.

use core::sync::atomic::Ordering;

use abi::pv_vcpu::IretContext;
use abi::xen::VMASST_TYPE_ARCHITECTURAL_IOPL;
use model::addr::GuestVirt;
use model::pv::frame::{self, Circumstances, Handler};
use model::pv::is_guests;
use sync::Cx;
use sync::place::Root;
use zerocopy::{FromZeros, IntoBytes};

use crate::domain::attention;
use crate::domain::life::{self, Death};
use crate::guest_memory::window;
use crate::hypercall::{Answer, Args, Outcome};
use crate::run::Running;

/// What a guest's kernel is entered with.
#[derive(Clone, Copy)]
pub struct Bounce {
    to: Handler,
    more: More,
}

/// What a frame has beside the registers.
#[derive(Clone, Copy)]
enum More {
    Nothing,
    Error(u32),
    Selectors([u16; 4]),
}

impl Bounce {
    /// To a handler, without an error code.
    #[inline]
    pub fn to(to: Handler) -> Self {
        Self { to, more: More::Nothing }
    }

    /// With an error code.
    #[inline]
    pub fn with_error(self, error: Option<u32>) -> Self {
        Self { more: error.map_or(More::Nothing, More::Error), ..self }
    }

    /// With the selectors that the failsafe callback gets.
    pub fn with_selectors(self, selectors: [u16; 4]) -> Self {
        Self { more: More::Selectors(selectors), ..self }
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
    let context = &*run.context;
    let Some(info) = &run.info else {
        return Err(Death::NoCallback { which: "vcpu_info" });
    };
    let iopl = if run.domain.assists(VMASST_TYPE_ARCHITECTURAL_IOPL) { run.context.pv_ref().iopl } else { 0 };
    let upcall_mask = info.upcall_mask().load(Ordering::Relaxed);
    let how = Circumstances { was_kernel, upcall_mask, iopl };
    let at = match bounce.more {
        More::Nothing => put(run, top, &frame::plain(&context.regs, &how)),
        More::Error(error) => put(run, top, &frame::with_error(&context.regs, &how, error)),
        More::Selectors(selectors) => put(run, top, &frame::failsafe(&context.regs, &how, selectors)),
    };
    let at = at.map_err(|at| Death::Stack { at })?;
    if bounce.to.masks_events {
        info.upcall_mask().store(1, Ordering::Relaxed);
    }
    frame::enter(&mut run.context.regs, at, bounce.to.address);
    Ok(())
}

/// Writes a frame below a stack's top. Says where it begins, also where it cannot be written.
#[inline]
fn put<const N: usize>(run: &Running, top: u64, words: &[u64; N]) -> Result<u64, u64> {
    let at = frame::place(top, N);
    let is_written = is_guests(at, N * 8) && window(run, || machine::pv::write_words(GuestVirt::new(at), words));
    if is_written { Ok(at) } else { Err(at) }
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
    let is_read = is_guests(at, size_of::<IretContext>())
        && window(run, || machine::pv::copy_from(GuestVirt::new(at), words.as_mut_bytes())) == 0;
    if !is_read {
        return Err(Death::IretFrame { at });
    }
    let context = &mut *run.context;
    if words.cs & 3 == 3 && !context.hw.pv_mut().toggle_mode() {
        return Err(Death::NoUserTables);
    }
    let back = frame::iret(&mut context.regs, &words);
    if let Some(info) = &run.info {
        info.upcall_mask().store(back.upcall_mask, Ordering::Relaxed);
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
