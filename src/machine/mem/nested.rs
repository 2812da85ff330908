//! Where the tables of EPT and NPT lie.

use model::addr::Mfn;
use model::paging::{ENTRIES, Tables};

use super::{OwnedPages, frames, layout};

/// Tables in the hypervisor's own frames, reached by the direct map.
///
/// A [`Tables`] trusts whoever walks it to name tables only: that is `model::paging`, which follows what it wrote itself.
pub struct NestedTables;

fn entry(table: Mfn, index: usize) -> *mut u64 {
    assert!(index < ENTRIES, "an entry of the table");
    debug_assert_eq!(frames::record(table).and_then(|frame| frame.count().owner()), Some(frames::HYPERVISOR));
    layout::direct(table.base()).cast::<u64>().wrapping_add(index)
}

impl Tables for NestedTables {
    fn read(&self, table: Mfn, index: usize) -> u64 {
        // SAFETY: the entry lies in a frame of the hypervisor's own that is a table of nested paging.
        unsafe { entry(table, index).read_volatile() }
    }
    fn write(&mut self, table: Mfn, index: usize, value: u64) {
        // SAFETY: likewise; the processor reads an entry whole.
        unsafe { entry(table, index).write_volatile(value) };
    }
    fn allocate(&mut self) -> Option<Mfn> {
        let page = OwnedPages::zeroed(0)?;
        let table = page.addr().frame();
        core::mem::forget(page); // given back by `free`
        Some(table)
    }
    fn free(&mut self, table: Mfn) {
        frames::give_back(table.base(), 1);
    }
}
