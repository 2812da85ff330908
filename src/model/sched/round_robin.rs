//! The plain policy: one queue for all CPUs, and equal slices in turn.
//!
//! A CPU takes the first virtual CPU in the queue that may run there, for a slice. A slice ends only when somebody
//! waits: a CPU for which nobody does runs without a deadline (`armed` is false) and is kicked when that changes. The
//! search passes over virtual CPUs that are bound to other CPUs, so a step is O(1) unless affinities are in use.

use super::runqueue::{Entry, Place, RunQueue};
use super::{AddError, CpuSet, Decision, Key, MAX_CPUS, RunState, Runstate, Scheduler, Wake};
use crate::ids::CpuId;
use alloc::vec::Vec;

/// The slice in ns if the operator says nothing else: 10 ms.
pub const DEFAULT_SLICE_NS: u64 = 10_000_000;

/// One physical CPU.
#[derive(Clone, Copy, Debug, Default)]
struct Cpu {
    online: bool,
    current: Option<Key>,
    /// When the current virtual CPU has had its share.
    slice_end_ns: u64,
    /// It calls `schedule` by itself at the end of the slice.
    armed: bool,
    /// It was kicked and has not called `schedule` since.
    kicked: bool,
}

/// Round robin over all virtual CPUs.
#[derive(Debug)]
pub struct RoundRobin {
    slice_ns: u64,
    queue: RunQueue,
    cpus: Vec<Cpu>,
    /// Online, running nothing and not kicked.
    idle: CpuSet,
}

impl RoundRobin {
    /// A policy without CPUs, with slices of `slice_ns`.
    pub fn new(slice_ns: u64) -> Self {
        Self { slice_ns, queue: RunQueue::default(), cpus: Vec::new(), idle: CpuSet::EMPTY }
    }

    fn cpu_mut(&mut self, cpu: CpuId) -> Option<&mut Cpu> {
        self.cpus.get_mut(cpu.0 as usize)
    }

    /// Puts a virtual CPU in the queue if it wants to run, or takes it out if not, and keeps its account.
    fn settle(&mut self, key: Key, now_ns: u64) -> Wake {
        let Some(entry) = self.queue.get_mut(key) else { return Wake::None };
        if let Place::Running(cpu) = entry.place {
            let stays = entry.wants_to_run() && entry.affinity.contains(cpu);
            return if stays { Wake::None } else { self.kick(cpu) };
        }
        let (wants, waits) = (entry.wants_to_run(), entry.place != Place::Off);
        entry.runstate.transition(entry.resting_state(), now_ns);
        match (wants, waits) {
            (true, false) => self.queue.enqueue(key),
            (false, true) => self.queue.dequeue(key),
            _ => {}
        }
        if wants { self.kick_for(key) } else { Wake::None }
    }

    /// The CPU to kick for a virtual CPU that waits: an idle one, else the one whose slice ends first of those that
    /// have no deadline. Those that have one come to the queue by themselves, and so do those kicked before.
    fn kick_for(&mut self, key: Key) -> Wake {
        let Some(entry) = self.queue.get(key) else { return Wake::None };
        let eligible = entry.eligible();
        let idle = self.idle.and(&eligible);
        let near = entry.last.filter(|&cpu| idle.contains(cpu));
        if let Some(cpu) = near.or(idle.first()) {
            return self.kick(cpu);
        }
        let unarmed =
            |&(cpu, id): &(&Cpu, u32)| cpu.online && !cpu.armed && !cpu.kicked && eligible.contains(CpuId(id));
        let busy = self.cpus.iter().zip(0..).filter(unarmed).min_by_key(|(cpu, _)| cpu.slice_end_ns);
        match busy {
            Some((_, id)) => self.kick(CpuId(id)),
            None => Wake::None,
        }
    }

    fn kick(&mut self, cpu: CpuId) -> Wake {
        self.idle.remove(cpu);
        if let Some(state) = self.cpu_mut(cpu) {
            state.kicked = true;
        }
        Wake::Kick(cpu)
    }

    /// Takes the current virtual CPU off `cpu`, unless it goes on. Answers whether it does.
    fn put_back(&mut self, cpu: CpuId, key: Key, slice_is_over: bool, now_ns: u64) -> bool {
        let nobody_waits = self.queue.is_empty();
        let Some(entry) = self.queue.get_mut(key) else { return false };
        let yields = core::mem::take(&mut entry.yields);
        let can_stay = entry.wants_to_run() && entry.affinity.contains(cpu);
        if can_stay && (nobody_waits || !yields && !slice_is_over) {
            return true;
        }
        entry.place = Place::Off;
        if entry.wants_to_run() {
            self.queue.enqueue(key);
        }
        // Whether another goes first shows only now; it keeps its CPU without a change of state if none does.
        if can_stay && self.queue.first_for(cpu) == Some(key) {
            self.queue.dequeue(key);
            self.set_running(cpu, key, now_ns);
            return true;
        }
        if let Some(entry) = self.queue.get_mut(key) {
            entry.runstate.transition(entry.resting_state(), now_ns);
        }
        false
    }

    fn set_running(&mut self, cpu: CpuId, key: Key, now_ns: u64) {
        if let Some(entry) = self.queue.get_mut(key) {
            entry.place = Place::Running(cpu);
            entry.held_by = Some(cpu);
            entry.last = Some(cpu);
            entry.runstate.transition(RunState::Running, now_ns);
        }
    }

    fn pick(&mut self, cpu: CpuId, now_ns: u64) -> Option<Key> {
        let key = self.queue.first_for(cpu)?;
        self.queue.dequeue(key);
        self.set_running(cpu, key, now_ns);
        Some(key)
    }
}

impl Scheduler for RoundRobin {
    fn add_cpu(&mut self, cpu: CpuId) {
        if cpu.0 >= MAX_CPUS {
            return;
        }
        let needed = cpu.0 as usize + 1;
        if self.cpus.len() < needed {
            self.cpus.resize(needed, Cpu::default());
        }
        if !self.cpus[cpu.0 as usize].online {
            self.cpus[cpu.0 as usize].online = true;
            self.idle.insert(cpu);
        }
    }

    fn add(&mut self, key: Key, affinity: CpuSet, now_ns: u64) -> Result<(), AddError> {
        self.queue.insert(key, Entry::new(affinity, now_ns))
    }

    fn remove(&mut self, key: Key) -> Result<(), CpuId> {
        match self.queue.get(key).and_then(|entry| entry.held_by) {
            Some(cpu) => Err(cpu),
            None => {
                self.queue.forget(key);
                Ok(())
            }
        }
    }

    fn wake(&mut self, key: Key, now_ns: u64) -> Wake {
        match self.queue.get_mut(key) {
            Some(entry) if entry.asleep => (entry.asleep, entry.is_down) = (false, false),
            _ => return Wake::None,
        }
        self.settle(key, now_ns)
    }

    fn sleep(&mut self, key: Key) {
        if let Some(entry) = self.queue.get_mut(key)
            && matches!(entry.place, Place::Running(_))
        {
            entry.asleep = true;
        }
    }

    fn go_down(&mut self, key: Key) {
        self.sleep(key);
        if let Some(entry) = self.queue.get_mut(key) {
            entry.is_down = entry.asleep;
        }
    }

    fn yield_(&mut self, key: Key) {
        if let Some(entry) = self.queue.get_mut(key)
            && matches!(entry.place, Place::Running(_))
        {
            entry.yields = true;
        }
    }

    fn pause(&mut self, key: Key, now_ns: u64) -> Wake {
        let Some(entry) = self.queue.get_mut(key) else { return Wake::None };
        entry.pauses = entry.pauses.saturating_add(1);
        self.settle(key, now_ns)
    }

    fn unpause(&mut self, key: Key, now_ns: u64) -> Wake {
        match self.queue.get_mut(key) {
            Some(entry) if entry.pauses > 0 => entry.pauses -= 1,
            _ => return Wake::None,
        }
        self.settle(key, now_ns)
    }

    fn set_affinity(&mut self, key: Key, affinity: CpuSet, now_ns: u64) -> Wake {
        let Some(entry) = self.queue.get_mut(key) else { return Wake::None };
        entry.affinity = affinity;
        self.settle(key, now_ns)
    }

    fn schedule(&mut self, cpu: CpuId, now_ns: u64) -> Decision {
        let Some(&Cpu { online: true, current, slice_end_ns, .. }) = self.cpus.get(cpu.0 as usize) else {
            return Decision { run: None, until_ns: None };
        };
        let slice_is_over = now_ns >= slice_end_ns;
        let stays = current.is_some_and(|key| self.put_back(cpu, key, slice_is_over, now_ns));
        let run = if stays { current } else { self.pick(cpu, now_ns) };
        let is_waited_for = self.queue.first_for(cpu).is_some();
        let slice_end_ns = if stays { slice_end_ns } else { now_ns.saturating_add(self.slice_ns) };
        let armed = run.is_some() && is_waited_for;
        self.cpus[cpu.0 as usize] = Cpu { online: true, current: run, slice_end_ns, armed, kicked: false };
        if run.is_none() {
            self.idle.insert(cpu);
        } else {
            self.idle.remove(cpu);
        }
        Decision { run, until_ns: armed.then_some(slice_end_ns) }
    }

    fn overlooked(&mut self) -> Wake {
        if self.idle.is_empty() {
            return Wake::None;
        }
        let idle = self.queue.eligible().find_map(|eligible| self.idle.and(&eligible).first());
        idle.map_or(Wake::None, |cpu| self.kick(cpu))
    }

    fn saved(&mut self, key: Key, now_ns: u64) -> Wake {
        match self.queue.get_mut(key) {
            Some(entry) if !matches!(entry.place, Place::Running(_)) => entry.held_by = None,
            _ => return Wake::None,
        }
        self.settle(key, now_ns)
    }

    fn is_off(&self, key: Key) -> bool {
        self.queue.get(key).is_none_or(|entry| entry.held_by.is_none())
    }

    fn held_by(&self, key: Key) -> Option<CpuId> {
        self.queue.get(key)?.held_by
    }

    fn current(&self, cpu: CpuId) -> Option<Key> {
        self.cpus.get(cpu.0 as usize)?.current
    }

    fn running_on(&self, key: Key) -> Option<CpuId> {
        match self.queue.get(key)?.place {
            Place::Running(cpu) => Some(cpu),
            _ => None,
        }
    }

    fn runstate(&self, key: Key) -> Option<&Runstate> {
        self.queue.get(key).map(|entry| &entry.runstate)
    }
}
