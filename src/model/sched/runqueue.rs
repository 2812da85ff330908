//! The virtual CPUs of a policy, and a queue through them in which every step but a search is O(1).

use super::{AddError, CpuSet, Key, RunState, Runstate};
use crate::ids::CpuId;
use alloc::vec::Vec;

/// Where a virtual CPU is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Neither on a CPU nor in the queue.
    Off,
    /// In the queue, between these.
    Waiting { before: Option<Key>, after: Option<Key> },
    /// On this CPU.
    Running(CpuId),
}

/// One virtual CPU.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) asleep: bool,
    /// Asleep because it was taken down.
    pub(super) is_down: bool,
    pub(super) pauses: u32,
    /// Goes to the queue's end at its CPU's next `schedule`, whatever is left of its slice.
    pub(super) yields: bool,
    /// The CPU that has its registers: the one it runs on, or the one it left and that has not saved them yet.
    pub(super) held_by: Option<CpuId>,
    /// Where it ran last.
    pub(super) last: Option<CpuId>,
    pub(super) affinity: CpuSet,
    pub(super) runstate: Runstate,
}

impl Entry {
    pub(super) fn new(affinity: CpuSet, now_ns: u64) -> Self {
        Self {
            place: Place::Off,
            asleep: false,
            is_down: false,
            pauses: 1,
            yields: false,
            held_by: None,
            last: None,
            affinity,
            runstate: Runstate::new(RunState::Offline, now_ns),
        }
    }

    /// Whether it is awake and not paused.
    pub(super) fn wants_to_run(&self) -> bool {
        !self.asleep && self.pauses == 0
    }

    /// The CPUs that may take it now.
    pub(super) fn eligible(&self) -> CpuSet {
        match self.held_by {
            None => self.affinity,
            Some(cpu) => self.affinity.and(&CpuSet::only(cpu)),
        }
    }

    /// Its state when no CPU runs it.
    pub(super) fn resting_state(&self) -> RunState {
        RunState::at_rest(self.asleep, self.is_down, self.pauses != 0)
    }
}

/// All virtual CPUs by key, with the queue of those that wait, in the order in which they began to.
#[derive(Debug, Default)]
pub(super) struct RunQueue {
    entries: Vec<Option<Entry>>,
    first: Option<Key>,
    last: Option<Key>,
}

impl RunQueue {
    pub(super) fn get(&self, key: Key) -> Option<&Entry> {
        self.entries.get(key.0 as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Entry> {
        self.entries.get_mut(key.0 as usize)?.as_mut()
    }

    pub(super) fn insert(&mut self, key: Key, entry: Entry) -> Result<(), AddError> {
        let index = key.0 as usize;
        if self.get(key).is_some() {
            return Err(AddError::Exists);
        }
        if index >= self.entries.len() {
            self.entries.try_reserve(index + 1 - self.entries.len()).map_err(|_| AddError::NoMemory)?;
            self.entries.resize(index + 1, None);
        }
        self.entries[index] = Some(entry);
        Ok(())
    }

    /// Forgets a virtual CPU, which must not be running.
    pub(super) fn forget(&mut self, key: Key) {
        self.dequeue(key);
        if let Some(slot) = self.entries.get_mut(key.0 as usize) {
            *slot = None;
        }
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Puts it at the end of the queue. The key is known and not in the queue.
    pub(super) fn enqueue(&mut self, key: Key) {
        let before = self.last;
        if let Some(entry) = self.get_mut(key) {
            entry.place = Place::Waiting { before, after: None };
        }
        self.link(before, Some(key), true);
        self.last = Some(key);
    }

    /// Takes it out of the queue, if it is in.
    pub(super) fn dequeue(&mut self, key: Key) {
        let Some(&Entry { place: Place::Waiting { before, after }, .. }) = self.get(key) else {
            return;
        };
        if let Some(entry) = self.get_mut(key) {
            entry.place = Place::Off;
        }
        self.link(before, after, true);
        self.link(after, before, false);
    }

    /// The first in the queue that `cpu` may take.
    pub(super) fn first_for(&self, cpu: CpuId) -> Option<Key> {
        let mut at = self.first;
        while let Some(key) = at {
            let entry = self.get(key)?;
            if entry.eligible().contains(cpu) {
                return Some(key);
            }
            let Place::Waiting { after, .. } = entry.place else { return None };
            at = after;
        }
        None
    }

    /// For each that waits, in their order, the CPUs that may take it.
    pub(super) fn eligible(&self) -> impl Iterator<Item = CpuSet> {
        let after = |entry: &&Entry| match entry.place {
            Place::Waiting { after, .. } => self.get(after?),
            _ => None,
        };
        core::iter::successors(self.first.and_then(|key| self.get(key)), after).map(Entry::eligible)
    }

    /// Sets one of the two links of `key`, or the queue's end that takes its place.
    fn link(&mut self, key: Option<Key>, to: Option<Key>, forward: bool) {
        let place = key.and_then(|key| self.get_mut(key)).map(|entry| &mut entry.place);
        match (place, forward) {
            (Some(Place::Waiting { after, .. }), true) => *after = to,
            (Some(Place::Waiting { before, .. }), false) => *before = to,
            (Some(_), _) => {}
            (None, true) => self.first = to,
            (None, false) => self.last = to,
        }
    }
}
