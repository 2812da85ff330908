//! Pages that the hypervisor itself owns.

use core::ptr::NonNull;

use model::addr::{MachineAddr, Mfn};

use super::{frames, layout};

/// `2^order` contiguous pages of RAM, zeroed when taken, given back when dropped.
pub struct OwnedPages {
    base: MachineAddr,
    /// Where the direct map has them: looked for at every exit of a guest.
    ptr: NonNull<u8>,
    order: u8,
}

// SAFETY: the pages belong to the value, wherever it is; what is in them is the owner's to share.
unsafe impl Send for OwnedPages {}
// SAFETY: as above: a shared reference gives a pointer alone.
unsafe impl Sync for OwnedPages {}

impl OwnedPages {
    /// Takes zeroed, naturally aligned pages, or `None` when memory is short.
    pub fn zeroed(order: u8) -> Option<Self> {
        Some(Self::new(frames::take(order, None)?, order))
    }

    /// Likewise, all of them below frame `limit`.
    pub fn zeroed_below(order: u8, limit: Mfn) -> Option<Self> {
        Some(Self::new(frames::take(order, Some(limit))?, order))
    }

    fn new(base: MachineAddr, order: u8) -> Self {
        Self { base, ptr: NonNull::new(layout::direct(base)).expect("the direct map is not at 0"), order }
    }

    /// Machine address of the first byte.
    pub fn addr(&self) -> MachineAddr {
        self.base
    }

    /// Where the direct map has the first byte; valid for `4096 << order` bytes as long as `self` lives.
    pub fn ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// log2 of the number of pages.
    pub fn order(&self) -> u8 {
        self.order
    }
}

impl Drop for OwnedPages {
    fn drop(&mut self) {
        frames::give_back(self.base, 1 << self.order);
    }
}
