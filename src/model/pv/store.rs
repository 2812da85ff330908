//! A store to a page table, by a guest's kernel that has it mapped read-only: what it would have written.
//!
//! The guest's own instruction is executed on a copy of its registers, and its store caught. The engine of page types
//! checks the entry and writes it; only then do the registers become the guest's. What the instruction read of the entry
//! before is compared with it as it is written, so that a LOCK prefix means what it says; where it has changed, the
//! guest executes the instruction again. The store lies within one entry: 1, 2, 4 or 8 bytes, aligned.

use super::is_guests;
use crate::addr::{GuestVirt, PAGE_SIZE};
use crate::emul::{self, Cpu, Fault, Instruction, Outcome};
use crate::regs::{Cr0, Event, Regs, Segment, SegmentName};

/// What a store needs of the guest beside its registers.
pub trait Memory {
    /// Copies from the guest's linear address space; answers how many bytes at the end it could not.
    fn copy_in(&mut self, at: u64, out: &mut [u8]) -> usize;
    /// The base of FS or GS.
    fn base(&self, segment: SegmentName) -> u64;
}

/// A store within one entry of a page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryStore {
    /// The entry's number.
    pub index: usize,
    /// The bits of the entry that are written.
    mask: u64,
    /// What the instruction has read of these bits.
    expected: Option<u64>,
    /// What it writes to them.
    value: u64,
}

/// The entry has changed since the instruction read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed;

impl EntryStore {
    /// Whether the result depends on what the entry holds. If not, [`EntryStore::against`] may have any `current`.
    pub fn needs_current(&self) -> bool {
        self.expected.is_some() || self.mask != u64::MAX
    }

    /// What the whole entry becomes if it is `current` now, and what it has to be for that, if that matters.
    pub fn against(&self, current: u64) -> Result<(Option<u64>, u64), Changed> {
        if self.expected.is_some_and(|expected| expected != current & self.mask) {
            return Err(Changed);
        }
        let old = self.needs_current().then_some(current);
        Ok((old, current & !self.mask | self.value))
    }
}

/// What an instruction comes to: the entry is to be written, and once it was, the guest's registers are these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What is stored.
    pub store: EntryStore,
    /// The registers behind the instruction, or behind an element of a repeated one; RIP and RFLAGS included.
    pub regs: Regs,
    /// Whether the instruction has ended: it may have single-stepped.
    pub is_done: bool,
}

/// The store that `bytes` begin with, and its length, if it is the common one: MOV of a 64-bit register or of a number to
/// `[register + displacement]`, which is all of `fault`'s entry. Nothing but RIP changes. [`store`] says the same of it.
#[inline]
pub fn plain(bytes: &[u8; 8], regs: &Regs, fault: u64) -> Option<(EntryStore, u8)> {
    let [rex @ (0x48 | 0x49 | 0x4c | 0x4d), opcode @ (0x89 | 0xc7), modrm, rest @ ..] = *bytes else { return None };
    let (base, register) = (modrm & 7, (modrm >> 3) & 7 | (rex & 4) << 1);
    // Base 4 is a byte of its own.
    let (displacement, used) = match modrm >> 6 {
        // Base 5 is RIP.
        0 if base != 5 => (0, 0),
        1 => (i64::from(rest[0].cast_signed()), 1),
        2 => (i64::from(i32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]])), 4),
        _ => return None,
    };
    if base == 4 || !fault.is_multiple_of(8) {
        return None;
    }
    let (value, used) = match (opcode, &rest[used..]) {
        (0x89, _) => (regs.gpr(register), used),
        (_, &[a, b, c, d, ..]) if register == 0 => {
            (i64::from(i32::from_le_bytes([a, b, c, d])).cast_unsigned(), used + 4)
        }
        _ => return None,
    };
    if regs.gpr(base | (rex & 1) << 3).wrapping_add_signed(displacement) != fault {
        return None;
    }
    let index = (fault % PAGE_SIZE / 8) as usize;
    Some((EntryStore { index, mask: u64::MAX, expected: None, value }, 3 + used as u8))
}

/// Why there is no store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoStore {
    /// The guest gets this fault.
    Fault(Fault),
    /// It is none that is emulated: the guest gets its page fault.
    Unhandled,
}

/// Executes `insn`, which faulted at `fault` in 64-bit code, but for its store.
pub fn store(insn: &Instruction, regs: &Regs, fault: u64, memory: &mut impl Memory) -> Result<Stored, NoStore> {
    let mut cpu =
        Catcher { regs: *regs, page: fault & !(PAGE_SIZE - 1), memory, loaded: None, caught: None, ended: false };
    let outcome = emul::execute(&mut cpu, insn);
    let (caught, ended, mut regs) = (cpu.caught, cpu.ended, cpu.regs);
    let is_done = matches!(outcome, Outcome::Done { .. });
    match (caught, outcome) {
        // A repeated instruction ends at its second store; its registers are as behind the first.
        (Some(store), _) if is_done || ended => {
            if is_done {
                regs.rip = regs.rip.wrapping_add(u64::try_from(insn.len()).unwrap_or(0));
            }
            Ok(Stored { store, regs, is_done })
        }
        (None, Outcome::Fault(fault @ Fault::Page { .. })) if !ended => Err(NoStore::Fault(fault)),
        _ => Err(NoStore::Unhandled),
    }
}

/// A processor that keeps its first store to the page for itself, and has no other.
struct Catcher<'a, M> {
    regs: Regs,
    page: u64,
    memory: &'a mut M,
    /// The last read of the page: where, how many bytes, what.
    loaded: Option<(u64, usize, u64)>,
    caught: Option<EntryStore>,
    /// It was asked for something that it has not: another store.
    ended: bool,
}

impl<M> Catcher<'_, M> {
    fn end(&mut self) -> Fault {
        self.ended = true;
        Fault::Event(Event::GP)
    }

    /// Whether the store is one that can be caught.
    fn check(&mut self, at: GuestVirt, len: usize) -> Result<(), Fault> {
        let size = u64::try_from(len).unwrap_or(u64::MAX);
        let is_good = self.caught.is_none()
            && matches!(size, 1 | 2 | 4 | 8)
            && at.raw().is_multiple_of(size)
            && at.raw() & !(PAGE_SIZE - 1) == self.page;
        if is_good { Ok(()) } else { Err(self.end()) }
    }
}

impl<M: Memory> Cpu for Catcher<'_, M> {
    fn regs(&self) -> &Regs {
        &self.regs
    }
    fn regs_mut(&mut self) -> &mut Regs {
        &mut self.regs
    }
    fn segment(&self, name: SegmentName) -> Segment {
        let base = if matches!(name, SegmentName::Fs | SegmentName::Gs) { self.memory.base(name) } else { 0 };
        Segment { base, ..Segment::default() }
    }
    fn cr(&self, _: u8) -> u64 {
        Cr0::PE.bits()
    }
    fn long_mode(&self) -> bool {
        true
    }

    fn read(&mut self, at: GuestVirt, buf: &mut [u8]) -> Result<(), Fault> {
        let page_fault = |read: usize| {
            let address = GuestVirt::new(at.raw().wrapping_add(u64::try_from(read).unwrap_or(0)));
            Fault::Page { address, error: 0 }
        };
        if !is_guests(at.raw(), buf.len()) {
            return Err(page_fault(0));
        }
        match self.memory.copy_in(at.raw(), buf) {
            0 => {}
            left => return Err(page_fault(buf.len().saturating_sub(left))),
        }
        if buf.len() <= 8 {
            let mut word = [0; 8];
            word[..buf.len()].copy_from_slice(buf);
            self.loaded = Some((at.raw(), buf.len(), u64::from_le_bytes(word)));
        }
        Ok(())
    }

    fn write(&mut self, at: GuestVirt, bytes: &[u8]) -> Result<(), Fault> {
        self.check(at, bytes.len())?;
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        let shift = (at.raw() % 8) * 8;
        let mask = (u64::MAX >> (64 - 8 * bytes.len())) << shift;
        let expected = self.loaded.filter(|&(from, len, _)| (from, len) == (at.raw(), bytes.len()));
        self.caught = Some(EntryStore {
            index: at.offset() / 8,
            mask,
            expected: expected.map(|(_, _, value)| value << shift),
            value: u64::from_le_bytes(word) << shift,
        });
        Ok(())
    }

    fn probe_write(&mut self, at: GuestVirt, len: usize) -> Result<(), Fault> {
        self.check(at, len)
    }

    fn io_in(&mut self, _: u16, _: u8) -> Result<u32, Fault> {
        Err(self.end())
    }
    fn io_out(&mut self, _: u16, _: u8, _: u32) -> Result<(), Fault> {
        Err(self.end())
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
