//! One entry of a page table changes (`mmu_update`, `update_va_mapping`, a store that faulted).
//!
//! What the new entry needs is taken before it is stored, what the old one had is given back after.

use abi::errno::Errno;

use super::quick::update_quickly;
use super::validate::Walk;
use super::writable::{put_page, put_type};
use super::{INVALID, IO, Memory, Mmu, Stop, entry};
use crate::addr::Mfn;
use crate::ids::DomId;
use crate::page::Type;

/// How [`Mmu::emulated_write`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The entry is written.
    Done,
    /// The entry was not what the instruction compares with; this is what it is.
    Differs(u64),
}

impl<M: Memory> Mmu<'_, M> {
    /// Writes an entry of a page table of the domain's own, or eight bytes of its writable memory (`MMU_NORMAL_PT_UPDATE`).
    ///
    /// `keep_ad`: what processors note in the old entry is kept (`MMU_PT_UPDATE_PRESERVE_AD`). `foreign`: whose memory an
    /// entry of level 1 may name, the domain itself but for privileged ones.
    #[inline]
    pub fn update(&mut self, table: Mfn, index: usize, value: u64, keep_ad: bool, foreign: DomId) -> Result<(), Stop> {
        let may_name = foreign == self.domain || self.is_privileged;
        if !keep_ad && may_name && update_quickly(self.memory, self.domain, table, index, value, foreign) {
            return Ok(());
        }
        self.update_slowly(table, index, value, keep_ad, foreign)
    }

    #[inline(never)]
    fn update_slowly(
        &mut self,
        table: Mfn,
        index: usize,
        value: u64,
        keep_ad: bool,
        foreign: DomId,
    ) -> Result<(), Stop> {
        self.finish()?;
        if index >= M::ENTRIES {
            return Err(INVALID);
        }
        if foreign != self.domain && foreign != IO && !self.is_privileged {
            return Err(Errno::EPERM.into());
        }
        let word = self.own(table)?.type_word();
        match word.kind().level() {
            Some(1) if word.is_validated() => self.update_leaf(table, index, value, keep_ad, foreign),
            Some(level) if word.is_validated() => self.update_table(table, level, index, value, keep_ad),
            _ => self.update_memory(table, index, value),
        }
    }

    fn update_leaf(&mut self, table: Mfn, index: usize, value: u64, keep_ad: bool, owner: DomId) -> Result<(), Stop> {
        let old = self.memory.read(table, index);
        let lost = entry::WRITABLE & old & !value;
        if old & value & entry::PRESENT != 0 && (old ^ value) & !entry::HARMLESS == lost {
            // Writing is all that it loses.
            self.store(table, index, old, entry::stored(1, value), keep_ad);
            if lost != 0 {
                self.put_leaf_writable(old);
            }
            return Ok(());
        }
        let stored = self.get_leaf(value, owner, &Walk::default())?;
        if !self.is_still(table, Type::L1) {
            self.put_leaf(stored);
            return Err(Stop::Again);
        }
        self.store(table, index, old, stored, keep_ad);
        self.put_leaf(old);
        Ok(())
    }

    /// Whether a table is valid even now. What a new entry asks for may have been a table that was left partial, which was
    /// undone, and with it perhaps the last use of the table that the entry is in.
    fn is_still(&self, table: Mfn, kind: Type) -> bool {
        self.own(table).is_ok_and(|frame| frame.type_word().is_valid_table(kind))
    }

    fn update_table(&mut self, table: Mfn, level: u8, index: usize, value: u64, keep_ad: bool) -> Result<(), Stop> {
        if Self::is_slot(level, index) {
            return Err(INVALID);
        }
        let kind = Type::table(level - 1).ok_or(INVALID)?;
        let old = self.memory.read(table, index);
        let is_harmless =
            old & value & entry::PRESENT != 0 && (old ^ value) & !(entry::HARMLESS | entry::WRITABLE) == 0;
        if entry::is_present(value) {
            entry::check(level, value, self.is_privileged)?;
            if !is_harmless {
                self.get_table(entry::frame(value), level - 1)?;
                if Type::table(level).is_none_or(|kind| !self.is_still(table, kind)) {
                    self.put_table(entry::frame(value), kind);
                    return Err(Stop::Again);
                }
            }
        }
        let stored = entry::stored(level, value);
        let stored = self.store(table, index, old, stored, keep_ad);
        if level == 4 {
            self.memory.l4_written(table, index, stored);
        }
        if entry::is_present(old) && !is_harmless {
            self.put_table(entry::frame(old), kind);
        }
        Ok(())
    }

    /// Writes to a frame that is no page table.
    pub(super) fn update_memory(&mut self, mfn: Mfn, index: usize, value: u64) -> Result<(), Stop> {
        let frame = self.own(mfn)?;
        frame.get_owned(self.domain).map_err(|_| INVALID)?;
        let answer = self.get_writable_type(mfn, frame, &Walk::default());
        if answer.is_ok() {
            self.memory.write(mfn, index, value);
            put_type(self.memory, frame, Type::Writable);
        }
        put_page(self.memory, mfn);
        match answer {
            Err(Stop::Refused(_)) => Err(INVALID),
            answer => answer,
        }
    }

    /// Does to an entry of a valid table of level 1 what a guest's instruction wanted to: writes `value`, if the entry is
    /// `old` where that is given. `EINVAL` if the frame is no such table.
    pub fn emulated_write(&mut self, table: Mfn, index: usize, old: Option<u64>, value: u64) -> Result<Written, Stop> {
        self.finish()?;
        if index >= M::ENTRIES || !self.own(table)?.type_word().is_valid_table(Type::L1) {
            return Err(INVALID);
        }
        let Some(old) = old else {
            self.update(table, index, value, false, self.domain)?;
            return Ok(Written::Done);
        };
        let actual = self.memory.read(table, index);
        if actual != old {
            return Ok(Written::Differs(actual));
        }
        let stored = self.get_leaf(value, self.domain, &Walk::default())?;
        if !self.is_still(table, Type::L1) {
            self.put_leaf(stored);
            return Err(Stop::Again);
        }
        match self.memory.compare_exchange(table, index, old, stored) {
            Ok(()) => {
                self.put_leaf(old);
                Ok(Written::Done)
            }
            Err(actual) => {
                self.put_leaf(stored);
                Ok(Written::Differs(actual))
            }
        }
    }

    /// Stores an entry in place of `old`, of which processors may change what they note there, and nobody anything else.
    #[inline]
    fn store(&mut self, table: Mfn, index: usize, old: u64, new: u64, keep_ad: bool) -> u64 {
        if !keep_ad {
            self.memory.write(table, index, new);
            return new;
        }
        let mut seen = old;
        loop {
            let merged = new | seen & (entry::ACCESSED | entry::DIRTY);
            match self.memory.compare_exchange(table, index, seen, merged) {
                Ok(()) => return merged,
                Err(actual) => seen = actual,
            }
        }
    }
}
