//! The posted-interrupt descriptor's page, which the processor reads and others write (SDM 3C 29.6).

use core::ops::Deref;

use model::chip::lapic::Posted;

use crate::mem::OwnedPages;

/// A [`Posted`] at a machine address of its own.
pub struct PostedPage(OwnedPages);

impl PostedPage {
    /// With nothing posted. `None` when memory is short.
    pub(super) fn new() -> Option<Self> {
        OwnedPages::zeroed(0).map(Self)
    }

    /// What the VMCS takes.
    pub(super) fn addr(&self) -> u64 {
        self.0.addr().raw()
    }
}

impl Deref for PostedPage {
    type Target = Posted;

    #[inline]
    fn deref(&self) -> &Posted {
        // SAFETY: the page is owned for as long as `self`, aligned and large enough; `Posted` has atomics and what nobody reads,
        // of which zeros are valid, and the processor changes it by atomic operations.
        unsafe { &*self.0.ptr().cast::<Posted>() }
    }
}
