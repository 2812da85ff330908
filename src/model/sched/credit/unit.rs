//! One virtual CPU as a queue has it.

use super::Account;
use super::calendar::{Link, is_before};
use crate::ids::CpuId;
use crate::sched::{CpuSet, Key, RunState, Runstate};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// How far one may be ahead that goes first as it woke, and how much more as it came from another queue, in its own slices. Both
/// together are less than the least bound of a debt, so that nobody goes first for ever.
const FIRST: u64 = 8;
const LEAD: u64 = 4;

/// Where a virtual CPU is, of the queue that owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: it has nothing to do and no debt, or no CPU may run it.
    Off,
    /// Among those that wait.
    Waiting,
    /// On the queue's CPU.
    Running,
    /// It has nothing to do and a debt, which others run off: it still counts as one that competes.
    Indebted,
    /// Its domain's cap is used up until this time in ns.
    Parked(u64),
}

/// One virtual CPU.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) account: Arc<Account>,
    /// Its virtual time: how much it ran, divided by its weight. It wraps.
    pub(super) spent: u64,
    /// While it is in a calendar: what it ran beyond `spent`, for which there is no room.
    pub(super) excess: u64,
    /// How far it may be ahead of its queue that much more and go first, as the queue was behind the one from which it came.
    pub(super) lead: u64,
    pub(super) place: Place,
    pub(super) asleep: bool,
    /// Asleep because it was taken down.
    pub(super) is_down: bool,
    pub(super) pauses: u32,
    /// It is one of [`Account::competing`].
    pub(super) competes: bool,
    /// It was woken and has not run since.
    pub(super) is_woken: bool,
    /// The CPUs on which it may run.
    hard: CpuSet,
    /// Those on which it would rather.
    soft: CpuSet,
    /// It may run on the CPU of its queue.
    pub(super) may_stay: bool,
    /// It may run on another.
    pub(super) may_move: bool,
    /// It may run on the CPU of its queue, which is one of those on which it would rather.
    pub(super) is_at_home: bool,
    /// When it last ran, in ns.
    pub(super) ran_at_ns: u64,
    pub(super) runstate: Runstate,
    pub(super) link: Link,
    /// What a slice cost it, and of which account's shares and slice.
    pub(super) step: u64,
    priced: (u64, u64),
}

impl Unit {
    pub(super) fn new(account: Arc<Account>, hard: CpuSet, soft: CpuSet, now_ns: u64) -> Self {
        Self {
            account,
            spent: 0,
            excess: 0,
            lead: 0,
            place: Place::Off,
            asleep: false,
            is_down: false,
            pauses: 1,
            competes: false,
            is_woken: false,
            hard,
            soft,
            may_stay: false,
            may_move: false,
            is_at_home: false,
            ran_at_ns: 0,
            runstate: Runstate::new(RunState::Offline, now_ns),
            link: Link::default(),
            step: 0,
            priced: (0, 0),
        }
    }

    /// The CPUs on which it may run, and those on which it would rather.
    pub(super) fn affinity(&self) -> (&CpuSet, &CpuSet) {
        (&self.hard, &self.soft)
    }

    /// Changes them, for one in the queue of `cpu`.
    pub(super) fn set_affinity(&mut self, cpu: CpuId, hard: CpuSet, soft: CpuSet) {
        (self.hard, self.soft) = (hard, soft);
        self.come_to(cpu);
    }

    /// It is in the queue of `cpu` from now on.
    pub(super) fn come_to(&mut self, cpu: CpuId) {
        self.may_stay = self.hard.contains(cpu);
        self.is_at_home = self.may_stay && self.soft.contains(cpu);
        self.may_move = !self.hard.without(&CpuSet::only(cpu)).is_empty();
    }

    /// The most virtual time with which it goes before others as it woke, in a queue at `vtime` whose turns cost so much.
    pub(super) fn first_until(&self, vtime: u64, ahead: u64) -> u64 {
        vtime.wrapping_add(ahead.min(FIRST * self.step) + self.lead)
    }

    /// Whether it does.
    pub(super) fn goes_first(&self, vtime: u64, ahead: u64) -> bool {
        self.is_woken && !is_before(self.first_until(vtime, ahead), self.spent)
    }

    /// It comes to a queue that is so much behind the one where it was.
    pub(super) fn change_lead(&mut self, by: i64) {
        self.lead = self.lead.saturating_add_signed(by).min(LEAD * self.step);
    }

    /// Whether it is awake and not paused.
    pub(super) fn wants_to_run(&self) -> bool {
        !self.asleep && self.pauses == 0
    }

    /// Its state when no CPU runs it.
    pub(super) fn resting_state(&self) -> RunState {
        RunState::at_rest(self.asleep, self.is_down, self.pauses != 0)
    }

    pub(super) fn rest(&mut self, now_ns: u64) {
        self.runstate.transition(self.resting_state(), now_ns);
    }

    pub(super) fn join(&mut self, now_ns: u64, slice_ns: u64) {
        if !self.competes {
            self.competes = true;
            self.account.join(now_ns, slice_ns);
        }
    }

    pub(super) fn leave(&mut self) {
        if self.competes {
            self.competes = false;
            self.account.leave();
        }
    }

    /// It has no claim on a queue at `vtime`.
    #[inline]
    pub(super) fn drop_claim(&mut self, vtime: u64) {
        if is_before(self.spent, vtime) {
            self.spent = vtime;
        }
    }

    /// It is in no calendar any more.
    #[inline]
    pub(super) fn restore(&mut self) {
        if self.excess != 0 {
            self.spent = self.spent.wrapping_add(core::mem::take(&mut self.excess));
        }
    }

    /// The virtual time that a whole slice costs it, by a division only where that has changed.
    #[inline]
    pub(super) fn step(&mut self, slice_ns: u64) -> u64 {
        let price = (self.account.shares(), slice_ns);
        if self.priced != price {
            (self.priced, self.step) = (price, self.account.virtual_time(slice_ns));
        }
        self.step
    }
}

/// The virtual CPUs of one queue, by key.
#[derive(Debug, Default)]
pub(super) struct Units(Vec<Option<Box<Unit>>>);

impl Units {
    pub(super) fn get(&self, key: Key) -> Option<&Unit> {
        self.0.get(key.0 as usize)?.as_deref()
    }

    #[inline]
    pub(super) fn has(&self, key: Key) -> bool {
        self.0.get(key.0 as usize).is_some_and(Option::is_some)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Unit> {
        self.0.get_mut(key.0 as usize)?.as_deref_mut()
    }

    /// One that the queue links, and so has.
    pub(super) fn of(&mut self, key: Key) -> &mut Unit {
        self.get_mut(key).expect("a queue has what it links")
    }

    /// Makes room, so that [`Units::put`] of keys up to this one needs no memory. `false` if there is none.
    pub(super) fn reserve(&mut self, key: Key) -> bool {
        let needed = key.0 as usize + 1;
        if self.0.len() >= needed {
            return true;
        }
        if self.0.try_reserve(needed - self.0.len()).is_err() {
            return false;
        }
        self.0.resize_with(needed, || None);
        true
    }

    /// The key has had its room.
    pub(super) fn put(&mut self, key: Key, unit: Box<Unit>) {
        self.0[key.0 as usize] = Some(unit);
    }

    pub(super) fn take(&mut self, key: Key) -> Option<Box<Unit>> {
        self.0.get_mut(key.0 as usize)?.take()
    }

    /// The least key at or after this one.
    pub(super) fn next(&self, from: Key) -> Option<Key> {
        let rest = self.0.get(from.0 as usize..)?;
        let at = rest.iter().position(Option::is_some)?;
        Some(Key(from.0 + at as u32))
    }
}
