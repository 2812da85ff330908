//! Pages that the hypervisor itself owns.

use model::addr::MachineAddr;

/// `2^order` contiguous pages of RAM, zeroed when taken, given back when dropped.
pub struct OwnedPages {
    base: MachineAddr,
    order: u8,
}

impl OwnedPages {
    /// Takes zeroed, naturally aligned pages, or `None` when memory is short.
    pub fn zeroed(order: u8) -> Option<Self> {
        let _ = order;
        None // filled in with the allocator
    }

    /// Machine address of the first byte.
    pub fn addr(&self) -> MachineAddr {
        self.base
    }

    /// Where the direct map has the first byte; valid for `4096 << order` bytes as long as `self` lives.
    pub fn ptr(&self) -> *mut u8 {
        super::layout::direct(self.base)
    }

    /// log2 of the number of pages.
    pub fn order(&self) -> u8 {
        self.order
    }
}
