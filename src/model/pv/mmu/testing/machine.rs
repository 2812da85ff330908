//! Memory, processors that remember, and an allocator.

use super::{DEVICE, DOMAINS, ENTRIES, FRAMES, HYPERVISORS, IO_FRAME, OTHER, PRIVILEGED, SLOTS, index_of};
use crate::addr::Mfn;
use crate::ids::DomId;
use crate::page::{Frame, Stamp, Type};
use crate::pv::mmu::{Entries, HYPERVISOR, IO, Memory, entry};
use alloc::vec::Vec;
use core::cell::Cell;

/// What the processors that run a domain may remember: a bit for each frame.
#[derive(Clone, Copy, Default)]
pub struct Remembered {
    /// Can be read through a remembered translation.
    pub readable: u64,
    /// Can be written through a remembered translation.
    pub writable: u64,
    /// By level: is taken for a page table of that level.
    pub table: [u64; 5],
}

/// The whole machine.
pub struct Machine<'f> {
    /// The records.
    pub frames: &'f [Frame],
    /// What the frames hold.
    pub contents: Vec<[u64; ENTRIES]>,
    /// What processors remember of each domain.
    pub remembered: [Remembered; 2],
    /// Flushes of each domain.
    pub flushes: [u64; 2],
    /// Free frames: a bit each.
    pub free: u64,
    /// Open tables of level 4, and what their partners say.
    pub open: [Option<[u64; ENTRIES]>; FRAMES as usize],
    /// One in so many times work is pending; never if zero.
    pub interrupts: u32,
    /// Whether there is memory for another partner.
    pub has_memory: bool,
    random: Cell<u64>,
}

impl<'f> Machine<'f> {
    /// A machine whose frames are the two domains', but for a few that are free.
    pub fn new(frames: &'f [Frame], seed: u64) -> Self {
        for (mfn, frame) in (0..).zip(frames) {
            // The allocator has had its own use for this.
            frame.set_progress(7);
            let owner = match mfn {
                0..18 => PRIVILEGED,
                18..36 => OTHER,
                _ if mfn == HYPERVISORS.raw() => HYPERVISOR,
                _ if mfn == IO_FRAME.raw() => IO,
                _ => continue,
            };
            frame.allocate(owner).expect("new records are clean");
        }
        Self {
            frames,
            contents: alloc::vec![[0; ENTRIES]; frames.len()],
            remembered: Default::default(),
            flushes: [0; 2],
            free: 0b11 << 36,
            open: [None; FRAMES as usize],
            interrupts: 0,
            has_memory: true,
            random: Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        }
    }

    /// The machine as one domain's processors and locks have it.
    pub fn view(&mut self, domain: DomId) -> View<'_, 'f> {
        View { machine: self, domain }
    }

    /// The record of a frame.
    pub fn frame(&self, mfn: Mfn) -> Option<&'f Frame> {
        self.frames.get(usize::try_from(mfn.raw()).ok()?)
    }

    /// The processors of a domain look at everything that it has.
    pub fn remember(&mut self) {
        for (mfn, frame) in (0..).zip(self.frames) {
            let word = frame.type_word();
            let (true, Some(level), Some(owner)) = (word.is_validated(), word.kind().level(), frame.count().owner())
            else {
                continue;
            };
            let known = &mut self.remembered[index_of(owner)];
            known.table[usize::from(level)] |= 1 << mfn;
            for value in self.contents[mfn].iter().filter(|_| level == 1) {
                let target = entry::frame(*value).raw();
                if entry::is_present(*value) && target < FRAMES {
                    known.readable |= 1 << target;
                    known.writable |= if entry::is_writable(*value) { 1 << target } else { 0 };
                }
            }
        }
    }

    /// The processors of a domain forget, and look again.
    pub fn flush(&mut self, domain: DomId) {
        self.flushes[index_of(domain)] += 1;
        self.remembered[index_of(domain)] = Remembered::default();
        self.remember();
    }

    /// A number below `limit`.
    pub fn random(&self, limit: u32) -> u32 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (x >> 32) as u32 % limit
    }
}

/// [`Machine::view`].
pub struct View<'m, 'f> {
    /// The machine.
    pub machine: &'m mut Machine<'f>,
    domain: DomId,
}

fn at(mfn: Mfn) -> usize {
    mfn.raw() as usize
}

/// What the hypervisor's own entries hold.
pub const OWN_ENTRY: u64 = 0x8000_0000_0000_0063;

impl<'f> Entries for View<'_, 'f> {
    type Record = &'f Frame;
    const ENTRIES: usize = ENTRIES;

    fn frame(&self, mfn: Mfn) -> Option<&'f Frame> {
        self.machine.frame(mfn)
    }
    fn read(&self, table: Mfn, index: usize) -> u64 {
        self.machine.contents[at(table)][index]
    }
    fn write(&mut self, table: Mfn, index: usize, value: u64) {
        self.machine.contents[at(table)][index] = value;
    }
    fn stamp(&self) -> u64 {
        self.machine.flushes[index_of(self.domain)]
    }
}

impl Memory for View<'_, '_> {
    const FIRST_SLOT: usize = *SLOTS.start();
    const LAST_SLOT: usize = *SLOTS.end();
    const BATCH: usize = 2;

    fn compare_exchange(&mut self, table: Mfn, index: usize, old: u64, new: u64) -> Result<(), u64> {
        // A processor may have been quicker.
        let is_noted = self.machine.random(4) == 0;
        let word = &mut self.machine.contents[at(table)][index];
        if is_noted && entry::is_present(*word) {
            *word |= entry::ACCESSED;
        }
        if *word != old {
            return Err(*word);
        }
        *word = new;
        Ok(())
    }
    fn open_l4(&mut self, l4: Mfn) -> bool {
        if self.machine.has_memory {
            assert!(self.machine.open[at(l4)].is_none(), "opened twice: {l4}");
            self.machine.contents[at(l4)][SLOTS].fill(OWN_ENTRY);
            self.machine.open[at(l4)] = Some(self.machine.contents[at(l4)]);
        }
        self.machine.has_memory
    }
    fn close_l4(&mut self, l4: Mfn) {
        assert!(self.machine.open[at(l4)].take().is_some(), "closed, but not open: {l4}");
        self.machine.contents[at(l4)][SLOTS].fill(0);
    }
    fn l4_written(&mut self, l4: Mfn, index: usize, value: u64) {
        self.machine.open[at(l4)].as_mut().expect("a table in use is open")[index] = value;
    }
    fn may_map_device(&self, mfn: Mfn) -> bool {
        self.domain == PRIVILEGED && (mfn == DEVICE || mfn == IO_FRAME)
    }
    fn flush_since(&mut self, stamp: Stamp) {
        if stamp.everywhere {
            DOMAINS.into_iter().for_each(|domain| self.machine.flush(domain));
        } else if !stamp.is_flushed(self.stamp()) {
            self.machine.flush(self.domain);
        }
    }
    fn free(&mut self, mfn: Mfn, _: DomId, stamp: Stamp) {
        self.flush_since(stamp);
        let bit = 1 << mfn.raw();
        let known = self.machine.remembered;
        assert!(known.iter().all(|known| known.readable & bit == 0), "freed, and can still be reached: {mfn}");
        assert!(self.machine.free & bit == 0, "freed twice: {mfn}");
        self.machine.free |= bit;
        // The next owner finds zeros.
        self.machine.contents[at(mfn)] = [0; ENTRIES];
        self.machine.frames[at(mfn)].set_progress(5);
        self.machine.frames[at(mfn)].scrubbed().expect("a frame that is freed is not in use");
    }
    fn is_work_pending(&self) -> bool {
        self.machine.interrupts != 0 && self.machine.random(self.machine.interrupts) == 0
    }
}

/// What processors remember of frames whose use has changed, if that is dangerous.
pub fn stale(machine: &Machine<'_>) -> Option<(Mfn, &'static str)> {
    for (mfn, frame) in (0..).zip(machine.frames) {
        let bit = 1u64 << mfn;
        let word = frame.type_word();
        let known = machine.remembered.iter();
        let kind = if word.count() > 0 || word.is_partial() { word.kind() } else { Type::None };
        let is_guarded = kind.is_table() || kind == Type::Descriptors;
        if is_guarded && known.clone().any(|known| known.writable & bit != 0) {
            return Some((Mfn::new(mfn), "a page table or descriptors that can be written"));
        }
        for level in 1..=4 {
            let is_taken_for_table = known.clone().any(|known| known.table[level] & bit != 0);
            if is_taken_for_table && kind != Type::None && kind.level() != Some(level as u8) {
                return Some((Mfn::new(mfn), "taken for a page table, and is something else"));
            }
        }
    }
    None
}
