//! Into a PV guest's kernel and back: the frames that it finds on its stack, and the IRET hypercall.
//!
//! As Xen does (`create_bounce_frame`, `do_iret`): from user mode the kernel's own page tables and stack are taken first.
//! A frame that cannot be written, or that has nowhere to lead to, ends the domain.

use core::sync::atomic::Ordering;

use abi::pv_vcpu::IretContext;
use abi::xen::VMASST_TYPE_ARCHITECTURAL_IOPL;
use machine::pv::Vcpu;
use model::addr::GuestVirt;
use model::pv::frame::{self, Circumstances, Handler};
use model::regs::Regs;
use sync::Cx;
use sync::place::Root;
use zerocopy::transmute;

use super::PvContext;
use crate::domain::life::{self, Death};
use crate::domain::{Context, Domain, Words, attention};
use crate::guest_memory::Window;
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

/// What of a virtual CPU changes when its guest's kernel is entered or left, but for its registers.
pub struct Scene<'a> {
    /// Its domain.
    pub domain: &'a Domain,
    /// Its `vcpu_info`.
    pub info: Words<'a>,
    /// What it has as a PV virtual CPU.
    pub pv: &'a mut PvContext,
}

impl Scene<'_> {
    /// Enters the guest's kernel, in a window of the flush protocol. The handler's address is not 0. Where the frame was to
    /// begin, if it cannot be written; then nothing has changed.
    #[inline(always)]
    pub fn enter(&self, vcpu: &mut Vcpu, regs: &mut Regs, bounce: Bounce) -> Result<(), u64> {
        let was_kernel = vcpu.is_kernel();
        let mut top = regs.rsp;
        if !was_kernel {
            vcpu.toggle_mode();
            top = self.pv.kernel_sp;
        }
        let mask = self.info.mask;
        let iopl = if self.domain.assists(VMASST_TYPE_ARCHITECTURAL_IOPL) { self.pv.iopl } else { 0 };
        let how = Circumstances { was_kernel, upcall_mask: mask.load(Ordering::Relaxed), iopl };
        let written = match bounce.more {
            More::Nothing => put(top, frame::plain(regs, &how), machine::pv::write7),
            More::Error(error) => put(top, frame::with_error(regs, &how, error), machine::pv::write8),
            More::Selectors(selectors) => {
                put(top, frame::failsafe(regs, &how, selectors), |at, words| machine::pv::write_words(at, &words))
            }
        };
        match written {
            Ok(at) => {
                if bounce.to.masks_events {
                    mask.store(1, Ordering::Relaxed);
                }
                frame::enter(regs, at, bounce.to.address);
                Ok(())
            }
            Err(at) => {
                if !was_kernel {
                    vcpu.toggle_mode();
                }
                Err(at)
            }
        }
    }

    /// The IRET hypercall, in a window of the flush protocol. If it fails nothing has changed.
    #[inline(always)]
    pub fn go_back(&mut self, vcpu: &mut Vcpu, regs: &mut Regs) -> Result<Back, Death> {
        let at = regs.rsp;
        let words: IretContext = transmute!(machine::pv::read9(GuestVirt::new(at)).ok_or(Death::IretFrame { at })?);
        if words.cs & 3 == 3 && !vcpu.toggle_mode() {
            return Err(Death::NoUserTables);
        }
        let back = frame::iret(regs, &words);
        self.info.mask.store(back.upcall_mask, Ordering::Relaxed);
        if self.domain.assists(VMASST_TYPE_ARCHITECTURAL_IOPL) {
            self.pv.iopl = back.iopl;
        }
        Ok(if self.pv.is_nmi_masked { self.end_nmi() } else { Back::Plain })
    }

    /// The handler of an NMI has ended.
    #[cold]
    fn end_nmi(&mut self) -> Back {
        self.pv.is_nmi_masked = false;
        if core::mem::take(&mut self.pv.is_nmi_pending) { Back::ToNmi } else { Back::Plain }
    }
}

/// What waits where IRET leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// Nothing that is known here.
    Plain,
    /// An NMI, which is to be noted.
    ToNmi,
}

/// Writes a frame below a stack's top. Says where it begins, also where it cannot be written.
#[inline(always)]
fn put<const N: usize>(top: u64, words: [u64; N], write: impl Fn(GuestVirt, [u64; N]) -> bool) -> Result<u64, u64> {
    let at = frame::place(top, N);
    if write(GuestVirt::new(at), words) { Ok(at) } else { Err(at) }
}

/// Enters the guest's kernel. The handler's address is not 0.
pub fn bounce(run: &mut Running, bounce: Bounce) -> Result<(), Death> {
    with_scene(run, |scene, vcpu, regs| scene.enter(vcpu, regs, bounce).map_err(|at| Death::Stack { at }))
}

/// Does something in a window of the flush protocol.
fn with_scene<R>(
    run: &mut Running,
    f: impl FnOnce(&mut Scene<'_>, &mut Vcpu, &mut Regs) -> Result<R, Death>,
) -> Result<R, Death> {
    let _window = Window::open(run);
    let Context { hw, regs, pv, .. } = &mut *run.context;
    let info = run.info.as_ref().ok_or(Death::NoCallback { which: "vcpu_info" })?.words();
    let pv = pv.as_mut().expect("a PV virtual CPU");
    f(&mut Scene { domain: &run.domain, info, pv }, hw.pv_mut(), regs)
}

/// `iret`: the guest's kernel goes on as the words on its stack say. Comes here only where [`super::stay`] has not done it.
pub fn iret(cx: &mut Cx<'_, Root>, run: &mut Running, _: &Args) -> Answer {
    match with_scene(run, |scene, vcpu, regs| scene.go_back(vcpu, regs)) {
        Ok(back) => {
            if back == Back::ToNmi {
                run.vcpu().note(attention::NMI);
            }
            Ok(Outcome::AsIs)
        }
        Err(why) => {
            life::end(cx, run, why);
            Ok(Outcome::Gone)
        }
    }
}
