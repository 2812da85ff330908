//! The queue of one CPU, and what is done in it under its lock alone; `decide.rs` has what its CPU does next.
//!
//! Virtual time is what a virtual CPU ran, divided by its weight. The CPU runs the one with the least; the queue's own virtual
//! time `vtime` is that with which the one that runs was taken. One that wakes begins at `vtime` at the earliest: sleeping
//! earns nothing. One that sleeps with more has a debt, and counts as competing, which makes all its siblings dearer,
//! until `vtime` has come that far: sleeping saves nothing either. While nobody waits `vtime` follows the one that runs,
//! so that what is left over costs nothing.
//!
//! One that was put off keeps its claim, and one that ran beyond others its debt, also when it moves, within bounds ([`MEMORY`]): so
//! shares by weight add up over several CPUs.
//!
//! Queues compare by `vtime + offset`. The offset is set when a queue begins to compete with others, such that it begins where
//! the hindmost of them is, and it keeps within the same bounds of them: virtual CPUs that may not move make queues go at
//! different speeds.

use super::board::{Board, Whereabouts};
use super::calendar::{Calendar, LATEST, List, earlier, is_before, later};
use super::unit::{Place, Unit, Units};
use crate::ids::CpuId;
use crate::sched::{CpuSet, Key, Runstate};

/// Those that a decision puts with the others at most, as they are too far ahead to go first.
const DEMOTED: u32 = 8;
/// The shortest turn beside others that woke, in ns, where `ratelimit_us` is 0.
pub(super) const LEAST_TURN_NS: u64 = 100_000;
/// How far a claim or a debt goes: in the dearest slices, and in one's own.
pub(super) const MEMORY: (u64, u64) = (16, 64);
/// Stands in [`super::calendar::Link`] of those that are in no calendar.
pub(super) const NO_SLOT: u16 = u16::MAX;

/// One that has begun to wait. Small enough for two registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub how: How,
    /// When the queue's CPU has to look at it, in ns: [`NEVER`] if not sooner than it would.
    pub look_at: u64,
}

/// No time.
pub(super) const NEVER: u64 = u64::MAX;

/// How one has begun to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// It woke, and some CPU may be glad to have it.
    Woken,
    /// As the last, and this CPU is one of those on which it would rather.
    AtHome,
    /// It was put off, or moved.
    PutOff,
}

impl How {
    #[inline]
    fn of(unit: &Unit) -> Self {
        match (unit.is_woken, unit.is_at_home) {
            (true, true) => Self::AtHome,
            (true, false) => Self::Woken,
            (false, _) => Self::PutOff,
        }
    }
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

/// One CPU's queue, which owns the virtual CPUs that are assigned to it.
#[derive(Debug)]
pub struct Queue {
    pub(super) cpu: CpuId,
    pub(super) is_online: bool,
    pub(super) units: Units,
    /// Those that have run since they woke.
    pub(super) waiting: Calendar,
    /// Those that have not, in the order in which they woke. They go first, if they are not more than `ahead` ahead; else they are
    /// about to be put with the others.
    pub(super) woken: List,
    pub(super) nr_woken: u32,
    /// Those of both that may run elsewhere.
    pub(super) nr_movable: u32,
    /// Where those may run that could move since none could; of no meaning while none can.
    pub(super) union: CpuSet,
    pub(super) indebted: Calendar,
    pub(super) parked: List,
    pub(super) nr_parked: u32,
    pub(super) unpark_at: u64,
    pub(super) vtime: u64,
    /// What a slice of the one costs that was last taken in its turn: `vtime` may be behind the truth by that.
    pub(super) ahead: u64,
    /// The virtual time of the first that waits elsewhere, by the common measure, as of the last look at the others.
    pub(super) first_elsewhere: Option<u64>,
    /// The dearest slice that was seen then.
    pub(super) dearest: u64,
    pub(super) offset: u64,
    /// It competes with other queues.
    pub(super) has_joined: bool,
    pub(super) current: Option<Key>,
    /// The one whose registers the CPU has: current at the last decision that the CPU knows of.
    pub(super) loaded: Option<Key>,
    /// When the current one was taken.
    pub(super) taken_at: u64,
    pub(super) charged_to: u64,
    pub(super) slice_end: u64,
    /// When it looks again by itself, in ns, or [`NEVER`].
    pub(super) armed: u64,
    pub(super) is_idle: bool,
    pub(super) is_lone: bool,
    /// Somebody waits who was not there at the last look at idle CPUs.
    pub(super) has_new: bool,
}

impl Queue {
    /// The queue of a CPU, which takes part after [`super::online`].
    pub fn new(cpu: CpuId) -> Self {
        Self {
            cpu,
            is_online: false,
            units: Units::default(),
            waiting: Calendar::new(),
            woken: List::EMPTY,
            nr_woken: 0,
            nr_movable: 0,
            union: CpuSet::EMPTY,
            indebted: Calendar::new(),
            parked: List::EMPTY,
            nr_parked: 0,
            unpark_at: 0,
            vtime: 0,
            ahead: 0,
            first_elsewhere: None,
            dearest: 0,
            offset: 0,
            has_joined: false,
            current: None,
            loaded: None,
            taken_at: 0,
            charged_to: 0,
            slice_end: 0,
            armed: NEVER,
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

    pub(super) fn nr_waiting(&self) -> u32 {
        self.waiting.len() + self.nr_woken
    }

    /// The next in turn.
    #[inline]
    pub(super) fn first(&mut self) -> Option<Key> {
        match self.woken.first() {
            None => self.least(),
            Some(key) if self.goes_first(key) => Some(key),
            Some(_) => self.first_after_demotions(),
        }
    }

    /// The next, where the first that woke is too far ahead to go first. All of those that are wait for their turn from now on.
    #[inline(never)]
    fn first_after_demotions(&mut self) -> Option<Key> {
        for _ in 0..DEMOTED {
            let Some(key) = self.woken.first() else { break };
            if self.goes_first(key) {
                return Some(key);
            }
            self.demote(key);
        }
        self.least()
    }

    fn demote(&mut self, key: Key) {
        self.remove(key);
        let unit = self.units.of(key);
        unit.is_woken = false;
        let step = unit.step;
        self.waiting.insert(&mut self.units, key, step, self.vtime);
    }

    /// Takes one from those that wait.
    #[inline]
    fn remove(&mut self, key: Key) {
        if self.units.of(key).is_woken {
            if self.nr_woken == 1 {
                self.woken = List::EMPTY; // it has no neighbours
            } else {
                self.woken.remove(&mut self.units, key);
            }
            self.nr_woken -= 1;
        } else {
            self.waiting.remove(&mut self.units, key);
        }
    }

    /// Whether one that woke goes before those that it is ahead of.
    pub(super) fn goes_first(&self, key: Key) -> bool {
        self.units.get(key).is_some_and(|unit| unit.goes_first(self.vtime, self.ahead))
    }

    /// The one that has the least virtual time of those that wait for their turn, or one that woke if that is all there is.
    #[inline]
    pub(super) fn least(&self) -> Option<Key> {
        self.waiting.first(&self.units, self.vtime).or(self.woken.first())
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

    pub(super) fn set_idle(&mut self, is_idle: bool, board: &Board) {
        match (self.is_idle, is_idle) {
            // Who kicked it took it out.
            (_, true) if !board.idle.contains(self.cpu) => board.idle.insert(self.cpu),
            (true, false) => _ = board.idle.remove(self.cpu),
            _ => {}
        }
        self.is_idle = is_idle;
    }

    pub(super) fn set_lone(&mut self, is_lone: bool, board: &Board) {
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
        let (spent, step) = (unit.spent, unit.step);
        if self.nr_waiting() == 0 {
            self.follow(spent, step);
        }
    }

    /// Virtual time comes to that of one beside whom nobody waits here.
    #[inline]
    pub(super) fn follow(&mut self, spent: u64, step: u64) {
        self.vtime = later(self.vtime, followed(spent, step, self.first_elsewhere, self.offset));
    }

    /// Has the board say what waits here, if others may take it.
    #[inline]
    pub(super) fn publish(&mut self, board: &Board) {
        if self.nr_movable == 0 {
            board.publish(self.cpu, None);
        } else if board.has_company() {
            self.publish_first(board);
        }
    }

    fn publish_first(&mut self, board: &Board) {
        let offset = self.offset;
        let first = self.least().map(|key| self.units.of(key)).map(|unit| (unit.spent.wrapping_add(offset), unit.step));
        board.publish(self.cpu, first);
    }

    /// One that wants to run and may here begins to wait.
    pub(super) fn enqueue(&mut self, key: Key, now: u64, board: &Board) -> Placed {
        self.charge(now, board);
        if !self.has_joined {
            self.join(board);
        }
        let (how, goes_first) = self.put_in(key, now, board);
        self.publish(board);
        let wanted = if self.current.is_some() { self.look_for(goes_first, now, board) } else { NEVER };
        let look_at = if wanted < self.armed { wanted } else { NEVER };
        Placed { how, look_at }
    }

    /// As [`Self::enqueue`], and the board is not told. Answers also whether it goes first.
    #[inline]
    pub(super) fn put_in(&mut self, key: Key, now: u64, board: &Board) -> (How, bool) {
        let (is_empty, slice) = (self.nr_waiting() == 0 && self.current.is_none(), board.slice_ns());
        let unit = self.units.of(key);
        unit.restore();
        if !unit.competes || unit.is_woken && is_before(unit.spent, self.vtime) {
            (unit.spent, unit.lead) = (self.vtime, 0); // it has neither debt nor claim
        }
        unit.join(now, slice);
        let step = unit.step(slice);
        if is_empty {
            self.vtime = later(self.vtime, followed(unit.spent, step, self.first_elsewhere, self.offset));
        }
        clamp(unit, self.vtime, step, &[self.ahead, self.dearest]);
        unit.place = Place::Waiting;
        unit.rest(now);
        if unit.may_move {
            let hard = unit.affinity().0;
            self.union = if self.nr_movable == 0 { *hard } else { self.union.or(hard) };
            self.nr_movable += 1;
        }
        let (how, goes_first) = (How::of(unit), unit.goes_first(self.vtime, self.ahead));
        if how == How::PutOff {
            self.waiting.insert(&mut self.units, key, step, self.vtime);
        } else {
            self.woken.push(&mut self.units, key, NO_SLOT);
            self.nr_woken += 1;
        }
        (how, goes_first)
    }

    /// When the CPU has to look at one that waits.
    pub(super) fn look_for(&self, goes_first: bool, now: u64, board: &Board) -> u64 {
        let turn_end = self.taken_at.saturating_add(board.ratelimit_ns());
        if goes_first { turn_end.min(self.slice_end).max(now) } else { self.slice_end }
    }

    pub(super) fn dequeue(&mut self, key: Key, board: &Board) {
        self.take_out(key);
        self.publish(board);
    }

    /// As [`Self::dequeue`], and the board is not told.
    pub(super) fn take_out(&mut self, key: Key) {
        self.remove(key);
        let unit = self.units.of(key);
        unit.place = Place::Off;
        unit.restore();
        self.nr_movable -= u32::from(unit.may_move);
    }

    /// It begins to compete with the other queues, where the hindmost of them is.
    pub(super) fn join(&mut self, board: &Board) {
        self.has_joined = true;
        if let Some(first) = board.earliest(self.cpu) {
            self.offset = first.hindmost.wrapping_sub(self.vtime);
        }
    }

    /// Takes one out of wherever it is, unless it runs. It still counts as competing if it did.
    pub(super) fn unlink(&mut self, key: Key, board: &Board) {
        match self.units.of(key).place {
            Place::Waiting => self.dequeue(key, board),
            Place::Indebted => self.repay(key),
            Place::Parked(_) => self.let_out(key),
            Place::Off | Place::Running => return,
        }
        self.units.of(key).place = Place::Off;
    }

    /// It is parked no longer. What others ran meanwhile is no claim.
    pub(super) fn let_out(&mut self, key: Key) {
        self.parked.remove(&mut self.units, key);
        self.nr_parked -= 1;
        self.units.of(key).drop_claim(self.vtime);
    }

    /// One that sleeps with a debt is no longer among those. That the debt has been run off by now is no claim.
    #[inline]
    pub(super) fn repay(&mut self, key: Key) {
        self.indebted.remove(&mut self.units, key);
        let unit = self.units.of(key);
        unit.restore();
        unit.drop_claim(self.vtime);
    }

    /// One that is nowhere has nothing to do: it keeps its debt, if it has one. What ran up to now has been charged.
    pub(super) fn rest(&mut self, key: Key, now: u64, board: &Board) {
        let (vtime, slice) = (self.vtime, board.slice_ns());
        let unit = self.units.of(key);
        unit.rest(now);
        unit.is_woken = false;
        if unit.competes && self.is_online && is_before(vtime, unit.spent) {
            let step = unit.step(slice);
            clamp(unit, vtime, step, &[self.ahead, self.dearest]);
            unit.place = Place::Indebted;
            self.indebted.insert(&mut self.units, key, step, vtime);
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
                    board.change_whereabouts(key, Whereabouts::new(self.cpu, false).lost());
                    return Ready::Elsewhere;
                }
                if matches!(unit.place, Place::Waiting | Place::Parked(_)) {
                    self.unlink(key, board);
                    self.charge(now, board);
                    self.rest(key, now, board);
                }
                self.units.of(key).rest(now);
                Ready::No
            }
        }
    }

    /// The running one has nothing to do until it is woken; it may be taken down as well.
    pub(super) fn sleep(&mut self, key: Key, is_down: bool, board: &Board) {
        if self.runs(key) {
            let unit = self.units.of(key);
            (unit.asleep, unit.is_down) = (true, is_down);
            board.set_whereabouts(key, Some(Whereabouts::new(self.cpu, true).held()));
        }
    }

    pub(super) fn wake(&mut self, key: Key, now: u64, board: &Board) -> Ready {
        let Some(unit) = self.units.get_mut(key).filter(|unit| unit.asleep) else { return Ready::No };
        (unit.asleep, unit.is_down) = (false, false);
        unit.is_woken = !board.is_held(key);
        board.change_whereabouts(key, Whereabouts::new(self.cpu, false));
        let may_run_here = self.is_online && unit.may_stay && unit.pauses == 0;
        match unit.place {
            // What `settle` comes to for most that wake, without its other cases on the way.
            Place::Off if may_run_here => Ready::Placed(self.enqueue(key, now, board)),
            Place::Indebted if may_run_here => {
                self.indebted.remove(&mut self.units, key);
                Ready::Placed(self.enqueue(key, now, board))
            }
            _ => self.settle(key, now, board),
        }
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
                self.charge(now, board);
                self.rest(key, now, board);
                Ready::No
            }
            Some(Place::Running) => Ready::Kick,
            _ => Ready::No,
        }
    }

    /// The registers of one that left are in memory: others may take it.
    pub(super) fn saved(&mut self, key: Key, now: u64, board: &Board) -> Ready {
        match self.units.get(key) {
            Some(unit) if unit.place == Place::Waiting && unit.may_move => {
                Ready::Placed(Placed { how: How::of(unit), look_at: NEVER })
            }
            Some(unit) if unit.place == Place::Off && unit.wants_to_run() => self.settle(key, now, board),
            _ => Ready::No,
        }
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
}

/// How far a queue's virtual time follows that of one beside whom nobody waits, as what is left over costs nothing: no further than the
/// first who waits elsewhere and might run here, for whom nothing is left over; but within the bounds of a debt of its slices.
#[inline]
fn followed(spent: u64, step: u64, first: Option<u64>, offset: u64) -> u64 {
    match first {
        None => spent,
        Some(first) => earlier(spent, later(first.wrapping_sub(offset), spent.wrapping_sub(MEMORY.0 * step))),
    }
}

/// Bounds its claim or debt by some slices, its own or of those that cost more, and puts what a calendar has no room for into `excess`.
#[inline]
fn clamp(unit: &mut Unit, vtime: u64, step: u64, others: &[u64]) {
    if unit.spent.wrapping_sub(vtime) > LATEST * step {
        let most = others.iter().fold(step, |most, &other| most.max(other));
        clamp_far(unit, vtime, step, most);
    }
}

/// Of one that has a claim, or a large debt.
#[inline(never)]
fn clamp_far(unit: &mut Unit, vtime: u64, step: u64, most: u64) {
    let memory = (MEMORY.0 * most).min(MEMORY.1 * step);
    let ahead = unit.spent.wrapping_sub(vtime) as i64;
    if ahead < 0 {
        unit.spent = vtime.wrapping_sub(ahead.unsigned_abs().min(memory));
    } else {
        unit.spent = vtime.wrapping_add(LATEST * step);
        unit.excess = (ahead as u64).min(memory) - LATEST * step;
    }
}
