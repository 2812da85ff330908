//! The frame of a virtual CPU's registers: a page of its own, so that it can be the stack on which a PV guest leaves.

use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use model::addr::MachineAddr;
use model::regs::Regs;

use crate::mem::OwnedPages;

/// In [`Frame::hypervisor_cr3`]: when the PV guest leaves, the return stack is filled. In [`Frame::guest_cr3`]: before it
/// enters, VERW is executed. The sign bit, by which the entry code tells.
pub(crate) const GUARDED: u64 = 1 << 63;
/// With [`GUARDED`] in [`Frame::hypervisor_cr3`]: IBPB is executed too.
pub(crate) const BARRIER: u64 = 1 << 62;

/// What the page holds.
#[repr(C)]
pub(crate) struct Frame {
    /// The registers.
    pub(crate) regs: Regs,
    /// What CR3 becomes when an isolated PV guest leaves, 0 if it stays; with [`GUARDED`] and [`BARRIER`] if more is to
    /// be done.
    pub(crate) hypervisor_cr3: u64,
    /// What CR3 becomes when an isolated PV guest enters, 0 if it stays; with [`GUARDED`] if more is to be done.
    pub(crate) guest_cr3: u64,
}

/// The registers of a virtual CPU, in their page.
pub struct RegsPage {
    page: OwnedPages,
    regs: NonNull<Regs>,
}

// SAFETY: the page is owned, and the pointer is to it.
unsafe impl Send for RegsPage {}

impl RegsPage {
    /// All zeros. `None` when memory is short.
    pub fn new() -> Option<Self> {
        let page = OwnedPages::zeroed(0)?;
        let regs = NonNull::new(page.ptr().cast())?;
        Some(Self { page, regs })
    }

    /// The page's frame.
    pub(crate) fn addr(&self) -> MachineAddr {
        self.page.addr()
    }
}

impl Deref for RegsPage {
    type Target = Regs;
    #[inline]
    fn deref(&self) -> &Regs {
        // SAFETY: the page is owned and begins with a `Regs`, for which zeros are valid; the processor writes it in
        // `Virt::run` only, which has it borrowed.
        unsafe { self.regs.as_ref() }
    }
}

impl DerefMut for RegsPage {
    #[inline]
    fn deref_mut(&mut self) -> &mut Regs {
        // SAFETY: as above, and borrowed uniquely.
        unsafe { self.regs.as_mut() }
    }
}
