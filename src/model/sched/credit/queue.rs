//! The queue of one CPU, and what is done in it under its lock alone.
//!
//! Virtual time is what a virtual CPU ran, divided by its weight. The CPU runs the one with the least; the queue's own virtual
//! time `vtime` is that with which the one that runs was taken. One that wakes begins at `vtime` at the earliest: sleeping
//! earns nothing. One that sleeps with more has a debt, and counts as competing, which makes all its siblings dearer,
//! until `vtime` has come that far: sleeping saves nothing either. While nobody waits `vtime` follows the one that runs,
//! so that what is left over costs nothing.
//!
//! Queues compare by `vtime + offset`. The offset is set when a queue begins to compete with others, such that it begins where
//! the hindmost of them is, and it keeps within [`DRIFT`] steps of them: virtual CPUs that may not move make queues go at
//! different speeds.

use super::board::{Board, Whereabouts};
use super::calendar::{Calendar, EARLIEST, LATEST, List, is_before};
use super::unit::{Place, Unit, Units};
use crate::ids::CpuId;
use crate::sched::{CpuSet, Decision, Key, RunState, Runstate};
use alloc::boxed::Box;

/// Debts that a decision looks at.
const DEBTS: u32 = 4;
/// Parked virtual CPUs that a decision looks at, and how many it parks.
const PARKED: u32 = 8;
/// How far queues drift apart at most, in steps of the one that is about to run.
const DRIFT: u64 = 4;
/// Those that a CPU looks at in each group of another's queue when it has others to run.
const LOOK: u32 = 8;
/// Between looks at parked virtual CPUs when there are more than one look takes, in ns.
const RELOOK_NS: u64 = 100_000;
/// The shortest turn beside others that woke, in ns, where `ratelimit_us` is 0.
const LEAST_TURN_NS: u64 = 100_000;
/// Stands in [`super::calendar::Link`] of those that are in no calendar.
const NO_SLOT: u16 = u16::MAX;

/// One that has begun to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    /// The queue's CPU has to look at it sooner than it would.
    pub(super) kick: bool,
    /// It woke, and so is not the one that was put off.
    pub(super) is_woken: bool,
}

/// What follows when one may have become able to run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ready {
    /// Nothing: it rests, or runs, or waits already.
    No,
    /// It waits here.
    Placed(Placed),
    /// It may not run here: it has to move.
    Elsewhere,
    /// It runs here, where it may not or need not: the CPU has to look.
    Kick,
}

/// What the CPU is to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// This. So many others that may be kicked have something to run.
    Done(Decision, u32),
    /// Look into this queue first for one that is before `than` by the common measure.
    Look { victim: CpuId, than: u64 },
}

/// One CPU's queue, which owns the virtual CPUs that are assigned to it.
#[derive(Debug)]
pub struct Queue {
    cpu: CpuId,
    is_online: bool,
    pub(super) units: Units,
    /// Those that have run since they woke.
    waiting: Calendar,
    /// Those that have not. They go first, if they are not more than `ahead` ahead.
    woken: Calendar,
    /// Those of both that may run elsewhere.
    nr_movable: u32,
    /// Where those may run that waited since nobody did.
    union: CpuSet,
    indebted: Calendar,
    parked: List,
    nr_parked: u32,
    unpark_at: u64,
    vtime: u64,
    /// What a slice of the one costs that was last taken in its turn: `vtime` may be behind the truth by that.
    ahead: u64,
    offset: u64,
    /// It competes with other queues.
    has_joined: bool,
    current: Option<Key>,
    /// One that was put off, and will wait when it has been saved.
    put_off: Option<Key>,
    /// When the current one was taken.
    taken_at: u64,
    charged_to: u64,
    slice_end: u64,
    /// When it looks again by itself.
    armed: Option<u64>,
    is_idle: bool,
    is_lone: bool,
    /// Somebody waits who was not there at the last look at idle CPUs.
    has_new: bool,
}

impl Queue {
    /// The queue of a CPU, which takes part after [`super::online`].
    pub fn new(cpu: CpuId) -> Self {
        Self {
            cpu,
            is_online: false,
            units: Units::default(),
            waiting: Calendar::new(),
            woken: Calendar::new(),
            nr_movable: 0,
            union: CpuSet::EMPTY,
            indebted: Calendar::new(),
            parked: List::EMPTY,
            nr_parked: 0,
            unpark_at: 0,
            vtime: 0,
            ahead: 0,
            offset: 0,
            has_joined: false,
            current: None,
            put_off: None,
            taken_at: 0,
            charged_to: 0,
            slice_end: 0,
            armed: None,
            is_idle: false,
            is_lone: false,
            has_new: false,
        }
    }

    /// Its CPU.
    pub fn cpu(&self) -> CpuId {
        self.cpu
    }

    /// What its CPU was told to run.
    pub fn current(&self) -> Option<Key> {
        self.current
    }

    /// How many wait, how many sleep in debt, and how many are parked by their cap.
    pub fn counts(&self) -> (u32, u32, u32) {
        (self.nr_waiting(), self.indebted.len(), self.nr_parked)
    }

    /// When its CPU looks again by itself, in ns.
    pub fn armed(&self) -> Option<u64> {
        self.armed
    }

    fn nr_waiting(&self) -> u32 {
        self.waiting.len() + self.woken.len()
    }

    /// The next in turn.
    pub fn first(&self) -> Option<Key> {
        match self.woken.first(&self.units, self.vtime) {
            Some(key) if self.goes_first(key) => Some(key),
            _ => self.least(),
        }
    }

    /// Whether one that woke goes before those that it is ahead of.
    fn goes_first(&self, key: Key) -> bool {
        let is_near = |unit: &Unit| unit.is_woken && !is_before(self.vtime.wrapping_add(self.ahead), unit.spent);
        self.units.get(key).is_some_and(is_near)
    }

    /// The one with the least virtual time.
    fn least(&self) -> Option<Key> {
        let spent = |key: Key| self.units.get(key).map_or(0, |unit| unit.spent);
        let of = |calendar: &Calendar| calendar.first(&self.units, self.vtime);
        match (of(&self.waiting), of(&self.woken)) {
            (Some(a), Some(b)) => Some(if is_before(spent(b), spent(a)) { b } else { a }),
            (a, b) => a.or(b),
        }
    }

    /// How far one of its virtual CPUs is ahead of the queue, in ns of its own running: less than 0 is under its share.
    pub fn ahead_ns(&self, key: Key) -> Option<i64> {
        let unit = self.units.get(key)?;
        let by = unit.spent.wrapping_sub(self.vtime) as i64;
        Some(unit.account.ns_of(by.unsigned_abs()) as i64 * by.signum())
    }

    pub(super) fn runs(&self, key: Key) -> bool {
        self.current == Some(key)
    }

    pub(super) fn runstate(&self, key: Key) -> Option<Runstate> {
        self.units.get(key).map(|unit| unit.runstate)
    }

    pub(super) fn set_online(&mut self, is_online: bool, board: &Board) {
        self.is_online = is_online;
        self.set_idle(false, board);
        self.set_lone(false, board);
    }

    fn set_idle(&mut self, is_idle: bool, board: &Board) {
        match (self.is_idle, is_idle) {
            // Who kicked it took it out.
            (_, true) if !board.idle.contains(self.cpu) => board.idle.insert(self.cpu),
            (true, false) => _ = board.idle.remove(self.cpu),
            _ => {}
        }
        self.is_idle = is_idle;
    }

    fn set_lone(&mut self, is_lone: bool, board: &Board) {
        match (self.is_lone, is_lone) {
            (_, true) if !board.lone.contains(self.cpu) => board.lone.insert(self.cpu),
            (true, false) => _ = board.lone.remove(self.cpu),
            _ => {}
        }
        self.is_lone = is_lone;
    }

    /// Puts what has run since the last time on the account of the current one.
    pub(super) fn charge(&mut self, now: u64, board: &Board) {
        let now = now.max(self.charged_to);
        let ran = now - self.charged_to;
        self.charged_to = now;
        let Some(key) = self.current.filter(|_| ran != 0) else { return };
        let unit = self.units.of(key);
        unit.spent = unit.spent.wrapping_add(unit.account.virtual_time(ran));
        unit.account.spend(ran, now, board.slice_ns());
        unit.ran_at_ns = now;
        let spent = unit.spent;
        if self.nr_waiting() == 0 && self.put_off.is_none() && is_before(self.vtime, spent) {
            self.vtime = spent;
        }
    }

    fn publish(&mut self, board: &Board) {
        if self.nr_waiting() == 0 {
            self.union = CpuSet::EMPTY;
        }
        let first = if self.nr_movable == 0 { None } else { self.least() };
        let first = first.map(|key| self.units.of(key).spent.wrapping_add(self.offset));
        board.publish(self.cpu, first);
    }

    /// One that wants to run and may here begins to wait.
    fn enqueue(&mut self, key: Key, now: u64, board: &Board) -> Placed {
        self.charge(now, board);
        if !self.has_joined {
            self.join(board);
        }
        let (is_empty, slice) = (self.nr_waiting() == 0 && self.current.is_none(), board.slice_ns());
        let unit = self.units.of(key);
        if !unit.competes {
            unit.spent = self.vtime; // it had neither debt nor claim
        }
        unit.join();
        let step = unit.step(slice);
        if is_empty && is_before(self.vtime, unit.spent) {
            self.vtime = unit.spent;
        }
        unit.spent = clamp(unit.spent, self.vtime, step);
        unit.place = Place::Waiting;
        unit.rest(now);
        let is_woken = unit.is_woken;
        self.nr_movable += u32::from(unit.may_move);
        self.union = self.union.or(unit.affinity().0);
        let calendar = if is_woken { &mut self.woken } else { &mut self.waiting };
        calendar.insert(&mut self.units, key, step);
        self.publish(board);
        let kick = self.current.is_some() && {
            let wanted = self.look_for(key, now, board);
            self.armed.is_none_or(|at| wanted < at)
        };
        Placed { kick, is_woken }
    }

    /// When the CPU has to look at one that waits.
    fn look_for(&self, key: Key, now: u64, board: &Board) -> u64 {
        let turn_end = self.taken_at.saturating_add(board.ratelimit_ns());
        if self.goes_first(key) { turn_end.min(self.slice_end).max(now) } else { self.slice_end }
    }

    fn dequeue(&mut self, key: Key, board: &Board) {
        self.take_out(key);
        self.publish(board);
    }

    /// As [`Self::dequeue`], and the board is not told.
    fn take_out(&mut self, key: Key) {
        let is_woken = self.units.of(key).is_woken;
        let calendar = if is_woken { &mut self.woken } else { &mut self.waiting };
        calendar.remove(&mut self.units, key);
        let unit = self.units.of(key);
        unit.place = Place::Off;
        self.nr_movable -= u32::from(unit.may_move);
    }

    /// It begins to compete with the other queues, where the hindmost of them is.
    fn join(&mut self, board: &Board) {
        self.has_joined = true;
        if let Some((first, _)) = board.earliest(self.cpu) {
            self.offset = first.wrapping_sub(self.vtime);
        }
    }

    /// Takes one out of wherever it is, unless it runs or leaves. It still counts as competing if it did.
    fn unlink(&mut self, key: Key, board: &Board) {
        match self.units.of(key).place {
            Place::Waiting => self.dequeue(key, board),
            Place::Indebted => self.indebted.remove(&mut self.units, key),
            Place::Parked(_) => {
                self.parked.remove(&mut self.units, key);
                self.nr_parked -= 1;
            }
            Place::Off | Place::Running | Place::Leaving => return,
        }
        self.units.of(key).place = Place::Off;
    }

    /// One that is nowhere has nothing to do: it keeps its debt, if it has one.
    fn rest(&mut self, key: Key, now: u64, board: &Board) {
        self.charge(now, board);
        let (vtime, slice) = (self.vtime, board.slice_ns());
        let unit = self.units.of(key);
        unit.rest(now);
        unit.is_woken = false;
        if unit.competes && self.is_online && is_before(vtime, unit.spent) {
            let step = unit.step(slice);
            unit.spent = clamp(unit.spent, vtime, step);
            unit.place = Place::Indebted;
            self.indebted.insert(&mut self.units, key, step);
        } else {
            unit.leave();
        }
    }

    /// Puts one where it belongs after something about it has changed.
    pub(super) fn settle(&mut self, key: Key, now: u64, board: &Board) -> Ready {
        let Some(unit) = self.units.get_mut(key) else { return Ready::No };
        let wants = unit.wants_to_run();
        let here = self.is_online && unit.may_stay;
        match unit.place {
            Place::Leaving => Ready::No,
            Place::Running if wants && here => Ready::No,
            Place::Running => Ready::Kick,
            Place::Waiting if wants && here => Ready::No,
            Place::Parked(_) if wants && here => Ready::No,
            Place::Off if wants && here => Ready::Placed(self.enqueue(key, now, board)),
            _ if wants && here => {
                self.unlink(key, board);
                Ready::Placed(self.enqueue(key, now, board))
            }
            _ => {
                if wants {
                    self.unlink(key, board);
                    self.units.of(key).rest(now);
                    return Ready::Elsewhere;
                }
                if matches!(unit.place, Place::Waiting | Place::Parked(_)) {
                    self.unlink(key, board);
                    self.rest(key, now, board);
                }
                self.units.of(key).rest(now);
                Ready::No
            }
        }
    }

    /// Says where one is, after something about that has changed.
    pub(super) fn tell_where(&self, key: Key, board: &Board) {
        let unit = self.units.get(key).map(|unit| Whereabouts::new(self.cpu, unit.is_held(), unit.asleep));
        board.set_whereabouts(key, unit);
    }

    /// The running one has nothing to do until it is woken; it may be taken down as well.
    pub(super) fn sleep(&mut self, key: Key, is_down: bool, board: &Board) {
        if self.runs(key) {
            let unit = self.units.of(key);
            (unit.asleep, unit.is_down) = (true, is_down);
            self.tell_where(key, board);
        }
    }

    pub(super) fn wake(&mut self, key: Key, now: u64, board: &Board) -> Ready {
        match self.units.get_mut(key) {
            Some(unit) if unit.asleep => {
                (unit.asleep, unit.is_down) = (false, false);
                unit.is_woken = !unit.is_held();
            }
            _ => return Ready::No,
        }
        self.tell_where(key, board);
        self.settle(key, now, board)
    }

    pub(super) fn set_affinity(&mut self, key: Key, hard: CpuSet, soft: CpuSet, now: u64, board: &Board) -> Ready {
        let Some(unit) = self.units.get_mut(key) else { return Ready::No };
        let was_waiting = unit.place == Place::Waiting;
        if was_waiting {
            self.dequeue(key, board);
        }
        let cpu = self.cpu;
        self.units.of(key).set_affinity(cpu, hard, soft);
        self.settle(key, now, board)
    }

    /// Its domain has another weight: what it has run counts by that.
    pub(super) fn reweigh(&mut self, key: Key, now: u64, board: &Board) -> Ready {
        match self.units.get(key).map(|unit| unit.place) {
            Some(Place::Waiting) => {
                self.dequeue(key, board);
                Ready::Placed(self.enqueue(key, now, board))
            }
            Some(Place::Indebted) => {
                self.unlink(key, board);
                self.rest(key, now, board);
                Ready::No
            }
            Some(Place::Running) => Ready::Kick,
            _ => Ready::No,
        }
    }

    /// The registers of one that left are in memory.
    pub(super) fn saved(&mut self, key: Key, now: u64, board: &Board) -> Ready {
        let Some(unit) = self.units.get_mut(key).filter(|unit| unit.place == Place::Leaving) else { return Ready::No };
        unit.place = Place::Off;
        let wants = unit.wants_to_run();
        self.tell_where(key, board);
        let ready = if wants { self.settle(key, now, board) } else { Ready::No };
        // Not before it waits again: until then nobody does.
        let was_put_off = self.put_off.take().is_some();
        if !wants {
            self.rest(key, now, board);
        }
        if was_put_off && !matches!(ready, Ready::Placed(_)) {
            self.publish(board); // as it has not been since the other was taken
        }
        ready
    }

    /// No CPU is there that may run one that wants to: it waits for one, and does not compete.
    pub(super) fn strand(&mut self, key: Key) {
        if let Some(unit) = self.units.get_mut(key).filter(|unit| unit.place == Place::Off) {
            unit.leave();
        }
    }

    /// Forgets one that is not held.
    pub(super) fn forget(&mut self, key: Key, board: &Board) {
        self.unlink(key, board);
        if let Some(mut unit) = self.units.take(key) {
            unit.leave();
        }
    }

    /// Takes out one that is to move, and by how much its virtual time changes by the common measure.
    fn give(&mut self, key: Key, board: &Board) -> Option<(Box<Unit>, u64)> {
        self.unlink(key, board);
        Some((self.units.take(key)?, self.offset))
    }

    /// Moves one that waits, or that wants to and may not here, and has it wait here. Both queues are locked.
    pub(super) fn adopt(&mut self, from: &mut Queue, key: Key, now: u64, board: &Board) -> Option<Placed> {
        let unit = from.units.get(key)?;
        let is_free = matches!(unit.place, Place::Waiting | Place::Off);
        if !is_free || !unit.wants_to_run() || !unit.affinity().0.contains(self.cpu) || !self.is_online {
            return None;
        }
        if !self.units.reserve(key) {
            return None; // it stays where it is
        }
        if !self.has_joined {
            self.join(board);
        }
        let (mut unit, offset) = from.give(key, board)?;
        unit.spent = unit.spent.wrapping_add(offset).wrapping_sub(self.offset);
        unit.come_to(self.cpu);
        self.units.put(key, unit);
        self.tell_where(key, board);
        Some(self.enqueue(key, now, board))
    }

    /// Takes one that waits in another queue: any that may run here, or one that is before `than` and would rather.
    pub(super) fn steal(&mut self, from: &mut Queue, than: Option<u64>, now: u64, board: &Board) -> bool {
        if !self.is_online || !from.union.contains(self.cpu) {
            return false;
        }
        from.charge(now, board);
        let (cpu, units, delay) = (self.cpu, &from.units, board.migr_delay_ns());
        let limit = if than.is_some() { LOOK } else { u32::MAX };
        let is_wanted = |key| {
            units.get(key).is_some_and(|unit| {
                let (hard, soft) = unit.affinity();
                hard.contains(cpu)
                    && than.is_none_or(|than| {
                        is_before(unit.spent.wrapping_add(from.offset), than)
                            && (soft.contains(cpu) || !soft.contains(from.cpu))
                            && (delay == 0 || now.saturating_sub(unit.ran_at_ns) >= delay)
                    })
            })
        };
        let find = |calendar: &Calendar| calendar.find(units, from.vtime, limit, is_wanted);
        let found = find(&from.woken).or_else(|| find(&from.waiting));
        let has_one = found.and_then(|key| self.adopt(from, key, now, board)).is_some();
        self.has_new |= has_one; // which another may now wait for in vain
        has_one
    }

    /// Those whose debt has been run off no longer compete.
    fn forgive(&mut self) {
        for _ in 0..DEBTS {
            let Some(key) = self.indebted.first(&self.units, self.vtime) else { return };
            if is_before(self.vtime, self.units.of(key).spent) {
                return;
            }
            self.indebted.remove(&mut self.units, key);
            let unit = self.units.of(key);
            unit.place = Place::Off;
            unit.leave();
        }
    }

    /// Those whose cap allows it again wait.
    fn unpark(&mut self, now: u64, board: &Board) {
        if self.nr_parked == 0 || now < self.unpark_at {
            return;
        }
        let all = self.nr_parked;
        let mut next = u64::MAX;
        for _ in 0..all.min(PARKED) {
            let Some(key) = self.parked.first() else { break };
            let Place::Parked(until) = self.units.of(key).place else { break };
            self.parked.remove(&mut self.units, key);
            if until <= now || self.units.of(key).account.cap() == 0 {
                self.nr_parked -= 1;
                self.units.of(key).place = Place::Off;
                let _ = self.enqueue(key, now, board);
                self.has_new = true;
            } else {
                self.parked.push(&mut self.units, key, NO_SLOT);
                next = next.min(until);
            }
        }
        self.unpark_at = if all > PARKED { now + RELOOK_NS } else { next };
    }

    /// The first that waits and that its cap lets run.
    fn first_allowed(&mut self, now: u64, board: &Board) -> Option<Key> {
        for _ in 0..PARKED {
            let key = self.first()?;
            let Some(until) = self.units.of(key).account.parked_until(now, board.slice_ns()) else { return Some(key) };
            self.dequeue(key, board);
            self.park(key, until);
        }
        self.first() // beyond its cap, which it pays back
    }

    fn park(&mut self, key: Key, until: u64) {
        self.units.of(key).place = Place::Parked(until);
        self.parked.push(&mut self.units, key, NO_SLOT);
        self.unpark_at = if self.nr_parked == 0 { until } else { self.unpark_at.min(until) };
        self.nr_parked += 1;
    }

    /// What the CPU does. `has_looked` says that it has looked into the queue it was told to.
    pub(super) fn decide(&mut self, now: u64, has_looked: bool, board: &Board) -> Step {
        let now = now.max(self.charged_to);
        self.charge(now, board);
        let was_idle = self.current.is_none();
        self.forgive();
        self.unpark(now, board);
        let next = if self.is_online { self.first_allowed(now, board) } else { None };
        let current = self.current.filter(|&key| self.may_stay(key, now, board));
        let stays = current.filter(|&key| self.goes_on(key, next, now, board));
        if let Some(key) = stays
            && now < self.slice_end
        {
            self.units.of(key).yields = false;
            return self.done(Some(key), false, now, board);
        }
        if let (Some(key), false) = (stays.or(next), has_looked)
            && let Some(look) = self.look(key, board)
        {
            return look;
        }
        let (old, new) = (self.current, stays.or(next));
        if let Some(key) = current {
            self.units.of(key).yields = false;
        }
        if new == old && new.is_some() {
            self.slice_end = now.saturating_add(board.slice_ns());
            return self.done(new, false, now, board);
        }
        let put_off = old.map(|key| self.put_off(key, now)).filter(|_| current.is_some());
        self.put_off = current.filter(|_| put_off.is_some());
        if let Some(key) = new {
            self.take(key, put_off, now, board);
        }
        self.has_new |= was_idle;
        self.done(new, current.is_some(), now, board)
    }

    /// Whether the current one may run on at all.
    fn may_stay(&mut self, key: Key, now: u64, board: &Board) -> bool {
        let is_online = self.is_online;
        let unit = self.units.of(key);
        is_online && unit.wants_to_run() && unit.may_stay && unit.account.parked_until(now, board.slice_ns()).is_none()
    }

    /// Whether the current one goes on beside the first that waits.
    fn goes_on(&mut self, key: Key, next: Option<Key>, now: u64, board: &Board) -> bool {
        let Some(next) = next else { return true };
        let goes_first = self.goes_first(next);
        let had_turn = now.saturating_sub(self.taken_at) >= board.ratelimit_ns();
        let first = self.units.of(next).spent;
        let slice_end = self.slice_end;
        let unit = self.units.of(key);
        if unit.yields {
            return false;
        }
        if goes_first {
            return !had_turn;
        }
        now < slice_end || is_before(unit.spent, first)
    }

    /// Whether there is a queue to look into for one that should go before `key`.
    fn look(&mut self, key: Key, board: &Board) -> Option<Step> {
        let (earliest, victim) = board.earliest(self.cpu)?;
        let unit = self.units.of(key);
        let (spent, step) = (unit.spent, unit.step(board.slice_ns()));
        let drift = spent.wrapping_add(self.offset).wrapping_sub(earliest) as i64;
        let most = (DRIFT * step) as i64;
        if drift > most {
            self.offset = self.offset.wrapping_sub((drift - most) as u64);
        } else if drift < -most {
            self.offset = self.offset.wrapping_add((-most - drift) as u64);
        }
        let slack = if board.distance(self.cpu, victim) > 3 { step } else { step / 2 };
        let than = spent.wrapping_add(self.offset).wrapping_sub(slack);
        is_before(earliest, than).then_some(Step::Look { victim, than })
    }

    /// The current one leaves the CPU. Answers its virtual time.
    fn put_off(&mut self, key: Key, now: u64) -> u64 {
        self.current = None;
        let unit = self.units.of(key);
        unit.place = Place::Leaving;
        unit.account.stops();
        unit.rest(now);
        unit.spent
    }

    /// One that waits is the current one. `put_off` is the virtual time of one that will wait when it has been saved.
    fn take(&mut self, key: Key, put_off: Option<u64>, now: u64, board: &Board) {
        let goes_first = self.goes_first(key);
        self.take_out(key);
        // Who was put off waits in a moment, and tells the board then.
        if put_off.is_none() {
            self.publish(board);
        }
        let slice = board.slice_ns();
        let least = self.least().map(|first| self.units.of(first).spent);
        let least = match (least, put_off) {
            (Some(a), Some(b)) => Some(if is_before(a, b) { a } else { b }),
            (a, b) => a.or(b),
        };
        let (vtime, ahead) = (self.vtime, self.ahead);
        let unit = self.units.of(key);
        unit.is_woken = false;
        unit.place = Place::Running;
        unit.account.starts();
        unit.runstate.transition(RunState::Running, now);
        let (spent, step) = (unit.spent, unit.step(slice));
        // Who went first has a slice up to where it would no longer.
        let until = vtime.wrapping_add(ahead).wrapping_sub(spent);
        let first_ns = unit.account.ns_of(until).clamp(board.ratelimit_ns().max(LEAST_TURN_NS), slice);
        let vtime = least.filter(|&least| is_before(least, spent)).unwrap_or(spent);
        if is_before(self.vtime, vtime) {
            self.vtime = vtime;
        }
        if !goes_first || ahead == 0 {
            self.ahead = step;
        }
        self.tell_where(key, board);
        self.current = Some(key);
        self.taken_at = now;
        self.charged_to = now;
        self.slice_end = now.saturating_add(if goes_first && least.is_some() { first_ns } else { slice });
    }

    /// The decision is made: when it is looked at again, and who else is told.
    fn done(&mut self, run: Option<Key>, others_wait: bool, now: u64, board: &Board) -> Step {
        self.set_idle(run.is_none() && self.is_online, board);
        let others_wait = others_wait || self.nr_waiting() != 0;
        let competes = run.is_some() && (others_wait || board.movable.has_others(self.cpu));
        if competes && !self.has_joined {
            self.join(board);
        } else if !competes {
            self.has_joined = false;
        }
        self.set_lone(run.is_some() && !competes, board);
        let parked = (self.nr_parked != 0).then_some(self.unpark_at);
        let mut until = if competes { Some(self.slice_end) } else { None };
        if let Some(key) = run {
            let budget = self.units.of(key).account.budget_ns(now, board.slice_ns());
            until = earlier(until, budget.map(|ns| now.saturating_add(ns)));
            if let Some(first) = self.woken.first(&self.units, self.vtime)
                && competes
            {
                let least = now.saturating_add(LEAST_TURN_NS);
                until = earlier(until, Some(self.look_for(first, now, board).max(least)));
            }
        }
        self.armed = earlier(until, parked);
        let others = if core::mem::take(&mut self.has_new) { self.nr_waiting() } else { 0 };
        Step::Done(Decision { run, until_ns: self.armed }, others)
    }

    /// Where those may run that wait.
    pub(super) fn union(&self) -> CpuSet {
        self.union
    }

    /// What an idle CPU has to look at again, after it has said that it is idle; likewise one that runs without a deadline.
    pub(super) fn has_missed(&self, board: &Board) -> bool {
        self.is_lone && board.movable.has_others(self.cpu)
    }

    /// Of an offline CPU: the next that has to move, from a key on.
    pub(super) fn next_to_move(&mut self, from: Key, now: u64, board: &Board) -> Option<Key> {
        let mut from = from;
        loop {
            let key = self.units.next(from)?;
            let unit = self.units.of(key);
            match unit.place {
                Place::Waiting | Place::Parked(_) => return Some(key),
                Place::Off if unit.wants_to_run() => return Some(key),
                Place::Indebted => {
                    self.unlink(key, board);
                    self.rest(key, now, board);
                }
                _ => {}
            }
            from = Key(key.0 + 1);
        }
    }
}

fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Within the bounds of a calendar.
fn clamp(spent: u64, vtime: u64, step: u64) -> u64 {
    let earliest = vtime.wrapping_sub(EARLIEST * step);
    let latest = vtime.wrapping_add(LATEST * step);
    if is_before(spent, earliest) {
        earliest
    } else if is_before(latest, spent) {
        latest
    } else {
        spent
    }
}
