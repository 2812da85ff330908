//! What a CPU does next, decided in its queue under its lock.

use super::board::{Board, Earliest, Whereabouts};
use super::calendar::{earlier, is_before, later};
use super::queue::{LEAST_TURN_NS, MEMORY, NEVER, NO_SLOT, Queue};
use super::unit::Place;
use crate::ids::CpuId;
use crate::sched::{CpuSet, Decision, Key, RunState};

/// Debts that a decision looks at.
const DEBTS: u32 = 4;
/// Parked virtual CPUs that a decision looks at, and how many it parks.
const PARKED: u32 = 8;
/// How long one is left to other CPUs at most, in the dearest slices.
const PATIENCE: u64 = 1;
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
    fn forgive(&mut self, now: u64, board: &Board) {
        for _ in 0..DEBTS {
            let Some(key) = self.indebted.first(&self.units, self.vtime) else { return };
            if is_before(self.vtime, self.units.of(key).spent) {
                return;
            }
            self.repay(key);
            self.units.of(key).place = Place::Off;
            self.rest(key, now, board);
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
            if until <= now || self.units.of(key).account.cap() == 0 {
                self.let_out(key);
                self.units.of(key).place = Place::Off;
                let _ = self.enqueue(key, now, board);
                self.has_new = true;
            } else {
                self.parked.remove(&mut self.units, key);
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

    /// What the CPU does. `yields` says that the current one lets another go first, `found` that this is asked again, after a look
    /// into the queue that was to be looked into, and whether one was taken there.
    pub(super) fn decide(&mut self, now: u64, yields: bool, found: Option<bool>, board: &Board) -> Step {
        let has_looked = found.is_some();
        let now = now.max(self.charged_to);
        if !has_looked {
            self.loaded = self.current;
        }
        self.charge(now, board);
        let (was_idle, has_others) = (self.current.is_none(), board.has_work(self.cpu));
        self.first_elsewhere = self.first_elsewhere.filter(|_| has_others);
        self.forgive(now, board);
        self.unpark(now, board);
        let next = if self.is_online { self.first_allowed(now, board) } else { None };
        let current = self.current.filter(|&key| self.may_stay(key, now, board));
        let stays = current.filter(|&key| self.goes_on(key, yields, next, found == Some(true), now, board));
        if let Some(key) = stays
            && now < self.slice_end
        {
            return self.done(Some(key), 0, has_others, now, board);
        }
        if let (Some(key), false, true) = (stays.or(next), has_looked, has_others)
            && let Some(look) = self.look(key, board)
        {
            return look;
        }
        let (old, new) = (self.current, stays.or(next));
        if new == old && new.is_some() {
            self.slice_end = now.saturating_add(board.slice_ns());
            return self.done(new, 0, has_others, now, board);
        }
        let waits = current.is_some();
        if let (true, Some(old), Some(new)) = (yields, current, new) {
            self.give_way(old, new, board);
        }
        let put_off = old.map(|key| self.put_off(key, waits, now, board));
        if let Some(key) = new {
            self.take(key, put_off.filter(|_| waits), now, board);
        }
        if let Some(key) = current {
            self.put_in(key, now, board);
        }
        self.publish(board);
        self.has_new |= was_idle;
        self.done(new, u32::from(waits), has_others, now, board)
    }

    /// One that yields loses its claim to what it lets the other have, by a slice at most: else it would be the first for ever, and the
    /// others as far ahead of it as they can be, where weights no longer count.
    fn give_way(&mut self, key: Key, next: Key, board: &Board) {
        let to = self.units.of(next).spent;
        let unit = self.units.of(key);
        let claim = to.wrapping_sub(unit.spent);
        if claim as i64 > 0 {
            unit.spent = unit.spent.wrapping_add(claim.min(unit.step(board.slice_ns())));
        }
    }

    /// Whether the current one may run on at all.
    fn may_stay(&mut self, key: Key, now: u64, board: &Board) -> bool {
        let is_online = self.is_online;
        let unit = self.units.of(key);
        is_online && unit.wants_to_run() && unit.may_stay && unit.account.parked_until(now, board.slice_ns()).is_none()
    }

    /// Whether the current one goes on beside the first that waits.
    fn goes_on(&mut self, key: Key, yields: bool, next: Option<Key>, found: bool, now: u64, board: &Board) -> bool {
        let Some(next) = next else { return true };
        if yields {
            return false;
        }
        let goes_first = self.goes_first(next);
        let had_turn = now.saturating_sub(self.taken_at) >= board.ratelimit_ns();
        if goes_first {
            return !had_turn;
        }
        let first = self.units.of(next).spent;
        now < self.slice_end || is_before(self.units.of(key).spent, first) || !found && self.leaves_it(key, next, board)
    }

    /// Whether another CPU is about to take `next`, as the one that runs there will be further ahead.
    fn leaves_it(&mut self, key: Key, next: Key, board: &Board) -> bool {
        let slice = board.slice_ns();
        let (own, step) = (self.units.of(key).spent.wrapping_add(self.offset), self.units.of(key).step(slice));
        let unit = self.units.of(next);
        let (other, dearest) = (unit.spent.wrapping_add(self.offset), step.max(unit.step(slice)));
        let (hard, soft) = unit.affinity();
        let (may_move, among) = (unit.may_move, hard.and(soft));
        may_move && self.is_left(own, step, other, dearest, &among, board)
    }

    /// Whether there is a queue to look into for one that should go before `key`.
    fn look(&mut self, key: Key, board: &Board) -> Option<Step> {
        let first = board.earliest(self.cpu)?;
        if !self.has_joined {
            self.join(board);
        }
        self.first_elsewhere = Some(first.spent);
        let unit = self.units.of(key);
        let (spent, step) = (unit.spent, unit.step(board.slice_ns()));
        self.dearest = step.max(first.dearest);
        self.keep_pace(key, spent, step, &first);
        let own = spent.wrapping_add(self.offset);
        // One that goes first as it woke does so before those elsewhere as well.
        let ahead = if self.units.of(key).is_woken { self.ahead } else { 0 };
        let slack = if board.distance(self.cpu, first.cpu) > 3 { step } else { step / 2 };
        let than = own.wrapping_sub(slack + ahead);
        let is_due =
            is_before(first.spent, than) && !self.is_left(own, step, first.spent, self.dearest, &CpuSet::ALL, board);
        is_due.then_some(Step::Look { victim: first.cpu, than })
    }

    /// Whether one that waits with `other` is left to one of these CPUs, whose own will be further ahead than the one that is here with
    /// `own`, by the common measure: for a slice of the dearest.
    fn is_left(&self, own: u64, step: u64, other: u64, dearest: u64, among: &CpuSet, board: &Board) -> bool {
        own.wrapping_sub(other) <= PATIENCE * dearest && board.is_further(self.cpu, own.wrapping_add(step / 2), among)
    }

    /// Keeps the one that is about to run within bounds of the `first` that waits elsewhere, and of who runs there.
    fn keep_pace(&mut self, key: Key, spent: u64, step: u64, first: &Earliest) {
        let own = spent.wrapping_add(self.offset);
        let (lead, lag) = (own.wrapping_sub(first.spent) as i64, first.hindmost.wrapping_sub(own) as i64);
        let most = (MEMORY.0 * self.dearest).min(MEMORY.1 * step) as i64;
        if lead > most {
            self.offset = self.offset.wrapping_sub((lead - most) as u64);
        } else if lag > most {
            // One that lags alone, as its share is more than a CPU, loses its claim alone.
            let by = (lag - most) as u64;
            let lifted = spent.wrapping_add(by);
            let others_lag = self.least().is_some_and(|key| is_before(self.units.of(key).spent, lifted));
            if self.runs(key) && !others_lag {
                self.units.of(key).spent = lifted;
            } else {
                self.offset = self.offset.wrapping_add(by);
            }
        }
    }

    /// The current one leaves the CPU. If it waits it is to be put in; else it rests, or is to move when it has been saved. Answers its
    /// virtual time.
    fn put_off(&mut self, key: Key, waits: bool, now: u64, board: &Board) -> u64 {
        self.current = None;
        if self.loaded != Some(key) {
            board.set_whereabouts(key, Some(Whereabouts::new(self.cpu, false))); // the CPU has never heard of it
        }
        let unit = self.units.of(key);
        unit.place = Place::Off;
        unit.account.stops();
        let (spent, wants) = (unit.spent, unit.wants_to_run());
        if !wants {
            self.rest(key, now, board);
        } else if !waits {
            unit.rest(now);
            board.change_whereabouts(key, Whereabouts::new(self.cpu, false).lost());
        }
        spent
    }

    /// One that waits is the current one. `put_off` is the virtual time of one that is about to be put in.
    fn take(&mut self, key: Key, put_off: Option<u64>, now: u64, board: &Board) {
        self.take_out(key);
        let least = self.least().map(|first| self.units.of(first).spent);
        let least = match (least, put_off) {
            (Some(a), Some(b)) => Some(earlier(a, b)),
            (a, b) => a.or(b),
        };
        let (slice, vtime, ahead) = (board.slice_ns(), self.vtime, self.ahead);
        let unit = self.units.of(key);
        let goes_first = unit.goes_first(vtime, ahead);
        unit.is_woken = false;
        unit.place = Place::Running;
        unit.account.starts();
        unit.runstate.transition(RunState::Running, now);
        let (spent, step) = (unit.spent, unit.step);
        let mut turn = slice;
        if goes_first && least.is_some() {
            // It has a slice up to where it would no longer go first. The parameters may be changing, one after the other.
            let least_ns = board.ratelimit_ns().max(LEAST_TURN_NS).min(slice);
            let until = unit.first_until(vtime, ahead);
            turn = unit.account.ns_of(until.wrapping_sub(spent)).clamp(least_ns, slice);
        }
        if !goes_first || self.ahead == 0 {
            self.ahead = unit.step(slice);
        }
        match least {
            Some(least) => self.vtime = later(self.vtime, earlier(least, spent)),
            None => self.follow(spent, step),
        }
        board.set_whereabouts(key, Some(Whereabouts::new(self.cpu, false).held()));
        self.current = Some(key);
        self.taken_at = now;
        self.charged_to = now;
        self.slice_end = now.saturating_add(turn);
    }

    /// The decision is made: when it is looked at again, and who else is told. `put_off` of those that wait have only begun to, and tell
    /// of themselves when they have been saved. `has_others` says that some wait elsewhere.
    fn done(&mut self, run: Option<Key>, put_off: u32, has_others: bool, now: u64, board: &Board) -> Step {
        self.set_idle(run.is_none() && self.is_online, board);
        let competes = run.is_some() && (self.nr_waiting() != 0 || has_others);
        if competes && !self.has_joined {
            self.join(board);
        } else if !competes {
            (self.has_joined, self.first_elsewhere, self.dearest) = (false, None, 0);
        }
        self.set_lone(run.is_some() && !competes, board);
        if let Some(key) = run.filter(|_| competes && board.has_company()) {
            let unit = self.units.of(key);
            board.set_end(self.cpu, unit.spent.wrapping_add(unit.step(board.slice_ns())).wrapping_add(self.offset));
        }
        self.armed = if self.nr_parked == 0 { NEVER } else { self.unpark_at };
        if competes {
            self.armed = self.armed.min(self.slice_end);
            if self.nr_woken != 0 {
                let wanted = self.look_for(true, now, board);
                self.armed = self.armed.min(wanted.max(now.saturating_add(LEAST_TURN_NS)));
            }
        }
        if let Some(key) = run
            && let Some(ns) = self.units.of(key).account.budget_ns(now, board.slice_ns())
        {
            self.armed = self.armed.min(now.saturating_add(ns));
        }
        let others = if core::mem::take(&mut self.has_new) { self.nr_waiting() - put_off } else { 0 };
        Step::Done(Decision { run, until_ns: (self.armed != NEVER).then_some(self.armed) }, others)
    }
}
