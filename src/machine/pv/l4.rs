//! The hypervisor's slots in a PV guest's L4 tables.
//!
//! A guest that is not isolated runs with all of them: its table has the hypervisor's own entries, and its domain's in
//! slot 260. Those entries never change, so nothing has to follow them.
//!
//! An isolated guest's table has three: the M2P, the domain's own, and the slim slot of entry code and stacks
//! ([`map::slim`]). The hypervisor, while such a virtual CPU is loaded, runs on the table's *partner*: a page that has the
//! same entries of the guest and all of the hypervisor's. Each entry that the guest's table gets goes to the
//! partner as well ([`mirror`]); as both lead to the same L3 tables, nothing else has to follow. The partner's address is kept in
//! the guest's table itself, in a slot of the hole, inverted and without the present bit, so that no processor takes it
//! for a mapping.

use core::sync::atomic::{AtomicU64, Ordering};

use model::addr::{MachineAddr, Mfn};
use model::paging::ENTRIES;

use super::Space;
use crate::mem::layout::{self, M2P, PER_DOMAIN, SLOTS, STACKS};
use crate::mem::map::{self, Rights};
use crate::mem::{OwnedPages, frames, page_table};

/// The slot that says who the partner is.
const PARTNER: usize = 262;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// An entry of one of the hypervisor's own tables.
fn own(table: MachineAddr, slot: usize) -> &'static AtomicU64 {
    assert!(slot < ENTRIES, "an entry of the table");
    // SAFETY: an L4 table of the hypervisor's own, which is never given back, or a partner, which the caller has.
    unsafe { AtomicU64::from_ptr(layout::direct(table).cast::<u64>().wrapping_add(slot)) }
}

fn copy(table: MachineAddr, slot: usize) -> u64 {
    own(table, slot).load(Ordering::Relaxed)
}

/// Fills in the hypervisor's slots of a frame that has become an L4 table and is not in use yet. `false` when memory is
/// short, and then nothing has changed.
#[must_use]
pub fn open(l4: Mfn, space: &Space) -> bool {
    let domain = Rights::TABLE.entry(space.l3());
    let full = |slot| if slot == layout::slot(PER_DOMAIN) { domain } else { copy(map::root(), slot) };
    if !space.is_isolated() {
        SLOTS.for_each(|slot| page_table::write(l4, slot, full(slot)));
        return true;
    }
    let Some(page) = OwnedPages::zeroed(0) else { return false };
    let partner = page.addr();
    core::mem::forget(page); // given back by `close`
    for slot in 0..ENTRIES {
        let entry = if SLOTS.contains(&slot) { full(slot) } else { page_table::read(l4, slot) };
        own(partner, slot).store(entry, Ordering::Relaxed);
    }
    for slot in SLOTS {
        let entry = match slot {
            _ if slot == layout::slot(M2P) => full(slot),
            _ if slot == layout::slot(PER_DOMAIN) => domain,
            _ if slot == layout::slot(STACKS) => copy(map::slim(), slot),
            PARTNER => !partner.raw() & ADDRESS,
            _ => 0,
        };
        page_table::write(l4, slot, entry);
    }
    true
}

/// Takes the hypervisor's slots out of a table that is not in use any more.
pub fn close(l4: Mfn) {
    let partner = partner(l4);
    SLOTS.for_each(|slot| page_table::write(l4, slot, 0));
    if let Some(partner) = partner {
        frames::give_back(partner, 1);
    }
}

/// Follows a write of the guest's entry `index` of a table that is open.
#[inline]
pub fn mirror(l4: Mfn, index: usize, entry: u64) {
    debug_assert!(!SLOTS.contains(&index), "an entry of the guest's");
    if let Some(partner) = partner(l4) {
        own(partner, index).store(entry, Ordering::Release);
    }
}

/// Whether the guest sees the M2P through an open table.
pub fn show_m2p(l4: Mfn, is_shown: bool) {
    let slot = layout::slot(M2P);
    page_table::write(l4, slot, if is_shown { copy(map::root(), slot) } else { 0 });
}

/// The partner of an open table, if its domain is isolated.
#[inline]
pub(super) fn partner(l4: Mfn) -> Option<MachineAddr> {
    let entry = page_table::read(l4, PARTNER);
    (entry != 0 && entry & 1 == 0).then(|| MachineAddr::new(!entry & ADDRESS))
}
