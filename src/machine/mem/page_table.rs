//! Entries of PV guests' page tables, by the table's frame.
//!
//! The caller holds a reference to the frame and its type says that it is a page table, or that it may be written: that is
//! `model::pv`, which checks every entry before it is written here.

use core::sync::atomic::{AtomicU64, Ordering};

use model::addr::Mfn;
use model::paging::ENTRIES;

use super::{frames, layout};

#[inline]
fn entry<'a>(table: Mfn, index: usize) -> &'a AtomicU64 {
    assert!(index < ENTRIES, "an entry of the table");
    debug_assert!(frames::record(table).is_some_and(|frame| frame.count().owner() != Some(frames::HYPERVISOR)));
    let at = layout::direct(table.base()).cast::<u64>().wrapping_add(index);
    // SAFETY: by the caller the frame is RAM that a domain has and keeps meanwhile; it is used by atomic accesses alone.
    unsafe { AtomicU64::from_ptr(at) }
}

/// An entry. The processor may set its accessed and dirty bits at any time.
#[inline]
pub fn read(table: Mfn, index: usize) -> u64 {
    entry(table, index).load(Ordering::Relaxed)
}

/// Writes an entry whole.
#[inline]
pub fn write(table: Mfn, index: usize, value: u64) {
    entry(table, index).store(value, Ordering::Release);
}

/// Writes an entry whole if it is still `old`.
///
/// # Errors
/// What it is instead.
#[inline]
pub fn compare_exchange(table: Mfn, index: usize, old: u64, new: u64) -> Result<(), u64> {
    entry(table, index).compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).map(|_| ())
}
