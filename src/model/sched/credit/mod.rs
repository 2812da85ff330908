//! The credit scheduler: weights, caps, and a queue for each CPU.
//!
//! Every operation locks one queue, or two in the order of their CPUs when a virtual CPU moves; [`Queues`] says how. What
//! CPUs must know of each other without a lock is on a [`Board`]. Which of its virtual CPUs a queue runs is written in
//! `queue.rs` and `decide.rs`, how they move in `moves.rs`; this file has what follows for others: where one goes that begins to wait, and
//! who is kicked.
//! docs/scheduling.md states what is promised.

mod account;
mod board;
mod calendar;
mod decide;
mod moves;
mod queue;
mod topology;
mod unit;

#[cfg(test)]
mod adversaries;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use account::{Account, OutOfRange, WEIGHT_DEFAULT, WEIGHT_MAX};
pub use board::{BadParams, Board, Location, MAX_KEYS, Params, Whereabouts};
pub use queue::Queue;

use super::{CpuSet, Decision, Key, Runstate};
use crate::ids::CpuId;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{Ordering, fence};
use decide::Step;
use queue::{How, NEVER, Placed, Ready};
use unit::Unit;

/// The queues of all CPUs, and what is shared among them.
pub trait Queues {
    /// The board that all queues share.
    fn board(&self) -> &'static Board;

    /// Calls `f` with a CPU's queue, locked. `None` if the CPU has none.
    fn one<R>(&mut self, cpu: CpuId, f: impl FnOnce(&mut Queue) -> R) -> Option<R>;

    /// Calls `f` with the queues of two CPUs, which differ, both locked.
    fn two<R>(&mut self, one: CpuId, other: CpuId, f: impl FnOnce(&mut Queue, &mut Queue) -> R) -> Option<R>;

    /// Has a CPU, perhaps the caller's own, call [`schedule`] soon.
    fn kick(&mut self, cpu: CpuId);

    /// Has a CPU call [`schedule`] at a time in ns at the latest, which may have come. It is `now_ns`.
    fn look_by(&mut self, cpu: CpuId, at_ns: u64, now_ns: u64);
}

/// Why [`add`] fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddError {
    /// The key is in use, or above [`MAX_KEYS`].
    BadKey,
    /// The hypervisor has no memory for another, or no queue.
    NoMemory,
}

/// Calls `f` with the queue that has a virtual CPU, and answers its CPU as well. `None` if there is no such.
#[inline(always)]
fn at_home<Q: Queues, R>(queues: &mut Q, key: Key, mut f: impl FnMut(&mut Queue) -> R) -> Option<(CpuId, R)> {
    loop {
        let home = queues.board().home(key)?;
        let done = queues.one(home, |queue| if queue.units.has(key) { Some(f(queue)) } else { None });
        match done {
            Some(Some(done)) => return Some((home, done)),
            Some(None) => core::hint::spin_loop(), // it moved, or went, between the look and the lock
            None => return None,
        }
    }
}

/// A CPU takes part. Its queue is there; where it is has been said by [`Board::locate`].
pub fn online<Q: Queues>(queues: &mut Q, cpu: CpuId, now_ns: u64) {
    let board = queues.board();
    queues.one(cpu, |queue| {
        queue.units.reserve(Key(board.nr_keys().max(1) - 1));
        queue.set_online(true, board);
    });
    board.online.insert(cpu);
    board.count_online();
    // One that was alone has told nobody what waits in its queue.
    for other in board.online().iter() {
        queues.one(other, |queue| queue.publish(board));
    }
    fence(Ordering::SeqCst);
    // Some may have waited for a CPU that may run them.
    for key in (0..board.nr_keys()).map(Key) {
        reconsider(queues, key, now_ns);
    }
    queues.kick(cpu);
}

/// A CPU no longer takes part: [`schedule`] on it says to idle. Each call moves a bounded number of virtual CPUs to other
/// queues, from a key on, and answers where the next is to begin; the first begins at key 0, and after the last all that
/// may run elsewhere do.
pub fn offline<Q: Queues>(queues: &mut Q, cpu: CpuId, from: Key, now_ns: u64) -> Option<Key> {
    const AT_ONCE: usize = 16;
    let board = queues.board();
    board.online.remove(cpu);
    board.count_online();
    queues.one(cpu, |queue| queue.set_online(false, board));
    queues.kick(cpu);
    let mut from = from;
    for _ in 0..AT_ONCE {
        let key = queues.one(cpu, |queue| queue.next_to_move(from, now_ns, board))??;
        from = Key(key.0 + 1);
        reconsider(queues, key, now_ns);
    }
    Some(from)
}

/// A new virtual CPU, awake, its registers in memory, with a pause count of 1: it runs after [`unpause`]. It may run on
/// the CPUs of `hard`, and would rather on those of `soft` that are among them.
///
/// # Errors
/// See [`AddError`]; then there is none.
pub fn add<Q: Queues>(
    queues: &mut Q,
    key: Key,
    account: Arc<Account>,
    (hard, soft): (CpuSet, CpuSet),
    now_ns: u64,
) -> Result<(), AddError> {
    let board = queues.board();
    if key.0 as usize >= MAX_KEYS || board.home(key).is_some() {
        return Err(AddError::BadKey);
    }
    let online = board.online();
    let home = spread(board, key, &hard);
    for cpu in online.or(&CpuSet::only(home)).iter() {
        if queues.one(cpu, |queue| queue.units.reserve(key)) == Some(false) {
            return Err(AddError::NoMemory);
        }
    }
    let mut unit = Box::new(Unit::new(account, hard, soft, now_ns));
    unit.come_to(home);
    board.note_key(key);
    let put = |queue: &mut Queue| {
        queue.units.put(key, unit);
        board.set_whereabouts(key, Some(Whereabouts::new(home, false)));
    };
    queues.one(home, put).ok_or(AddError::NoMemory)
}

/// Where one begins: they are dealt out in the order of their keys. With the first CPU, if there is none yet.
fn spread(board: &Board, key: Key, hard: &CpuSet) -> CpuId {
    let online = board.online();
    let allowed = online.and(hard);
    let among = if allowed.is_empty() { online } else { allowed };
    let count = among.iter().count();
    among.iter().nth(key.0 as usize % count.max(1)).unwrap_or(CpuId(0))
}

/// Forgets a virtual CPU.
///
/// # Errors
/// The CPU that has it, if one runs it or holds its registers: pause it and wait first.
pub fn remove<Q: Queues>(queues: &mut Q, key: Key) -> Result<(), CpuId> {
    let board = queues.board();
    let removed = at_home(queues, key, |queue| {
        if board.is_held(key) {
            return Err(queue.cpu());
        }
        queue.forget(key, board);
        board.set_whereabouts(key, None);
        Ok(())
    });
    removed.map_or(Ok(()), |(_, done)| done)
}

/// It has something to do, and has been told what. Answers the CPU that has it, where that need not schedule but look at
/// what it is to do. One that does not sleep is left alone, without a lock.
#[inline]
pub fn wake<Q: Queues>(queues: &mut Q, key: Key, now_ns: impl FnOnce() -> u64) -> Option<CpuId> {
    who_has(queues.board(), key).unwrap_or_else(|Asleep| {
        wake_sleeper(queues, key, now_ns());
        None
    })
}

/// It sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asleep;

/// As [`wake`], of one that does not sleep, without a lock.
///
/// # Errors
/// It sleeps; then nothing has changed.
#[inline]
pub fn who_has(board: &Board, key: Key) -> Result<Option<CpuId>, Asleep> {
    fence(Ordering::SeqCst); // what it is to do was written before; pairs with the one in `sleep`
    match board.whereabouts(key) {
        Some(whereabouts) if whereabouts.is_asleep() => Err(Asleep),
        whereabouts => Ok(whereabouts.and_then(Whereabouts::held_by)),
    }
}

/// As [`wake`], of one that was seen asleep after it had been told.
pub fn wake_sleeper<Q: Queues>(queues: &mut Q, key: Key, now_ns: u64) {
    let board = queues.board();
    if let Some((home, ready)) = at_home(queues, key, |queue| queue.wake(key, now_ns, board)) {
        follow(queues, key, home, ready, now_ns);
    }
}

/// The one that runs on `cpu` has nothing to do until it is woken. For that CPU, which then looks again for what would wake it, and
/// schedules.
pub fn sleep<Q: Queues>(queues: &mut Q, cpu: CpuId, key: Key) {
    lie_down(queues, cpu, key, false);
}

/// As [`sleep`], because it was taken down: its account says offline, not blocked.
pub fn go_down<Q: Queues>(queues: &mut Q, cpu: CpuId, key: Key) {
    lie_down(queues, cpu, key, true);
}

fn lie_down<Q: Queues>(queues: &mut Q, cpu: CpuId, key: Key, is_down: bool) {
    let board = queues.board();
    queues.one(cpu, |queue| queue.sleep(key, is_down, board));
    fence(Ordering::SeqCst); // before the caller looks again; pairs with the one in `wake`
}

/// Pauses it once more. It soon leaves its CPU, if it has one; [`held_by`] tells when it has.
pub fn pause<Q: Queues>(queues: &mut Q, key: Key, now_ns: u64) {
    settle(queues, key, now_ns, |unit| {
        unit.pauses = unit.pauses.saturating_add(1);
        true
    });
}

/// Takes back one [`pause`]. Ignored at a count of zero.
pub fn unpause<Q: Queues>(queues: &mut Q, key: Key, now_ns: u64) {
    settle(queues, key, now_ns, |unit| {
        let counts = unit.pauses > 0;
        unit.pauses = unit.pauses.saturating_sub(1);
        counts
    });
}

/// Looks again where it should be.
fn reconsider<Q: Queues>(queues: &mut Q, key: Key, now_ns: u64) {
    settle(queues, key, now_ns, |_| true);
}

fn settle<Q: Queues>(queues: &mut Q, key: Key, now_ns: u64, change: impl Fn(&mut Unit) -> bool) {
    let board = queues.board();
    let settled = at_home(queues, key, |queue| {
        let changes = change(queue.units.of(key));
        if changes { queue.settle(key, now_ns, board) } else { Ready::No }
    });
    if let Some((home, ready)) = settled {
        follow(queues, key, home, ready, now_ns);
    }
}

/// It may run on the CPUs of `hard` from now on, and would rather on those of `soft`. With none it does not run.
pub fn set_affinity<Q: Queues>(queues: &mut Q, key: Key, hard: CpuSet, soft: CpuSet, now_ns: u64) {
    let board = queues.board();
    let change = |queue: &mut Queue| queue.set_affinity(key, hard, soft, now_ns, board);
    if let Some((home, ready)) = at_home(queues, key, change) {
        follow(queues, key, home, ready, now_ns);
    }
}

/// The [`Account`] of its domain has another weight or cap. To be called for each of the domain's virtual CPUs after that.
pub fn reweigh<Q: Queues>(queues: &mut Q, key: Key, now_ns: u64) {
    let board = queues.board();
    if let Some((home, ready)) = at_home(queues, key, |queue| queue.reweigh(key, now_ns, board)) {
        follow(queues, key, home, ready, now_ns);
    }
}

/// The registers of a virtual CPU that left its CPU are in memory. Takes a lock only if another CPU may want it.
pub fn saved<Q: Queues>(queues: &mut Q, key: Key, now_ns: u64) {
    let board = queues.board();
    let Some(was) = board.let_go(key) else { return };
    fence(Ordering::SeqCst); // pairs with those of who says that it idles or runs alone, and then found it held
    if was.is_lost() || board.has_takers() && !was.is_asleep() {
        offer(queues, key, now_ns);
    }
}

#[inline(never)]
fn offer<Q: Queues>(queues: &mut Q, key: Key, now_ns: u64) {
    let board = queues.board();
    if let Some((home, ready)) = at_home(queues, key, |queue| queue.saved(key, now_ns, board)) {
        follow(queues, key, home, ready, now_ns);
    }
}

/// Where it may run, and where it would rather.
pub fn affinity<Q: Queues>(queues: &mut Q, key: Key) -> Option<(CpuSet, CpuSet)> {
    let affinity = at_home(queues, key, |queue| {
        let (hard, soft) = queue.units.of(key).affinity();
        (*hard, *soft)
    });
    affinity.map(|(_, affinity)| affinity)
}

/// Its time account.
pub fn runstate<Q: Queues>(queues: &mut Q, key: Key) -> Option<Runstate> {
    at_home(queues, key, |queue| queue.runstate(key))?.1
}

/// What follows for others when one may have become able to run.
#[inline]
fn follow<Q: Queues>(queues: &mut Q, key: Key, home: CpuId, ready: Ready, now_ns: u64) {
    match ready {
        Ready::No => {}
        Ready::Kick => queues.kick(home),
        Ready::Placed(placed) => tell(queues, key, home, placed, now_ns),
        Ready::Elsewhere => go_elsewhere(queues, key, home, now_ns),
    }
}

/// One that wants to run may not where it is.
fn go_elsewhere<Q: Queues>(queues: &mut Q, key: Key, home: CpuId, now_ns: u64) {
    let board = queues.board();
    let Some((hard, soft)) = affinity(queues, key) else { return };
    let Some(to) = board.choose(home, &hard, &soft).filter(|&to| to != home) else {
        queues.one(home, |queue| queue.strand(key));
        return;
    };
    let moved = queues.two(home, to, |from, queue| queue.adopt(from, key, now_ns, board));
    if let Some(Some(placed)) = moved {
        tell(queues, key, to, placed, now_ns);
    }
}

/// One has begun to wait: an idle CPU takes it, or the one where it waits is told to look.
fn tell<Q: Queues>(queues: &mut Q, key: Key, home: CpuId, placed: Placed, now_ns: u64) {
    let board = queues.board();
    fence(Ordering::SeqCst); // the queue is on the board; see there
    if !board.idle.is_empty() {
        if placed.how == How::AtHome && board.claim_home(home) {
            return queues.kick(home);
        }
        if give_to_idle(queues, key, home, now_ns) {
            return;
        }
    }
    if placed.look_at != NEVER {
        board.lone.take_out(home); // it has a deadline now, or is kicked
        queues.look_by(home, placed.look_at, now_ns);
    }
    // One that woke has its turn soon; who was put off for it tells of itself.
    if placed.how == How::PutOff && !board.lone.is_empty() {
        disturb_lone(queues, key, home);
    }
}

/// Some idle CPU that may run it takes it. Says whether there is one.
fn give_to_idle<Q: Queues>(queues: &mut Q, key: Key, home: CpuId, now_ns: u64) -> bool {
    let board = queues.board();
    let Some((hard, soft)) = affinity(queues, key) else { return false };
    let Some(idle) = board.claim_idle(home, &hard, &soft) else { return false };
    if idle != home {
        // Another may have taken it by now.
        let _ = queues.two(home, idle, |from, to| to.adopt(from, key, now_ns, board));
    }
    queues.kick(idle);
    true
}

/// A CPU that runs another without a deadline and may run it looks whether to take it.
fn disturb_lone<Q: Queues>(queues: &mut Q, key: Key, home: CpuId) {
    let board = queues.board();
    let Some((hard, _)) = affinity(queues, key) else { return };
    if let Some(lone) = board.claim_lone(home, &hard.without(&CpuSet::only(home))) {
        queues.kick(lone);
    }
}

/// What `cpu` does from now on. `yields` says that the one that runs there lets the first that waits go before it. If that is not the
/// answer's it is to be put in memory, and then [`saved`], before the next call for this CPU.
pub fn schedule<Q: Queues>(queues: &mut Q, cpu: CpuId, yields: bool, now_ns: u64) -> Decision {
    let board = queues.board();
    let (mut yields, mut found) = (yields, None);
    loop {
        let step = queues.one(cpu, |queue| queue.decide(now_ns, yields, found, board));
        let (decision, others) = match step {
            None => return Decision { run: None, until_ns: None },
            Some(Step::Look { victim, than }) => {
                found =
                    queues.two(cpu, victim, |own, other| own.steal(other, Some(than), now_ns, board)).or(Some(false));
                continue;
            }
            Some(Step::Done(decision, others)) => (decision, others),
        };
        (yields, found) = (false, Some(false));
        if decision.run.is_none() || others > 0 || board.lone.contains(cpu) {
            fence(Ordering::SeqCst); // what this CPU does is on the board; see there
            if decision.run.is_none() && find_work(queues, cpu, now_ns) {
                continue;
            }
            if board.lone.contains(cpu) && board.has_work(cpu) {
                continue; // it missed one that has begun to wait
            }
            share(queues, cpu, others, now_ns);
        }
        return decision;
    }
}

/// An idle CPU takes one that waits in another's queue, from a near one rather than a far one.
#[inline(never)]
fn find_work<Q: Queues>(queues: &mut Q, cpu: CpuId, now_ns: u64) -> bool {
    let board = queues.board();
    if !board.has_work(cpu) {
        return false;
    }
    let victims = board.movable.get().without(&CpuSet::only(cpu));
    for distance in 1..=4 {
        for victim in victims.iter().filter(|&victim| board.distance(cpu, victim) == distance) {
            if queues.two(cpu, victim, |own, other| own.steal(other, None, now_ns, board)) == Some(true) {
                return true;
            }
        }
    }
    false
}

/// Gives idle CPUs some of those that wait in the queue of a CPU that has found something else to run. They are moved, as an
/// idle CPU that were only kicked might find something else by the time it comes.
fn share<Q: Queues>(queues: &mut Q, cpu: CpuId, others: u32, now_ns: u64) {
    let board = queues.board();
    if others == 0 || board.idle.is_empty() {
        return;
    }
    let union = queues.one(cpu, |queue| queue.union()).unwrap_or(CpuSet::EMPTY);
    let mut left = others;
    while left > 0 {
        let Some(idle) = board.claim_idle(cpu, &union, &CpuSet::ALL) else { return };
        let steal = |own: &mut Queue, other: &mut Queue| own.steal(other, None, now_ns, board);
        left -= u32::from(queues.two(idle, cpu, steal) == Some(true));
        queues.kick(idle);
    }
}
