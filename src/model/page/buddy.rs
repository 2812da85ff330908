//! A buddy allocator over the frames of RAM.
//!
//! A free block has `2^order` frames and starts at a multiple of its size. It is on one list, by zone and
//! order, threaded through the record of its first frame. Zone `z` has the frames from `2^(z-1)` up to `2^z`
//! (zone 0 has frame 0), so that memory below an address is a matter of looking at fewer zones; blocks of
//! different zones never join. The highest zone that can serve is used: low memory stays for those that ask.

use crate::addr::Mfn;

/// The largest block: `2^18` frames, 1 GiB.
pub const MAX_ORDER: u8 = 18;

const ORDERS: usize = MAX_ORDER as usize + 1;
const ZONES: usize = 33;
/// The end of a list.
const END: u32 = u32::MAX;

/// What the allocator keeps in a frame's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Link {
    /// The order of the free block that starts at this frame, if one does.
    pub free_order: Option<u8>,
    /// The next block of the list; meaningless where no free block starts.
    pub next: u32,
    /// The block before this one; meaningless where no free block starts.
    pub prev: u32,
}

/// The records of the frames, as far as the allocator uses them.
pub trait Links {
    /// The link of this frame, or `None` where the frame has no record: it is no RAM.
    fn get(&self, frame: u32) -> Option<Link>;
    /// Writes the link of a frame that has a record.
    fn set(&mut self, frame: u32, link: Link);
}

/// Which frames are free. Every operation goes through at most one list per order and zone.
pub struct Buddy {
    heads: [[u32; ORDERS]; ZONES],
    /// For each zone, a bit for each order whose list is not empty.
    stocked: [u32; ZONES],
    free: u64,
}

impl Buddy {
    /// No free frames.
    pub const fn new() -> Self {
        Self { heads: [[END; ORDERS]; ZONES], stocked: [0; ZONES], free: 0 }
    }

    /// How many frames are free.
    pub fn free_frames(&self) -> u64 {
        self.free
    }

    /// Makes the frames from `first` up to and without `end` free. They have records, are not free already, and
    /// lie below 16 TiB less one frame, where the numbers of frames end.
    pub fn add_range(&mut self, links: &mut impl Links, first: Mfn, end: Mfn) {
        let mut at = first.raw();
        while at < end.raw() {
            // A larger block at frame 0 would span zones.
            let aligned = if at == 0 { 0 } else { at.trailing_zeros() };
            let fits = (end.raw() - at).ilog2();
            let order = aligned.min(fits).min(u32::from(MAX_ORDER));
            self.free(links, Mfn::new(at), order as u8);
            at += 1 << order;
        }
    }

    /// Takes `2^order` contiguous frames that start at a multiple of their number, or `None` where none are left.
    ///
    /// All of them lie below frame `below`, rounded down to a power of two, if one is given.
    pub fn allocate(&mut self, links: &mut impl Links, order: u8, below: Option<Mfn>) -> Option<Mfn> {
        if order > MAX_ORDER {
            return None;
        }
        let zones = match below {
            Some(limit) => limit.raw().checked_ilog2()? as usize + 1,
            None => ZONES,
        };
        let zone = (0..zones.min(ZONES)).rev().find(|&zone| self.stocked[zone] >> order != 0)?;
        let found = order + (self.stocked[zone] >> order).trailing_zeros() as u8;
        let frame = self.heads[zone][usize::from(found)];
        self.unlink(links, frame, found);
        for half in order..found {
            self.link(links, frame + (1 << half), half);
        }
        self.free -= 1 << order;
        Some(Mfn::new(u64::from(frame)))
    }

    /// Gives back `2^order` frames that start at `first`, a multiple of their number. They need not be the
    /// whole of what one [`Buddy::allocate`] gave.
    ///
    /// # Panics
    /// If the frames are no such block, or `first` starts a free block already: our own mistake.
    pub fn free(&mut self, links: &mut impl Links, first: Mfn, order: u8) {
        let mut frame = u32::try_from(first.raw()).expect("frame numbers have 32 bits");
        let aligned = frame != 0 && frame.trailing_zeros() >= u32::from(order);
        assert!(order <= MAX_ORDER && (aligned || order == 0), "no block: {first}, order {order}");
        let link = links.get(frame).expect("a frame that is freed has a record");
        assert!(link.free_order.is_none(), "freed twice: {first}");
        self.free += 1 << order;
        let mut order = order;
        while let Some(buddy) = self.free_buddy(links, frame, order) {
            self.unlink(links, buddy, order);
            frame &= !(1 << order);
            order += 1;
        }
        self.link(links, frame, order);
    }

    /// The other half of the block that `frame` could be part of, if it is free and may join.
    fn free_buddy(&self, links: &impl Links, frame: u32, order: u8) -> Option<u32> {
        let buddy = frame ^ (1 << order);
        let joins = order < MAX_ORDER && zone_of(buddy) == zone_of(frame);
        (joins && links.get(buddy)?.free_order == Some(order)).then_some(buddy)
    }

    fn link(&mut self, links: &mut impl Links, frame: u32, order: u8) {
        let zone = zone_of(frame);
        let head = &mut self.heads[zone][usize::from(order)];
        links.set(frame, Link { free_order: Some(order), next: *head, prev: END });
        if *head != END {
            change(links, *head, |link| link.prev = frame);
        }
        *head = frame;
        self.stocked[zone] |= 1 << order;
    }

    fn unlink(&mut self, links: &mut impl Links, frame: u32, order: u8) {
        let zone = zone_of(frame);
        let Link { next, prev, .. } = links.get(frame).expect("a free block has a record");
        if next != END {
            change(links, next, |link| link.prev = prev);
        }
        if prev != END {
            change(links, prev, |link| link.next = next);
        } else {
            self.heads[zone][usize::from(order)] = next;
            if next == END {
                self.stocked[zone] &= !(1 << order);
            }
        }
        links.set(frame, Link::default());
    }
}

impl Default for Buddy {
    fn default() -> Self {
        Self::new()
    }
}

fn zone_of(frame: u32) -> usize {
    (u32::BITS - frame.leading_zeros()) as usize
}

fn change(links: &mut impl Links, frame: u32, how: impl FnOnce(&mut Link)) {
    let mut link = links.get(frame).expect("a free block has a record");
    how(&mut link);
    links.set(frame, link);
}

#[cfg(test)]
mod tests;
