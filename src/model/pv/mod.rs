//! PV guests: what their kernels may do in ring 3.
//!
//! | module | what it decides |
//! |---|---|
//! | `code` | which bytes a guest was about to execute |
//! | `mmu` | what its page tables hold |
//! | `privileged` | what becomes of an instruction that ring 3 may not execute |
//! | `start` | what lies where when a guest starts |
//! | `store` | what a store to a page table writes |

pub mod code;
pub mod mmu;
pub mod privileged;
pub mod start;
pub mod store;

use crate::addr::GuestVirt;
use core::ops::Range;

/// The addresses that belong to the hypervisor in every PV guest (`xen/include/public/arch-x86/xen-x86_64.h`).
pub const HOLE: Range<u64> = 0xffff_8000_0000_0000..0xffff_8800_0000_0000;

/// Whether the hypervisor may use these bytes of a guest's address space on its behalf.
pub fn is_guests(at: u64, len: usize) -> bool {
    let Some(last) = u64::try_from(len).ok().and_then(|len| at.checked_add(len.max(1) - 1)) else { return false };
    let canonical = |address| GuestVirt::new(address).is_canonical();
    canonical(at) && canonical(last) && at >> 63 == last >> 63 && (last < HOLE.start || at >= HOLE.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hole_and_what_is_not_canonical_are_not_the_guests() {
        assert!(is_guests(0, 8) && is_guests(HOLE.end, 8) && is_guests(u64::MAX, 1) && is_guests(5, 0));
        assert!(is_guests(0x7fff_ffff_fff8, 8) && !is_guests(0x7fff_ffff_fff9, 8));
        assert!(!is_guests(HOLE.start, 1) && !is_guests(HOLE.end - 1, 1) && !is_guests(HOLE.end - 1, 8));
        assert!(!is_guests(0x8000_0000_0000, 1) && !is_guests(u64::MAX, 2) && !is_guests(0x1000, usize::MAX));
    }
}
