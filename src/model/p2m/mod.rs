//! A domain's guest-physical memory: which machine frame, of which kind, each guest frame is.
//!
//! A [`P2m`] is the tree of EPT or NPT that a processor walks; there is no second copy. What a frame is lies in
//! bits of its entry that processors ignore.
//!
//! # References
//! A present entry holds one counted reference to each frame of RAM it maps ([`Frame::get_owned`]), so that no
//! guest reaches a frame that has another owner since. The P2m does not take or drop them, its caller does,
//! under the domain's `P2m` lock:
//! - before [`P2m::set`] makes an entry, one for each frame, but for [`Kind::MmioDirect`], which is no RAM;
//! - after [`P2m::set`] or [`P2m::remove`] took an entry away, and after the flush that [`Step::flush`] asks for,
//!   the one of the frame that [`P2m::get`] told beforehand;
//! - when the domain is destroyed, those that [`P2m::take_next`] tells one after the other, with no virtual CPU
//!   of the domain running and after a flush.
//!
//! [`Frame::get_owned`]: crate::page::Frame::get_owned
//! [`Step::flush`]: crate::paging::Step::flush

mod kind;
mod recent;

pub use crate::paging::{OutOfMemory, Rights, Size, Step};
pub use kind::Kind;
use recent::Recent;

use crate::addr::{Gfn, Mfn};
use crate::paging::{EPT, Format, Lookup, Mapper, NPT, Next, Tables, Target, free_tree};

/// Whose nested page tables these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nested {
    /// VT-x: [`EPT`].
    Ept,
    /// AMD-V: [`NPT`].
    Npt,
}

impl Nested {
    fn format(self) -> &'static Format {
        match self {
            Self::Ept => &EPT,
            Self::Npt => &NPT,
        }
    }
}

/// Guest frames from here on do not exist: four levels reach 48 bits of address.
pub const MAX_GFN: Gfn = Gfn::new(1 << 36);

/// What a guest frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The machine frame of this very guest frame.
    pub mfn: Mfn,
    /// What it is.
    pub kind: Kind,
    /// What the guest may do with it.
    pub access: Rights,
    /// The entry maps the aligned `2^order` guest frames around this one alike: 0, 9 or 18.
    pub order: u8,
}

/// What there is at a guest frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Memory.
    Entry(Entry),
    /// Nothing, at least in the aligned `2^order` guest frames around this one: 0, 9, 18 or 27.
    Hole {
        /// log2 of the number of guest frames.
        order: u8,
    },
}

impl Found {
    /// The entry, if there is one.
    pub fn entry(self) -> Option<Entry> {
        match self {
            Self::Entry(entry) => Some(entry),
            Self::Hole { .. } => None,
        }
    }
}

/// What [`P2m::take_next`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// These guest frames were mapped and are a hole now: `2^order` from the first on.
    Entry(Gfn, Entry),
    /// No guest frame is mapped any more.
    Empty,
    /// The step is over; go on from this guest frame.
    More(Gfn),
}

/// Why a guest frame cannot be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such guest frame: it lies at or beyond [`MAX_GFN`].
    NoSuchGfn,
    /// There was no memory for a table. What was done before stays done.
    OutOfMemory(Step),
}

impl From<OutOfMemory> for Refused {
    fn from(OutOfMemory(step): OutOfMemory) -> Self {
        Self::OutOfMemory(step)
    }
}

/// The map of a domain's guest frames.
#[derive(Debug)]
pub struct P2m {
    root: Mfn,
    nested: Nested,
    largest: Size,
    max_gfn: Option<Gfn>,
    recent: Recent,
}

impl P2m {
    /// An empty map, or `None` when memory is short. `largest` is the most that the processor maps by one entry.
    pub fn new(tables: &mut impl Tables, nested: Nested, largest: Size) -> Option<Self> {
        Some(Self { root: tables.allocate()?, nested, largest, max_gfn: None, recent: Recent::EMPTY })
    }

    /// The root table, for the processor.
    pub fn root(&self) -> Mfn {
        self.root
    }

    /// The highest guest frame that was ever set (`XENMEM_maximum_gpfn`).
    pub fn max_gfn(&self) -> Option<Gfn> {
        self.max_gfn
    }

    /// What there is at a guest frame.
    pub fn get(&self, tables: &impl Tables, gfn: Gfn) -> Found {
        found(crate::paging::lookup(tables, self.nested.format(), self.root, gfn.raw()))
    }

    /// The machine frame and kind of a guest frame that is memory, by what was looked up lately where that tells.
    #[inline]
    pub fn find(&mut self, tables: &impl Tables, gfn: Gfn) -> Option<(Mfn, Kind)> {
        let format = self.nested.format();
        let area = match self.recent.get(gfn) {
            Some(area) => area,
            None => self.recent.put(gfn, crate::paging::area(tables, format, self.root, gfn.raw())?),
        };
        let (mfn, soft) = area.page(tables, format, gfn.raw())?;
        Some((mfn, Kind::from_soft(soft)))
    }

    /// Makes `count` guest frames from `gfn` on consecutive machine frames of a kind, with the rights of the kind
    /// as far as `access` has them (reading always), by the largest entries that fit.
    ///
    /// Writes about `budget` entries and says how far it came, like [`Mapper::map`]: call again with what is left.
    /// References: see the module.
    #[expect(clippy::too_many_arguments, reason = "an entry is that much, and where it goes")]
    pub fn set(
        &mut self,
        tables: &mut impl Tables,
        gfn: Gfn,
        mfn: Mfn,
        count: u64,
        kind: Kind,
        access: Rights,
        budget: usize,
    ) -> Result<Step, Refused> {
        let last = last_of(gfn, count)?;
        let target = Target { mfn, attributes: kind.attributes(access) };
        self.max_gfn = self.max_gfn.max(Some(last));
        Ok(self.mapper(tables).map(gfn.raw(), count, target, self.largest, budget)?)
    }

    /// [`P2m::set`] of the aligned `2^order` guest frames from `gfn` on, in one step: up to order 9 that is at most
    /// 512 entries and two tables. The answer's `done` is all of them.
    pub fn set_entry(
        &mut self,
        tables: &mut impl Tables,
        gfn: Gfn,
        order: u8,
        mfn: Mfn,
        kind: Kind,
    ) -> Result<Step, Refused> {
        let count = 1u64.checked_shl(u32::from(order)).ok_or(Refused::NoSuchGfn)?;
        self.set(tables, gfn, mfn, count, kind, Rights::all(), usize::MAX)
    }

    /// Makes `count` guest frames from `gfn` on a hole, in bounded steps like [`P2m::set`]. Taking a part out of a
    /// larger entry needs memory.
    pub fn remove(&mut self, tables: &mut impl Tables, gfn: Gfn, count: u64, budget: usize) -> Result<Step, Refused> {
        last_of(gfn, count)?;
        Ok(self.mapper(tables).unmap(gfn.raw(), count, budget)?)
    }

    /// The first mapped guest frame from `from` on, looking at up to `budget` entries; it becomes a hole, with all
    /// that its entry maps after it.
    pub fn take_next(&mut self, tables: &mut impl Tables, from: Gfn, budget: usize) -> Taken {
        let mut mapper = self.mapper(tables);
        let (page, lookup) = match mapper.next(from.raw(), MAX_GFN.raw(), budget) {
            Next::Page(page, lookup) => (page, lookup),
            Next::None => return Taken::Empty,
            Next::More(page) => return Taken::More(Gfn::new(page)),
        };
        let Found::Entry(entry) = found(lookup) else { return Taken::Empty };
        let size = 1 << entry.order;
        let (first, skipped) = (page & !(size - 1), page & (size - 1));
        let entry = Entry { mfn: Mfn::new(entry.mfn.raw() - skipped), ..entry };
        // A whole entry goes without a table and in one write.
        match mapper.unmap(first, size, 1) {
            Ok(_) => Taken::Entry(Gfn::new(first), entry),
            Err(OutOfMemory(_)) => Taken::More(Gfn::new(page)),
        }
    }

    /// Gives back the tables, up to about `budget` a call; says whether all are gone. No virtual CPU uses the map
    /// any more, and [`P2m::take_next`] has told [`Taken::Empty`]. After the first call nothing else is called.
    pub fn free(&mut self, tables: &mut impl Tables, budget: usize) -> bool {
        free_tree(tables, self.nested.format(), self.root, budget)
    }

    /// For changes: what was looked up before them does not count any more.
    fn mapper<'t, T: Tables>(&mut self, tables: &'t mut T) -> Mapper<'t, T> {
        self.recent = Recent::EMPTY;
        Mapper::new(tables, self.nested.format(), self.root)
    }
}

/// The last of `count` guest frames from `gfn` on, if all of them exist.
fn last_of(gfn: Gfn, count: u64) -> Result<Gfn, Refused> {
    let last = count.checked_sub(1).and_then(|more| gfn.checked_add(more));
    last.filter(|last| *last < MAX_GFN).ok_or(Refused::NoSuchGfn)
}

fn found(lookup: Lookup) -> Found {
    match lookup {
        Lookup::Mapped { mfn, attributes, size } => Found::Entry(Entry {
            mfn,
            kind: Kind::from_soft(attributes.soft),
            access: attributes.rights,
            order: size.order(),
        }),
        Lookup::Hole { order, .. } => Found::Hole { order },
    }
}

#[cfg(test)]
mod tests;
