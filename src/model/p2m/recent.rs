//! Where the last lookups ended, so that the next one in the same 2 MiB need not walk from the root.

use crate::addr::Gfn;
use crate::paging::Area;

const SLOTS: usize = 16;

/// The areas of 2 MiB that were looked up last, by the low bits of their number.
#[derive(Debug)]
pub(super) struct Recent([Option<(u64, Area)>; SLOTS]);

impl Recent {
    /// Nothing was looked up.
    pub(super) const EMPTY: Self = Self([None; SLOTS]);

    /// What is known of the area of a guest frame.
    #[inline]
    pub(super) fn get(&self, gfn: Gfn) -> Option<Area> {
        let number = gfn.raw() >> 9;
        match self.0[number as usize % SLOTS] {
            Some((known, area)) if known == number => Some(area),
            _ => None,
        }
    }

    /// Remembers it.
    pub(super) fn put(&mut self, gfn: Gfn, area: Area) -> Area {
        let number = gfn.raw() >> 9;
        self.0[number as usize % SLOTS] = Some((number, area));
        area
    }
}
