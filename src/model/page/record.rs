//! The record of one frame, as it lies in the frame table.

use super::buddy::{Link, Links};
use super::kind::{Stamp, Type, TypeEffect, TypeRefused, TypeWord};
use super::word::{CountWord, Effect, Refused};
use crate::ids::DomId;
#[cfg(not(loom))]
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
#[cfg(loom)]
use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// One frame of RAM: who owns it, what keeps it alive, and its place on a free list. 32 bytes.
///
/// All zeros is a valid record: a frame not in use, on no free list, that holds zeros. The words change by
/// compare-exchange from any CPU. While the frame is free, the links are the allocator's, under its lock. While it is a
/// partial page table they are those of whoever has the lock of the owner's page tables.
#[derive(Default)]
#[repr(C, align(32))]
pub struct Frame {
    count: AtomicU64,
    type_word: AtomicU64,
    /// The next free block of the list; or the next page table to be undone.
    next: AtomicU32,
    /// The free block before this one; or how many of the page table's first entries have references.
    prev: AtomicU32,
    /// One more than the order of the free block that starts here; zero where none does.
    free_order: AtomicU8,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Frame>() == 32);

impl Frame {
    /// A record of all zeros.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self::default()
    }

    /// A record of all zeros.
    #[cfg(not(loom))]
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

    /// [`CountWord::hand_over`].
    pub fn hand_over(&self, from: DomId, to: DomId) -> Result<(), Refused> {
        self.apply(|word| Ok((word.hand_over(from, to)?, ())))
    }

    /// [`CountWord::put`].
    pub fn put(&self) -> Result<Effect, Refused> {
        self.apply(CountWord::put)
    }

    /// [`CountWord::release`].
    pub fn release(&self) -> Result<Effect, Refused> {
        self.apply(CountWord::release)
    }

    /// [`TypeWord::get`].
    #[inline]
    pub fn get_type(&self, kind: Type) -> Result<(), TypeRefused> {
        self.apply_type(|word| Ok((word.get(kind)?, ())))
    }

    /// [`TypeWord::put`].
    #[inline]
    pub fn put_type(&self, kind: Type, now: u64) -> Result<TypeEffect, TypeRefused> {
        self.apply_type(|word| word.put(kind, now))
    }

    /// [`TypeWord::claim`] of a page table or of descriptors. A stamp asks for a flush before the entries are checked.
    pub fn claim(&self, kind: Type) -> Result<Option<Stamp>, TypeRefused> {
        debug_assert!(kind != Type::Writable, "the flush comes first: Frame::exchange_type");
        self.apply_type(|word| word.claim(kind))
    }

    /// [`TypeWord::validated`].
    pub fn validated(&self) -> Result<(), TypeRefused> {
        self.apply_type(|word| Ok((word.validated()?, ())))
    }

    /// [`TypeWord::undone`].
    pub fn undone(&self) -> Result<(), TypeRefused> {
        self.apply_type(|word| Ok((word.undone()?, ())))
    }

    /// [`TypeWord::pin`].
    pub fn pin(&self) -> Result<(), TypeRefused> {
        self.apply_type(|word| Ok((word.pin()?, ())))
    }

    /// [`TypeWord::unpin`].
    pub fn unpin(&self) -> Result<(), TypeRefused> {
        self.apply_type(|word| Ok((word.unpin()?, ())))
    }

    /// [`TypeWord::stamped`].
    pub fn stamp(&self, now: u64) {
        let _: Result<(), TypeRefused> = self.apply_type(|word| Ok((word.stamped(now), ())));
    }

    /// [`TypeWord::foreign`]. The caller has a reference.
    pub fn note_foreign(&self) {
        if !self.type_word().is_foreign() {
            let _: Result<(), TypeRefused> = self.apply_type(|word| Ok((word.foreign(), ())));
        }
    }

    /// Stores `next` if the type word is still `seen`.
    pub fn exchange_type(&self, seen: TypeWord, next: TypeWord) -> bool {
        self.type_word.compare_exchange(seen.raw(), next.raw(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Forgets the type of a frame whose last reference is gone. What processors know of it has to be flushed before
    /// the frame is used again, by the stamp that comes back; `None` if no mapping of it was ever counted.
    pub fn forget_type(&self) -> Option<Stamp> {
        let word = self.type_word();
        debug_assert!(word.count() == 0 && !word.is_partial(), "a use has a reference: {word:?}");
        self.type_word.store(TypeWord::NONE.raw(), Ordering::Relaxed);
        (word != TypeWord::NONE).then(|| word.stamp())
    }

    /// Of a partial page table, how many of the first entries have references.
    pub fn progress(&self) -> usize {
        self.prev.load(Ordering::Relaxed) as usize
    }

    /// Notes how many of the first entries have references.
    pub fn set_progress(&self, entries: usize) {
        self.prev.store(entries as u32, Ordering::Relaxed);
    }

    /// Of a page table that is to be undone, the one after it.
    pub fn next_to_undo(&self) -> u32 {
        self.next.load(Ordering::Relaxed)
    }

    /// Notes which page table is to be undone after this one.
    pub fn set_next_to_undo(&self, frame: u32) {
        self.next.store(frame, Ordering::Relaxed);
    }

    /// Applies a transition of the type by compare-exchange.
    ///
    /// Release: what was done with the frame as one type is over before the type is gone. Acquire: whoever gives it
    /// another comes after that.
    #[inline]
    fn apply_type<E>(
        &self,
        transition: impl Fn(TypeWord) -> Result<(TypeWord, E), TypeRefused>,
    ) -> Result<E, TypeRefused> {
        let mut seen = self.type_word.load(Ordering::Relaxed);
        loop {
            let (next, effect) = transition(TypeWord::from_raw(seen))?;
            match self.type_word.compare_exchange_weak(seen, next.raw(), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Ok(effect),
                Err(actual) => seen = actual,
            }
        }
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
