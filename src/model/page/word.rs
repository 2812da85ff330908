//! The first shared word of a frame record, who owns it and how often it is referred to, as pure transitions.
//!
//! A transition takes the word as it was read and answers with the word to store by compare-exchange, or says
//! why not. Several CPUs change a word at once and none needs a lock: who owns a frame and how many references
//! it has are in the same word, so that no reference is ever taken on behalf of a former owner.

use crate::ids::DomId;
use core::fmt;

const COUNT: u64 = 0xffff_ffff;
const OWNER_SHIFT: u32 = 32;
const OWNER: u64 = 0xffff << OWNER_SHIFT;
const ALLOCATED: u64 = 1 << 48;
const DIRTY: u64 = 1 << 49;

/// Owner, references and flags of a frame.
///
/// | bits | what |
/// |---|---|
/// | 0-31 | references; zero: the frame is free, being freed, or not RAM, and nobody can take one |
/// | 32-47 | the owner's domain number, while there are references |
/// | 48 | allocated: one of the references is the owner's own, not yet released |
/// | 49 | dirty: not in use, and what it holds is not zeros |
///
/// All zeros is a frame that is not in use and holds zeros. A dirty frame is never in use.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct CountWord(u64);

/// Why a transition is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The frame has no references: it is free, or no RAM.
    Free,
    /// The frame is in use already.
    InUse,
    /// The frame has to be scrubbed before it is used.
    Dirty,
    /// The frame belongs to another domain.
    NotOwner,
    /// One more reference does not fit.
    Overflow,
    /// The owner's own reference is gone already.
    Released,
    /// The only reference left is the owner's own.
    OwnersOwn,
}

/// What whoever made a transition has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// Nothing.
    None,
    /// This was the last reference: the caller, and nobody else, gives the frame back to the allocator. It is dirty.
    Free {
        /// Who owned the frame, and whose number of frames goes down by one.
        owner: DomId,
    },
}

impl CountWord {
    /// A frame that is not in use and holds zeros.
    pub const CLEAN: Self = Self(0);
    /// A frame that is not in use and holds something else.
    pub const DIRTY: Self = Self(DIRTY);

    /// The word as it is stored.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }
    /// What to store.
    pub const fn raw(self) -> u64 {
        self.0
    }
    /// References to the frame.
    pub const fn count(self) -> u32 {
        (self.0 & COUNT) as u32
    }
    /// Who owns the frame, if it is in use.
    pub const fn owner(self) -> Option<DomId> {
        if self.count() == 0 { None } else { Some(self.raw_owner()) }
    }
    /// Whether the owner still holds its own reference.
    pub const fn is_allocated(self) -> bool {
        self.0 & ALLOCATED != 0
    }
    /// Whether the frame has to be scrubbed before it is used.
    pub const fn is_dirty(self) -> bool {
        self.0 & DIRTY != 0
    }

    const fn raw_owner(self) -> DomId {
        DomId(((self.0 & OWNER) >> OWNER_SHIFT) as u16)
    }

    /// Takes a clean frame into use, with one reference: the owner's own.
    pub fn allocate(self, owner: DomId) -> Result<Self, Refused> {
        match self {
            Self::CLEAN => Ok(Self(ALLOCATED | u64::from(owner.0) << OWNER_SHIFT | 1)),
            Self::DIRTY => Err(Refused::Dirty),
            _ => Err(Refused::InUse),
        }
    }

    /// Notes that a frame that is not in use was filled with zeros.
    pub fn scrubbed(self) -> Result<Self, Refused> {
        if self.count() == 0 { Ok(Self::CLEAN) } else { Err(Refused::InUse) }
    }

    /// Takes a reference, whoever owns the frame.
    pub fn get(self) -> Result<Self, Refused> {
        match self.count() {
            0 => Err(Refused::Free),
            u32::MAX => Err(Refused::Overflow),
            _ => Ok(Self(self.0 + 1)),
        }
    }

    /// Takes a reference if `owner` owns the frame.
    pub fn get_owned(self, owner: DomId) -> Result<Self, Refused> {
        match self.owner() {
            Some(actual) if actual != owner => Err(Refused::NotOwner),
            _ => self.get(),
        }
    }

    /// Gives a frame another owner, if `from` owns it and nobody but `from` itself refers to it.
    pub fn hand_over(self, from: DomId, to: DomId) -> Result<Self, Refused> {
        match self.owner() {
            None => Err(Refused::Free),
            Some(owner) if owner != from => Err(Refused::NotOwner),
            _ if !self.is_allocated() => Err(Refused::Released),
            _ if self.count() != 1 => Err(Refused::InUse),
            _ => Ok(Self(ALLOCATED | u64::from(to.0) << OWNER_SHIFT | 1)),
        }
    }

    /// Drops a reference. The owner's own goes by [`CountWord::release`], never here.
    pub fn put(self) -> Result<(Self, Effect), Refused> {
        match self.count() {
            0 => Err(Refused::Free),
            1 if self.is_allocated() => Err(Refused::OwnersOwn),
            1 => Ok((Self::DIRTY, Effect::Free { owner: self.raw_owner() })),
            _ => Ok((Self(self.0 - 1), Effect::None)),
        }
    }

    /// Drops the owner's own reference, which can be done once: of two that race to, one is refused.
    pub fn release(self) -> Result<(Self, Effect), Refused> {
        match (self.count(), self.is_allocated()) {
            (0, _) => Err(Refused::Free),
            (_, false) => Err(Refused::Released),
            _ => Self(self.0 & !ALLOCATED).put(),
        }
    }
}

impl fmt::Debug for CountWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allocated = if self.is_allocated() { " allocated" } else { "" };
        match self.owner() {
            Some(owner) => write!(f, "{owner:?} x{}{allocated}", self.count()),
            None if self.is_dirty() => f.write_str("dirty"),
            None => f.write_str("clean"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWNER_A: DomId = DomId(3);
    const OWNER_B: DomId = DomId(0x7ff2);

    fn fresh() -> CountWord {
        CountWord::CLEAN.allocate(OWNER_A).expect("a clean frame")
    }

    #[test]
    fn a_free_frame_gives_no_reference() {
        for word in [CountWord::CLEAN, CountWord::DIRTY] {
            assert_eq!(word.get(), Err(Refused::Free));
            assert_eq!(word.get_owned(OWNER_A), Err(Refused::Free));
            assert_eq!(word.put(), Err(Refused::Free));
            assert_eq!(word.release(), Err(Refused::Free));
            assert_eq!(word.owner(), None);
        }
    }

    #[test]
    fn a_dirty_frame_is_scrubbed_before_it_is_allocated() {
        assert_eq!(CountWord::DIRTY.allocate(OWNER_A), Err(Refused::Dirty));
        let clean = CountWord::DIRTY.scrubbed().expect("not in use");
        assert_eq!(clean.allocate(OWNER_A).map(CountWord::count), Ok(1));
        assert_eq!(fresh().scrubbed(), Err(Refused::InUse));
    }

    #[test]
    fn an_allocated_frame_cannot_be_allocated_again() {
        assert_eq!(fresh().allocate(OWNER_B), Err(Refused::InUse));
    }

    #[test]
    fn only_the_owner_gets_an_owned_reference() {
        assert_eq!(fresh().get_owned(OWNER_B), Err(Refused::NotOwner));
        assert_eq!(fresh().get_owned(OWNER_A).map(CountWord::count), Ok(2));
        assert_eq!(fresh().owner(), Some(OWNER_A));
    }

    #[test]
    fn the_owners_own_reference_is_released_once() {
        let shared = fresh().get().expect("room");
        let (rest, effect) = shared.release().expect("held");
        assert_eq!(effect, Effect::None);
        assert_eq!(rest.release(), Err(Refused::Released));
        assert_eq!(rest.put(), Ok((CountWord::DIRTY, Effect::Free { owner: OWNER_A })));
    }

    #[test]
    fn the_owners_own_reference_cannot_be_put_by_others() {
        assert_eq!(fresh().put(), Err(Refused::OwnersOwn));
    }

    #[test]
    fn only_a_frame_that_nobody_else_refers_to_gets_another_owner() {
        let given = fresh().hand_over(OWNER_A, OWNER_B).expect("the owner's own reference is the only one");
        assert_eq!((given.owner(), given.count(), given.is_allocated()), (Some(OWNER_B), 1, true));
        assert_eq!(fresh().hand_over(OWNER_B, OWNER_A), Err(Refused::NotOwner));
        assert_eq!(fresh().get().and_then(|word| word.hand_over(OWNER_A, OWNER_B)), Err(Refused::InUse));
        let released = fresh().get().and_then(CountWord::release).expect("held").0;
        assert_eq!(released.hand_over(OWNER_A, OWNER_B), Err(Refused::Released));
        assert_eq!(CountWord::CLEAN.hand_over(OWNER_A, OWNER_B), Err(Refused::Free));
    }

    #[test]
    fn the_count_stops_before_it_overflows() {
        let full = CountWord::from_raw(fresh().raw() | u64::from(u32::MAX));
        assert_eq!(full.get(), Err(Refused::Overflow));
        assert_eq!(full.put().map(|(word, _)| word.owner()), Ok(Some(OWNER_A)));
    }

    proptest! {
        /// A twin that counts in a plain integer frees at the same moment and never twice.
        #[test]
        fn a_frame_is_freed_exactly_at_its_last_reference(steps in prop::collection::vec(0u8..3, 0..60)) {
            let (mut word, mut others, mut own) = (fresh(), 0u32, true);
            for step in steps {
                let alive = own || others > 0;
                let answer = match step {
                    0 => word.get().map(|next| (next, Effect::None)),
                    1 => word.put(),
                    _ => word.release(),
                };
                let expected = match step {
                    0 => alive,
                    1 => others > 0,
                    _ => own,
                };
                prop_assert_eq!(answer.is_ok(), expected);
                let Ok((next, effect)) = answer else { continue };
                match step {
                    0 => others += 1,
                    1 => others -= 1,
                    _ => own = false,
                }
                let freed = !own && others == 0;
                prop_assert_eq!(effect, if freed { Effect::Free { owner: OWNER_A } } else { Effect::None });
                prop_assert_eq!(next.count(), others + u32::from(own));
                word = next;
            }
        }
    }
}
