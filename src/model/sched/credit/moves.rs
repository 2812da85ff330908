//! How virtual CPUs move from one queue to another, and which may or have to.

use super::board::{Board, Whereabouts};
use super::calendar::is_before;
use super::queue::{Placed, Queue};
use super::unit::{Place, Unit};
use crate::sched::{CpuSet, Key};
use alloc::boxed::Box;

/// Those that a CPU looks at in each group of another's queue when it has others to run.
const LOOK: u32 = 8;

impl Queue {
    /// Takes out one that is to move, and by how much its virtual time changes by the common measure.
    fn give(&mut self, key: Key, board: &Board) -> Option<(Box<Unit>, u64)> {
        self.unlink(key, board);
        Some((self.units.take(key)?, self.offset))
    }

    /// Moves one that waits, or that wants to and may not here, and has it wait here. Both queues are locked.
    pub(super) fn adopt(&mut self, from: &mut Queue, key: Key, now: u64, board: &Board) -> Option<Placed> {
        let unit = from.units.get(key)?;
        let is_free = matches!(unit.place, Place::Waiting | Place::Off);
        if !is_free
            || board.is_held(key)
            || !unit.wants_to_run()
            || !unit.affinity().0.contains(self.cpu)
            || !self.is_online
        {
            return None;
        }
        if !self.units.reserve(key) {
            return None; // it stays where it is
        }
        if !self.has_joined {
            self.join(board);
        }
        let (mut unit, offset) = from.give(key, board)?;
        let (here, there) = (self.vtime.wrapping_add(self.offset), from.vtime.wrapping_add(offset));
        unit.spent = unit.spent.wrapping_add(offset).wrapping_sub(self.offset);
        unit.change_lead(there.wrapping_sub(here) as i64);
        unit.come_to(self.cpu);
        self.units.put(key, unit);
        board.set_whereabouts(key, Some(Whereabouts::new(self.cpu, false)));
        Some(self.enqueue(key, now, board))
    }

    /// Takes one that waits in another queue: any that may run here, or one that is before `than` and would rather.
    pub(super) fn steal(&mut self, from: &mut Queue, than: Option<u64>, now: u64, board: &Board) -> bool {
        if !self.is_online || from.nr_movable == 0 || !from.union.contains(self.cpu) {
            return false;
        }
        from.charge(now, board);
        let (cpu, units, delay) = (self.cpu, &from.units, board.migr_delay_ns());
        let limit = if than.is_some() { LOOK } else { u32::MAX };
        let is_wanted = |key| {
            units.get(key).is_some_and(|unit| {
                let (hard, soft) = unit.affinity();
                hard.contains(cpu)
                    && !board.is_held(key)
                    && than.is_none_or(|than| {
                        is_before(unit.spent.wrapping_add(from.offset), than)
                            && (soft.contains(cpu) || !soft.contains(from.cpu))
                            && (delay == 0 || now.saturating_sub(unit.ran_at_ns) >= delay)
                    })
            })
        };
        let woken = from.woken.iter(units).take(limit as usize).find(|&key| is_wanted(key));
        let found = woken.or_else(|| from.waiting.find(units, from.vtime, limit, is_wanted));
        let has_one = found.and_then(|key| self.adopt(from, key, now, board)).is_some();
        self.has_new |= has_one; // which another may now wait for in vain
        has_one
    }

    /// Where those may run that wait and may move.
    pub(super) fn union(&self) -> CpuSet {
        if self.nr_movable == 0 { CpuSet::EMPTY } else { self.union }
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
                    self.charge(now, board);
                    self.rest(key, now, board);
                }
                _ => {}
            }
            from = Key(key.0 + 1);
        }
    }
}
