//! Pages that the hypervisor itself owns.

use model::addr::{MachineAddr, Mfn};

use super::{frames, layout};

/// `2^order` contiguous pages of RAM, zeroed when taken, given back when dropped.
pub struct OwnedPages {
    base: MachineAddr,
    order: u8,
}

impl OwnedPages {
    /// Takes zeroed, naturally aligned pages, or `None` when memory is short.
    pub fn zeroed(order: u8) -> Option<Self> {
        Some(Self { base: frames::take(order, None)?, order })
    }

    /// Likewise, all of them below frame `limit`.
    pub fn zeroed_below(order: u8, limit: Mfn) -> Option<Self> {
        Some(Self { base: frames::take(order, Some(limit))?, order })
    }

    /// Machine address of the first byte.
    pub fn addr(&self) -> MachineAddr {
        self.base
    }

    /// Where the direct map has the first byte; valid for `4096 << order` bytes as long as `self` lives.
    pub fn ptr(&self) -> *mut u8 {
        layout::direct(self.base)
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
