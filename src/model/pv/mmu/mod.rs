//! The page tables of PV guests: every entry that a processor follows was checked, and is counted.
//!
//! A PV guest has its own page tables, made of its own frames, which hold numbers of machine frames. It can read
//! them, and change them only through [`Mmu`]. An entry that is present has a reference to the frame that it names, and
//! a use of that frame's type: writable memory, or the page table one level below. So a frame that a guest can write
//! is no page table, and what a table leads to exists as long as it does.
//!
//! | file | what |
//! |---|---|
//! | `entry` | the bits of an entry: which are allowed, and how an entry is stored |
//! | `leaf` | what an entry of level 1 takes and gives back |
//! | `validate` | a frame becomes a page table |
//! | `undo` | a page table is given up |
//! | `pin` | uses of page tables that are no entries: pins, CR3; and the end of a domain |
//! | `update` | one entry changes |
//! | `quick` | in a way that takes no more than a look at a record |
//! | `writable` | writable uses that are no entries; the last reference to a frame |
//! | `descriptor` | pages of segment descriptors |
//! | `check`, `sweep` | find out whether all of this is true |
//!
//! # Bounds
//! No operation recurs, and none goes on after [`Memory::is_work_pending`] says so. One that stops has either changed
//! nothing that shows ([`Stop::Again`]: the same call goes on where it stopped), or has succeeded and left page
//! tables in [`Work`] to be undone. All operations first finish what is there ([`Mmu::finish`]), and so it never
//! grows: a caller that wants its guest to see frames unused at once finishes before it returns.
//!
//! What was half done and is never called again harms nobody: a partial page table is undone by whoever wants its frame
//! for something else, and at the domain's end.
//!
//! Xen's rules are kept, and its error numbers (`xen/arch/x86/mm.c`), but for linear page tables, which do not exist.

pub mod check;
pub mod descriptor;
pub mod entry;
mod leaf;
mod pin;
mod quick;
pub mod sweep;
mod undo;
mod update;
mod validate;
mod writable;

#[cfg(any(test, fuzzing))]
pub mod testing;
#[cfg(test)]
mod tests;

use core::ops::Deref;

use abi::errno::Errno;

use crate::addr::Mfn;
use crate::ids::DomId;
use crate::page::{Frame, Stamp};

pub use quick::update_quickly;
pub use undo::Work;
pub use update::Written;
pub use writable::{get_writable, put_page, put_writable};

/// Owns frames that are no memory (`DOMID_IO`): what may be mapped of them is the domain's I/O memory.
pub const IO: DomId = DomId(abi::xen::DOMID_IO);
/// Owns what the hypervisor itself uses (`DOMID_XEN`), of which nothing is ever mapped.
pub const HYPERVISOR: DomId = DomId(abi::xen::DOMID_XEN);

/// Frames' records, and the entries of page tables.
pub trait Entries {
    /// How the record of a frame is reached.
    type Record: Deref<Target = Frame> + Copy;

    /// Entries of a page table. Smaller only in tests.
    const ENTRIES: usize = 512;

    /// The record of a frame; `None` if it is no RAM.
    fn frame(&self, mfn: Mfn) -> Option<Self::Record>;
    /// Reads an entry at once.
    fn read(&self, table: Mfn, index: usize) -> u64;
    /// Writes an entry at once. Sequentially consistent: [`Entries::stamp`] is read after every CPU can see it.
    fn write(&mut self, table: Mfn, index: usize, value: u64);
    /// How many flushes of the domain's translations have begun.
    fn stamp(&self) -> u64;
}

/// The machine's memory, and the processors that may know of it.
pub trait Memory: Entries {
    /// The first entry of a table of level 4 that is the hypervisor's.
    const FIRST_SLOT: usize = 256;
    /// The last such entry.
    const LAST_SLOT: usize = 271;
    /// After so many entries of level 1 that were looked at, pending work is.
    const BATCH: usize = 16;

    /// Writes an entry if it is still `old`; else says what it is. Sequentially consistent.
    fn compare_exchange(&mut self, table: Mfn, index: usize, old: u64, new: u64) -> Result<(), u64>;
    /// Fills the hypervisor's slots of a validated table of level 4, before anybody uses it. `false`: no memory.
    fn open_l4(&mut self, l4: Mfn) -> bool;
    /// Clears the hypervisor's slots. No processor has the table in CR3.
    fn close_l4(&mut self, l4: Mfn);
    /// An entry of an open table was written.
    fn l4_written(&mut self, l4: Mfn, index: usize, value: u64);
    /// Whether the domain may map this frame of a device. Never of memory that is or could become anybody's.
    fn may_map_device(&self, mfn: Mfn) -> bool;
    /// Returns when every CPU that could know what the domain had mapped has flushed since the stamp
    /// ([`Stamp::is_flushed`]); what any domain had mapped, if the stamp says everywhere.
    fn flush_since(&mut self, stamp: Stamp);
    /// Gives a frame back to the allocator, whose last reference is gone. Nobody gets it before a flush since the stamp.
    fn free(&mut self, mfn: Mfn, owner: DomId, stamp: Stamp);
    /// Whether there is something more urgent to do.
    fn is_work_pending(&self) -> bool;
}

/// Why an operation did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It may not be done.
    Refused(Errno),
    /// A bounded part of it is done, and nothing of it shows. The same call goes on.
    Again,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

const INVALID: Stop = Stop::Refused(Errno::EINVAL);

/// A domain's page tables, while their lock is held.
pub struct Mmu<'a, M> {
    /// The machine's memory.
    pub memory: &'a mut M,
    /// Whose page tables.
    pub domain: DomId,
    /// The domain may map frames of others that it names, and choose how devices' memory is cached.
    pub is_privileged: bool,
    /// What is left to be undone; the lock guards it.
    pub work: &'a mut Work,
}

impl<M: Memory> Mmu<'_, M> {
    /// The record of a frame of the domain's own; who has a reference to it can be sure of the answer.
    fn own(&self, mfn: Mfn) -> Result<M::Record, Errno> {
        match self.memory.frame(mfn) {
            Some(frame) if frame.count().owner() == Some(self.domain) => Ok(frame),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Whether an entry of a table of this level is the hypervisor's.
    fn is_slot(level: u8, index: usize) -> bool {
        level == 4 && (M::FIRST_SLOT..=M::LAST_SLOT).contains(&index)
    }
}
