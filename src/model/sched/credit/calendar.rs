//! Virtual CPUs in the order of their virtual time, in which every step costs the same however many there are.
//!
//! A virtual CPU's slice advances its virtual time by its step, which depends on its weight. Those with steps from 4ᵏ to
//! 4ᵏ⁺¹ are in one group: a ring of 64 slots of 4ᵏ/2 each. All in a group are from two steps before the queue's
//! virtual time to four after it, which is at most 49 slots, so that no two turns of the ring meet; what is earlier than that is in
//! the first slot, and while there is any, the queue's virtual time stands. A slot is a list in the order of arrival. The least is
//! the head of the first slot of one of the groups, or among the first in it. One that is alone is in no list: most queues
//! have one that waits, or none.

use super::unit::Units;
use crate::sched::Key;
use alloc::vec::Vec;

/// Steps of less than 4⁸ are in the first group.
const FIRST: u32 = 7;
/// From a slice of 1 ms at the greatest weight to 1 s of one among 128 at the least.
const GROUPS: usize = 18;
const SLOTS: usize = 64;
/// How far before a queue's virtual time slots go, in steps.
const EARLIEST: u64 = 2;
/// How far after it it takes one in, in steps.
pub(super) const LATEST: u64 = 4;

/// Those of a first slot among which the least is looked for.
const LOOK: usize = 8;

const NONE: u32 = u32::MAX;

/// Whether `a` is before `b`, of two virtual times that are not half the numbers apart.
#[inline]
pub(super) fn is_before(a: u64, b: u64) -> bool {
    (a.wrapping_sub(b) as i64) < 0
}

/// The earlier of two.
#[inline]
pub(super) fn earlier(a: u64, b: u64) -> u64 {
    if is_before(b, a) { b } else { a }
}

/// The later of two.
#[inline]
pub(super) fn later(a: u64, b: u64) -> u64 {
    if is_before(a, b) { b } else { a }
}

/// The neighbours of one in a [`List`], and in which list it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Link {
    before: u32,
    after: u32,
    slot: u16,
}

/// A list through the virtual CPUs of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    first: u32,
    last: u32,
}

impl List {
    pub(super) const EMPTY: Self = Self { first: NONE, last: NONE };

    pub(super) fn first(&self) -> Option<Key> {
        (self.first != NONE).then_some(Key(self.first))
    }

    /// All of them, in order.
    pub(super) fn iter(&self, units: &Units) -> impl Iterator<Item = Key> {
        core::iter::successors(self.first(), |&key| {
            let after = units.get(key)?.link.after;
            (after != NONE).then_some(Key(after))
        })
    }

    pub(super) fn push(&mut self, units: &mut Units, key: Key, slot: u16) {
        units.of(key).link = Link { before: self.last, after: NONE, slot };
        match self.last {
            NONE => self.first = key.0,
            last => units.of(Key(last)).link.after = key.0,
        }
        self.last = key.0;
    }

    pub(super) fn remove(&mut self, units: &mut Units, key: Key) {
        let Link { before, after, .. } = units.of(key).link;
        match before {
            NONE => self.first = after,
            before => units.of(Key(before)).link.after = after,
        }
        match after {
            NONE => self.last = before,
            after => units.of(Key(after)).link.before = before,
        }
    }
}

/// Virtual CPUs of one queue in the order of their virtual time.
#[derive(Debug)]
pub(super) struct Calendar {
    lists: Vec<List>,
    /// The slots of each group that have somebody.
    used: [u64; GROUPS],
    /// The groups that have somebody.
    groups: u32,
    len: u32,
    /// The only one, which is in no list, and its step.
    lone: Option<(Key, u64)>,
}

impl Calendar {
    pub(super) fn new() -> Self {
        Self { lists: alloc::vec![List::EMPTY; GROUPS * SLOTS], used: [0; GROUPS], groups: 0, len: 0, lone: None }
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// The exponent of a group's slots.
    fn shift(group: usize) -> u32 {
        2 * (group as u32 + FIRST) - 1
    }

    /// Takes in one whose virtual time is not later than the bounds of a queue at `now`, and whose slice costs so much.
    #[inline]
    pub(super) fn insert(&mut self, units: &mut Units, key: Key, step: u64, now: u64) {
        self.len += 1;
        if self.len == 1 {
            self.lone = Some((key, step));
            return;
        }
        if let Some((first, step)) = self.lone.take() {
            self.link(units, first, step, now);
        }
        self.link(units, key, step, now);
    }

    fn link(&mut self, units: &mut Units, key: Key, step: u64, now: u64) {
        let exponent = step.max(1).ilog2() / 2;
        let group = (exponent.saturating_sub(FIRST) as usize).min(GROUPS - 1);
        let (spent, earliest) = (units.of(key).spent, Self::begin(group, now));
        let spent = if is_before(spent, earliest) { earliest } else { spent };
        let slot = (spent >> Self::shift(group)) as usize % SLOTS;
        let at = group * SLOTS + slot;
        self.lists[at].push(units, key, at as u16);
        self.used[group] |= 1 << slot;
        self.groups |= 1 << group;
    }

    /// Takes out one that is in.
    #[inline]
    pub(super) fn remove(&mut self, units: &mut Units, key: Key) {
        self.len -= 1;
        if self.lone.take().is_none() {
            self.unlink(units, key);
        }
    }

    fn unlink(&mut self, units: &mut Units, key: Key) {
        let at = usize::from(units.of(key).link.slot);
        self.lists[at].remove(units, key);
        if self.lists[at].first().is_none() {
            let group = at / SLOTS;
            self.used[group] &= !(1 << (at % SLOTS));
            if self.used[group] == 0 {
                self.groups &= !(1 << group);
            }
        }
    }

    /// The least, of a queue whose virtual time is `now`.
    #[inline(always)]
    pub(super) fn first(&self, units: &Units, now: u64) -> Option<Key> {
        match self.lone {
            Some((key, _)) => Some(key),
            None if self.len == 0 => None,
            None => self.earliest(units, now),
        }
    }

    fn earliest(&self, units: &Units, now: u64) -> Option<Key> {
        let mut least: Option<(u64, Key)> = None;
        let mut groups = self.groups;
        while groups != 0 {
            let group = groups.trailing_zeros() as usize;
            groups &= groups - 1;
            let base = Self::base(group, now);
            let slot = (base + self.used[group].rotate_right(base).trailing_zeros()) as usize % SLOTS;
            let mut next = self.lists[group * SLOTS + slot].first();
            // In the first slot are all that are earlier than any slot.
            for _ in 0..if slot == base as usize { LOOK } else { 1 } {
                let Some(key) = next else { break };
                let unit = units.get(key)?;
                if least.is_none_or(|(other, _)| is_before(unit.spent, other)) {
                    least = Some((unit.spent, key));
                }
                next = (unit.link.after != NONE).then_some(Key(unit.link.after));
            }
        }
        least.map(|(_, key)| key)
    }

    /// The earliest virtual time for which a group has a slot.
    fn begin(group: usize, now: u64) -> u64 {
        now.wrapping_sub(EARLIEST << (2 * (group as u32 + FIRST + 1)))
    }

    /// The slot of a group in which its earliest can be.
    fn base(group: usize, now: u64) -> u32 {
        ((Self::begin(group, now) >> Self::shift(group)) as usize % SLOTS) as u32
    }

    /// Of the first `limit` of each group the least that is wanted.
    pub(super) fn find(&self, units: &Units, now: u64, limit: u32, wanted: impl Fn(Key) -> bool) -> Option<Key> {
        if let Some((key, _)) = self.lone {
            return wanted(key).then_some(key);
        }
        let mut least: Option<(u64, Key)> = None;
        for group in (0..GROUPS).filter(|group| self.groups & 1 << group != 0) {
            let found = self.walk(units, group, now).take(limit as usize).find(|&key| wanted(key));
            let Some(key) = found else { continue };
            let spent = units.get(key)?.spent;
            if least.is_none_or(|(other, _)| is_before(spent, other)) {
                least = Some((spent, key));
            }
        }
        least.map(|(_, key)| key)
    }

    fn walk<'a>(&'a self, units: &'a Units, group: usize, now: u64) -> impl Iterator<Item = Key> + 'a {
        let base = Self::base(group, now) as usize;
        let slots = (0..SLOTS).map(move |n| (base + n) % SLOTS).filter(move |slot| self.used[group] & 1 << slot != 0);
        slots.flat_map(move |slot| self.lists[group * SLOTS + slot].iter(units))
    }
}
