//! Looking up and changing what page tables map.

use super::format::{Attributes, Format, Size};
use super::{ENTRIES, Flush, Tables};
use crate::addr::{Mfn, PAGE_SHIFT};

/// Levels of every format.
const LEVELS: u32 = 4;
/// Pages that four levels reach.
const PAGES: u64 = 1 << (9 * LEVELS);

/// The page of a linear address, in the upper half of the space as in the lower.
pub const fn page_of(address: u64) -> u64 {
    address >> PAGE_SHIFT & (PAGES - 1)
}

/// A tree of page tables, to look up and to change. A page is a number below `2^36`: bits 12 to 47 of an address.
pub struct Mapper<'t, T: Tables> {
    tables: &'t mut T,
    format: &'static Format,
    root: Mfn,
}

/// What a page leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Memory.
    Mapped {
        /// The frame of this very page.
        mfn: Mfn,
        /// What the entry says besides.
        attributes: Attributes,
        /// How much the entry maps.
        size: Size,
    },
    /// Nothing.
    Hole {
        /// [`Attributes::soft`] of the absent entry.
        soft: u8,
        /// The hole has at least the aligned `2^order` pages around this one: 0, 9, 18 or 27.
        order: u8,
    },
}

/// The next page that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This one, which leads to this [`Lookup::Mapped`].
    Page(u64, Lookup),
    /// None.
    None,
    /// The step is over; go on from this page.
    More(u64),
}

/// What to map a range of pages to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The frame of the first page. Means nothing for a hole.
    pub mfn: Mfn,
    /// The same for all pages.
    pub attributes: Attributes,
}

impl Target {
    /// Nothing mapped.
    pub const HOLE: Self = Self { mfn: Mfn::new(0), attributes: Attributes::hole(0) };

    fn after(self, pages: u64) -> Self {
        let mfn = Mfn::new(self.mfn.raw().wrapping_add(pages));
        if self.attributes.is_hole() { self } else { Self { mfn, ..self } }
    }
}

/// How far a bounded step came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[must_use]
pub struct Step {
    /// Pages done, from the first on.
    pub done: u64,
    /// Whether processors may have cached something that changed.
    pub flush: Flush,
}

/// There was no memory for another table. What was done before stays done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory(pub Step);

/// No memory for a table, within a step.
struct NoTable;

/// What one walk did.
struct Done {
    pages: u64,
    flush: Flush,
    /// Entries written.
    entries: usize,
}

impl<'t, T: Tables> Mapper<'t, T> {
    /// Works on the tree at `root`, which has this format.
    pub fn new(tables: &'t mut T, format: &'static Format, root: Mfn) -> Self {
        Self { tables, format, root }
    }

    /// What a page leads to.
    pub fn lookup(&self, page: u64) -> Lookup {
        lookup(self.tables, self.format, self.root, page)
    }

    /// Maps `count` pages from `page` on to consecutive frames, or makes them a hole, by the largest entries that
    /// fit, up to `largest`. Larger mappings that overlap are split; tables that are there stay.
    ///
    /// Writes about `budget` entries (at least one, and at most 1024 more than asked) and says how far it came: call
    /// again with what is left, until all is done. Pages from `2^36` on do not exist and count as done.
    pub fn map(
        &mut self,
        page: u64,
        count: u64,
        target: Target,
        largest: Size,
        budget: usize,
    ) -> Result<Step, OutOfMemory> {
        let (mut step, mut spent) = (Step::default(), 0);
        let reach = count.min(PAGES.saturating_sub(page));
        while step.done < reach && (spent < budget || spent == 0) {
            let left = reach - step.done;
            match self.set(page + step.done, left, target.after(step.done), largest) {
                Ok(done) => {
                    step.done += done.pages.min(left);
                    step.flush = step.flush.or(done.flush);
                    spent += done.entries;
                }
                Err(NoTable) => return Err(OutOfMemory(step)),
            }
        }
        if step.done == reach {
            step.done = count;
        }
        Ok(step)
    }

    /// [`Mapper::map`] to a hole. Splitting a larger mapping may need memory.
    pub fn unmap(&mut self, page: u64, count: u64, budget: usize) -> Result<Step, OutOfMemory> {
        self.map(page, count, Target::HOLE, Size::Gib1, budget)
    }

    /// Writes one entry for `page` and as many after it, up to `left`, as one can map.
    fn set(&mut self, page: u64, left: u64, target: Target, largest: Size) -> Result<Done, NoTable> {
        let size = fitting(page, left, target, largest);
        let (mut table, mut done) = (self.root, Done { pages: 0, flush: Flush::None, entries: 1 });
        for level in (1..=LEVELS).rev() {
            let index = index(page, level);
            let entry = self.tables.read(table, index);
            if let Some(next) = self.format.table_of(entry, level) {
                table = next;
                continue;
            }
            match Size::of_level(level) {
                Some(here) if here <= size => {
                    done.pages = here.frames();
                    done.flush = done.flush.or(self.replace(
                        table,
                        index,
                        entry,
                        self.format.leaf(target.mfn, target.attributes, here),
                    ));
                    break;
                }
                _ if entry == 0 && target == Target::HOLE => {
                    done.pages = pages(level) - page % pages(level);
                    break;
                }
                here => {
                    done.flush = done.flush.or(self.present_flush(entry));
                    done.entries += ENTRIES;
                    table = self.split(table, index, entry, here)?;
                }
            }
        }
        Ok(done)
    }

    /// Writes an entry; the answer is whether a processor may have cached the old one.
    fn replace(&mut self, table: Mfn, index: usize, old: u64, new: u64) -> Flush {
        if old == new {
            return Flush::None;
        }
        self.tables.write(table, index, new);
        self.present_flush(old)
    }

    fn present_flush(&self, old: u64) -> Flush {
        if self.format.is_present(old) { Flush::Needed } else { Flush::None }
    }

    /// Puts a table in the place of an entry that leads to none, with the same meaning. `size` is what the
    /// entry maps, where it can map anything.
    fn split(&mut self, table: Mfn, index: usize, entry: u64, size: Option<Size>) -> Result<Mfn, NoTable> {
        let new = self.tables.allocate().ok_or(NoTable)?;
        if let (Some(size), true) = (size, entry != 0) {
            let (mfn, attributes) = self.format.decode(entry, size);
            let smaller = size.smaller();
            for i in 0..ENTRIES {
                let part = Target { mfn, attributes }.after(i as u64 * smaller.frames());
                self.tables.write(new, i, self.format.leaf(part.mfn, part.attributes, smaller));
            }
        }
        self.tables.write(table, index, self.format.table(new));
        Ok(new)
    }

    /// The first mapped page from `from` up to and without `end`, looking at up to `budget` entries.
    pub fn next(&self, from: u64, end: u64, budget: usize) -> Next {
        let (mut page, end) = (from, end.min(PAGES));
        for _ in 0..budget.max(1) {
            if page >= end {
                return Next::None;
            }
            match self.lookup(page) {
                Lookup::Hole { order, .. } => page = (page | ((1 << order) - 1)) + 1,
                mapped => return Next::Page(page, mapped),
            }
        }
        Next::More(page)
    }
}

/// What a page leads to in the tree at `root`.
pub fn lookup(tables: &impl Tables, format: &Format, root: Mfn, page: u64) -> Lookup {
    let (mut table, levels) = (root, if page < PAGES { LEVELS } else { 0 });
    for level in (1..=levels).rev() {
        let entry = tables.read(table, index(page, level));
        if let Some(next) = format.table_of(entry, level) {
            table = next;
            continue;
        }
        let Some(size) = Size::of_level(level) else { break };
        let (mfn, attributes) = format.decode(entry, size);
        if attributes.is_hole() {
            return Lookup::Hole { soft: attributes.soft, order: size.order() };
        }
        let mfn = Mfn::new(mfn.raw() + page % size.frames());
        return Lookup::Mapped { mfn, attributes, size };
    }
    Lookup::Hole { soft: 0, order: 27 }
}

/// What leads to the 512 pages of an aligned 2 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// A table of level 1.
    Table(Mfn),
    /// One entry, of level 2 or above: the frame of the area's first page, and [`Attributes::soft`].
    Leaf(Mfn, u8),
}

impl Area {
    /// The frame of a page of the area and [`Attributes::soft`], if it is mapped.
    #[inline]
    pub fn page(self, tables: &impl Tables, format: &Format, page: u64) -> Option<(Mfn, u8)> {
        match self {
            Self::Leaf(mfn, soft) => Some((Mfn::new(mfn.raw() + page % 512), soft)),
            Self::Table(table) => format.frame_of(tables.read(table, index(page, 1))),
        }
    }
}

/// What leads to the 2 MiB around a page, in the tree at `root`; `None` if nothing does.
pub fn area(tables: &impl Tables, format: &Format, root: Mfn, page: u64) -> Option<Area> {
    let (mut table, levels) = (root, if page < PAGES { LEVELS } else { 0 });
    for level in (2..=levels).rev() {
        let entry = tables.read(table, index(page, level));
        if let Some(next) = format.table_of(entry, level) {
            if level == 2 {
                return Some(Area::Table(next));
            }
            table = next;
            continue;
        }
        let size = Size::of_level(level)?;
        let (mfn, attributes) = format.decode(entry, size);
        if attributes.is_hole() {
            return None;
        }
        let first = (page % size.frames()) & !511;
        return Some(Area::Leaf(Mfn::new(mfn.raw() + first), attributes.soft));
    }
    None
}

/// Gives back the tree at `root` with the root itself, up to about `budget` tables a call. Says whether it is gone.
///
/// No processor uses the tree any more, and what it maps is the caller's business. Between two calls nothing
/// but this is done with the tree.
pub fn free_tree(tables: &mut impl Tables, format: &Format, root: Mfn, budget: usize) -> bool {
    let mut left = budget.max(1);
    let gone = free_children(tables, format, root, LEVELS, &mut left);
    if gone {
        tables.free(root);
    }
    gone
}

fn free_children(tables: &mut impl Tables, format: &Format, table: Mfn, level: u32, left: &mut usize) -> bool {
    if level == 1 {
        return true;
    }
    for index in 0..ENTRIES {
        let Some(child) = format.table_of(tables.read(table, index), level) else { continue };
        if !free_children(tables, format, child, level - 1, left) || *left == 0 {
            return false;
        }
        *left -= 1;
        tables.write(table, index, 0);
        tables.free(child);
    }
    true
}

/// The largest size that `page` and the frame are multiples of and that is not more than `left`.
fn fitting(page: u64, left: u64, target: Target, largest: Size) -> Size {
    let numbers = if target.attributes.is_hole() { page } else { page | target.mfn.raw() };
    let fits = |size: &Size| *size <= largest && size.frames() <= left && numbers % size.frames() == 0;
    Size::ALL.into_iter().find(fits).unwrap_or(Size::Kib4)
}

fn index(page: u64, level: u32) -> usize {
    (page >> (9 * (level - 1))) as usize % ENTRIES
}

/// Pages below one entry of a level.
fn pages(level: u32) -> u64 {
    1 << (9 * (level - 1))
}

#[cfg(test)]
mod tests;
