//! The bits of a PV guest's page-table entries: which a guest may set, and what is stored (`xen/include/asm-x86/page.h`).

use abi::errno::Errno;

use crate::addr::{Mfn, PAGE_SHIFT};

/// The processor follows the entry. All other bits of one that is not present are the guest's.
pub const PRESENT: u64 = 1;
/// Writing is allowed.
pub const WRITABLE: u64 = 1 << 1;
/// Ring 3 may use it, which is where the guest's kernel runs as well.
pub const USER: u64 = 1 << 2;
/// Set by processors: used.
pub const ACCESSED: u64 = 1 << 5;
/// Set by processors: written to.
pub const DIRTY: u64 = 1 << 6;
/// In an entry of level 2 or 3: maps a large page. In one of level 1 it is a bit of [`CACHE`].
pub const LARGE: u64 = 1 << 7;
/// The translation outlives a change of CR3.
pub const GLOBAL: u64 = 1 << 8;
/// The guest's kernel had left [`USER`] out (`_PAGE_GUEST_KERNEL`).
pub const GUEST_KERNEL: u64 = 1 << 52;
/// How memory is cached: PWT, PCD, and in level 1 PAT.
pub const CACHE: u64 = 1 << 3 | 1 << 4 | LARGE;
/// The frame's number.
pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const AVAILABLE: u64 = 7 << 9 | 0x7ff << 52;
const NO_EXECUTE: u64 = 1 << 63;

/// What can change without a look at the frame: it concerns neither what is reached, nor how it is cached, nor writing.
pub const HARMLESS: u64 = NO_EXECUTE | AVAILABLE | GLOBAL | DIRTY | ACCESSED | USER;

/// Whether the processor follows the entry.
#[inline]
pub const fn is_present(entry: u64) -> bool {
    entry & PRESENT != 0
}

/// The frame that a present entry names.
#[inline]
pub const fn frame(entry: u64) -> Mfn {
    Mfn::new((entry & ADDRESS) >> PAGE_SHIFT)
}

/// Whether a present entry maps memory that can be written through it.
#[inline]
pub const fn is_writable(entry: u64) -> bool {
    entry & (PRESENT | WRITABLE) == PRESENT | WRITABLE
}

/// Whether a present entry has only bits that a guest may set.
#[inline]
pub const fn check(level: u8, entry: u64, may_set_cache: bool) -> Result<(), Errno> {
    let forbidden = match (level, may_set_cache) {
        (1, true) => 0,
        (1, false) => CACHE,
        _ => CACHE | GLOBAL,
    };
    if entry & forbidden != 0 { Err(Errno::EINVAL) } else { Ok(()) }
}

/// What is stored for a present entry that was checked: the guest's kernel runs in ring 3, so [`USER`] is always set,
/// and where the guest had not set it a bit of software keeps that. No translation of a guest's is global.
#[inline]
pub const fn stored(level: u8, entry: u64) -> u64 {
    if !is_present(entry) {
        return entry;
    }
    match level {
        1 if entry & USER == 0 => (entry | USER | GUEST_KERNEL) & !GLOBAL,
        1 => entry & !GLOBAL,
        _ => entry | USER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_not_present_is_the_guests_own() {
        for level in 1..=4 {
            assert_eq!(stored(level, 0xffff_ffff_ffff_fffe), 0xffff_ffff_ffff_fffe);
        }
    }

    #[test]
    fn a_kernels_page_is_for_ring_3_and_remembers_that_it_was_not() {
        assert_eq!(stored(1, 0x1003), 0x1007 | GUEST_KERNEL);
        assert_eq!(stored(1, 0x1007), 0x1007);
        assert_eq!(stored(1, stored(1, 0x1003)), stored(1, 0x1003));
        assert_eq!(stored(2, 0x1003), 0x1007);
    }

    #[test]
    fn no_translation_of_a_guests_is_global() {
        assert_eq!(stored(1, 0x1107), 0x1007);
        assert_eq!(check(1, 0x1107, false), Ok(()));
        for level in 2..=4 {
            assert_eq!(check(level, 0x1107, true), Err(Errno::EINVAL));
        }
    }

    #[test]
    fn a_large_page_is_refused_at_every_level_that_has_them() {
        for level in 2..=4 {
            assert_eq!(check(level, 0x1007 | LARGE, true), Err(Errno::EINVAL));
        }
    }

    #[test]
    fn who_has_no_devices_does_not_choose_how_memory_is_cached() {
        for bit in [1 << 3, 1 << 4, 1 << 7] {
            assert_eq!(check(1, 0x1007 | bit, false), Err(Errno::EINVAL));
            assert_eq!(check(1, 0x1007 | bit, true), Ok(()));
        }
    }
}
