//! The machine's memory as [`model::pv::mmu`] sees it.

use alloc::vec::Vec;
use core::cell::Cell;
use core::sync::atomic::{Ordering, fence};

use machine::mem::{frames, m2p, page_table};
use machine::pv::l4;
use model::addr::Mfn;
use model::ids::DomId;
use model::page::{Frame, Stamp};
use model::pv::mmu::{Entries, Memory};

use super::{TablesCx, check};
use crate::domain::{Domain, flush};
use crate::pv::{PvDomain, memory};

/// How much a hypercall may still do before it looks for pending work.
#[derive(Default)]
pub struct Budget(Cell<u32>);

impl Budget {
    /// Entries of page tables after which a call stops. Each costs up to a hundred instructions or so.
    const ENTRIES: u32 = 1024;

    /// All of it.
    pub fn new() -> Self {
        Self(Cell::new(0))
    }

    /// Notes work that is worth so many entries.
    #[inline]
    pub fn charge(&self, entries: u32) {
        self.0.set(self.0.get() + entries);
    }

    /// Whether it is used up.
    #[inline]
    pub fn is_spent(&self) -> bool {
        self.0.get() >= Self::ENTRIES
    }
}

/// What operations leave behind until the lock is let go, or longer.
pub(super) struct Rest {
    /// Frames that have no reference any more but may be known to processors: they get to the allocator after a flush.
    freed: Vec<(Mfn, DomId, Stamp)>,
    /// Of which other domains frames were given to the allocator.
    others: Vec<DomId>,
    /// Page tables that were written, for the debug option.
    touched: Vec<Mfn>,
}

impl Rest {
    /// How many frames may wait. There is room from the start, as giving memory back must not need memory.
    const MOST: usize = 64;

    pub(super) fn new() -> Self {
        Self { freed: Vec::with_capacity(Self::MOST), others: Vec::new(), touched: Vec::new() }
    }
}

/// A PV domain's page tables and what they lead to.
pub struct Tables<'a> {
    cx: TablesCx<'a>,
    /// Whose tables.
    pub domain: &'a Domain,
    pv: &'a PvDomain,
    budget: &'a Budget,
    rest: &'a mut Rest,
    /// The debug option is on.
    pub(super) is_checked: bool,
}

impl<'a> Tables<'a> {
    #[inline]
    pub(super) fn new(
        cx: TablesCx<'a>,
        domain: &'a Domain,
        pv: &'a PvDomain,
        budget: &'a Budget,
        rest: &'a mut Rest,
    ) -> Self {
        Self { cx, domain, pv, budget, rest, is_checked: check::is_on() }
    }

    /// Whether [`Tables::settle`] has something to do.
    #[inline]
    pub(super) fn has_rest(&self) -> bool {
        !self.rest.freed.is_empty() || !self.rest.others.is_empty()
    }

    /// Gives what was freed to the allocator. Answers with whose frames of others there were.
    #[cold]
    pub(super) fn settle(&mut self) -> Vec<DomId> {
        self.give_back();
        core::mem::take(&mut self.rest.others)
    }

    /// The page tables that were written.
    pub(super) fn take_touched(&mut self) -> Vec<Mfn> {
        core::mem::take(&mut self.rest.touched)
    }

    #[cold]
    fn touch(&mut self, table: Mfn) {
        if self.rest.touched.last() != Some(&table) {
            self.rest.touched.push(table);
        }
    }

    #[cold]
    fn give_back(&mut self) {
        for at in 0..self.rest.freed.len() {
            // The first flush does for all of its kind.
            let (_, _, stamp) = self.rest.freed[at];
            self.flush_since(stamp);
        }
        while let Some((mfn, owner, _)) = self.rest.freed.pop() {
            self.give(mfn, owner);
        }
    }

    fn give(&mut self, mfn: Mfn, owner: DomId) {
        m2p::set(mfn, m2p::INVALID);
        if owner == self.domain.id {
            memory::forget(self.domain, 1);
        } else if self.rest.others.try_reserve(1).is_ok() {
            self.rest.others.push(owner);
        }
        frames::free(mfn);
    }
}

/// A PV domain's page tables and no more, for what takes no more; the lock is held.
pub struct Plain<'a>(pub &'a Domain);

impl Entries for Plain<'_> {
    type Record = &'static Frame;

    #[inline]
    fn frame(&self, mfn: Mfn) -> Option<&'static Frame> {
        frames::record(mfn)
    }

    #[inline]
    fn read(&self, table: Mfn, index: usize) -> u64 {
        page_table::read(table, index)
    }

    #[inline]
    fn write(&mut self, table: Mfn, index: usize, value: u64) {
        page_table::write(table, index, value);
    }

    #[inline]
    fn stamp(&self) -> u64 {
        // An entry that was written before is seen by every CPU that comes to know a later number.
        fence(Ordering::SeqCst);
        self.0.tlb_epoch.load(Ordering::Relaxed)
    }
}

impl Entries for Tables<'_> {
    type Record = &'static Frame;

    #[inline]
    fn frame(&self, mfn: Mfn) -> Option<&'static Frame> {
        frames::record(mfn)
    }

    #[inline]
    fn read(&self, table: Mfn, index: usize) -> u64 {
        self.budget.charge(1);
        page_table::read(table, index)
    }

    #[inline]
    fn write(&mut self, table: Mfn, index: usize, value: u64) {
        page_table::write(table, index, value);
        if self.is_checked {
            self.touch(table);
        }
    }

    #[inline]
    fn stamp(&self) -> u64 {
        Plain(self.domain).stamp()
    }
}

impl Memory for Tables<'_> {
    #[inline]
    fn compare_exchange(&mut self, table: Mfn, index: usize, old: u64, new: u64) -> Result<(), u64> {
        if self.is_checked {
            self.touch(table);
        }
        page_table::compare_exchange(table, index, old, new)
    }

    fn open_l4(&mut self, l4: Mfn) -> bool {
        l4::open(l4, &self.pv.space)
    }

    fn close_l4(&mut self, l4: Mfn) {
        l4::close(l4);
    }

    fn l4_written(&mut self, l4: Mfn, index: usize, value: u64) {
        l4::mirror(l4, index, value);
    }

    fn may_map_device(&self, mfn: Mfn) -> bool {
        self.pv.io_memory.contains(mfn.raw()..=mfn.raw())
    }

    fn flush_since(&mut self, stamp: Stamp) {
        // Acquire: pairs with the release at the end of that flush.
        if stamp.is_flushed(self.pv.flushed_epoch.load(Ordering::Acquire)) {
            return;
        }
        if stamp.everywhere {
            flush::everywhere();
        } else {
            flush::all(&mut self.cx, self.domain);
        }
    }

    fn free(&mut self, mfn: Mfn, owner: DomId, stamp: Stamp) {
        // As much work as some entries.
        self.budget.charge(3);
        if stamp.is_flushed(self.pv.flushed_epoch.load(Ordering::Acquire)) {
            return self.give(mfn, owner);
        }
        if self.rest.freed.len() == Rest::MOST {
            self.give_back();
        }
        self.rest.freed.push((mfn, owner, stamp));
    }

    #[inline]
    fn is_work_pending(&self) -> bool {
        self.budget.is_spent()
    }
}
