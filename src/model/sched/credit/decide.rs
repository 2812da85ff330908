//! What a CPU does next, decided in its queue under its lock.

use super::board::Board;
use super::calendar::is_before;
use super::queue::{LEAST_TURN_NS, NO_SLOT, Queue};
use super::unit::Place;
use crate::ids::CpuId;
use crate::sched::{Decision, Key, RunState};
use crate::time::earlier;

/// Debts that a decision looks at.
const DEBTS: u32 = 4;
/// Parked virtual CPUs that a decision looks at, and how many it parks.
const PARKED: u32 = 8;
/// How far queues drift apart at most, in steps of the one that is about to run.
const DRIFT: u64 = 4;
/// Between looks at parked virtual CPUs when there are more than one look takes, in ns.
const RELOOK_NS: u64 = 100_000;

/// What the CPU is to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// This. So many others that may be kicked have something to run.
    Done(Decision, u32),
    /// Look into this queue first for one that is before `than` by the common measure.
    Look { victim: CpuId, than: u64 },
}

impl Queue {
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
        // The parameters may be changing, one after the other.
        let least_ns = board.ratelimit_ns().max(LEAST_TURN_NS).min(slice);
        let first_ns = unit.account.ns_of(until).clamp(least_ns, slice);
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
}
