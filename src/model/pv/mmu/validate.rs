//! A frame becomes a page table: entry by entry, each checked, counted and stored as it has to be.
//!
//! The tables that are being looked at are a walk of at most four, from the one that was asked for down. Each of them is
//! partial, and its record says how far it is; so the walk can stop after any entry, and whoever asks again, for
//! this table or for any other that leads to it, goes on there. If an entry is refused, all tables of the walk
//! are left to be undone.

use abi::errno::Errno;

use super::writable::put_page;
use super::{INVALID, Memory, Mmu, Stop, entry};
use crate::addr::Mfn;
use crate::page::Type;

/// The tables that are being validated, from the top down.
#[derive(Default)]
pub(super) struct Walk {
    tables: [(Mfn, u8); 4],
    depth: usize,
}

impl Walk {
    fn push(&mut self, table: Mfn, level: u8) {
        self.tables[self.depth] = (table, level);
        self.depth += 1;
    }
    fn pop(&mut self) {
        self.depth -= 1;
    }
    fn top(&self) -> Option<(Mfn, u8)> {
        self.tables[..self.depth].last().copied()
    }
    pub(super) fn contains(&self, table: Mfn) -> bool {
        self.tables[..self.depth].iter().any(|(mfn, _)| *mfn == table)
    }
}

/// What was found of a table.
enum Found {
    /// It is valid, and has one use more.
    Valid,
    /// It is partial, and has to be looked at.
    Partial,
}

/// How far a table has come.
enum Scan {
    Finished,
    /// An entry leads to a table that is not valid yet.
    Into(Mfn),
}

impl<M: Memory> Mmu<'_, M> {
    /// Takes a reference to a frame of the domain's own, and a use of it as a page table of this level, which it becomes
    /// if it is not one.
    pub(super) fn get_table(&mut self, mfn: Mfn, level: u8) -> Result<(), Stop> {
        let mut walk = Walk::default();
        match self.find(mfn, level, &walk)? {
            Found::Valid => return Ok(()),
            Found::Partial => walk.push(mfn, level),
        }
        let outcome = self.validate(&mut walk);
        if let Err(Stop::Refused(_)) = outcome {
            while let Some((table, _)) = walk.top() {
                self.leave(table);
                walk.pop();
            }
        }
        outcome
    }

    fn validate(&mut self, walk: &mut Walk) -> Result<(), Stop> {
        while let Some((table, level)) = walk.top() {
            match self.scan(table, level, walk)? {
                Scan::Into(child) => walk.push(child, level - 1),
                Scan::Finished => {
                    if level == 4 && !self.memory.open_l4(table) {
                        return Err(Errno::ENOMEM.into());
                    }
                    let validated = self.own(table)?.validated();
                    debug_assert!(validated.is_ok(), "a table of the walk is partial: {table}");
                    walk.pop();
                    let Some((parent, level)) = walk.top() else { return Ok(()) };
                    self.take_in(parent, level)?;
                    // Only here, where something was finished: who is always interrupted has to come to an end, too.
                    if self.memory.is_work_pending() {
                        return Err(Stop::Again);
                    }
                }
            }
        }
        Ok(())
    }

    /// The entry at which a table stands has its child now.
    fn take_in(&mut self, table: Mfn, level: u8) -> Result<(), Stop> {
        let frame = self.own(table)?;
        let index = frame.progress();
        let value = self.memory.read(table, index);
        self.store_checked(table, index, value, entry::stored(level, value));
        frame.set_progress(index + 1);
        Ok(())
    }

    /// Finds a frame of the domain's own valid as this table, or makes it partial. A reference comes with it: the new use's,
    /// or that which keeps a partial table.
    fn find(&mut self, mfn: Mfn, level: u8, walk: &Walk) -> Result<Found, Stop> {
        let frame = self.own(mfn)?;
        let kind = Type::table(level).ok_or(INVALID)?;
        let word = frame.type_word();
        if word.is_partial() {
            if walk.contains(mfn) {
                return Err(INVALID);
            }
            if word.kind() == kind {
                return Ok(Found::Partial);
            }
            self.undo(mfn)?;
        }
        frame.get_owned(self.domain).map_err(|_| INVALID)?;
        if frame.get_type(kind).is_ok() {
            return Ok(Found::Valid);
        }
        let Ok(flush) = frame.claim(kind) else {
            put_page(self.memory, mfn);
            return Err(INVALID);
        };
        frame.set_progress(0);
        if let Some(stamp) = flush {
            self.memory.flush_since(stamp);
        }
        Ok(Found::Partial)
    }

    fn scan(&mut self, table: Mfn, level: u8, walk: &Walk) -> Result<Scan, Stop> {
        if level == 1 { self.scan_leaves(table, walk) } else { self.scan_tables(table, level, walk) }
    }

    fn scan_leaves(&mut self, table: Mfn, walk: &Walk) -> Result<Scan, Stop> {
        let frame = self.own(table)?;
        for index in frame.progress()..M::ENTRIES {
            let value = self.memory.read(table, index);
            if entry::is_present(value) {
                let stored = self.get_leaf(value, self.domain, walk)?;
                self.store_checked(table, index, value, stored);
            }
            frame.set_progress(index + 1);
            if (index + 1).is_multiple_of(M::BATCH) && index + 1 < M::ENTRIES && self.memory.is_work_pending() {
                return Err(Stop::Again);
            }
        }
        Ok(Scan::Finished)
    }

    fn scan_tables(&mut self, table: Mfn, level: u8, walk: &Walk) -> Result<Scan, Stop> {
        let frame = self.own(table)?;
        for index in frame.progress()..M::ENTRIES {
            frame.set_progress(index);
            let value = self.memory.read(table, index);
            if Self::is_slot(level, index) || !entry::is_present(value) {
                continue;
            }
            entry::check(level, value, self.is_privileged)?;
            let child = entry::frame(value);
            match self.find(child, level - 1, walk)? {
                Found::Partial => return Ok(Scan::Into(child)),
                Found::Valid => self.store_checked(table, index, value, entry::stored(level, value)),
            }
            frame.set_progress(index + 1);
            if self.memory.is_work_pending() {
                return Err(Stop::Again);
            }
        }
        frame.set_progress(M::ENTRIES);
        Ok(Scan::Finished)
    }

    /// Stores what an entry has to be in a table that nobody uses yet.
    fn store_checked(&mut self, table: Mfn, index: usize, value: u64, stored: u64) {
        if stored != value {
            self.memory.write(table, index, stored);
        }
    }
}
