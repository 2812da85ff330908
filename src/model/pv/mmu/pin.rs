//! Uses of page tables that are no entries: the guest's pins, and CR3. And the end of a domain, when they go.

use super::writable::{free, put_page};
use super::{INVALID, Memory, Mmu, Stop};
use crate::addr::Mfn;
use crate::page::{Effect, Refused, Type};
use abi::errno::Errno;

impl<M: Memory> Mmu<'_, M> {
    /// `MMUEXT_PIN_L1_TABLE` up to `L4`: makes a frame a page table until it is unpinned.
    pub fn pin(&mut self, mfn: Mfn, level: u8) -> Result<(), Stop> {
        self.finish()?;
        let frame = self.own(mfn)?;
        if frame.type_word().is_pinned() {
            return Err(INVALID);
        }
        self.get_table(mfn, level)?;
        let pinned = frame.pin();
        debug_assert!(pinned.is_ok(), "a valid table that was not pinned can be: {mfn}");
        Ok(())
    }

    /// `MMUEXT_UNPIN_TABLE`.
    pub fn unpin(&mut self, mfn: Mfn) -> Result<(), Stop> {
        self.finish()?;
        let frame = self.own(mfn)?;
        let kind = frame.type_word().kind();
        frame.unpin().map_err(|_| INVALID)?;
        self.put_table(mfn, kind);
        Ok(())
    }

    /// Takes a use of a table of level 4, for a CR3.
    pub fn get_base(&mut self, mfn: Mfn) -> Result<(), Stop> {
        self.finish()?;
        self.get_table(mfn, 4)
    }

    /// Drops a use that [`Mmu::get_base`] took. No processor has the table in CR3 on behalf of it any more.
    pub fn put_base(&mut self, mfn: Mfn) {
        self.put_table(mfn, Type::L4);
    }

    /// Gives up the owner's own reference to a frame of the domain's: what refers to it still keeps it. Once only: `EINVAL`.
    pub fn release(&mut self, mfn: Mfn) -> Result<(), Stop> {
        self.finish()?;
        let frame = self.own(mfn)?;
        if frame.type_word().is_partial() {
            self.undo(mfn)?;
            self.own(mfn)?;
        }
        self.release_own(mfn, frame).map_err(|_| INVALID)
    }

    fn release_own(&mut self, mfn: Mfn, frame: M::Record) -> Result<(), Refused> {
        frame.stamp(self.memory.stamp());
        if let Effect::Free { owner } = frame.release()? {
            free(self.memory, mfn, frame, owner);
        }
        Ok(())
    }

    /// A step of the domain's end, for each frame that it owns, with its virtual CPUs gone and their CR3s and
    /// descriptors given back: unpins the frame, undoes what was left half done, gives up the owner's own reference.
    /// Frames of others are left alone.
    pub fn relinquish(&mut self, mfn: Mfn) -> Result<(), Stop> {
        self.finish()?;
        let Ok(frame) = self.own(mfn) else { return Ok(()) };
        let word = frame.type_word();
        if frame.unpin().is_ok() {
            self.put_table(mfn, word.kind());
            self.finish()?;
        } else if word.is_partial() {
            self.undo(mfn)?;
        }
        // Nothing may be left of it now; or the own reference is gone and others, which go elsewhere, keep the frame.
        if self.own(mfn).is_ok() {
            let _ = self.release_own(mfn, frame);
        }
        Ok(())
    }

    /// Takes a reference to a frame of the domain's own, that does not care for its type.
    pub fn get_page(&mut self, mfn: Mfn) -> Result<(), Errno> {
        self.own(mfn)?.get_owned(self.domain).map_err(|_| Errno::EINVAL)
    }

    /// Drops a reference that [`Mmu::get_page`] took.
    pub fn put_page(&mut self, mfn: Mfn) {
        put_page(self.memory, mfn);
    }
}
