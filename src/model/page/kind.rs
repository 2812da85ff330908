//! The second shared word of a frame record: what a PV guest uses the frame as, as pure transitions.
//!
//! A frame has one type at a time while it is used: as memory a guest may write, as a page table of one level, or as
//! descriptors. What is writable can be no page table, and that is what isolation of PV guests rests on.
//!
//! ```text
//!                    claim                  validated
//!   unused (count 0) ------> partial (count 0) ------> in use (count 1..)     page tables
//!          ^                  |  ^                         |
//!          '------------------'  '-------------------------'
//!              undone                 put of the last use
//!
//!   unused (count 0) <-----> in use (count 1..)                               writable memory
//! ```
//!
//! A partial page table has references from its first so many entries ([`super::Frame::progress`]) and is itself
//! used by nobody: whoever comes next goes on or undoes it. Partial is also what a table is while it is being
//! validated; all that is done with page tables of a domain is done under one lock. Writable uses are taken and dropped
//! without it.
//!
//! When the last use is gone, processors may still know the frame as what it was. The word keeps the type and a
//! [`Stamp`] of the moment, and says when a new type needs a flush first.

use core::fmt;

const COUNT: u64 = 0xffff_ffff;
const EPOCH_SHIFT: u32 = 32;
const EPOCH: u64 = 0xff_ffff << EPOCH_SHIFT;
const TYPE_SHIFT: u32 = 56;
const TYPE: u64 = 0xf << TYPE_SHIFT;
const VALIDATED: u64 = 1 << 60;
const PARTIAL: u64 = 1 << 61;
const PINNED: u64 = 1 << 62;
const FOREIGN: u64 = 1 << 63;

/// What a PV guest uses a frame as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Type {
    /// Nothing that needs a type: it is unused, or read only.
    None = 0,
    /// A page table of level 1, whose entries map memory.
    L1 = 1,
    /// A page table of level 2.
    L2 = 2,
    /// A page table of level 3.
    L3 = 3,
    /// A page table of level 4, which CR3 names.
    L4 = 4,
    /// Segment descriptors: part of a GDT or LDT.
    Descriptors = 5,
    /// Memory that a guest may write, or that the hypervisor writes for it.
    Writable = 6,
}

impl Type {
    /// The page table of this level.
    pub const fn table(level: u8) -> Option<Self> {
        match level {
            1 => Some(Self::L1),
            2 => Some(Self::L2),
            3 => Some(Self::L3),
            4 => Some(Self::L4),
            _ => None,
        }
    }
    /// The level, if it is a page table.
    pub const fn level(self) -> Option<u8> {
        if self.is_table() { Some(self as u8) } else { None }
    }
    /// Whether it is a page table of any level.
    pub const fn is_table(self) -> bool {
        matches!(self, Self::L1 | Self::L2 | Self::L3 | Self::L4)
    }
}

/// The moment at which a use of a frame ended: what processors learned before it has to be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The low 24 bits of the number of flushes that had begun for the frame's owner.
    pub epoch: u32,
    /// The frame was mapped by other domains as well, whose flushes are not counted: only a flush of all will do.
    pub everywhere: bool,
}

impl Stamp {
    /// The bits of an epoch that a stamp keeps.
    pub const EPOCH: u64 = EPOCH >> EPOCH_SHIFT;

    /// Whether a flush that began after the stamp is over, if the owner's flushes up to number `completed` are.
    ///
    /// A stamp that is older than half the range of its bits can only ask for a flush that was not needed.
    pub const fn is_flushed(self, completed: u64) -> bool {
        let since = completed.wrapping_sub(self.epoch as u64) & Self::EPOCH;
        !self.everywhere && since != 0 && since <= Self::EPOCH / 2
    }
}

/// What a frame is used as, and by how many entries, pins and other users.
///
/// | bits | what |
/// |---|---|
/// | 0-31 | uses as the type |
/// | 32-55 | when the latest use ended: low bits of the owner's flush epoch |
/// | 56-59 | the type; kept while there are no uses |
/// | 60 | validated: every entry of the page table was checked |
/// | 61 | partial: the first entries of the page table have references; there are no uses |
/// | 62 | pinned: one of the uses is the guest's, not yet unpinned |
/// | 63 | foreign: another domain has mapped the frame since it was allocated |
///
/// The frames of translated guests have no type: zero.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct TypeWord(u64);

/// Why a transition of the type is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeRefused {
    /// Nobody uses the frame: the type has to be claimed.
    Unused,
    /// The frame is in use as something else.
    InUse,
    /// The frame is a page table with entries that have references: it is validated or undone first.
    Partial,
    /// One more use does not fit.
    Overflow,
    /// The frame is pinned already, or the only use left is the pin.
    Pinned,
    /// There is no such use to end, or nothing to finish.
    NotHeld,
}

/// What whoever ended a use has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum TypeEffect {
    /// Nothing.
    None,
    /// This was the last use of a page table: it is partial now, all its entries have references, and the caller
    /// sees to it that they are given up.
    Undo,
}

impl TypeWord {
    /// No type and no uses.
    pub const NONE: Self = Self(0);

    /// The word as it is stored.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }
    /// What to store.
    pub const fn raw(self) -> u64 {
        self.0
    }
    /// Uses as the type.
    pub const fn count(self) -> u32 {
        (self.0 & COUNT) as u32
    }
    /// The type, or while there are no uses what it was last.
    pub const fn kind(self) -> Type {
        match (self.0 & TYPE) >> TYPE_SHIFT {
            1 => Type::L1,
            2 => Type::L2,
            3 => Type::L3,
            4 => Type::L4,
            5 => Type::Descriptors,
            6 => Type::Writable,
            _ => Type::None,
        }
    }
    /// Whether it is a page table, or descriptors, of which every entry was checked.
    pub const fn is_validated(self) -> bool {
        self.0 & VALIDATED != 0
    }
    /// Whether it is a page table that is not in use but has references from some entries.
    pub const fn is_partial(self) -> bool {
        self.0 & PARTIAL != 0
    }
    /// Whether one of the uses is the guest's own.
    pub const fn is_pinned(self) -> bool {
        self.0 & PINNED != 0
    }
    /// Whether another domain has mapped the frame.
    pub const fn is_foreign(self) -> bool {
        self.0 & FOREIGN != 0
    }
    /// When the last use ended.
    pub const fn stamp(self) -> Stamp {
        Stamp { epoch: ((self.0 & EPOCH) >> EPOCH_SHIFT) as u32, everywhere: self.is_foreign() }
    }
    /// Whether it is in use as this validated page table. The fast path's one question.
    #[inline]
    pub const fn is_valid_table(self, kind: Type) -> bool {
        self.0 & (TYPE | VALIDATED) == (kind as u64) << TYPE_SHIFT | VALIDATED
    }

    const fn with(self, kind: Type, count: u64, flags: u64) -> Self {
        Self(self.0 & (EPOCH | FOREIGN) | (kind as u64) << TYPE_SHIFT | count | flags)
    }

    /// Takes one more use as `kind`. Nothing is checked or flushed, and so a frame that was last something else is refused.
    pub fn get(self, kind: Type) -> Result<Self, TypeRefused> {
        match self.count() {
            0 if self.is_partial() => Err(TypeRefused::Partial),
            0 => match (self.kind(), kind) {
                (Type::None | Type::Writable, Type::Writable) => Ok(self.with(kind, 1, 0)),
                _ => Err(TypeRefused::Unused),
            },
            _ if self.kind() != kind => Err(TypeRefused::InUse),
            u32::MAX => Err(TypeRefused::Overflow),
            _ => Ok(Self(self.0 + 1)),
        }
    }

    /// Gives an unused frame a type: writable memory is in use at once, anything else is partial until it was checked.
    ///
    /// With a stamp: what processors know from before it has to be flushed. For writable memory that is before the word
    /// is stored, since another CPU could use it at once.
    pub fn claim(self, kind: Type) -> Result<(Self, Option<Stamp>), TypeRefused> {
        if self.is_partial() {
            return Err(TypeRefused::Partial);
        }
        if self.count() != 0 {
            return Err(TypeRefused::InUse);
        }
        let flush = if self.kind() == Type::None || self.kind() == kind { None } else { Some(self.stamp()) };
        let next = if kind == Type::Writable { self.with(kind, 1, 0) } else { self.with(kind, 0, PARTIAL) };
        Ok((next, flush))
    }

    /// Every entry was checked: the frame is in use, once.
    pub fn validated(self) -> Result<Self, TypeRefused> {
        if !self.is_partial() || self.count() != 0 {
            return Err(TypeRefused::NotHeld);
        }
        Ok(self.with(self.kind(), 1, VALIDATED))
    }

    /// No entry has references any more: the frame is unused. Nobody has reached it since its last use as a table ended,
    /// and so the stamp is that moment's.
    pub fn undone(self) -> Result<Self, TypeRefused> {
        if !self.is_partial() || self.count() != 0 {
            return Err(TypeRefused::NotHeld);
        }
        Ok(self.with(self.kind(), 0, 0))
    }

    /// Ends a use as `kind` at epoch `now`, which was read after the use had ended.
    pub fn put(self, kind: Type, now: u64) -> Result<(Self, TypeEffect), TypeRefused> {
        match self.count() {
            0 => Err(TypeRefused::NotHeld),
            _ if self.kind() != kind => Err(TypeRefused::InUse),
            1 if self.is_pinned() => Err(TypeRefused::Pinned),
            1 if kind.is_table() => Ok((self.with(kind, 0, PARTIAL).stamped(now), TypeEffect::Undo)),
            1 => Ok((self.with(kind, 0, 0).stamped(now), TypeEffect::None)),
            _ => Ok((Self(self.0 - 1).stamped(now), TypeEffect::None)),
        }
    }

    /// Makes one of the uses the guest's own.
    pub fn pin(self) -> Result<Self, TypeRefused> {
        match (self.is_validated(), self.is_pinned()) {
            (false, _) => Err(TypeRefused::NotHeld),
            (_, true) => Err(TypeRefused::Pinned),
            _ => Ok(Self(self.0 | PINNED)),
        }
    }

    /// The use that was the guest's own is the caller's, to be put.
    pub fn unpin(self) -> Result<Self, TypeRefused> {
        if self.is_pinned() { Ok(Self(self.0 & !PINNED)) } else { Err(TypeRefused::NotHeld) }
    }

    /// A mapping of the frame ended at epoch `now`. The later of two moments stays: whoever ends the last use may have
    /// read the epoch before another ended his.
    pub const fn stamped(self, now: u64) -> Self {
        let later = (now & Stamp::EPOCH).wrapping_sub((self.0 & EPOCH) >> EPOCH_SHIFT) & Stamp::EPOCH;
        if later > Stamp::EPOCH / 2 { self } else { Self(self.0 & !EPOCH | (now & Stamp::EPOCH) << EPOCH_SHIFT) }
    }

    /// Another domain maps the frame.
    pub const fn foreign(self) -> Self {
        Self(self.0 | FOREIGN)
    }
}

impl fmt::Debug for TypeWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} x{}", self.kind(), self.count())?;
        for (is, name) in [
            (self.is_validated(), " validated"),
            (self.is_partial(), " partial"),
            (self.is_pinned(), " pinned"),
            (self.is_foreign(), " foreign"),
        ] {
            f.write_str(if is { name } else { "" })?;
        }
        write!(f, " @{}", self.stamp().epoch)
    }
}
