//! Into a PV guest's kernel and back: the frames that it finds on its stack, and the IRET hypercall.
//!
//! As Xen does (`create_bounce_frame`, `do_iret`): from user mode the kernel's own page tables and stack are taken first.
//! A frame that cannot be written, or that has nowhere to lead to, ends the domain.

use core::sync::atomic::Ordering;

use abi::pv_vcpu::IretContext;
use abi::xen::VMASST_TYPE_ARCHITECTURAL_IOPL;
use machine::pv::Vcpu;
use model::addr::GuestVirt;
use model::pv::frame::{self, Circumstances, Handler, PvRegs};
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

impl More {
    /// How many words the frame has.
    #[inline]
    fn words(&self) -> usize {
        match self {
            Self::Nothing => 7,
            Self::Error(_) => 8,
            Self::Selectors(_) => 11,
        }
    }
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
    /// Its domain wants to see IOPL in frames, as it was when the virtual CPU entered.
    has_iopl: bool,
}

impl<'a> Scene<'a> {
    /// As things are.
    #[inline]
    pub fn new(domain: &'a Domain, info: Words<'a>, pv: &'a mut PvContext) -> Self {
        Self { domain, info, pv, has_iopl: domain.assists(VMASST_TYPE_ARCHITECTURAL_IOPL) }
    }

    /// The same for a while.
    #[inline(always)]
    pub fn reborrow(&mut self) -> Scene<'_> {
        Scene { domain: self.domain, info: self.info, pv: self.pv, has_iopl: self.has_iopl }
    }

    /// Enters the guest's kernel, in a window of the flush protocol. The handler's address is not 0. Where the frame was to
    /// begin, if it cannot be written; then nothing has changed.
    #[inline(always)]
    pub fn enter(&self, vcpu: &mut Vcpu, regs: &mut PvRegs<'_>, bounce: Bounce) -> Result<(), u64> {
        let was_kernel = vcpu.is_kernel();
        let mut top = regs.rsp;
        if !was_kernel {
            vcpu.toggle_mode();
            top = self.pv.kernel_sp;
        }
        let mask = self.info.mask();
        let iopl = if self.has_iopl { self.pv.iopl } else { 0 };
        let how = Circumstances { was_kernel, upcall_mask: mask.load(Ordering::Relaxed), iopl };
        let (cs, rflags) = frame::state(regs, &how);
        let at = frame::place(top, bounce.more.words());
        let to = GuestVirt::new(at);
        let is_written = match bounce.more {
            More::Nothing => machine::pv::write_frame(to, regs, cs, rflags),
            More::Error(error) => machine::pv::write_frame_with_error(to, regs, cs, rflags, error),
            More::Selectors(selectors) => machine::pv::write_words(to, &frame::failsafe(regs, &how, selectors)),
        };
        if !is_written {
            if !was_kernel {
                vcpu.toggle_mode();
            }
            return Err(at);
        }
        if bounce.to.masks_events {
            mask.store(1, Ordering::Relaxed);
        }
        frame::enter(regs, at, bounce.to.address);
        Ok(())
    }

    /// The IRET hypercall, in a window of the flush protocol. If it fails nothing has changed.
    #[inline(always)]
    pub fn go_back(&mut self, vcpu: &mut Vcpu, regs: &mut PvRegs<'_>) -> Result<Back, Death> {
        let at = regs.rsp;
        let words: IretContext = transmute!(machine::pv::read9(GuestVirt::new(at)).ok_or(Death::IretFrame { at })?);
        if words.cs & 3 == 3 && !vcpu.toggle_mode() {
            return Err(Death::NoUserTables);
        }
        let back = frame::iret(regs, &words);
        self.info.mask().store(back.upcall_mask, Ordering::Relaxed);
        if self.has_iopl {
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

/// Enters the guest's kernel. The handler's address is not 0.
pub fn bounce(run: &mut Running, bounce: Bounce) -> Result<(), Death> {
    with_scene(run, |scene, vcpu, regs| scene.enter(vcpu, regs, bounce).map_err(|at| Death::Stack { at }))
}

/// Does something in a window of the flush protocol.
fn with_scene<R>(
    run: &mut Running,
    f: impl FnOnce(&mut Scene<'_>, &mut Vcpu, &mut PvRegs<'_>) -> Result<R, Death>,
) -> Result<R, Death> {
    let _window = Window::open(run);
    let Context { hw, regs, pv, .. } = &mut *run.context;
    let info = run.info.as_ref().ok_or(Death::NoCallback { which: "vcpu_info" })?.words();
    let pv = pv.as_mut().expect("a PV virtual CPU");
    f(&mut Scene::new(&run.domain, info, pv), hw.pv_mut(), &mut PvRegs::new(regs))
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
