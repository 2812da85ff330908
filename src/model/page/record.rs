//! The record of one frame, as it lies in the frame table.

use super::buddy::{Link, Links};
use super::word::{CountWord, Effect, Refused, TypeWord};
use crate::ids::DomId;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// One frame of RAM: who owns it, what keeps it alive, and its place on a free list. 32 bytes.
///
/// All zeros is a valid record: a frame not in use, on no free list, that holds zeros. The words change by
/// compare-exchange from any CPU; the links are the allocator's, under its lock, and mean something only
/// while the frame is free.
#[derive(Default)]
#[repr(C, align(32))]
pub struct Frame {
    count: AtomicU64,
    type_word: AtomicU64,
    next: AtomicU32,
    prev: AtomicU32,
    /// One more than the order of the free block that starts here; zero where none does.
    free_order: AtomicU8,
}

const _: () = assert!(size_of::<Frame>() == 32);

impl Frame {
    /// A record of all zeros.
    pub const fn new() -> Self {
        Self {
            count: AtomicU64::new(0),
            type_word: AtomicU64::new(0),
            next: AtomicU32::new(0),
            prev: AtomicU32::new(0),
            free_order: AtomicU8::new(0),
        }
    }

    /// Owner and references at this moment.
    pub fn count(&self) -> CountWord {
        CountWord::from_raw(self.count.load(Ordering::Acquire))
    }

    /// Type and uses at this moment.
    pub fn type_word(&self) -> TypeWord {
        TypeWord::from_raw(self.type_word.load(Ordering::Acquire))
    }

    /// [`CountWord::allocate`].
    pub fn allocate(&self, owner: DomId) -> Result<(), Refused> {
        self.apply(|word| Ok((word.allocate(owner)?, ())))
    }

    /// [`CountWord::scrubbed`].
    pub fn scrubbed(&self) -> Result<(), Refused> {
        self.apply(|word| Ok((word.scrubbed()?, ())))
    }

    /// Says that a frame not in use may hold anything, as RAM does that the firmware hands over.
    pub fn soil(&self) -> Result<(), Refused> {
        self.apply(|word| if word.count() == 0 { Ok((CountWord::DIRTY, ())) } else { Err(Refused::InUse) })
    }

    /// [`CountWord::get`].
    pub fn get(&self) -> Result<(), Refused> {
        self.apply(|word| Ok((word.get()?, ())))
    }

    /// [`CountWord::get_owned`].
    pub fn get_owned(&self, owner: DomId) -> Result<(), Refused> {
        self.apply(|word| Ok((word.get_owned(owner)?, ())))
    }

    /// [`CountWord::put`].
    pub fn put(&self) -> Result<Effect, Refused> {
        self.apply(CountWord::put)
    }

    /// [`CountWord::release`].
    pub fn release(&self) -> Result<Effect, Refused> {
        self.apply(CountWord::release)
    }

    /// Applies a transition by compare-exchange.
    ///
    /// Release: what was done under a reference is over before the reference is gone. Acquire: whoever takes
    /// one, or frees the frame, comes after that.
    fn apply<E>(&self, transition: impl Fn(CountWord) -> Result<(CountWord, E), Refused>) -> Result<E, Refused> {
        let mut seen = self.count.load(Ordering::Relaxed);
        loop {
            let (next, effect) = transition(CountWord::from_raw(seen))?;
            match self.count.compare_exchange_weak(seen, next.raw(), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Ok(effect),
                Err(actual) => seen = actual,
            }
        }
    }
}

/// A frame table that begins at frame 0, as the allocator's [`Links`].
pub struct FrameLinks<'a>(pub &'a [Frame]);

impl Links for FrameLinks<'_> {
    fn get(&self, frame: u32) -> Option<Link> {
        let record = self.0.get(usize::try_from(frame).ok()?)?;
        Some(Link {
            free_order: record.free_order.load(Ordering::Relaxed).checked_sub(1),
            next: record.next.load(Ordering::Relaxed),
            prev: record.prev.load(Ordering::Relaxed),
        })
    }

    fn set(&mut self, frame: u32, link: Link) {
        let record = &self.0[frame as usize];
        record.next.store(link.next, Ordering::Relaxed);
        record.prev.store(link.prev, Ordering::Relaxed);
        record.free_order.store(link.free_order.map_or(0, |order| order + 1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_that_drop_references_at_once_one_frees() {
        let frame = Frame::new();
        frame.allocate(DomId(1)).expect("clean");
        for _ in 0..4000 {
            frame.get().expect("room");
        }
        frame.release().map(|effect| assert_eq!(effect, Effect::None)).expect("held");
        let drop_some = || (0..1000).filter(|_| frame.put() != Ok(Effect::None)).count();
        let last: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(drop_some)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!((last, frame.count()), (1, CountWord::DIRTY));
    }

    #[test]
    fn a_frame_in_use_cannot_be_soiled() {
        let frame = Frame::new();
        assert_eq!(frame.soil(), Ok(()));
        assert_eq!(frame.allocate(DomId(1)), Err(Refused::Dirty));
        assert_eq!(frame.scrubbed(), Ok(()));
        assert_eq!(frame.allocate(DomId(1)), Ok(()));
        assert_eq!(frame.soil(), Err(Refused::InUse));
        assert_eq!(frame.type_word(), TypeWord::NONE);
    }

    #[test]
    fn a_link_is_read_back_as_it_was_set_and_beyond_the_table_there_is_none() {
        let table = [Frame::new(), Frame::new()];
        let mut links = FrameLinks(&table);
        assert_eq!(links.get(0).map(|link| link.free_order), Some(None));
        let link = Link { free_order: Some(0), next: 7, prev: 9 };
        links.set(1, link);
        assert_eq!(links.get(1), Some(link));
        assert_eq!(links.get(2), None);
    }
}
