//! The first page tables of a PV guest: which there are, and what stands in them.

use super::layout::Layout;
use crate::addr::{Mfn, PAGE_SHIFT, PAGE_SIZE, Pfn};
use alloc::vec::Vec;

/// Entries of a page table.
pub const ENTRIES: usize = 512;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;

/// A page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its frame.
    pub pfn: Pfn,
    /// 4 for the top, 1 for the one that maps pages.
    pub level: u8,
    /// The address that its first entry maps, in bits 0 to 47.
    pub at: u64,
}

impl Table {
    /// By what tables are sorted: top first, then by address.
    pub(super) fn key(&self) -> (u8, u64) {
        (4 - self.level, self.at)
    }
}

/// Bits of the address that one entry of a table of this level covers.
fn shift(level: u8) -> u32 {
    PAGE_SHIFT + 9 * (u32::from(level) - 1)
}

/// The tables that map `frames` pages from `from` on, sorted, without their frames. There is at least one page and
/// the last address does not overflow.
pub(super) fn covering(from: u64, frames: u64) -> Vec<Table> {
    let low = |address: u64| address & ((1 << 48) - 1);
    let (first, last) = (low(from), low(from + (frames * PAGE_SIZE - 1)));
    let mut tables = Vec::new();
    for level in [4, 3, 2, 1] {
        let whole = shift(level + 1);
        for n in first >> whole..=last >> whole {
            tables.push(Table { pfn: Pfn::new(0), level, at: n << whole });
        }
    }
    tables
}

/// What an entry maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maps {
    /// A page table of the next lower level.
    Table(Pfn),
    /// A page.
    Page { pfn: Pfn, is_writable: bool },
}

impl Layout {
    /// The L4 table's frame.
    pub fn root(&self) -> Pfn {
        self.page_tables.first
    }

    /// Whether a frame is a page table at the start.
    pub fn is_table(&self, pfn: Pfn) -> bool {
        self.tables.iter().any(|table| table.pfn == pfn)
    }

    /// Entry `index` of a table, as a guest would write it: without the user bit in what maps pages. `mfn` knows
    /// which frame of the machine a frame of the guest is.
    pub fn entry(&self, table: &Table, index: usize, mfn: impl Fn(Pfn) -> Mfn) -> u64 {
        let frame = |pfn| mfn(pfn).raw() << PAGE_SHIFT;
        match self.maps(table, index) {
            None => 0,
            Some(Maps::Table(pfn)) => frame(pfn) | PRESENT | WRITABLE | USER | ACCESSED | DIRTY,
            Some(Maps::Page { pfn, is_writable: true }) => frame(pfn) | PRESENT | WRITABLE | ACCESSED,
            Some(Maps::Page { pfn, is_writable: false }) => frame(pfn) | PRESENT | ACCESSED,
        }
    }

    fn maps(&self, table: &Table, index: usize) -> Option<Maps> {
        let at = table.at + ((index as u64) << shift(table.level));
        if table.level > 1 {
            let key = (4 - (table.level - 1), at);
            let child = self.tables.binary_search_by_key(&key, Table::key).ok()?;
            return self.tables.get(child).map(|table| Maps::Table(table.pfn));
        }
        let page_in = |base: u64, count: u64| {
            let n = at.wrapping_sub(base & ((1 << 48) - 1)) >> PAGE_SHIFT;
            (n < count).then_some(n)
        };
        if let Some(n) = page_in(self.base, self.mapped) {
            let pfn = Pfn::new(n);
            return Some(Maps::Page { pfn, is_writable: !self.page_tables.contains(pfn) });
        }
        self.p2m_apart?;
        let n = page_in(self.p2m_at.raw(), self.p2m.count)?;
        Some(Maps::Page { pfn: Pfn::new(self.p2m.first.raw() + n), is_writable: true })
    }
}
