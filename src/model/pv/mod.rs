//! PV guests: what their kernels may do in ring 3.
//!
//! | module | what it decides |
//! |---|---|
//! | `code` | which bytes a guest was about to execute |
//! | `debug` | what the debug registers may hold |
//! | `frame` | what a guest's kernel finds on its stack, and how it goes back |
//! | `mmu` | what its page tables hold |
//! | `ports` | which of the machine's ports it reaches |
//! | `privileged` | what becomes of an instruction that ring 3 may not execute |
//! | `rights` | which devices' memory an initial domain may map |
//! | `start` | what lies where when a guest starts |
//! | `state` | how a virtual CPU may start |
//! | `store` | what a store to a page table writes |

pub mod code;
pub mod debug;
pub mod frame;
pub mod mmu;
pub mod ports;
pub mod privileged;
pub mod rights;
pub mod start;
pub mod state;
pub mod store;

use core::ops::Range;

/// The addresses that belong to the hypervisor in every PV guest (`xen/include/public/arch-x86/xen-x86_64.h`).
pub const HOLE: Range<u64> = 0xffff_8000_0000_0000..0xffff_8800_0000_0000;

/// Whether an address lies in [`HOLE`].
#[inline]
pub const fn is_in_hole(at: u64) -> bool {
    // The hole is 2^43 bytes at a multiple of that.
    at >> 43 == HOLE.start >> 43
}

/// The first address that is not canonical.
const LOW_END: u64 = 1 << 47;

/// Whether the hypervisor may use these bytes of a guest's address space on its behalf.
#[inline]
pub const fn is_guests(at: u64, len: usize) -> bool {
    match at.checked_add((len as u64).saturating_sub(1)) {
        Some(last) => last < LOW_END || at >= HOLE.end,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_the_hole_exactly_between_its_ends() {
        for at in [0, HOLE.start - 1, HOLE.start, HOLE.start + 1, HOLE.end - 1, HOLE.end, u64::MAX] {
            assert_eq!(is_in_hole(at), HOLE.contains(&at), "{at:#x}");
        }
    }

    #[test]
    fn the_hole_and_what_is_not_canonical_are_not_the_guests() {
        assert!(is_guests(0, 8) && is_guests(HOLE.end, 8) && is_guests(u64::MAX, 1) && is_guests(5, 0));
        assert!(is_guests(0x7fff_ffff_fff8, 8) && !is_guests(0x7fff_ffff_fff9, 8));
        assert!(!is_guests(HOLE.start, 1) && !is_guests(HOLE.end - 1, 1) && !is_guests(HOLE.end - 1, 8));
        assert!(!is_guests(0x8000_0000_0000, 1) && !is_guests(u64::MAX, 2) && !is_guests(0x1000, usize::MAX));
    }
}
