//! Pages of segment descriptors: a GDT's or LDT's, which the processor uses as they are (SDM 3A 3.4.5, 5.8.3).
//!
//! Such a page is checked as a whole when it becomes one, and changes by `update_descriptor` alone.

use super::writable::put_page;
use super::{INVALID, Memory, Mmu, Stop};
use crate::addr::Mfn;
use crate::page::Type;

const PRESENT: u64 = 1 << 47;
const DPL: u64 = 3 << 45;
/// Code or data, not a system descriptor.
const SEGMENT: u64 = 1 << 44;
const KIND: u64 = 0xf << 40;
const CALL_GATE: u64 = 0xc << 40;
/// The bits of a call gate that have to be zero: its parameter count, and what is reserved.
const GATE_RESERVED: u64 = 0xff << 32;
/// The low two bits of the selector in a gate.
const GATE_RPL: u64 = 3 << 16;

/// What is stored for a descriptor that a guest wants; `None` if it must not have it.
///
/// Guests run in ring 3 with their kernel, so all code and data is for ring 3. Of system descriptors there are the upper
/// halves of gates, which are harmless, and call gates, which are made to fault and keep their own level where
/// an emulator finds it.
pub const fn checked(descriptor: u64) -> Option<u64> {
    if descriptor & PRESENT == 0 {
        return Some(descriptor);
    }
    let lifted = descriptor | DPL;
    if descriptor & SEGMENT != 0 {
        return Some(lifted);
    }
    match descriptor & KIND {
        0 => Some(descriptor),
        CALL_GATE if descriptor & GATE_RESERVED == 0 => Some((descriptor & !DPL) | GATE_RPL),
        _ => None,
    }
}

impl<M: Memory> Mmu<'_, M> {
    /// Takes a reference to a frame of the domain's own, and a use as descriptors, which it becomes if it is not.
    pub fn get_descriptor_page(&mut self, mfn: Mfn) -> Result<(), Stop> {
        self.finish()?;
        let frame = self.own(mfn)?;
        if frame.type_word().is_partial() {
            self.undo(mfn)?;
        }
        frame.get_owned(self.domain).map_err(|_| INVALID)?;
        if frame.get_type(Type::Descriptors).is_ok() {
            return Ok(());
        }
        let answer = match frame.claim(Type::Descriptors) {
            Err(_) => Err(INVALID),
            Ok(flush) => {
                if let Some(stamp) = flush {
                    self.memory.flush_since(stamp);
                }
                self.check_descriptors(mfn, frame)
            }
        };
        if answer.is_err() {
            put_page(self.memory, mfn);
        }
        answer
    }

    fn check_descriptors(&mut self, mfn: Mfn, frame: M::Record) -> Result<(), Stop> {
        for index in 0..M::ENTRIES {
            let descriptor = self.memory.read(mfn, index);
            match checked(descriptor) {
                Some(stored) if stored == descriptor => {}
                Some(stored) => self.memory.write(mfn, index, stored),
                None => {
                    let undone = frame.undone();
                    debug_assert!(undone.is_ok(), "the page was claimed: {mfn}");
                    return Err(INVALID);
                }
            }
        }
        let validated = frame.validated();
        debug_assert!(validated.is_ok(), "the page was claimed: {mfn}");
        Ok(())
    }

    /// Gives back what [`Mmu::get_descriptor_page`] took. No processor has it in its GDT or LDT on behalf of that.
    pub fn put_descriptor_page(&mut self, mfn: Mfn) {
        self.put_descriptors(mfn);
    }

    /// `update_descriptor`: writes a descriptor at a byte offset of a page of descriptors, or of writable memory.
    pub fn update_descriptor(&mut self, mfn: Mfn, offset: usize, descriptor: u64) -> Result<(), Stop> {
        self.finish()?;
        let index = offset / 8;
        if !offset.is_multiple_of(8) || index >= M::ENTRIES {
            return Err(INVALID);
        }
        let stored = checked(descriptor).ok_or(INVALID)?;
        let word = self.own(mfn)?.type_word();
        if word.is_valid_table(Type::Descriptors) {
            self.memory.write(mfn, index, stored);
            return Ok(());
        }
        if word.is_validated() {
            return Err(INVALID);
        }
        self.update_memory(mfn, index, stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Access byte (type, S, DPL, P) of an otherwise flat descriptor.
    fn with_access(access: u64) -> u64 {
        0x00af_0000_0000_ffff | access << 40
    }

    #[test]
    fn code_and_data_are_for_ring_3() {
        for access in [0x9b, 0x93, 0x9f, 0xb2, 0xfb] {
            assert_eq!(checked(with_access(access)), Some(with_access(access | 0x60)));
        }
    }

    #[test]
    fn what_is_not_present_is_harmless() {
        for access in 0..0x80 {
            assert_eq!(checked(with_access(access)), Some(with_access(access)));
        }
    }

    #[test]
    fn of_system_descriptors_only_call_gates_and_upper_halves_are_allowed_and_gates_fault() {
        for kind in 1..16 {
            let answer = checked(with_access(0x80 | kind) & !(0xff << 32));
            assert_eq!(answer.is_some(), kind == 0xc, "{kind:#x}");
            assert!(answer.is_none_or(|gate| gate & DPL == 0));
        }
        assert_eq!(checked(with_access(0x80)), Some(with_access(0x80)));
        assert_eq!(checked(CALL_GATE | PRESENT | 1 << 33), None);
    }
}
