//! What an entry of level 1 takes: a reference to the frame it names, and a writable use if it allows writing.
//!
//! Devices' memory has no references. A frame is a device's if it has no record, no owner, or [`IO`] as its owner.
//! That does not change while the machine runs, so the entry itself says later what it has taken.

use abi::errno::Errno;

use super::validate::Walk;
use super::writable::{put_page, put_type};
use super::{HYPERVISOR, IO, Memory, Mmu, Stop, entry};
use crate::addr::Mfn;
use crate::ids::DomId;
use crate::page::Type;

impl<M: Memory> Mmu<'_, M> {
    /// The record of a frame of memory; `None` if it is a device's.
    fn memory_of(&self, mfn: Mfn) -> Option<M::Record> {
        let frame = self.memory.frame(mfn)?;
        frame.count().owner().is_some_and(|owner| owner != IO).then_some(frame)
    }

    /// Checks an entry of level 1 and takes what it needs, frames of `owner` or of devices. Answers with what to store.
    pub(super) fn get_leaf(&mut self, value: u64, owner: DomId, walk: &Walk) -> Result<u64, Stop> {
        if !entry::is_present(value) {
            return Ok(value);
        }
        entry::check(1, value, self.is_privileged)?;
        let mfn = entry::frame(value);
        let Some(frame) = self.memory_of(mfn) else { return self.get_device(value, mfn) };
        if owner == HYPERVISOR || frame.get_owned(owner).is_err() {
            return Err(Errno::EBUSY.into());
        }
        if owner != self.domain {
            frame.note_foreign();
        }
        if entry::is_writable(value)
            && let Err(stop) = self.get_writable_type(mfn, frame, walk)
        {
            put_page(self.memory, mfn);
            return Err(stop);
        }
        // The direct map has all memory cached, and two ways to cache the same memory do not go together.
        Ok(entry::stored(1, value & !entry::CACHE))
    }

    fn get_device(&self, value: u64, mfn: Mfn) -> Result<u64, Stop> {
        if self.memory.may_map_device(mfn) {
            return Ok(entry::stored(1, value));
        }
        // A guest that means `INVALID_MFN` has made a mistake.
        let is_none = value & entry::ADDRESS == entry::ADDRESS;
        Err(if is_none { Errno::EINVAL } else { Errno::EPERM }.into())
    }

    /// Gives back what an entry of level 1 has taken, which nobody can find in a table any more, or in no table that
    /// a processor follows.
    pub(super) fn put_leaf(&mut self, value: u64) {
        if !entry::is_present(value) {
            return;
        }
        let mfn = entry::frame(value);
        let Some(frame) = self.memory_of(mfn) else { return };
        if entry::is_writable(value) {
            put_type(self.memory, frame, Type::Writable);
        }
        put_page(self.memory, mfn);
    }

    /// An entry allows writing no more, and is otherwise as it was.
    pub(super) fn put_leaf_writable(&mut self, value: u64) {
        if let Some(frame) = self.memory_of(entry::frame(value)) {
            put_type(self.memory, frame, Type::Writable);
        }
    }
}
