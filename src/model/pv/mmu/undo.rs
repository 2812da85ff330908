//! A page table is given up: entry by entry from the last one that has references to the first.
//!
//! The tables that are to be undone are a list through their records. A table whose last use goes on the way becomes
//! the first of the list, and so a whole tree is undone without recursion and can stop after any entry.

use super::writable::{put_page, put_type};
use super::{Memory, Mmu, Stop, entry};
use crate::addr::Mfn;
use crate::page::{Type, TypeEffect};

const END: u32 = u32::MAX;

/// The page tables of a domain that are to be undone. Belongs to the lock of the domain's page tables.
#[derive(Debug, PartialEq, Eq)]
pub struct Work {
    first: u32,
    changes: u64,
}

impl Work {
    /// Nothing to be undone.
    pub const fn new() -> Self {
        Self { first: END, changes: 0 }
    }
    /// Whether there is nothing to be undone.
    pub const fn is_empty(&self) -> bool {
        self.first == END
    }
    /// A number that is another after each operation that may have changed a count.
    pub const fn changes(&self) -> u64 {
        self.changes
    }
    pub(super) fn first(&self) -> Option<Mfn> {
        (!self.is_empty()).then_some(Mfn::new(u64::from(self.first)))
    }
}

impl Default for Work {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Memory> Mmu<'_, M> {
    /// Finishes what earlier operations left to be undone. [`Stop::Again`] if there is more.
    #[inline]
    pub fn finish(&mut self) -> Result<(), Stop> {
        self.work.changes += 1;
        if self.work.is_empty() { Ok(()) } else { self.finish_slowly() }
    }

    #[cold]
    fn finish_slowly(&mut self) -> Result<(), Stop> {
        while let Some(table) = self.work.first() {
            self.undo_some(table);
            if self.memory.is_work_pending() && !self.work.is_empty() {
                return Err(Stop::Again);
            }
        }
        Ok(())
    }

    /// Undoes a partial table of the domain's own, which is not to be undone already.
    pub(super) fn undo(&mut self, table: Mfn) -> Result<(), Stop> {
        self.leave(table);
        self.finish()
    }

    /// Leaves a partial table of the domain's own to be undone.
    pub(super) fn leave(&mut self, table: Mfn) {
        if let Some(frame) = self.memory.frame(table) {
            debug_assert!(frame.type_word().is_partial(), "only a partial table is undone: {table}");
            frame.set_next_to_undo(self.work.first);
            // The allocator's frame numbers have 32 bits.
            self.work.first = table.raw() as u32;
        }
    }

    /// Drops a use of a valid table, and its reference. After the last use the table is left to be undone.
    pub(super) fn put_table(&mut self, table: Mfn, kind: Type) {
        let Some(frame) = self.memory.frame(table) else { return };
        self.work.changes += 1;
        match frame.put_type(kind, self.memory.stamp()) {
            Ok(TypeEffect::None) => put_page(self.memory, table),
            Ok(TypeEffect::Undo) => {
                if kind == Type::L4 {
                    self.memory.close_l4(table);
                }
                // The last use's reference now keeps the partial table.
                frame.set_progress(M::ENTRIES);
                self.leave(table);
            }
            Err(refused) => debug_assert!(false, "a use that was taken can be ended: {table}, {refused:?}"),
        }
    }

    /// Undoes entries of the first table to be undone, until it is done, there is another first, or work is pending.
    fn undo_some(&mut self, table: Mfn) {
        let Some(frame) = self.memory.frame(table) else { return };
        let Some(level) = frame.type_word().kind().level() else { return };
        for index in (0..frame.progress()).rev() {
            frame.set_progress(index);
            let value = self.memory.read(table, index);
            if entry::is_present(value) && !Self::is_slot(level, index) {
                match Type::table(level - 1) {
                    Some(kind) => self.put_table(entry::frame(value), kind),
                    None => self.put_leaf(value),
                }
            }
            if self.work.first() != Some(table)
                || (level > 1 || index.is_multiple_of(M::BATCH)) && self.memory.is_work_pending()
            {
                return;
            }
        }
        self.work.first = frame.next_to_undo();
        let undone = frame.undone();
        debug_assert!(undone.is_ok(), "only a partial table is undone: {table}");
        put_page(self.memory, table);
    }

    /// Ends the use of a page of descriptors, and drops its reference.
    pub(super) fn put_descriptors(&mut self, mfn: Mfn) {
        if let Some(frame) = self.memory.frame(mfn) {
            put_type(self.memory, frame, Type::Descriptors);
            put_page(self.memory, mfn);
        }
    }
}
