//! Page tables: one walker and mapper for every format, and the walk of a guest's own tables.
//!
//! Tables have 512 entries of eight bytes at four levels. What differs between the hypervisor's own tables, EPT
//! and NPT is a [`Format`], a short table of bits. The memory that holds the tables is a [`Tables`].
//!
//! Changes are made by [`Mapper`] in bounded steps, each of which says how far it came and whether processors
//! may still use what was there before. A table is not given back before the whole tree is: processors cache
//! the entries that lead to it.

mod format;
pub mod guest;
mod mapper;

pub use format::{Attributes, EPT, Format, LONG, MemoryType, NPT, PAT, Rights, Size};
pub use mapper::{Area, Lookup, Mapper, Next, OutOfMemory, Step, Target, area, free_tree, lookup, page_of};

use crate::addr::Mfn;

/// Entries of a table.
pub const ENTRIES: usize = 512;

/// The memory in which page tables lie.
pub trait Tables {
    /// Reads entry `index`, below [`ENTRIES`], of a table.
    fn read(&self, table: Mfn, index: usize) -> u64;
    /// Writes entry `index`, below [`ENTRIES`], of a table, in one piece: a processor may be walking it.
    fn write(&mut self, table: Mfn, index: usize, value: u64);
    /// A table of zeros, or `None` when memory is short.
    fn allocate(&mut self) -> Option<Mfn>;
    /// Gives back a table, which no processor uses any more.
    fn free(&mut self, table: Mfn);
}

/// Whether translations that processors may have cached have to be forgotten before what they led to is reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[must_use]
pub enum Flush {
    /// No processor can have cached anything that changed.
    #[default]
    None,
    /// On every CPU that used the tables since its last flush.
    Needed,
}

impl Flush {
    /// Needed if either is.
    pub fn or(self, other: Self) -> Self {
        if self == Self::Needed { self } else { other }
    }
}

#[cfg(test)]
pub(crate) mod testing;
